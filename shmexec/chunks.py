"""The chunks of a map: each is one call, and has a future; their results in order, or as they come.

Guarantees: the users' iterators are asked, and the bar is shown, in the thread that iterates over the results. An
    iterator that is closed, dropped or left by an exception cancels the calls that it has not come to.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol, Self
from weakref import ref

from shmexec.checks import checked_count
from shmexec.progress import Bar, Progress, Reported, Watch, checked_progress, make_bar

Item = tuple[Any, ...]


@dataclass(frozen=True)
class MapOptions:
    """How a map goes, as `SharedExecutor.map` explains it."""

    timeout: float | None
    chunksize: int | None
    buffersize: int | None
    ordered: bool
    progress: Progress

    @classmethod
    def checked(
        cls,
        fn: Callable[..., Any],
        timeout: float | None,
        chunksize: int | None,
        buffersize: int | None,
        ordered: bool,
        progress: Progress,
    ) -> Self:
        """As users give them, with what is to be called. Raises what `SharedExecutor.map` does."""
        if not callable(fn):
            raise TypeError(f"fn must be a callable, not {type(fn).__name__}")
        chunksize, buffersize = checked_count("chunksize", chunksize), checked_count("buffersize", buffersize)
        return cls(timeout, chunksize, buffersize, bool(ordered), checked_progress(progress))


class Waited(Protocol):
    """What is asked of a future."""

    def result(self, timeout: float | None = None) -> Any: ...
    def done(self) -> bool: ...
    def cancel(self) -> bool: ...
    def add_done_callback(self, fn: Callable[[Any], object], /) -> None: ...
    def wait_over(self, timeout: float | None = None) -> None:
        """Until it is done; TimeoutError after so many seconds."""


def keeping(found: Iterator[Any], owner: object, watch: Watch | None) -> Iterator[Any]:
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


class Remaining:
    """Of so many seconds from now; None: for ever."""

    def __init__(self, seconds: float | None) -> None:
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def __call__(self) -> float | None:
        return None if self._deadline is None else self._deadline - time.monotonic()


class Chunks:
    """Of a map. Who has somewhere to send them says how: `send`, and what `reports` from there."""

    def __init__(self, items: Iterator[Item], size: int) -> None:
        self.taken = 0  # items
        self._items, self._size = items, size
        self._watched: dict[Waited, int] | None = None  # those that are not done, and how many items they have
        self._finished = self._yielded = 0  # items

    def send(self, chunk: tuple[Item, ...]) -> Waited:
        """The call of a chunk. Its value is a list; that of a chunk whose size is 1 by design is the item's."""
        raise NotImplementedError

    def reports(self, watched: Mapping[Waited, int]) -> Iterable[Reported]:
        """What those of these that run have reported."""
        raise NotImplementedError

    def submit(self, count: int | None) -> Iterator[Waited]:
        """So many more; None: all."""
        for _ in itertools.repeat(None) if count is None else range(count):
            chunk = tuple(itertools.islice(self._items, self._size))
            if not chunk:
                return
            self.taken += len(chunk)
            yield self.send(chunk)

    def results(
        self, options: MapOptions, wait: Remaining, iterables: Iterable[Iterable[Any]], owner: object
    ) -> Iterator[Any]:
        """Submit, and return the results.

        Parameters
        ----------
        wait : Remaining
            The time for all of it.
        iterables : iterable
            Where the items are from.
        owner : object
            Lives until a map that still takes items, or is watched, is over.
        """
        ahead = options.buffersize
        futures = deque(self.submit(ahead))
        watch: Watch | None = None
        if options.progress is not False:
            total = self.taken if ahead is None else length(iterables)
            watch = self.watch(futures, partial(make_bar, options.progress, total))
        results = self.in_order if options.ordered else self.as_they_come
        found = results(futures, wait, more=ahead is not None, watch=watch)
        return found if watch is None and ahead is None else keeping(found, owner, watch)

    def watch(self, futures: deque[Waited], make: Callable[[], Bar | None]) -> Watch:
        """From now on it is counted what is done."""
        self._watched = {}
        left = self.taken
        for future in futures:
            self._count(future, min(self._size, left))
            left -= self._size
        return Watch(
            make,
            lambda: max(self._finished, self._yielded),
            lambda: self.reports(self._watched or {}),
        )

    def _count(self, future: Waited, items: int) -> None:
        if self._watched is not None:
            self._watched[future] = items
            future.add_done_callback(partial(_ended, ref(self)))

    def ended(self, future: Waited) -> None:
        """One that is watched."""
        assert self._watched is not None
        self._finished += self._watched.pop(future, 0)

    def _next(self) -> Iterator[Waited]:
        before = self.taken
        for future in self.submit(1):
            self._count(future, self.taken - before)
            yield future

    def in_order(self, futures: deque[Waited], wait: Remaining, *, more: bool, watch: Watch | None) -> Iterator[Any]:
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
        self, futures: deque[Waited], wait: Remaining, *, more: bool, watch: Watch | None
    ) -> Iterator[Any]:
        """The values of whichever is done."""
        done: SimpleQueue[Waited] = SimpleQueue()
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


def _arrive(queue: "ref[SimpleQueue[Waited]]", future: Waited) -> None:
    if (done := queue()) is not None:
        done.put(future)


def _ended(chunks: "ref[Chunks]", future: Waited) -> None:
    if (those := chunks()) is not None:
        those.ended(future)


def _wait_over(future: Waited, wait: Remaining, watch: Watch) -> None:
    """Until it is done, or the time is over."""
    while not future.done():
        pause, left = watch(), wait()
        if left is not None and left <= 0:
            return
        try:
            future.wait_over(pause if left is None else min(left, pause))
        except TimeoutError:
            pass


def _get(done: "SimpleQueue[Waited]", wait: Remaining, watch: Watch | None) -> Waited:
    while True:
        limits = wait(), None if watch is None else watch()
        seconds = min((limit for limit in limits if limit is not None), default=None)
        try:
            return done.get(timeout=None if seconds is None else max(0.0, seconds))
        except Empty:
            left = wait()
            if left is not None and left <= 0:
                raise TimeoutError from None
