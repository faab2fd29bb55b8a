"""What is measured. A workload is set up once for a peer, run many times, and gives seconds for each run."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from shmexec.bench import tasks
from shmexec.bench.peers import Peer

Run = Callable[[], float]  # seconds


@dataclass(frozen=True)
class Workload:
    """One line of the table, or one for each size.

    Attributes
    ----------
    title : str
    unit : str
        Of what `prepare`'s runs return, once `per` items.
    has_size : bool
    prepare : callable
        Of the peer and the size in bytes (0 without): what to run.
    """

    title: str
    has_size: bool
    prepare: Callable[[Peer, int], Run]


def _timed(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    value = call()
    spent = time.perf_counter() - begun
    del value
    return spent


def _numbers(size: int) -> Any:
    return np.random.default_rng(0).random(max(2, size // 8))


def _round_trip(peer: Peer, size: int) -> Run:
    def run() -> float:
        times = sorted(_timed(lambda: peer.call(tasks.nothing, 1)) for _ in range(100))
        return times[50]

    return run


def _burst(peer: Peer, size: int) -> Run:
    one = _round_trip(peer, 0)()
    count = int(min(20_000, max(200, 0.3 / one)))
    return lambda: _timed(lambda: peer.burst(tasks.nothing, count)) / count


def _map(peer: Peer, size: int) -> Run:
    spent = _timed(lambda: peer.map(tasks.nothing, list(range(500)))) / 500
    items = list(range(int(min(500_000, max(500, 0.3 / spent)))))
    return lambda: _timed(lambda: peer.map(tasks.nothing, items)) / len(items)


def _array_in(peer: Peer, size: int) -> Run:
    array = peer.keep(_numbers(size))
    return lambda: _timed(lambda: peer.call(tasks.look, array))


def _array_out(peer: Peer, size: int) -> Run:
    return lambda: _timed(lambda: peer.call(tasks.make, size))


def _in_and_out(peer: Peer, size: int) -> Run:
    array = peer.keep(_numbers(size))
    return lambda: _timed(lambda: peer.call(tasks.double, array))


def _nested(peer: Peer, size: int) -> Run:
    nested = peer.keep_nested({"arrays": [_numbers(size // 4) for _ in range(4)]})
    return lambda: _timed(lambda: peer.call(tasks.look_inside, nested))


def _frame(peer: Peer, size: int) -> Run:
    import pandas

    frame = pandas.DataFrame(_numbers(size)[: size // 64 * 8].reshape(-1, 8), columns=list("abcdefgh"))
    return lambda: _timed(lambda: peer.call(tasks.total_of_frame, frame))


# ---- real work -----------------------------------------------------------------------------------


def _stack(peer: Peer, size: int) -> Run:
    frames = [np.random.default_rng(i).random((1024, 1024), np.float32) for i in range(16)]
    dark = np.full((1024, 1024), 0.1, np.float32)

    def run() -> Any:
        kept = [peer.keep(frame) for frame in frames]
        flat = peer.map(tasks.background, kept, [peer.keep(dark)] * len(kept))
        clean = peer.map(tasks.smooth, flat)
        return np.median(peer.map(tasks.normalise, clean, [clean[0]] * len(clean))[::4], axis=0)

    return lambda: _timed(run)


def _monte_carlo(peer: Peer, size: int) -> Run:
    seeds = list(range(64))
    return lambda: _timed(lambda: np.mean(peer.map(tasks.price, seeds, [2000] * len(seeds))))


def _windows(peer: Peer, size: int) -> Run:
    series = _numbers(64 << 20)

    def run() -> Any:
        length = 1 << 18
        kept = [peer.keep(series[i : i + length]) for i in range(0, len(series) - length, length // 2)]
        return sum(peer.map(tasks.spectrum, kept))

    return lambda: _timed(run)


def _windows_shared(peer: Peer, size: int) -> Run:
    series = peer.keep(_numbers(64 << 20))

    def run() -> Any:
        length = 1 << 18
        windows = [series[i : i + length] for i in range(0, len(series) - length, length // 2)]
        return sum(peer.map(tasks.spectrum, windows))

    return lambda: _timed(run)


def _sliding(peer: Peer, size: int) -> Run:
    """Views of one kept array where the package has such; else each window is an array of its own."""
    from shmexec.bench.peers import Ours, Threads

    return _windows_shared(peer, size) if isinstance(peer, Ours | Threads) else _windows(peer, size)


WORKLOADS = {
    "round-trip": Workload("call and its answer, nothing to do", False, _round_trip),
    "burst": Workload("many calls at once, each", False, _burst),
    "map": Workload("map of nothing, each item", False, _map),
    "array-in": Workload("array in", True, _array_in),
    "array-out": Workload("array out", True, _array_out),
    "in-and-out": Workload("array in, array out", True, _in_and_out),
    "nested": Workload("dict with four arrays in", True, _nested),
    "pandas": Workload("DataFrame in", True, _frame),
    "stack": Workload("picture stack: 16 frames, 3 steps", False, _stack),
    "monte-carlo": Workload("Monte Carlo: 64 x 2000 walks", False, _monte_carlo),
    "windows": Workload("sliding windows over 64 MiB: spectra", False, _sliding),
}
# not in the pool that the others use: a process of their own for each run
ALONE = {
    "startup": "new interpreter: import, pool, first answer",
    "memory": "peak memory of 8 arrays in and 8 out, over their size",
}
