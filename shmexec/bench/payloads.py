"""Arrays on their way, by size, and real work."""

from collections.abc import Callable
from typing import Any

import numpy as np

from shmexec.bench import tasks
from shmexec.bench.peers.interface import Peer
from shmexec.bench.timing import Effort, Run, median_of_warm, timed, warmed

_MOST = 200  # calls of which a median is taken


def _warm(peer: Peer, function: Callable[..., Any], argument: Any, effort: Effort) -> Run:
    _all_workers(peer, tasks.nothing)
    return median_of_warm(lambda: peer.call(function, argument), effort.seconds / 3, 1, _MOST)


def _all_workers(peer: Peer, function: Callable[..., Any]) -> None:
    """So many calls at once that each worker has some: what the first one imports is not in the times."""
    peer.burst(function, 8 * peer.workers)


def _numbers(size: int) -> Any:
    return np.random.default_rng(0).random(max(2, size // 8))


def array_in(peer: Peer, size: int, effort: Effort) -> Run:
    array = peer.keep(_numbers(size))
    return _warm(peer, tasks.look, array, effort)


def array_out(peer: Peer, size: int, effort: Effort) -> Run:
    return _warm(peer, tasks.make, size, effort)


def in_and_out(peer: Peer, size: int, effort: Effort) -> Run:
    array = peer.keep(_numbers(size))
    return _warm(peer, tasks.double, array, effort)


def nested_in(peer: Peer, size: int, effort: Effort) -> Run:
    nested = peer.keep_nested({"arrays": [_numbers(size // 4) for _ in range(4)]})
    return _warm(peer, tasks.look_inside, nested, effort)


def frame_in(peer: Peer, size: int, effort: Effort) -> Run:
    import pandas

    frame = pandas.DataFrame(_numbers(size)[: size // 64 * 8].reshape(-1, 8), columns=list("abcdefgh"))
    kept = peer.keep_frame(frame)
    _all_workers(peer, tasks.import_pandas)
    return _warm(peer, tasks.total_of_frame, kept, effort)


# ---- real work -----------------------------------------------------------------------------------


def stack(peer: Peer, size: int, effort: Effort) -> Run:
    frames = [np.random.default_rng(i).random((1024, 1024), np.float32) for i in range(int(16 * effort.part))]
    dark = np.full((1024, 1024), 0.1, np.float32)

    def run() -> Any:
        kept = [peer.keep(frame) for frame in frames]
        flat = peer.stage(tasks.background, kept, [peer.keep(dark)] * len(kept))
        clean = peer.stage(tasks.smooth, flat)
        scaled = peer.stage(tasks.normalise, clean, [clean[0]] * len(clean))
        return np.median(peer.values(scaled[::4]), axis=0)

    return warmed(lambda: timed(run))


def monte_carlo(peer: Peer, size: int, effort: Effort) -> Run:
    seeds = list(range(int(64 * effort.part)))
    return warmed(lambda: timed(lambda: np.mean(peer.map(tasks.price, seeds, [2000] * len(seeds)))))


def windows(peer: Peer, size: int, effort: Effort) -> Run:
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
        return warmed(lambda: timed(by_whole))
    return warmed(lambda: timed(by_window))
