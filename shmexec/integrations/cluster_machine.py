"""What runs in the workers of a Dask cluster: a plugin that gives each a pool, and a thread that waits for each call.

Guarantees: the pool ends with the worker, without waiting for what it runs. A pool that is there stays when another
    plugin comes. The event loop of the worker neither copies arrays nor waits.
Assumptions: Dask calls `setup` and `teardown` in the event loop, and tasks in threads.
"""

import asyncio
from typing import Any

import distributed
from distributed.diagnostics.plugin import WorkerPlugin

from shmexec.checks import checked_count
from shmexec.executor import SharedExecutor
from shmexec.integrations.parcels import Shipped, run_packed
from shmexec.pool.stats import PoolStats

NAME = "shmexec"


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

    def setup(self, worker: Any) -> None:
        """Of Dask's: on this machine."""
        worker.executors[NAME] = SharedExecutor(self._max_workers or worker.state.nthreads)

    async def teardown(self, worker: Any) -> None:
        """Of Dask's: nobody waits for what still runs."""
        pool = worker.executors.pop(NAME, None)
        if pool is not None:
            pool.terminate_workers()
            await asyncio.to_thread(pool.shutdown)


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
    pool = _pool_of(distributed.get_worker())
    values = [value.for_a_call() if isinstance(value, Shipped) else value for value in apart]
    future = pool.options(**options).submit(run_packed, function, arguments, is_whole, is_chunk, *values)
    try:
        return future.result()
    except Exception as error:
        error.add_note(f"It was the call {name} on {distributed.get_worker().address}")
        raise


def _pool_of(worker: Any) -> SharedExecutor:
    pool: SharedExecutor | None = worker.executors.get(NAME)
    if pool is None:
        raise RuntimeError(f"the worker {worker.address} has no pool: its log tells why SharedExecutorPlugin failed")
    return pool


def stats_of_pool(dask_worker: Any) -> PoolStats:
    """Of `ClusterExecutor.stats`."""
    return _pool_of(dask_worker).stats()
