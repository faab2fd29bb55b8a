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

from shmexec.pickling.repeated import repeated_in
from shmexec.pool.calls import MapScope
from shmexec.pool.futures import CallFuture
from shmexec.pool.pool import Pool
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
    scope = MapScope(repeated_in(iterables))
    items: Iterator[Item] = zip(*iterables, strict=False)
    ahead = options.buffersize
    found: Iterator[Any]
    if options.chunksize is None and adapts:
        first = list(items if ahead is None else itertools.islice(items, ahead))
        if not first:
            return iter(())
        job = pool.start_map(fn, scope, first, ahead)
        found = job.results(wait, ordered=options.ordered, more=None if ahead is None else items)
    else:
        chunks = _Chunks(pool, fn, scope, items, options.chunksize or 1)
        futures = deque(chunks.submit(ahead))
        found = (chunks.in_order if options.ordered else chunks.as_they_come)(futures, wait, ahead is not None)
    return cast("Iterator[T]", found if ahead is None else _keeping(found, owner))


def _keeping(found: Iterator[Any], owner: object) -> Iterator[Any]:
    yield from found
    del owner


class _Remaining:
    """The seconds until a deadline, or None."""

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline

    def __call__(self) -> float | None:
        return None if self._deadline is None else self._deadline - time.monotonic()


class _Chunks:
    """The calls of a map with a chunk size of its own: each chunk is one call, and has a future."""

    def __init__(self, pool: Pool, fn: Callable[..., Any], scope: MapScope, items: Iterator[Item], size: int) -> None:
        self._pool, self._function, self._scope = pool, fn, scope
        self._items, self._size = items, size

    def submit(self, count: int | None) -> Iterator[CallFuture]:
        """So many more; None: all."""
        submit, submit_atoms = self._pool.submit, self._pool.desk.submit
        function, scope = self._function, self._scope
        if self._size == 1:
            for item in itertools.islice(self._items, count):
                yield submit_atoms(function, item) or submit(Kind.CALL, function, item, {}, scope)
            return
        for _ in itertools.repeat(None) if count is None else range(count):
            chunk = tuple(itertools.islice(self._items, self._size))
            if not chunk:
                return
            yield submit(Kind.CHUNK, function, chunk, {}, scope)

    def in_order(self, futures: deque[CallFuture], wait: Callable[[], float | None], more: bool) -> Iterator[Any]:
        """The values of these; if there may be more, another chunk is submitted before each is waited for."""
        try:
            while futures:
                if more:
                    futures.extend(self.submit(1))
                values = self._values(futures[0].result(wait()))
                futures.popleft()
                while values:
                    yield values.pop()
        finally:
            for future in futures:
                future.cancel()

    def as_they_come(self, futures: deque[CallFuture], wait: Callable[[], float | None], more: bool) -> Iterator[Any]:
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
                    for future in self.submit(1):
                        waiting.add(future)
                        future.add_done_callback(arrive)
                future = _get(done, wait())
                waiting.remove(future)
                values = self._values(future.result())
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


def _arrive(queue: "ref[SimpleQueue[CallFuture]]", future: CallFuture) -> None:
    """Weakly: what comes when nobody iterates any more would be kept by the queue, and that by its own callback."""
    if (done := queue()) is not None:
        done.put(future)


def _get(done: "SimpleQueue[CallFuture]", seconds: float | None) -> CallFuture:
    try:
        return done.get(timeout=None if seconds is None else max(0.0, seconds))
    except Empty:
        raise TimeoutError from None
