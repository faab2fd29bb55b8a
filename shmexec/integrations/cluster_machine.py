"""What runs in the workers of a Dask cluster: a plugin that gives each a pool, and a thread that waits for each call.

Guarantees: the pool ends with the worker, without waiting for what it runs. A pool that is there stays when another
    plugin comes. The event loop of the worker neither copies arrays nor waits. A call that is to be ended does not run,
    whether it comes here before or after that is said.
Assumptions: Dask calls `setup` and `teardown` in the event loop, and tasks in threads.
"""

import asyncio
import importlib.metadata
import threading
from collections import deque
from typing import Any

import distributed
from distributed.diagnostics.plugin import WorkerPlugin

from shmexec.checks import checked_count
from shmexec.executor import SharedExecutor
from shmexec.integrations.parcels import Shipped, run_packed
from shmexec.pool.futures import CallFuture
from shmexec.pool.stats import PoolStats
from shmexec.progress import Reported

NAME = "shmexec"
TOPIC = "shmexec"  # of the events by which machines tell what calls report
_BETWEEN_LOOKS = 0.2  # seconds


class SharedExecutorPlugin(WorkerPlugin):  # type: ignore[misc]
    """Gives each worker of a Dask cluster a `SharedExecutor`, under the name ``"shmexec"``.

    Parameters
    ----------
    max_workers : int, optional
        Processes on each. Default: the threads of the worker, which is how many tasks Dask runs on it at a time.

    Examples
    --------
    >>> client.register_plugin(SharedExecutorPlugin())
    >>> with dask.annotate(executor="shmexec"):
    ...     future = client.submit(f, x)
    """

    name = NAME
    idempotent = True  # one that is there stays: it may be running something

    def __init__(self, max_workers: int | None = None) -> None:
        self._max_workers = checked_count("max_workers", max_workers)
        self._version = importlib.metadata.version("shmexec")

    def setup(self, worker: Any) -> None:
        """Of Dask's: on this machine."""
        own = importlib.metadata.version("shmexec")
        if own != self._version:
            raise RuntimeError(
                f"{worker.address} has shmexec {own}, and the client's machine {self._version}: install the same on"
                f" both, here by pip install 'shmexec=={self._version}'"
            )
        worker.executors[NAME] = SharedExecutor(self._max_workers or worker.state.nthreads)
        self.calls = _Calls()

    async def teardown(self, worker: Any) -> None:
        """Of Dask's: nobody waits for what still runs."""
        pool = worker.executors.pop(NAME, None)
        if pool is not None:
            pool.terminate_workers()
            await asyncio.to_thread(pool.shutdown)


class _Calls:
    """Those that this machine runs, by Dask's key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, tuple[SharedExecutor, CallFuture]] = {}
        self._to_end: deque[str] = deque(maxlen=1000)  # one may come here after that was said

    def begun(self, key: str, pool: SharedExecutor, future: CallFuture) -> None:
        with self._lock:
            self._running[key] = pool, future
            is_to_end = key in self._to_end
        if is_to_end:
            pool.cancel(future)

    def over(self, key: str) -> None:
        with self._lock:
            self._running.pop(key, None)

    def end(self, key: str) -> None:
        with self._lock:
            self._to_end.append(key)
            running = self._running.get(key)
        if running is not None:
            pool, future = running
            pool.cancel(future)


def run_in_pool(
    function: bytes,
    arguments: bytes,
    is_whole: bool,
    is_chunk: bool,
    options: dict[str, Any],
    name: str,
    *apart: Any,
) -> Any:
    """Of `ClusterExecutor`: run a call in the pool of this machine. It waits in a thread of the worker's."""
    worker = distributed.get_worker()
    pool, calls, key = _pool_of(worker), worker.plugins[NAME].calls, worker.get_current_task()
    values = [value.for_a_call() if isinstance(value, Shipped) else value for value in apart]
    future = pool.options(**options).submit(run_packed, function, arguments, is_whole, is_chunk, *values)
    del values
    assert isinstance(future, CallFuture)
    calls.begun(key, pool, future)
    try:
        _tell_while_it_runs(worker, key, future)
        return future.result()
    except Exception as error:
        error.add_note(f"It was the call {name} on {worker.address}")
        raise
    finally:
        calls.over(key)


def _tell_while_it_runs(worker: Any, key: str, future: CallFuture) -> None:
    """What it reports, by the scheduler, to the client. The last report is there before the result."""
    told: Reported | None = None
    while True:
        try:
            future.wait_over(_BETWEEN_LOOKS)
        except TimeoutError:
            pass
        is_over = future.done()
        report = future.report
        if report is not None and report != told:
            told = report
            worker.log_event(TOPIC, [key, *report])
        if is_over:
            return


def end_call(key: str, dask_worker: Any) -> None:
    """Of `ClusterExecutor.cancel`, on every machine."""
    plugin = dask_worker.plugins.get(NAME)
    if plugin is not None:
        plugin.calls.end(key)


def _pool_of(worker: Any) -> SharedExecutor:
    pool: SharedExecutor | None = worker.executors.get(NAME)
    if pool is None:
        raise RuntimeError(f"the worker {worker.address} has no pool: its log tells why SharedExecutorPlugin failed")
    return pool


def stats_of_pool(dask_worker: Any) -> PoolStats:
    """Of `ClusterExecutor.stats`."""
    return _pool_of(dask_worker).stats()
