"""The client's side of calls on a cluster: their inputs and futures, and the way there.

Purpose: `submit` does not wait for what it sends. A call goes to Dask as soon as its own inputs are there, so calls run
    while others' inputs are on their way.
Guarantees: a call gets its inputs as they were when it was submitted: of each there is a copy until it is in the
    cluster. Of such copies there are `_AHEAD` bytes at most (or one); `submit` waits for that. Nothing waits for a
    client that is closed.
Assumptions: what is in the cluster is known in the client's event loop only, which does one thing at a time: no lock.
    The coroutines run there; everything else runs wherever the user is.

Some facts about the event loop: `IOLoop.add_callback` drops what comes too late; the loop cancels its tasks when it
    ends; it refers to tasks weakly.
What this means for us: callbacks go to the loop below it, which raises; a future that is cancelled there gets an
    exception; the tasks are kept here.
"""

import asyncio
import threading
import uuid
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import dask
import numpy as np
from dask.base import tokenize

from shmexec.integrations.cluster_machine import TOPIC, end_call, run_in_pool
from shmexec.integrations.parcels import Shipped
from shmexec.progress import Reported

T = TypeVar("T")

_AHEAD = 1 << 27  # bytes: a second of 1 Gbit/s
_ATTEMPTS = 4
_BETWEEN_LOOKS = 0.2  # seconds, at whether the client is closed
_THERE = object()  # the value of a future whose result is somewhere in the cluster


class Cluster:
    """The client of one executor, and the thread in which callbacks of its futures run."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.callbacks = ThreadPoolExecutor(1, "shmexec-cluster")
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None
        self._bytes_on_their_way = 0
        self._less = threading.Condition()

    def listen(self) -> None:
        """To what calls report."""
        self.running_client().subscribe_topic(TOPIC, note_event)

    def running_client(self) -> Any:
        """The client; RuntimeError if it is closed."""
        if self.client.status != "running":
            raise self.closed()
        return self.client

    def closed(self) -> RuntimeError:
        """What to say of it then."""
        return RuntimeError(f"the Dask client is {self.client.status}: make a new Client, and a ClusterExecutor of it")

    def start(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Run it in the event loop."""

        def begin() -> None:
            task = asyncio.ensure_future(function(*args))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            if self._watch is None or self._watch.done():
                self._watch = asyncio.ensure_future(self._end_with_client())

        self.running_client().loop.asyncio_loop.call_soon_threadsafe(begin)

    async def _end_with_client(self) -> None:
        """End what is under way when the client is closed. Its event loop may be others', too, and go on."""
        while self._tasks:
            if self.client.status == "closed":
                for task in list(self._tasks):
                    task.cancel()
                return
            await asyncio.sleep(_BETWEEN_LOOKS)

    def ask(self, question: Callable[[], Coroutine[Any, Any, T]], timeout: float | None) -> T:
        """What it returns, in the event loop."""
        loop = self.running_client().loop.asyncio_loop
        asked = asyncio.run_coroutine_threadsafe(question(), loop)
        try:
            return asked.result(timeout)
        except (CancelledError, asyncio.CancelledError):
            self.running_client()
            raise

    def wait_until_there_is_room(self, size: int) -> None:
        """For so many more bytes on their way, and count them."""
        with self._less:
            self._less.wait_for(lambda: not self._bytes_on_their_way or self._bytes_on_their_way + size <= _AHEAD)
            self._bytes_on_their_way += size

    def arrived(self, size: int) -> None:
        """So many bytes, or they never will."""
        with self._less:
            self._bytes_on_their_way -= size
            self._less.notify_all()


class _Sent:
    """What is sent to the cluster, and again when it is there no more; once at a time, in the event loop."""

    _in_dask: Any = None
    _sending: asyncio.Task[None] | None = None

    async def sent(self) -> Any:
        """Dask's future of it."""
        if self._in_dask is None or self._is_gone():
            if self._sending is None:
                self._sending = asyncio.ensure_future(self._send())
            await asyncio.shield(self._sending)
        return self._in_dask

    def _is_gone(self) -> bool:
        raise NotImplementedError

    async def _send(self) -> None:
        raise NotImplementedError


class Input(_Sent):
    """A big array of the user's. It is kept for as long as a call has it, so that it can be sent again."""

    def __init__(self, cluster: Cluster, array: np.ndarray[Any, Any], token: str) -> None:
        self._cluster, self._array, self._token = cluster, array, token
        self._copy: np.ndarray[Any, Any] | None = None
        copy = array.copy(order="K")
        cluster.wait_until_there_is_room(array.nbytes)
        self._copy = copy

    def _is_gone(self) -> bool:
        return bool(self._in_dask.status != "finished")

    async def _send(self) -> None:
        try:
            self._cluster.running_client()
            if self._copy is None and tokenize(self._array) != self._token:
                raise RuntimeError(
                    "the machine that had an input is lost, and the array has been changed meanwhile, so it cannot be"
                    " sent again: submit copies of arrays that change"
                )
            key = f"shmexec-input-{self._token}-{uuid.uuid4().hex}"  # a new one: Dask may not have forgotten the last
            self._in_dask = await self._scattered({key: Shipped(self._array if self._copy is None else self._copy)})
        finally:
            self._sending = None
            self._drop_copy()

    async def _scattered(self, value: dict[str, Shipped]) -> Any:
        """Dask's future of it. The machine that Dask has chosen may be lost just now: then it chooses another."""
        for attempt in range(_ATTEMPTS):
            client = self._cluster.running_client()
            try:
                (sent,) = (await client.scatter(value, asynchronous=True)).values()
            except OSError:
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return sent

    def _drop_copy(self) -> None:
        if self._copy is not None:
            self._copy = None
            self._cluster.arrived(self._array.nbytes)

    def __del__(self) -> None:
        self._drop_copy()


