"""`map`: many calls of one function, and their results.

Purpose: the calls of one function on the items of iterables, as the standard library's `Executor.map` (3.14).
Guarantees: the users' iterators are asked in the thread that calls `map` and iterates over the results, and nowhere
    else. An iterator that is closed, dropped or left by an exception cancels what no worker has begun.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar, cast

from shmexec import _core
from shmexec.chunks import Chunks, Item, MapOptions, Remaining, Waited, keeping, length
from shmexec.pickling.repeated import Repeated, repeated_in
from shmexec.pool.calls import NO_LIMITS, CallLimits, MapScope
from shmexec.pool.futures import CallFuture
from shmexec.pool.pool import Pool
from shmexec.progress import Reported, Watch, make_bar
from shmexec.transport.messages import DEPTH, Kind

T = TypeVar("T")
_FEW_SHORT = 256  # items: calls of numbers and short strings take 3 us each


def map_calls(
    pool: Pool,
    fn: Callable[..., T],
    iterables: tuple[Iterable[Any], ...],
    options: MapOptions,
    *,
    adapts: bool,
    owner: object,
    limits: CallLimits = NO_LIMITS,
    repeated: Repeated | None = None,
    submit: Callable[..., Any] | None = None,
) -> Iterator[T]:
    """What `SharedExecutor.map` does.

    Parameters
    ----------
    adapts : bool
        Without a chunk size it is measured; else it is 1.
    owner : object
        Lives until a map that still takes items is over.
    limits : CallLimits
        Of each call: an item, or a chunk.
    repeated : Repeated, optional
        Arrays that several maps and calls have in common.
    submit : callable, optional
        What a subclass, or a program, has put in the place of the executor's: all calls go through it.
    """
    wait = Remaining(options.timeout)
    scope = MapScope(repeated or repeated_in(iterables))
    items: Iterator[Item] = zip(*iterables, strict=False)
    ahead = options.buffersize
    found: Iterator[Any]
    if adapts := options.chunksize is None and adapts and submit is None:
        first = list(items if ahead is None else itertools.islice(items, ahead))
        if not first:
            return iter(())
        if ahead is None and _are_few(pool, first):
            items, adapts = iter(first), False
    if adapts:
        job = pool.start_map(fn, scope, first, ahead)
        watch: Watch | None = None
        if options.progress is not False:
            total = len(first) if ahead is None else length(iterables)
            make = partial(make_bar, options.progress, total)
            watch = Watch(make, lambda: job.finished, lambda: pool.reports(lambda call: call.job is job))
        found = job.results(wait, ordered=options.ordered, more=None if ahead is None else items, watch=watch)
        if watch is not None or ahead is not None:
            found = keeping(found, owner, watch)
    else:
        size = options.chunksize or 1
        chunks: Chunks
        if submit is None:
            chunks = _PoolChunks(pool, fn, scope, items, size, limits)
        else:
            chunks = _SubmittedChunks(pool, fn, submit, items, size)
        found = chunks.results(options, wait, iterables, owner)
    return cast("Iterator[T]", found)


def _are_few(pool: Pool, items: list[Item]) -> bool:
    """Whether calls of their own take less than spans, whose answers take the collector to deal with: 0.1 to 0.5 ms."""
    if len(items) <= DEPTH * pool.max_workers:
        return True
    return len(items) <= _FEW_SHORT and _core.are_short_items(tuple(items))


class _PoolChunks(Chunks):
    """With a chunk size of its own, or limits."""

    def __init__(
        self,
        pool: Pool,
        fn: Callable[..., Any],
        scope: MapScope,
        items: Iterator[Item],
        size: int,
        limits: CallLimits,
    ) -> None:
        super().__init__(items, size)
        self._pool, self._function, self._scope = pool, fn, scope
        # as it is now, whatever becomes of it meanwhile
        self._known = pool.known(fn) if size == 1 and limits == NO_LIMITS else None
        self._limits = limits

    def send(self, chunk: tuple[Item, ...]) -> CallFuture:
        """As one call."""
        return self._pool.submit(Kind.CHUNK, self._function, chunk, {}, self._scope, self._limits)

    def reports(self, watched: Mapping[Waited, int]) -> list[Reported]:
        """What the pool's workers have reported."""
        return self._pool.reports(lambda call: call.future in watched)

    def submit(self, count: int | None) -> Iterator[Waited]:
        """So many more; None: all."""
        if self._size > 1:
            yield from super().submit(count)
            return
        submit, submit_short = self._pool.submit, self._pool.desk.submit
        function, scope, limits, known = self._function, self._scope, self._limits, self._known
        for item in itertools.islice(self._items, count):
            self.taken += 1
            future = None if known is None else submit_short(function, item, None, known)
            yield future or submit(Kind.CALL, function, item, {}, scope, limits)


class _SubmittedChunks(Chunks):
    """Through a `submit` of somebody else's: each is a call like any other, and has whatever future that returns."""

    def __init__(
        self, pool: Pool, fn: Callable[..., Any], submit: Callable[..., Any], items: Iterator[Item], size: int
    ) -> None:
        super().__init__(items, size)
        self._pool, self._function, self._submit = pool, fn, submit

    def send(self, chunk: tuple[Item, ...]) -> Waited:
        """As one call."""
        if self._size == 1:
            future: Waited = self._submit(self._function, *chunk[0])
        else:
            future = self._submit(partial(_call_each, self._function), chunk)
        return future

    def reports(self, watched: Mapping[Waited, int]) -> list[Reported]:
        """What the pool's workers have reported."""
        return self._pool.reports(lambda call: call.future in watched)


def _call_each(function: Callable[..., Any], items: tuple[Item, ...]) -> list[Any]:
    return [function(*item) for item in items]
