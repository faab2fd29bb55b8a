"""`map`: many calls of one function, and their results."""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

from shmexec.pickling.repeated import repeated_in
from shmexec.pool.calls import MapScope
from shmexec.pool.futures import CallFuture
from shmexec.pool.pool import Pool
from shmexec.transport.messages import Kind

T = TypeVar("T")


def map_calls(
    pool: Pool,
    fn: Callable[..., T],
    iterables: tuple[Iterable[Any], ...],
    timeout: float | None,
    chunksize: int | None,
    buffersize: int | None,
    *,
    default_size: int | None,
) -> Iterator[T]:
    """What `SharedExecutor.map` does; `default_size` is the chunk size if none is asked for, None: it adapts."""
    deadline = None if timeout is None else time.monotonic() + timeout
    scope = MapScope(repeated_in(iterables))
    items: Iterator[tuple[Any, ...]] = zip(*iterables, strict=False)
    size = chunksize or default_size
    if size is None and buffersize is None:
        if not (whole := list(items)):
            return iter(())
        job = pool.start_map(fn, scope, whole)
        return job.results(lambda: None if deadline is None else deadline - time.monotonic())
    size = size or 1
    futures: deque[CallFuture] = deque()

    submit, submit_atoms = pool.submit, pool.desk.submit

    def submit_next() -> bool:
        if size == 1:
            for item in items:
                futures.append(submit_atoms(fn, item) or submit(Kind.CALL, fn, item, {}, scope))
                return True
            return False
        chunk = tuple(itertools.islice(items, size))
        if chunk:
            futures.append(submit(Kind.CHUNK, fn, chunk, {}, scope))
        return bool(chunk)

    while (buffersize is None or len(futures) < buffersize) and submit_next():
        pass
    return cast("Iterator[T]", _results(futures, submit_next if buffersize else None, deadline, chunked=size > 1))


def _results(
    futures: "deque[CallFuture]", submit_next: Callable[[], bool] | None, deadline: float | None, *, chunked: bool
) -> Iterator[Any]:
    try:
        while futures:
            left = None if deadline is None else deadline - time.monotonic()
            value = futures[0].result(left)
            futures.popleft()
            if submit_next is not None:
                submit_next()
            if chunked:
                value.reverse()
                while value:
                    yield value.pop()
            else:
                yield value
            del value
    finally:
        for future in futures:
            future.cancel()
