"""`map` with a chunk size that adapts: the items go to the workers in spans, sized by the time that items take.

Purpose: short calls travel many at a time, long ones alone, and all workers end at about the same time.
Guarantees
  - results in order, or as they come; and up to the first failure, as if each item were a call of its own
  - a worker that finds a span longer than its budget comes back after the present item, and the rest goes to whoever is
    free; a worker's death fails the items of its span, from the first that was not answered
  - of a map that is fed (`ahead`) a worker that has nothing to do gets what there is, however little
  - what was cancelled holds nothing but the spans that workers have
Assumptions: `send` and `done` run in whichever thread submits or collects, `feed` in the one that iterates; what they
    share is touched under `_lock`, which is held for no call of the pool's. But for `_fresh`: one thread appends, and
    whoever takes has the lock. An item that is appended is seen by who takes next, or the feeder sees that a worker is
    free.

Some facts: when all cores work, the parent may wait a slice of the scheduler, 3 ms, for one. A span costs the parent
160 us, whatever is in it: with tasks of 20 us on two cores the speed-up is 1.79 with spans of 4 ms, 1.85 of 8, 1.87 of
16, 1.88 of 30.
What this means for us: each worker has some 32 ms of work in hand, in two spans, and one more waits; towards the end of
the map spans are smaller, and so is what they may exceed.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from shmexec._core import Packed
from shmexec.pickling import failures
from shmexec.pickling.spans import Outcome
from shmexec.pool.futures import load_value
from shmexec.transport.messages import DEPTH, Cost

if TYPE_CHECKING:
    from shmexec.pool.calls import MapScope

_TARGET = 0.016  # seconds that a span should take, if there are enough items
_LEAST_BUDGET = 0.008  # and after which its worker comes back, or after twice what was expected of it
_GROWTH = 4  # times, at most, from one span to the next
_LARGEST = 1 << 14  # items

Item = tuple[Any, ...]


class SpanHome(Protocol):
    """What a map asks of its pool."""

    max_workers: int

    def submit_span(self, job: "SpanMap", begin: int, items: tuple[Item, ...], budget: float) -> Future[Any]:
        """Run some items; `job.done` is called when they are answered, before the pool may think that it is idle."""

    def check_open(self) -> None:
        """Raises what `submit` raises if the pool takes no more calls."""

    def stays_open(self) -> AbstractContextManager[None]:
        """In here the pool does not think that it is idle. Raises what `check_open` does."""


class SpanMap:
    """One `map`.

    Parameters
    ----------
    home : SpanHome
    function : callable
    scope : MapScope
    items : iterable of tuple
        The arguments of the calls, or of the first of them.
    ahead : int, optional
        More will be fed, and so many calls at most are under way or answered and not asked for. None: those are all.
    """

    def __init__(
        self,
        home: SpanHome,
        function: Callable[..., Any],
        scope: "MapScope",
        items: Iterable[Item],
        ahead: int | None = None,
    ) -> None:
        self.function = function
        self.scope = scope
        self.finished = 0  # items
        self._home = home
        self._is_fed = ahead is not None  # there may be more
        self._largest = _LARGEST if ahead is None else max(1, ahead // (DEPTH * home.max_workers + 1))
        self._lock = threading.RLock()  # a finalizer may cancel the map in the middle of a step of it
        self._changed = threading.Condition(self._lock)
        self._fresh = deque(items)  # those that were never sent
        self._next = 0  # the number of the first of them
        self._returned: deque[tuple[int, tuple[Item, ...]]] = deque()  # spans that were sent, and came back
        self._under_way: dict[int, tuple[tuple[Item, ...], Future[Any] | None]] = {}
        self._answers: dict[int, Outcome | BaseException] = {}  # by their first item, in the order in which they came
        self._size = 1
        self._seconds = 0.0  # that an item takes
        self._senders: set[int] = set()  # threads that are sending
        self._is_over = False
        self._why: BaseException | None = None

    # ---- from the pool ---------------------------------------------------------------------------

    def send(self) -> None:
        """Send the next spans, as many as are to be under way.

        What comes back while a span is being sent, since that cannot be packed, is sent when this thread goes on.
        """
        me = threading.get_ident()
        if me in self._senders:
            return
        self._senders.add(me)
        try:
            while self._send_next():
                pass
        finally:
            self._senders.discard(me)

    def done(self, begin: int, end: int, cost: Cost | None, answer: Packed | BaseException, *, was_sent: bool) -> None:
        """A span has been answered, or has failed as a whole."""
        read: Outcome | BaseException = Outcome(answer) if isinstance(answer, Packed) else answer
        with self._lock:
            items, _ = self._under_way.pop(begin, ((), None))
            if self._is_over and self._why is None:
                pass  # nobody wants it
            elif isinstance(read, BaseException) and end - begin > 1 and not (was_sent or self._is_over):
                # one of them cannot be pickled, or there is no memory for all: each alone will show which
                self._returned.extendleft((begin + i, items[i : i + 1]) for i in reversed(range(len(items))))
                self._size = 1
            else:
                self._answers.setdefault(begin, read)
                if isinstance(read, Outcome):
                    self._note(begin, items, read, cost)
            self._changed.notify_all()
        del items, read, answer
        self.send()

    def _note(self, begin: int, items: tuple[Item, ...], outcome: Outcome, cost: Cost | None) -> None:
        count = len(outcome)
        self.finished += count + (outcome.failure is not None)
        if outcome.failure is None and count < len(items):
            self._returned.appendleft((begin + count, items[count:]))
        if cost is not None and count:
            seconds = cost.seconds / count
            self._seconds = seconds if not self._seconds else 0.5 * (self._seconds + seconds)
            wanted = int(_TARGET / max(self._seconds, 1e-9))
            self._size = max(1, min(wanted, _GROWTH * self._size, _LARGEST))

    def _send_next(self) -> bool:
        with self._lock:
            if self._is_over or len(self._under_way) > DEPTH * self._home.max_workers:
                return False
            span = self._take()
            if span is None or self._is_over:  # a finalizer has cancelled it meanwhile
                return False
            begin, items = span
            budget = max(_LEAST_BUDGET, 2 * len(items) * self._seconds)
            entry = self._under_way[begin] = items, None  # until its future is there: `done` may come first
        try:
            future = self._home.submit_span(self, begin, items, budget)
        except BaseException as error:
            self.fail(begin, error)
            if not isinstance(error, Exception):
                raise
            return False
        with self._lock:
            if self._under_way.get(begin) is entry:  # not what came back of it, and was sent by another thread
                self._under_way[begin] = items, future
            is_over = self._is_over
        if is_over:
            future.cancel()
        return True

    def _take(self) -> tuple[int, tuple[Item, ...]] | None:
        """The next span: what came back first, since somebody waits for that."""
        size = self._wanted()
        if self._returned:
            begin, items = self._returned.popleft()
            size = max(1, size)
            if len(items) > size:
                self._returned.appendleft((begin + size, items[size:]))
            return begin, items[:size]
        if not size or not self._fresh:
            return None
        take = self._fresh.popleft
        try:
            taken = [take() for _ in range(min(size, len(self._fresh)))]
        except IndexError:
            return None  # a finalizer has cancelled the map
        begin, self._next = self._next, self._next + len(taken)
        return begin, tuple(taken)

    def _wanted(self) -> int:
        """Items that the next span should have. 0: let more gather, as all workers have something to do."""
        workers = self._home.max_workers
        left = len(self._fresh)
        if not self._is_fed:
            left += sum(len(items) for _, items in self._returned)
            return max(1, min(self._size, left // (DEPTH * workers)))
        size = min(self._size, self._largest)
        free = workers - len(self._under_way)
        if free > 0:
            return max(1, min(size, -(-left // free)))
        return size if left >= size else 0

    def fail(self, begin: int, error: BaseException) -> None:
        """The map cannot go on at this item."""
        with self._lock:
            self._under_way.pop(begin, None)
            self._answers[begin] = self._why = error
            self._is_over = True
            self._changed.notify_all()

    def forsake(self, error: BaseException) -> None:
        """In a forked child: the answers are the parent's, and so are the threads that may have the lock."""
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._is_over, self._why = True, error
        self._returned.clear()
        self._under_way.clear()
        self._fresh.clear()

    # ---- for who iterates ------------------------------------------------------------------------

    def feed(self, items: Iterator[Item]) -> None:
        """Take one more, if there is one; in the thread that iterates. Raises what `check_open` does."""
        if not self._is_fed:
            return
        for item in items:
            self._home.check_open()
            self._fresh.append(item)
            if len(self._fresh) >= min(self._size, self._largest) or len(self._under_way) < self._home.max_workers:
                with self._home.stays_open():
                    self.send()
            return
        self._is_fed = False
        try:
            with self._home.stays_open():
                self.send()  # what was to gather
        except RuntimeError:
            pass  # it takes no more, but runs what it has: some span is under way, whose end sends the next

    def results(
        self,
        wait: Callable[[], float | None],
        *,
        ordered: bool = True,
        more: Iterator[Item] | None = None,
        watch: Callable[[], float] | None = None,
    ) -> Iterator[Any]:
        """The values.

        Parameters
        ----------
        wait : callable
            Tells the seconds left, or None.
        ordered : bool
            Else as they come.
        more : iterator, optional
            Where to take one more item from before each value.
        watch : callable, optional
            Called while the values are waited for, without a lock; tells after how many seconds to call it again.
        """
        at = 0
        try:
            if more is not None:
                self.feed(more)
            while (answer := self._await(at if ordered else None, wait, watch)) is not None:
                if isinstance(answer, BaseException):
                    raise answer
                count, values, failure = len(answer), answer.values(load_value), answer.failure
                del answer
                at += count
                if more is None:
                    yield from values
                else:
                    for _ in range(count):
                        yield next(values)  # not kept here until the next is asked for
                        self.feed(more)
                if failure is not None:
                    raise failures.load_exception(failure)
        finally:
            self.cancel()

    def _await(
        self, at: int | None, wait: Callable[[], float | None], watch: Callable[[], float] | None
    ) -> Outcome | BaseException | None:
        """The answer that begins with this item, or whichever came first; None: there are no more."""
        while True:
            pause = None if watch is None else watch()
            with self._lock:
                if at is None and self._answers:
                    at = next(iter(self._answers))
                if at in self._answers:
                    return self._answers.pop(at)
                if self._why is not None and at not in self._under_way:
                    return self._why
                if not (self._answers or self._under_way or self._returned or self._fresh):
                    return None
                seconds = wait()
                if seconds is not None and seconds <= 0:
                    raise TimeoutError
                self._changed.wait(min((s for s in (seconds, pause) if s is not None), default=None))

    def cancel(self) -> None:
        """Nobody wants the rest."""
        with self._lock:
            self._is_over, self._why = True, None
            self._answers.clear()
            self._returned.clear()
            self._fresh.clear()
            futures = [future for _, future in self._under_way.values() if future is not None]
        for future in futures:
            future.cancel()
