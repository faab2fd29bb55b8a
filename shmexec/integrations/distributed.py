"""Many machines: each worker of a Dask cluster has a pool, and `ClusterExecutor` runs calls in these pools.

How a call flows::

    |====== client ======|=== scheduler ===|========= worker of Dask =========|==== our workers ====|
     submit(f, big, x)
        | big: scattered once --------------> `Shipped`, shared at first use
        | f, x: bytes ------> which machine? -> run_in_pool: pool.submit ------> f(big, x)
     ClusterFuture.progress <--- events <---- looks five times a second <------- report_progress(0.5)
     ClusterFuture: done <-- "finished" <----- the result stays here <---------- by name
        | result() <---------------------------- by Dask, when somebody asks

Purpose: a program that was written for `SharedExecutor` runs on a cluster. The scheduler is Dask's.
Guarantees: each machine gets a big array once, by its content, from the client or from another machine. A result stays
    where it was made until somebody asks for it, or a call elsewhere needs it. When a machine is lost Dask computes
    anew what it had; inputs that only it had are sent again. Nothing waits for a client that is closed.
Assumptions: the client is not asynchronous. Callbacks of futures run in one thread of the executor, never in the
    client's event loop: they may ask for the result of their future, and submit.
"""

import importlib.metadata
import platform
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for
from functools import partial
from typing import Any, TypeVar

import numpy as np

try:
    import distributed
    from dask.base import tokenize
except ImportError as error:
    raise ImportError("shmexec.integrations.distributed needs Dask: pip install 'shmexec[distributed]'") from error

from shmexec.checks import checked_integer, checked_nanoseconds
from shmexec.chunks import Chunks, Item, MapOptions, Remaining, Waited
from shmexec.integrations.cluster_calls import Cluster, ClusterFuture, Input
from shmexec.integrations.cluster_machine import SharedExecutorPlugin, stats_of_pool
from shmexec.integrations.parcels import BIG, pack
from shmexec.pickling.failures import name_of
from shmexec.pool.stats import PoolStats
from shmexec.progress import Progress, Reported

T = TypeVar("T")

__all__ = ["ClusterExecutor", "ClusterFuture", "LimitedClusterExecutor", "SharedExecutorPlugin"]

_MUST_BE_EQUAL = ("shmexec", "distributed", "cloudpickle")


class _Calls(Executor):
    """What all executors of a cluster have: calls, with these limits, of the one executor."""

    _limits: dict[str, Any] = {}  # noqa: RUF012 - nobody writes into it

    @property
    def _executor(self) -> "ClusterExecutor":
        raise NotImplementedError

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "ClusterFuture[T]":
        """Schedule ``fn(*args, **kwargs)`` on some machine.

        Big arrays, at any depth, are sent to each machine once, by content; what a call writes into them is seen by
        no other. Futures of this executor stand for their results.

        Raises
        ------
        TypeError
            If `fn` is not callable.
        RuntimeError
            After `shutdown`, or if the client is closed.
        """
        return self._executor._submit(fn, (args, kwargs), self._limits, is_chunk=False)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        progress: Progress = False,
    ) -> Iterator[T]:
        """As `SharedExecutor.map`; the default `chunksize` is 1."""
        options = MapOptions.checked(fn, timeout, chunksize, buffersize, ordered, progress)
        wait, items = Remaining(timeout), zip(*iterables, strict=False)
        chunks = _ClusterChunks(self._executor, fn, items, options.chunksize or 1, self._limits)
        return chunks.results(options, wait, iterables, self)

    def cancel(self, future: Future[Any]) -> bool:
        """Cancel a call of this executor, also if it runs: then the machine ends the process in which it does.

        Unlike the `cancel` of a `SharedExecutor` it does not wait for that: the future is done at once.

        Returns
        -------
        bool
            False: it is done already.

        Raises
        ------
        TypeError
            If `future` is not a future of a `ClusterExecutor`.
        ValueError
            If it is of another executor.
        """
        if not isinstance(future, ClusterFuture):
            raise TypeError(f"future must be one that this executor's submit returned, not {type(future).__name__}")
        if not self._executor.has_made(future):
            raise ValueError("future is of another executor: cancel it there")
        return future.end()


