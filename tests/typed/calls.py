"""What type checkers make of `submit` and `map`; nothing here is run. `tests/test_typing.py` has it checked."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import shmexec
from shmexec import SharedArrayProcessPoolExecutor, SharedExecutor


def count(text: str, *, base: int = 10) -> int:
    return int(text, base)


def scaled(a: NDArray[np.float64], by: float) -> NDArray[np.float64]:
    return a * by


class Model:
    def __init__(self, size: int) -> None:
        self.size = size

    def fit(self, a: NDArray[np.float64]) -> "Model":
        return self


def submitted(ex: SharedExecutor, a: NDArray[np.float64]) -> None:
    assert_type(ex.submit(count, "1"), Future[int])
    assert_type(ex.submit(count, "1", base=8).result(), int)
    assert_type(ex.submit(Model, 3), Future[Model])
    assert_type(ex.submit(Model(3).fit, a).result(), Model)
    assert_type(ex.submit(scaled, a, 2.0), Future[NDArray[np.float64]])
    assert_type(ex.submit(lambda: "text").result(), str)
    assert_type(ex.submit(sum, [1, 2]).result(), int)


def submitted_with_futures(ex: SharedExecutor, a: NDArray[np.float64], by: Future[float]) -> None:
    first = ex.submit(scaled, a, 2.0)
    assert_type(ex.submit(scaled, first, 2.0), Future[NDArray[np.float64]])
    assert_type(ex.submit(scaled, a, by), Future[NDArray[np.float64]])
    assert_type(ex.submit(scaled, first, by=3.0), Future[NDArray[np.float64]])


def submitted_wrongly(ex: SharedExecutor, a: NDArray[np.float64]) -> None:
    ex.submit(count, 1)  # WRONG
    ex.submit(count, "1", bass=8)  # WRONG
    ex.submit(scaled, a)  # WRONG
    ex.submit(5)  # WRONG
    ex.submit()  # WRONG
    ex.map(5, [1])  # WRONG
    SharedExecutor("2")  # WRONG
    SharedExecutor(on_worker_death="ignore")  # WRONG


def mapped(ex: SharedExecutor, arrays: list[NDArray[np.float64]]) -> None:
    assert_type(ex.map(count, ["1", "2"]), Iterator[int])
    assert_type(list(ex.map(scaled, arrays, [1.0, 2.0], timeout=3, chunksize=2)), list[NDArray[np.float64]])
    assert_type(next(ex.map(lambda x: f"{x}", range(3), buffersize=2)), str)


def limited(ex: SharedExecutor, a: NDArray[np.float64]) -> None:
    retried = ex.options(timeout=3, retries=1)
    assert_type(retried.submit(count, "1"), Future[int])
    assert_type(retried.map(count, ["1", "2"]), Iterator[int])
    first = retried.submit(scaled, a, 2.0)
    assert_type(retried.submit(scaled, first, by=3.0), Future[NDArray[np.float64]])
    retried.submit(count, 1)  # WRONG
    ex.options(timeout="3")  # WRONG


def wished(ex: SharedExecutor, a: NDArray[np.float64]) -> None:
    assert_type(ex.submit(scaled, shmexec.readonly(a), 2.0).result(), NDArray[np.float64])
    assert_type(shmexec.private(a), NDArray[np.float64])
    assert_type(shmexec.heap_info().bytes_in_use, int)
    assert_type(ex.stats().calls_done, int)
    error = ex.submit(count, "1").exception()
    if isinstance(error, shmexec.WorkerDied):
        assert_type(error.pid, int)
        assert_type(error.exitcode, int | None)


def in_place(ex: SharedArrayProcessPoolExecutor) -> tuple[ProcessPoolExecutor, Executor, int]:
    with ex as same:
        assert_type(same, SharedArrayProcessPoolExecutor)
    return ex, ex, ex._max_workers


async def awaited(ex: SharedExecutor) -> None:
    loop = asyncio.get_running_loop()
    assert_type(await loop.run_in_executor(ex, count, "1"), int)
    assert_type(await asyncio.wrap_future(ex.submit(count, "1")), int)


def anything(ex: SharedExecutor, fn: Any, *args: Any, **options: Any) -> Any:
    return ex.submit(fn, *args, **options).result()
