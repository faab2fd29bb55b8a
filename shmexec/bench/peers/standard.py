"""The pools of the standard library."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from shmexec.bench.peers.interface import Ability, ApplyPeer, FuturesPeer

if TYPE_CHECKING:
    from multiprocessing.pool import Pool


class Threads(FuturesPeer):
    """`ThreadPoolExecutor`."""

    how = "arrays are the same objects"
    shares_kept = True

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.executor = ThreadPoolExecutor(workers)


class Processes(FuturesPeer):
    """`ProcessPoolExecutor`, by a fork server."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.executor = ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver"))


class MultiprocessingPool(ApplyPeer):
    """`multiprocessing.Pool`."""

    module = "multiprocessing.pool"
    abilities = frozenset({Ability.CHUNKS, Ability.POOLS})
    _pool: "Pool"

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self._pool = multiprocessing.get_context("forkserver").Pool(workers)

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        return self._pool.starmap(function, zip(*columns, strict=True))

    def each(self, function: Callable[..., Any], items: list[Any]) -> list[Any]:
        return self._pool.starmap(function, zip(items, strict=True), chunksize=1)

    def close(self) -> None:
        self._pool.close()
        self._pool.join()