class ClusterExecutor(_Calls):
    """The machines of a Dask cluster as one `concurrent.futures.Executor`: calls run in the pool that each has.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster; not an asynchronous one. It stays open.
    max_workers : int, optional
        Processes on each machine. Default: as many as its Dask worker has threads. The pools are made by the first
        executor on a cluster, and stay until the workers of Dask end.

    Raises
    ------
    TypeError, ValueError
        For an argument that makes no sense.
    RuntimeError
        If the client is closed, or a machine (the scheduler's, too) has no shmexec, or another version of it, of
        Python, distributed or cloudpickle; the message says what to do.

    Examples
    --------
    >>> with ClusterExecutor(distributed.Client("scheduler:8786")) as ex:
    ...     for out in ex.map(f, arrays):
    ...         ...
    """

    def __init__(self, client: Any, *, max_workers: int | None = None) -> None:
        if not isinstance(client, distributed.Client):
            raise TypeError(f"client must be a distributed.Client, not {type(client).__name__}")
        plugin = SharedExecutorPlugin(max_workers)
        if client.asynchronous:
            raise ValueError("client must not be asynchronous: use Client(...) without asynchronous=True")
        self._cluster = Cluster(client)
        _check_machines(self._cluster.running_client())
        client.register_plugin(plugin)
        self._cluster.listen()
        self._inputs: weakref.WeakValueDictionary[str, Input] = weakref.WeakValueDictionary()
        self._futures: weakref.WeakSet[ClusterFuture[Any]] = weakref.WeakSet()
        self._is_closed = False

    @property
    def _executor(self) -> "ClusterExecutor":
        return self

    @property
    def _max_workers(self) -> int:  # other libraries read it
        threads: dict[str, int] = self._cluster.client.nthreads()
        return max(1, sum(threads.values()))

    def has_made(self, future: ClusterFuture[Any]) -> bool:
        """Whether it is one of this executor."""
        return future.cluster is self._cluster

    def _submit(
        self, fn: Callable[..., Any], arguments: Any, options: dict[str, Any], *, is_chunk: bool
    ) -> "ClusterFuture[Any]":
        if not callable(fn):
            raise TypeError(f"fn must be a callable, not {type(fn).__name__}")
        if self._is_closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        apart: list[Input | ClusterFuture[Any]] = []
        take = partial(self._take, apart, {})
        function = pack(fn, take)
        is_whole = not apart
        future: ClusterFuture[Any] = ClusterFuture(self._cluster)
        self._futures.add(future)
        future.start((function, pack(arguments, take), is_whole, is_chunk, options, name_of(fn)), apart)
        return future

    def _take(self, apart: list[Any], places: dict[int, int], obj: Any) -> int | None:
        """What goes apart: where it stands there."""
        if isinstance(obj, ClusterFuture):
            if not self.has_made(obj):
                raise ValueError("a future among the arguments is of another executor: give its result")
        elif type(obj) is not np.ndarray or obj.nbytes < BIG or obj.dtype.hasobject:
            return None
        if (place := places.get(id(obj))) is None:
            place = places[id(obj)] = len(apart)
            apart.append(obj if isinstance(obj, ClusterFuture) else self._input(obj))
        return place

    def _input(self, array: np.ndarray[Any, Any]) -> Input:
        token = tokenize(array)
        found = self._inputs.get(token)
        return found or self._inputs.setdefault(
            token, Input(self._cluster, array, token)
        )  # one, of two threads that ask

    def options(
        self, *, timeout: float | None = None, retries: int = 0, copy_once: bool = False
    ) -> "LimitedClusterExecutor":
        """As `SharedExecutor.options`. Big arrays are always copied once.

        `timeout` and `retries` are of the worker processes on the machine that runs the call. A machine that is lost
        does not count: Dask runs its calls on another.
        """
        checked_nanoseconds("timeout", timeout)
        limits = {"timeout": timeout, "retries": checked_integer("retries", retries, least=0)}
        return LimitedClusterExecutor(self, limits)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. Results can still be asked for; the client and the pools of the machines stay."""
        self._is_closed = True
        futures = list(self._futures)
        if cancel_futures:
            for future in futures:
                future.cancel()
        if wait:
            wait_for(futures)
            self._cluster.callbacks.shutdown()

    def stats(self) -> dict[str, PoolStats]:
        """The figures of the pool of each machine, by the address of its Dask worker."""
        found: dict[str, PoolStats] = self._cluster.running_client().run(stats_of_pool)
        return found


class LimitedClusterExecutor(_Calls):
    """The calls that are made through it have limits; in all else it is the executor that made it."""

    def __init__(self, owner: ClusterExecutor, limits: dict[str, Any]) -> None:
        self._owner, self._limits = owner, limits

    @property
    def _executor(self) -> ClusterExecutor:
        return self._owner

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `ClusterExecutor.shutdown`."""
        self._owner.shutdown(wait, cancel_futures=cancel_futures)


class _ClusterChunks(Chunks):
    """The chunks of a map over a cluster."""

    def __init__(
        self,
        owner: ClusterExecutor,
        fn: Callable[..., Any],
        items: Iterator[Item],
        size: int,
        limits: dict[str, Any],
    ) -> None:
        super().__init__(items, size)
        self._owner, self._function, self._limits = owner, fn, limits

    def send(self, chunk: tuple[Item, ...]) -> ClusterFuture[Any]:
        """As one call."""
        is_chunk = self._size > 1
        return self._owner._submit(
            self._function, chunk if is_chunk else (chunk[0], {}), self._limits, is_chunk=is_chunk
        )

    def reports(self, watched: Mapping[Waited, int]) -> list[Reported]:
        """What machines have told."""
        reports = [future.running_report for future in list(watched) if isinstance(future, ClusterFuture)]
        return [report for report in reports if report is not None]


def _check_machines(client: Any) -> None:
    """Each has what it needs, the scheduler's too. It is asked by the standard library, which is there."""
    own = ".".join(platform.python_version_tuple()[:2])
    for where, found in _asked(client, platform.python_version_tuple):
        if not isinstance(found, BaseException) and (other := ".".join(found[:2])) != own:
            raise RuntimeError(
                f"{where} has Python {other}, and here it is {own}: functions that go by value need the same; make the"
                f" environment there with Python {own}"
            )
    for package in _MUST_BE_EQUAL:
        own = importlib.metadata.version(package)
        for where, found in _asked(client, importlib.metadata.version, package):
            if isinstance(found, importlib.metadata.PackageNotFoundError):
                raise RuntimeError(f"{where} has no {package}: there, pip install '{package}=={own}'")
            if isinstance(found, BaseException):
                raise RuntimeError(f"{where} does not answer: {found!r}") from found
            if found != own:
                raise RuntimeError(
                    f"{where} has {package} {found}, and here it is {own}: install the same on both, there by"
                    f" pip install '{package}=={own}'"
                )


def _asked(client: Any, function: Callable[..., Any], *args: Any) -> Iterator[tuple[str, Any]]:
    """What all say, or the exception."""
    try:
        yield "the scheduler's machine", client.run_on_scheduler(function, *args)
    except Exception as error:
        yield "the scheduler's machine", error
    for address, found in client.run(function, *args, on_error="return").items():
        yield f"the machine {address}", found
