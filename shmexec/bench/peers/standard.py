"""The pools of the standard library."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from shmexec.bench.peers.interface import Ability, FuturesPeer, Peer


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


class MultiprocessingPool(Peer):
    """`multiprocessing.Pool`."""

    module = "multiprocessing.pool"
    abilities = frozenset({Ability.CHUNKS, Ability.POOLS})

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self._pool = multiprocessing.get_context("forkserver").Pool(workers)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._pool.apply(function, args)

    def burst(self, function: Callable[..., Any], count: int) -> None:
        results = [self._pool.apply_async(function, (i,)) for i in range(count)]
        for result in results:
            result.get()

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        return self._pool.starmap(function, zip(*columns, strict=True))

    def each(self, function: Callable[..., Any], items: list[Any]) -> list[Any]:
        return self._pool.starmap(function, zip(items, strict=True), chunksize=1)

    def close(self) -> None:
        self._pool.close()
        self._pool.join()
