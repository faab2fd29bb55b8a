"""Many machines: each worker of a Dask cluster has a pool, and `ClusterExecutor` runs calls in these pools.

How a call flows::

    |====== client ======|=== scheduler ===|========= worker of Dask =========|==== our workers ====|
     submit(f, big, x)
        | big: scattered once --------------> `Shipped`, shared at first use
        | f, x: bytes ------> which machine? -> run_in_pool: pool.submit ------> f(big, x)
     ClusterFuture: done <-- "finished" <----- the result stays here <---------- by name
        | result() <---------------------------- by Dask, when somebody asks

Purpose: a program that was written for `SharedExecutor` runs on a cluster. The scheduler is Dask's.
Guarantees: each machine gets a big array once, by its content, from the client or from another machine. A result stays
    where it was made until somebody asks for it, or a call elsewhere needs it. When a machine is lost Dask computes
    anew what it had; inputs that only it had are sent again. Nothing waits for a client that is closed.
Assumptions: the client is not asynchronous. Callbacks of futures run in one thread of the executor, never in the
    client's event loop: they may ask for the result of their future, and submit.
"""

import asyncio
import importlib.metadata
import itertools
import platform
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from functools import partial
from typing import Any, TypeVar

import numpy as np

try:
    import dask
    import distributed
    from dask.base import tokenize
except ImportError as error:
    raise ImportError("shmexec.integrations.distributed needs Dask: pip install 'shmexec[distributed]'") from error

from shmexec.checks import checked_count, checked_integer, checked_nanoseconds
from shmexec.integrations.cluster_machine import SharedExecutorPlugin, run_in_pool, stats_of_pool
from shmexec.integrations.cluster_map import map_futures
from shmexec.integrations.parcels import BIG, Shipped, pack
from shmexec.mapping import length
from shmexec.pickling.failures import name_of
from shmexec.pool.stats import PoolStats
from shmexec.progress import Progress, checked_progress

T = TypeVar("T")

__all__ = ["ClusterExecutor", "ClusterFuture", "LimitedClusterExecutor", "SharedExecutorPlugin"]

_ATTEMPTS = 4
_MUST_BE_EQUAL = ("shmexec", "distributed", "cloudpickle")


_THERE = object()  # the value of a future whose result is somewhere in the cluster


class _Input:
    """A big array of the user's. It is kept for as long as a call has it, so that it can be sent again."""

    def __init__(self, client: Any, array: np.ndarray[Any, Any], token: str) -> None:
        self._client, self._array, self._token = client, array, token
        self._sent: Any = None

    def in_cluster(self) -> Any:
        """Dask's future of it."""
        if self._sent is None or self._sent.status != "finished":
            if self._sent is not None and tokenize(self._array) != self._token:
                raise RuntimeError(
                    "the machine that had an input is lost, and the array has been changed meanwhile, so it cannot be"
                    " sent again: submit copies of arrays that change"
                )
            key = f"shmexec-input-{self._token}-{uuid.uuid4().hex}"  # a new one: Dask may not have forgotten the last
            self._sent = _scattered(self._client, key, Shipped(self._array))
        return self._sent


