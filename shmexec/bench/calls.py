"""Calls that do nothing, or next to nothing: what they cost by themselves."""

import statistics
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import as_completed, wait
from functools import partial
from itertools import repeat
from typing import Any

from shmexec.bench import tasks
from shmexec.bench.peers.interface import Peer
from shmexec.bench.timing import Effort, Run, median_of_warm, per_item, timed

_LEAST, _MOST = 10, 1000  # calls of which a median is taken
_FEW = 8
_PAUSE = 0.02  # seconds: long after the last worker has stopped to look for work
_TASK = 20e-6  # seconds


def _warm(call: Callable[[], Any], effort: Effort) -> Run:
    return median_of_warm(call, effort.seconds / 2, _LEAST, _MOST)


def _over_items(
    call: Callable[[list[Any]], Any], effort: Effort, most: int, make: Callable[[int], Iterable[Any]] = range
) -> Run:
    """The time for one of as many items as there is time for."""

    def one_of(count: int) -> float:
        items = list(make(count))
        return timed(lambda: call(items)) / count

    return per_item(one_of, effort.seconds, most)


def round_trip(peer: Peer, size: int, effort: Effort) -> Run:
    return _warm(lambda: peer.call(tasks.nothing, 1), effort)


def cold(peer: Peer, size: int, effort: Effort) -> Run:
    count = int(min(25, max(5, 100 * effort.seconds)))

    def after_pause() -> float:
        time.sleep(_PAUSE)
        return timed(lambda: peer.call(tasks.nothing, 1))

    after_pause()
    return lambda: statistics.median(after_pause() for _ in range(count))


def waiting(peer: Peer, size: int, effort: Effort) -> Run:
    return _warm(lambda: wait([peer.submit(tasks.nothing, 1)]), effort)


def completed(peer: Peer, size: int, effort: Effort) -> Run:
    def call() -> None:
        for future in as_completed([peer.submit(tasks.nothing, i) for i in range(_FEW)]):
            future.result()

    return _warm(call, effort)


def callback(peer: Peer, size: int, effort: Effort) -> Run:
    called = threading.Event()

    def call() -> None:
        called.clear()
        peer.submit(tasks.nothing, 1).add_done_callback(lambda future: called.set())
        called.wait()

    return _warm(call, effort)


def burst(peer: Peer, size: int, effort: Effort) -> Run:
    return per_item(lambda count: timed(lambda: peer.burst(tasks.nothing, count)) / count, effort.seconds, 20_000)


def each(peer: Peer, size: int, effort: Effort) -> Run:
    return _over_items(lambda items: peer.each(tasks.nothing, items), effort, 20_000)


def mapped(peer: Peer, size: int, effort: Effort) -> Run:
    return _over_items(lambda items: peer.map(tasks.nothing, items), effort, 500_000)


def few(peer: Peer, size: int, effort: Effort) -> Run:
    items = list(range(_FEW))
    return _warm(lambda: peer.map(tasks.nothing, items), effort)


def spread(peer: Peer, size: int, effort: Effort) -> Run:
    """The time over that of workers which are never idle and to which a call costs nothing."""
    run = _over_items(lambda items: peer.map(tasks.busy, items), effort, 500_000, partial(repeat, _TASK))
    return lambda: run() * peer.workers / _TASK
