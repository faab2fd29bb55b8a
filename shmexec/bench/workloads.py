"""What is measured. A workload is set up once for a peer, run many times, and gives seconds for each run."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from shmexec.bench import tasks
from shmexec.bench.peers.interface import Peer

Run = Callable[[], float]  # seconds


@dataclass(frozen=True)
class Effort:
    """How much is done for one figure.

    Attributes
    ----------
    seconds : float
        That calls which take next to nothing are repeated for.
    part : float
        Of the real workloads' data.
    """

    seconds: float = 0.3
    part: float = 1.0


FULL = Effort()


@dataclass(frozen=True)
class Workload:
    """One line of the table, or one for each size.

    Attributes
    ----------
    title : str
    has_size : bool
    prepare : callable
        Of the peer, the size in bytes (0 without) and the effort: what to run.
    """

    title: str
    has_size: bool
    prepare: Callable[[Peer, int, Effort], Run]


def _timed(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    value = call()
    spent = time.perf_counter() - begun
    del value
    return spent


def _numbers(size: int) -> Any:
    return np.random.default_rng(0).random(max(2, size // 8))


def _round_trip(peer: Peer, size: int, effort: Effort = FULL) -> Run:
    one = min(_timed(lambda: peer.call(tasks.nothing, 1)) for _ in range(3))
    count = int(min(100, max(10, effort.seconds / one)))
    return lambda: statistics.median(_timed(lambda: peer.call(tasks.nothing, 1)) for _ in range(count))


def _burst(peer: Peer, size: int, effort: Effort = FULL) -> Run:
    one = _timed(lambda: peer.burst(tasks.nothing, 50)) / 50
    count = int(min(20_000, max(100, effort.seconds / one)))
    return lambda: _timed(lambda: peer.burst(tasks.nothing, count)) / count


def _map(peer: Peer, size: int, effort: Effort = FULL) -> Run:
    def each(count: int) -> float:
        items = list(range(count))
        return _timed(lambda: peer.map(tasks.nothing, items)) / count

    count = 100
    for _ in range(2):  # so few say little about chunks that grow with the number of items
        count = int(min(500_000, max(100, effort.seconds / each(count))))
    return lambda: each(count)


def _array_in(peer: Peer, size: int, effort: Effort = FULL) -> Run:
    array = peer.keep(_numbers(size))
    return lambda: _timed(lambda: peer.call(tasks.look, array))


def _array_out(peer: Peer, size: int, effort: Effort = FULL) -> Run:
    return lambda: _timed(lambda: peer.call(tasks.make, size))


def _in_and_out(peer: Peer, size: int, effort: Effort = FULL) -> Run:
    array = peer.keep(_numbers(size))
    return lambda: _timed(lambda: peer.call(tasks.double, array))


def _nested(peer: Peer, size: int, effort: Effort = FULL) -> Run:
    nested = peer.keep_nested({"arrays": [_numbers(size // 4) for _ in range(4)]})
    return lambda: _timed(lambda: peer.call(tasks.look_inside, nested))


def _frame(peer: Peer, size: int, effort: Effort = FULL) -> Run:
    import pandas

    frame = pandas.DataFrame(_numbers(size)[: size // 64 * 8].reshape(-1, 8), columns=list("abcdefgh"))
    kept = peer.keep_frame(frame)
    return lambda: _timed(lambda: peer.call(tasks.total_of_frame, kept))


# ---- real work -----------------------------------------------------------------------------------


def _stack(peer: Peer, size: int, effort: Effort = FULL) -> Run:
    frames = [np.random.default_rng(i).random((1024, 1024), np.float32) for i in range(int(16 * effort.part))]
    dark = np.full((1024, 1024), 0.1, np.float32)

    def run() -> Any:
        kept = [peer.keep(frame) for frame in frames]
        flat = peer.stage(tasks.background, kept, [peer.keep(dark)] * len(kept))
        clean = peer.stage(tasks.smooth, flat)
        scaled = peer.stage(tasks.normalise, clean, [clean[0]] * len(clean))
        return np.median(peer.values(scaled[::4]), axis=0)

    return lambda: _timed(run)


def _monte_carlo(peer: Peer, size: int, effort: Effort = FULL) -> Run:
    seeds = list(range(int(64 * effort.part)))
    return lambda: _timed(lambda: np.mean(peer.map(tasks.price, seeds, [2000] * len(seeds))))


def _windows(peer: Peer, size: int, effort: Effort = FULL) -> Run:
    """The whole series and where a window begins, where a kept array costs nothing; else the window itself."""
    series = _numbers(int((64 << 20) * effort.part))
    length = 1 << 18
    begins = list(range(0, len(series) - length, length // 2))

    def by_whole() -> Any:
        return sum(peer.map(tasks.spectrum_at, [kept] * len(begins), begins, [length] * len(begins)))

    def by_window() -> Any:
        return sum(peer.map(tasks.spectrum, [series[i : i + length] for i in begins]))

    if peer.shares_kept:
        kept = peer.keep(series)
        return lambda: _timed(by_whole)
    return lambda: _timed(by_window)


WORKLOADS = {
    "round-trip": Workload("call and its answer, nothing to do", False, _round_trip),
    "burst": Workload("many calls at once, each", False, _burst),
    "map": Workload("map of nothing, each item", False, _map),
    "array-in": Workload("array in", True, _array_in),
    "array-out": Workload("array out", True, _array_out),
    "in-and-out": Workload("array in, array out", True, _in_and_out),
    "nested": Workload("dict with four arrays in", True, _nested),
    "pandas": Workload("DataFrame in", True, _frame),
    "stack": Workload("picture stack: 16 frames of 4 MiB, 3 steps", False, _stack),
    "monte-carlo": Workload("Monte Carlo: 64 x 2000 walks", False, _monte_carlo),
    "windows": Workload("sliding windows over 64 MiB: spectra", False, _windows),
}
SHORT = ("round-trip", "burst", "map")
# of a pool that has done nothing yet, in this order
FRESH = {
    "startup": "new interpreter: import, pool, first answer",
    "memory": "peak memory of 8 arrays in and 8 out, over their size",
}