class ClusterFuture(Future[T]):
    """Of a call on a cluster. It is done when the call is; `result` then fetches the value, once.

    As an argument of another call of the same executor it stands for its result, at any depth, which goes there without
    coming here. `cancel` takes back a call that nobody has begun; one that runs goes on, and nobody waits for it.
    """

    _owner: "ClusterExecutor"
    _packed: tuple[Any, ...]
    _apart: "list[_Input | ClusterFuture[Any]]"
    _in_dask: Any = None

    def in_cluster(self) -> Any:
        """Dask's future of it; if Dask has given that up, of the same call once more."""
        with self._owner._lock:
            if self._in_dask is None or self._in_dask.status == "cancelled":
                client = self._owner._running_client()
                apart = [one.in_cluster() for one in self._apart]
                with dask.annotate(executor="default"):
                    key = f"{self._packed[-1]}-{uuid.uuid4().hex}"
                    self._in_dask = client.submit(run_in_pool, *self._packed, *apart, key=key, pure=False)
                client.loop.add_callback(self._follow, self._in_dask)
            return self._in_dask

    async def _follow(self, in_dask: Any) -> None:
        """In the event loop: until it is done, whatever becomes of it."""
        try:
            error = await in_dask.exception()
        except BaseException as failure:
            error = failure
        try:
            self._owner._thread.submit(self._settle, in_dask, error)
        except RuntimeError:  # shut down: nobody waits
            pass

    def _settle(self, in_dask: Any, error: BaseException | None) -> None:
        if self.done() or in_dask is not self._in_dask:
            return
        try:
            if in_dask.status == "cancelled":
                self.in_cluster()
            elif error is None:  # also if it is lost since
                self.set_result(_THERE)  # type: ignore[arg-type]
            else:
                self.set_exception(error)
        except Exception as failure:
            if not self.done():
                self.set_exception(failure)

    def result(self, timeout: float | None = None) -> T:
        """Wait for the call, and fetch its result."""
        value = super().result(timeout)
        while value is _THERE:
            in_dask = self.in_cluster()
            try:
                value = in_dask.result(timeout)
            except (CancelledError, asyncio.CancelledError):
                if in_dask.status != "cancelled":
                    raise
                continue  # with the machine on which it was; what is lost and no more is Dask's to compute
            with self._condition:
                self._result = value
        return value

    def cancel(self) -> bool:
        """Whether nobody will get a result."""
        if not super().cancel():
            return False
        self.set_running_or_notify_cancel()
        if self._in_dask is not None:
            self._in_dask.cancel()
        return True


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
        """As `SharedExecutor.map`; the default `chunksize` is 1, and what calls report of themselves is not shown."""
        if not callable(fn):
            raise TypeError(f"fn must be a callable, not {type(fn).__name__}")
        size = checked_count("chunksize", chunksize) or 1
        ahead = checked_count("buffersize", buffersize)
        items = zip(*iterables, strict=False)
        chunks = iter(lambda: list(itertools.islice(items, size)), [])
        submit, limits = self._executor._submit, self._limits
        futures = (submit(fn, chunk, limits, is_chunk=True) for chunk in chunks)
        return map_futures(futures, timeout, ahead, bool(ordered), checked_progress(progress), size, length(iterables))


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
        self._client = client
        if client.asynchronous:
            raise ValueError("client must not be asynchronous: use Client(...) without asynchronous=True")
        _check_machines(self._running_client())
        client.register_plugin(plugin)
        self._lock = threading.RLock()
        self._thread = ThreadPoolExecutor(1, "shmexec-cluster")
        self._inputs: weakref.WeakValueDictionary[str, _Input] = weakref.WeakValueDictionary()
        self._futures: weakref.WeakSet[ClusterFuture[Any]] = weakref.WeakSet()
        self._is_closed = False

    @property
    def _executor(self) -> "ClusterExecutor":
        return self

    @property
    def _max_workers(self) -> int:  # other libraries read it
        threads: dict[str, int] = self._client.nthreads()
        return max(1, sum(threads.values()))

    def _running_client(self) -> Any:
        if self._client.status != "running":
            raise RuntimeError(
                f"the Dask client is {self._client.status}: make a new Client, and a ClusterExecutor of it"
            )
        return self._client

    def _submit(
        self, fn: Callable[..., Any], arguments: Any, options: dict[str, Any], *, is_chunk: bool
    ) -> "ClusterFuture[Any]":
        if not callable(fn):
            raise TypeError(f"fn must be a callable, not {type(fn).__name__}")
        if self._is_closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: ClusterFuture[Any] = ClusterFuture()
        future._owner, future._apart = self, []
        take = partial(self._take, future._apart, {})
        function = pack(fn, take)
        is_whole = not future._apart
        future._packed = (function, pack(arguments, take), is_whole, is_chunk, options, name_of(fn))
        self._futures.add(future)
        future.in_cluster()
        return future

    def _take(self, apart: list[Any], places: dict[int, int], obj: Any) -> int | None:
        """What goes apart: where it stands there."""
        if isinstance(obj, ClusterFuture):
            if obj._owner is not self:
                raise ValueError("a future among the arguments is of another executor: give its result")
        elif type(obj) is not np.ndarray or obj.nbytes < BIG or obj.dtype.hasobject:
            return None
        if (place := places.get(id(obj))) is None:
            place = places[id(obj)] = len(apart)
            apart.append(obj if isinstance(obj, ClusterFuture) else self._input(obj))
        return place

    def _input(self, array: np.ndarray[Any, Any]) -> _Input:
        token = tokenize(array)
        with self._lock:
            found = self._inputs.get(token)
            if found is None:
                found = self._inputs[token] = _Input(self._client, array, token)
            return found

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
            self._thread.shutdown()

    def stats(self) -> dict[str, PoolStats]:
        """The figures of the pool of each machine, by the address of its Dask worker."""
        found: dict[str, PoolStats] = self._running_client().run(stats_of_pool)
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


def _scattered(client: Any, key: str, value: Shipped) -> Any:
    """Dask's future of it. The machine that Dask has chosen may be lost just now: then it chooses another."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return client.scatter({key: value})[key]
        except OSError:
            if client.status != "running":
                raise
    return client.scatter({key: value})[key]


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
