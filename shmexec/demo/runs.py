"""Runs the batch through ProcessPoolExecutor and through SharedExecutor, and measures both alike."""

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace

from shmexec.demo.batch import Batch, Outcome
from shmexec.demo.pictures import Picture
from shmexec.demo.pipeline import STEPS, get_ready
from shmexec.demo.progress import Progress
from shmexec.measure import PeakMemory, PickledBytes, bytes_read_and_written


@dataclass(frozen=True)
class Bytes:
    """How the arrays of one run travelled. In: arguments; out: results."""

    copied_in: int
    copied_out: int
    by_name_in: int
    by_name_out: int


@dataclass(frozen=True)
class Run:
    """One executor's run. None where the system does not tell."""

    executor: str
    seconds: float
    bytes: Bytes
    through_pipes: int | None
    peak_memory: int | None
    outcomes: list[Outcome]


def run_with_process_pool(pictures: Sequence[Picture], workers: int) -> Run:
    """ProcessPoolExecutor: every array is pickled into a pipe, and counted on its way."""
    pickled = PickledBytes()

    def bytes_moved() -> Bytes:
        return Bytes(pickled.arguments, pickled.results, 0, 0)

    with ProcessPoolExecutor(max_workers=workers) as pool:
        return _measured("ProcessPoolExecutor", pool, pictures, workers, bytes_moved, pickled)


def run_with_shared_executor(pictures: Sequence[Picture], workers: int) -> Run:
    """SharedExecutor: it counts for itself."""
    from shmexec import SharedExecutor

    with SharedExecutor(max_workers=workers) as pool:

        def bytes_moved() -> Bytes:
            stats = pool.stats()
            return Bytes(stats.bytes_copied_in, stats.bytes_copied_out, stats.bytes_by_name_in, stats.bytes_by_name_out)

        return _measured("SharedExecutor", pool, pictures, workers, bytes_moved)


def share_in_place(pictures: list[Picture]) -> float:
    """Put each picture into shared memory, dropping the plain array; returns the seconds that it took."""
    from shmexec import share

    began = time.perf_counter()
    for index, picture in enumerate(pictures):
        pictures[index] = replace(picture, pixels=share(picture.pixels))
    return time.perf_counter() - began


def _measured(
    name: str,
    pool: Executor,
    pictures: Sequence[Picture],
    workers: int,
    bytes_moved: Callable[[], Bytes],
    pickled: PickledBytes | None = None,
) -> Run:
    """The clock runs from the first submission to the last result; the workers have started before."""
    # Also: a pool that forks must have forked before the memory thread starts.
    for started in [pool.submit(get_ready, 0.1) for _ in range(workers)]:
        started.result()
    progress = Progress(name, len(pictures) * len(STEPS), sys.stderr)
    try:
        with PeakMemory() as memory:
            before = bytes_read_and_written()
            began = time.perf_counter()
            outcomes = Batch(pool, workers + 1, progress, pickled).run(pictures)
            seconds = time.perf_counter() - began
            after = bytes_read_and_written()
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        progress.finish()
    through_pipes = None if before is None or after is None else after - before
    return Run(name, seconds, bytes_moved(), through_pipes, memory.peak, outcomes)
