"""The results of a map over a cluster, one after the other, and a bar that shows how far it has come."""

import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from typing import Any

from shmexec.progress import Progress, Watch, make_bar


def map_futures(
    futures: Iterator[Future[list[Any]]],
    timeout: float | None,
    ahead: int | None,
    ordered: bool,
    progress: Progress,
    size: int,
    total: int | None,
) -> Iterator[Any]:
    """What the chunks return.

    Parameters
    ----------
    futures : iterator
        Submits a chunk, of `size` items, whenever it is asked for one.
    timeout : float, optional
        Seconds from now.
    ahead : int, optional
        Chunks that are submitted before the first result is asked for. Default: all.
    ordered : bool
        In the order of the chunks, or as they come.
    total : int, optional
        Items, if that is known.
    """
    ends_at = None if timeout is None else time.monotonic() + timeout
    submitted = deque(islice(futures, ahead))
    return _results(futures, submitted, ends_at, ordered, progress, total, size, takes_more=ahead is not None)


def _results(
    futures: Iterator[Future[list[Any]]],
    pending: deque[Future[list[Any]]],
    ends_at: float | None,
    ordered: bool,
    progress: Progress,
    total: int | None,
    size: int,
    *,
    takes_more: bool,
) -> Iterator[Any]:
    yielded = 0
    watch = None
    if progress is not False:
        watch = Watch(
            lambda: make_bar(progress, total),
            lambda: min(yielded + size * sum(future.done() for future in pending), total or sys.maxsize),
            lambda: (),
        )
    try:
        while pending:
            if takes_more:
                pending.extend(islice(futures, 1))
            future = _first_done([pending[0]] if ordered else list(pending), ends_at, watch)
            values = future.result(_left(ends_at))
            pending.remove(future)
            yielded += len(values)
            del future
            values.reverse()
            while values:
                yield values.pop()
    finally:
        for future in pending:
            future.cancel()
        if watch is not None:
            watch.close()


def _first_done(futures: list[Future[list[Any]]], ends_at: float | None, watch: Watch | None) -> Future[list[Any]]:
    while True:
        limits = _left(ends_at), None if watch is None else watch()
        seconds = min((limit for limit in limits if limit is not None), default=None)
        done = wait(futures, seconds, FIRST_COMPLETED).done
        if done:
            return next(future for future in futures if future in done)
        if ends_at is not None and time.monotonic() >= ends_at:
            raise TimeoutError


def _left(ends_at: float | None) -> float | None:
    return None if ends_at is None else max(0.0, ends_at - time.monotonic())