class ClusterFuture(_Sent, Future[T]):
    """Of a call on a cluster. It is done when the call is; `result` then fetches the value, once.

    As an argument of another call of the same executor it stands for its result, at any depth, which goes there without
    coming here. `cancel` takes back a call that nobody has begun; one that runs goes on, and nobody waits for it.
    """

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self.cluster = cluster
        self._packed: tuple[Any, ...] = ()
        self._apart: list[Input | ClusterFuture[Any]] = []
        self._reported: Reported | None = None

    def start(self, packed: tuple[Any, ...], apart: "list[Input | ClusterFuture[Any]]") -> None:
        """Send the call there, and see to it that it comes to an end."""
        self._packed, self._apart = packed, apart
        self.cluster.start(self._follow)

    def _is_gone(self) -> bool:
        """Whether Dask has given it up: then the same call is sent once more."""
        return bool(self._in_dask.status == "cancelled")

    async def _send(self) -> None:
        try:
            self.cluster.running_client()
            apart = await asyncio.gather(*[one.sent() for one in self._apart])
            if self.cancelled():
                raise CancelledError
            client = self.cluster.running_client()
            key = f"{self._packed[-1]}-{uuid.uuid4().hex}"
            _futures[key] = self
            with dask.annotate(executor="default"):
                self._in_dask = client.submit(run_in_pool, *self._packed, *apart, key=key, pure=False)
        finally:
            self._sending = None

    async def _follow(self) -> None:
        """Until it is done, whatever becomes of it."""
        error: BaseException | None
        try:
            error = await self._error()
        except asyncio.CancelledError:  # the loop ends
            error = self.cluster.closed()
        except Exception as failure:
            error = failure
        try:
            self.cluster.callbacks.submit(self._settle, error)
        except RuntimeError:  # shut down: nobody waits
            pass

    async def _error(self) -> BaseException | None:
        while True:
            in_dask = await self.sent()
            try:
                error: BaseException | None = await in_dask.exception()
            except (CancelledError, asyncio.CancelledError):
                if in_dask.status != "cancelled" or self.cancelled():
                    raise
            else:
                return error

    def _settle(self, error: BaseException | None) -> None:
        if self.done():
            return
        if error is None:  # also if it is lost since
            self.set_result(_THERE)  # type: ignore[arg-type]
        else:
            self.set_exception(error)

    def in_cluster(self, timeout: float | None = None) -> Any:
        """Dask's future of it, as of now."""
        in_dask = self._in_dask
        return self.cluster.ask(self.sent, timeout) if in_dask is None or in_dask.status == "cancelled" else in_dask

    def result(self, timeout: float | None = None) -> T:
        """Wait for the call, and fetch its result."""
        value = super().result(timeout)
        while value is _THERE:
            in_dask = self.in_cluster(timeout)
            try:
                value = in_dask.result(timeout)
            except (CancelledError, asyncio.CancelledError):
                if in_dask.status != "cancelled":
                    raise
                continue  # with the machine on which it was; what is lost and no more is Dask's to compute
            with self._condition:
                self._result = value
        return value

    def wait_over(self, timeout: float | None = None) -> None:
        """Until it is done; TimeoutError after so many seconds."""
        if not wait([self], timeout).done:
            raise TimeoutError

    def cancel(self) -> bool:
        """Whether nobody will get a result."""
        return self._cancel(ends=False)

    def end(self) -> bool:
        """As `cancel`; if it runs, the process in which it does is ended."""
        return self._cancel(ends=True)

    def _cancel(self, *, ends: bool) -> bool:
        was_cancelled = self.cancelled()
        if not super().cancel():
            return False
        if not was_cancelled:
            self.set_running_or_notify_cancel()
        try:
            self.cluster.start(self._give_up, ends)
        except RuntimeError:  # the client is closed: then nobody has it any more
            pass
        return True

    async def _give_up(self, ends: bool) -> None:
        """All machines are told: by now it may be another that runs it. One that is lost answers late, or never."""
        if self._in_dask is None:  # it will not be sent
            return
        await self._in_dask.cancel()
        if ends:
            await self.cluster.client.run(end_call, self._in_dask.key, on_error="ignore")

    # What the call reports

    @property
    def progress(self) -> float | str | None:
        """As of a future of `SharedExecutor`, some tenths of a second later."""
        return None if self._reported is None else self._reported[-1]

    @property
    def running_report(self) -> Reported | None:
        """The last report, if it is not done."""
        return None if self.done() else self._reported

    def note_report(self, report: Reported) -> None:
        """A machine has told it."""
        self._reported = report


_futures: "weakref.WeakValueDictionary[str, ClusterFuture[Any]]" = weakref.WeakValueDictionary()  # by Dask's key


def note_event(event: tuple[float, Any]) -> None:
    """Of the topic. A client has one function for it, which serves all executors; others' calls are told, too."""
    key, *report = event[1]
    future = _futures.get(key)
    if future is not None:
        future.note_report(tuple(report))
