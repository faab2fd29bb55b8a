"""`map`: many calls of one function, and their results.

Purpose: the calls of one function on the items of iterables, as the standard library's `Executor.map` (3.14).
Guarantees: the users' iterators are asked in the thread that calls `map` and iterates over the results, and nowhere
    else. An iterator that is closed, dropped or left by an exception cancels what no worker has begun.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast
from weakref import ref

from shmexec.pickling.repeated import Repeated, repeated_in
from shmexec.pool.calls import NO_LIMITS, CallLimits, MapScope
from shmexec.pool.futures import CallFuture
from shmexec.pool.pool import Pool
from shmexec.progress import Bar, Progress, Watch, make_bar
from shmexec.transport.messages import Kind

T = TypeVar("T")

Item = tuple[Any, ...]


@dataclass(frozen=True)
class MapOptions:
    """How a map goes, as `SharedExecutor.map` explains it. The arguments have been checked."""

    timeout: float | None = None
    chunksize: int | None = None
    buffersize: int | None = None
    ordered: bool = True
    progress: Progress = False
    limits: CallLimits = NO_LIMITS  # of each call: an item, or a chunk
    repeated: Repeated | None = None  # arrays that several maps and calls have in common


def map_calls(
    pool: Pool,
    fn: Callable[..., T],
    iterables: tuple[Iterable[Any], ...],
    options: MapOptions,
    *,
    adapts: bool,
    owner: object,
) -> Iterator[T]:
    """What `SharedExecutor.map` does.

    Parameters
    ----------
    adapts : bool
        Without a chunk size it is measured; else it is 1.
    owner : object
        Lives until a map that still takes items is over.
    """
    deadline = None if options.timeout is None else time.monotonic() + options.timeout
    wait = _Remaining(deadline)
    scope = MapScope(options.repeated or repeated_in(iterables))
    items: Iterator[Item] = zip(*iterables, strict=False)
    ahead = options.buffersize
    total: int | None = None
    watch: Watch | None = None
    found: Iterator[Any]
    if options.chunksize is None and adapts:
        first = list(items if ahead is None else itertools.islice(items, ahead))
        if not first:
            return iter(())
        job = pool.start_map(fn, scope, first, ahead)
        if options.progress is not False:
            total = len(first) if ahead is None else length(iterables)
            make = partial(make_bar, options.progress, total)
            watch = Watch(make, lambda: job.finished, lambda: pool.reports(lambda call: call.job is job))
        found = job.results(wait, ordered=options.ordered, more=None if ahead is None else items, watch=watch)
    else:
        chunks = _Chunks(pool, fn, scope, items, options.chunksize or 1, options.limits)
        futures = deque(chunks.submit(ahead))
        if options.progress is not False:
            total = chunks.taken if ahead is None else length(iterables)
            watch = chunks.watch(futures, partial(make_bar, options.progress, total))
        results = chunks.in_order if options.ordered else chunks.as_they_come
        found = results(futures, wait, more=ahead is not None, watch=watch)
    if watch is not None or ahead is not None:
        found = _keeping(found, owner, watch)
    return cast("Iterator[T]", found)


def _keeping(found: Iterator[Any], owner: object, watch: Watch | None) -> Iterator[Any]:
    try:
        yield from found
    finally:
        del owner
        if watch is not None:
            watch.close()


def length(iterables: Iterable[Iterable[Any]]) -> int | None:
    """How many items there will be, if that can be known."""
    try:
        return min(map(len, iterables), default=0)  # type: ignore[arg-type]
    except TypeError:
        return None


class _Remaining:
    """The seconds until a deadline, or None."""

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline

    def __call__(self) -> float | None:
        return None if self._deadline is None else self._deadline - time.monotonic()


class _Chunks:
    """The calls of a map with a chunk size of its own: each chunk is one call, and has a future."""

    def __init__(
        self,
        pool: Pool,
        fn: Callable[..., Any],
        scope: MapScope,
        items: Iterator[Item],
        size: int,
        limits: CallLimits,
    ) -> None:
        self.taken = 0  # items
        self._pool, self._function, self._scope = pool, fn, scope
        # as it is now, whatever becomes of it meanwhile
        self._known = pool.known(fn) if size == 1 and limits == NO_LIMITS else None
        self._items, self._size, self._limits = items, size, limits
        self._watched: dict[CallFuture, int] | None = None  # those that are not done, and how many items they have
        self._finished = self._yielded = 0  # items

    def submit(self, count: int | None) -> Iterator[CallFuture]:
        """So many more; None: all."""
        submit, submit_atoms = self._pool.submit, self._pool.desk.submit
        function, scope, limits, known = self._function, self._scope, self._limits, self._known
        if self._size == 1:
            for item in itertools.islice(self._items, count):
                self.taken += 1
                future = None if known is None else submit_atoms(function, item, known)
                yield future or submit(Kind.CALL, function, item, {}, scope, limits)
            return
        for _ in itertools.repeat(None) if count is None else range(count):
            chunk = tuple(itertools.islice(self._items, self._size))
            if not chunk:
                return
            self.taken += len(chunk)
            yield submit(Kind.CHUNK, function, chunk, {}, scope, limits)

    def watch(self, futures: deque[CallFuture], make: Callable[[], Bar | None]) -> Watch:
        """From now on it is counted what is done."""
        self._watched = {}
        left = self.taken
        for future in futures:
            self._count(future, min(self._size, left))
            left -= self._size
        return Watch(
            make,
            lambda: max(self._finished, self._yielded),
            lambda: self._pool.reports(lambda call: call.future in (self._watched or ())),
        )

    def _count(self, future: CallFuture, items: int) -> None:
        if self._watched is not None:
            self._watched[future] = items
            future.add_done_callback(partial(_ended, ref(self)))

    def ended(self, future: CallFuture) -> None:
        """One that is watched."""
        assert self._watched is not None
        self._finished += self._watched.pop(future, 0)

    def _next(self) -> Iterator[CallFuture]:
        before = self.taken
        for future in self.submit(1):
            self._count(future, self.taken - before)
            yield future

    def in_order(
        self, futures: deque[CallFuture], wait: Callable[[], float | None], *, more: bool, watch: Watch | None
    ) -> Iterator[Any]:
        """The values of these; if there may be more, another chunk is submitted before each is waited for."""
        try:
            while futures:
                if more:
                    futures.extend(self._next())
                if watch is not None:
                    _wait_over(futures[0], wait, watch)
                values = self._values(futures[0].result(wait()))
                self._yielded += len(values)
                futures.popleft()
                while values:
                    yield values.pop()
        finally:
            for future in futures:
                future.cancel()

    def as_they_come(
        self, futures: deque[CallFuture], wait: Callable[[], float | None], *, more: bool, watch: Watch | None
    ) -> Iterator[Any]:
        """The values of whichever is done."""
        done: SimpleQueue[CallFuture] = SimpleQueue()
        arrive = partial(_arrive, ref(done))
        waiting = set(futures)
        futures.clear()
        try:
            for future in waiting:
                future.add_done_callback(arrive)
            while waiting:
                if more:
                    for future in self._next():
                        waiting.add(future)
                        future.add_done_callback(arrive)
                future = _get(done, wait, watch)
                waiting.remove(future)
                values = self._values(future.result())
                self._yielded += len(values)
                del future
                while values:
                    yield values.pop()
        finally:
            for future in waiting:
                future.cancel()

    def _values(self, value: Any) -> list[Any]:
        """Of a chunk, the last first, so that none is kept while the next is asked for."""
        if self._size == 1:
            return [value]
        values: list[Any] = value
        values.reverse()
        return values


# Callbacks refer to who waits weakly: nobody may iterate any more, and what refers to itself is freed by chance.


def _arrive(queue: "ref[SimpleQueue[CallFuture]]", future: CallFuture) -> None:
    if (done := queue()) is not None:
        done.put(future)


def _ended(chunks: "ref[_Chunks]", future: CallFuture) -> None:
    if (those := chunks()) is not None:
        those.ended(future)


def _wait_over(future: CallFuture, wait: Callable[[], float | None], watch: Watch) -> None:
    """Until it is done, or the time is over."""
    while not future.done():
        pause, left = watch(), wait()
        if left is not None and left <= 0:
            return
        try:
            future.wait_over(pause if left is None else min(left, pause))
        except TimeoutError:
            pass


def _get(done: "SimpleQueue[CallFuture]", wait: Callable[[], float | None], watch: Watch | None) -> CallFuture:
    while True:
        limits = wait(), None if watch is None else watch()
        seconds = min((limit for limit in limits if limit is not None), default=None)
        try:
            return done.get(timeout=None if seconds is None else max(0.0, seconds))
        except Empty:
            left = wait()
            if left is not None and left <= 0:
                raise TimeoutError from None
