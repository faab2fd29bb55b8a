"""`map` with a chunk size that adapts: the items go to the workers in spans, sized by the time that items take.

Purpose: short calls travel many at a time, long ones alone, and all workers end at about the same time.
Guarantees: results in order, and up to the first failure, as if each item were a call of its own; a worker that finds a
    span longer than its budget comes back after the present item, and the rest goes to whoever is free; a worker's
    death fails the items of its span, from the first that was not answered.
Assumptions: `_begin` and `_done` run in whichever thread submits or collects; what they share is touched under `_lock`,
    which is held for no call of the pool's.

Some facts: when all cores work, the parent may wait a slice of the scheduler, 3 ms, for one.
What this means for us: each worker has some 8 ms of work in hand, in two spans, and one more waits.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol, cast

from shmexec._core import Packed
from shmexec.pickling import failures
from shmexec.pickling.spans import Outcome
from shmexec.pool.futures import load_value
from shmexec.transport.messages import DEPTH, Cost

if TYPE_CHECKING:
    from shmexec.pool.calls import MapScope

_TARGET = 0.004  # seconds that a span should take
_BUDGET = 0.008  # and after which its worker comes back
_GROWTH = 4  # times, at most, from one span to the next
_LARGEST = 1 << 14  # items

Item = tuple[Any, ...]


class SpanHome(Protocol):
    """What a map asks of its pool."""

    max_workers: int

    def submit_span(self, job: "SpanMap", begin: int, items: tuple[Item, ...], budget: float) -> Future[Any]:
        """Run some items; `job.done` is called when they are answered, before the pool may think that it is idle."""


class SpanMap:
    """One `map`.

    Parameters
    ----------
    home : SpanHome
    function : callable
    scope : MapScope
    items : list of tuple
        The arguments of all calls.
    """

    def __init__(self, home: SpanHome, function: Callable[..., Any], scope: "MapScope", items: list[Item]) -> None:
        self.function = function
        self.scope = scope
        self._home = home
        self._items: list[Item | None] = list(items)
        self._lock = threading.RLock()  # a finalizer may cancel the map in the middle of a step of it
        self._changed = threading.Condition(self._lock)
        self._next = 0  # the first item that was never sent
        self._returned: deque[tuple[int, int]] = deque()  # spans that were sent, and came back
        self._under_way: dict[int, Future[Any]] = {}
        self._answers: dict[int, Outcome | BaseException] = {}  # by their first item
        self._size = 1
        self._seconds = 0.0  # that an item takes
        self._is_over = False

    # ---- from the pool ---------------------------------------------------------------------------

    def begin(self) -> None:
        """Send the first spans."""
        while self._send_next():
            pass

    def done(self, begin: int, end: int, cost: Cost | None, answer: Packed | BaseException, *, was_sent: bool) -> None:
        """A span has been answered, or has failed as a whole."""
        read: Outcome | BaseException = Outcome.load(answer) if isinstance(answer, Packed) else answer
        with self._lock:
            self._under_way.pop(begin, None)
            if isinstance(read, BaseException) and end - begin > 1 and not (was_sent or self._is_over):
                # one of them cannot be pickled, or there is no memory for all: each alone will show which
                self._returned.extendleft((i, i + 1) for i in reversed(range(begin, end)))
                self._size = 1
            else:
                self._answers[begin] = read
                if isinstance(read, Outcome):
                    self._note(begin, end, read, cost)
                self._changed.notify_all()
        while self._send_next():
            pass

    def _note(self, begin: int, end: int, outcome: Outcome, cost: Cost | None) -> None:
        stop = begin + len(outcome)
        for i in range(begin, stop):
            self._items[i] = None
        if outcome.failure is None and stop < end:
            self._returned.appendleft((stop, end))
        if cost is not None and stop > begin:
            seconds = cost.seconds / (stop - begin)
            self._seconds = seconds if not self._seconds else 0.5 * (self._seconds + seconds)
            wanted = int(_TARGET / max(self._seconds, 1e-9))
            self._size = max(1, min(wanted, _GROWTH * self._size, _LARGEST))

    def _send_next(self) -> bool:
        with self._lock:
            if self._is_over or len(self._under_way) > DEPTH * self._home.max_workers:
                return False
            span = self._take()
            if span is None:
                return False
            begin, end = span
            items = cast("tuple[Item, ...]", tuple(self._items[begin:end]))
            self._under_way[begin] = Future()  # until the real one is there: `done` may come first
        try:
            future = self._home.submit_span(self, begin, items, _BUDGET)
        except BaseException as error:
            self.fail(begin, error)
            if not isinstance(error, Exception):
                raise
            return False
        with self._lock:
            if begin in self._under_way:
                self._under_way[begin] = future
            is_over = self._is_over
        if is_over:
            future.cancel()
        return True

    def _take(self) -> tuple[int, int] | None:
        """The next span: what came back first, since somebody waits for that."""
        left = len(self._items) - self._next + sum(end - begin for begin, end in self._returned)
        size = max(1, min(self._size, left // (2 * self._home.max_workers)))
        if self._returned:
            begin, end = self._returned.popleft()
            if end - begin > size:
                self._returned.appendleft((begin + size, end))
                end = begin + size
            return begin, end
        if self._next == len(self._items):
            return None
        begin, self._next = self._next, min(self._next + size, len(self._items))
        return begin, self._next

    def fail(self, begin: int, error: BaseException) -> None:
        """The map cannot go on at this item."""
        with self._lock:
            self._under_way.pop(begin, None)
            self._answers[begin] = error
            self._is_over = True
            self._changed.notify_all()

    # ---- for who iterates ------------------------------------------------------------------------

    def results(self, wait: Callable[[], float | None]) -> Iterator[Any]:
        """The values, in order; `wait` tells the seconds left, or None."""
        at, total = 0, len(self._items)
        try:
            while at < total:
                answer = self._await(at, wait)
                if isinstance(answer, BaseException):
                    raise answer
                values = _values(answer)
                at += len(answer)
                failure = answer.failure
                del answer
                yield from values
                if failure is not None:
                    raise failures.load_exception(failure)
        finally:
            self.cancel()

    def _await(self, at: int, wait: Callable[[], float | None]) -> Outcome | BaseException:
        with self._lock:
            while at not in self._answers:
                seconds = wait()
                if seconds is not None and seconds <= 0:
                    raise TimeoutError
                self._changed.wait(seconds)
            return self._answers.pop(at)

    def cancel(self) -> None:
        """Nobody wants the rest."""
        with self._lock:
            self._is_over = True
            self._answers.clear()
            futures = list(self._under_way.values())
        for future in futures:
            future.cancel()


def _values(outcome: Outcome) -> Iterator[Any]:
    """Each is loaded when it is asked for."""
    if outcome.plain is not None:
        yield from outcome.plain
        return
    parts = outcome.parts or []
    parts.reverse()
    while parts:
        yield load_value(parts.pop())
