"""Whether cost stays flat as work grows: tasks, waiting tasks, workers, live arrays.

python benchmarks/growth.py [--largest 1000000]
"""

import argparse
import gc
import operator
import os
import time
from pathlib import Path

import numpy as np

import shmexec

_ARRAY_BYTES = 1 << 17


def resident() -> int:
    """Bytes of this process, without what is shared."""
    pages = Path("/proc/self/statm").read_text().split()
    return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")


def burst(executor: shmexec.SharedExecutor, count: int) -> float:
    """Seconds for so many calls, all submitted before the first result is asked for."""
    begun = time.perf_counter()
    futures = [executor.submit(operator.neg, i) for i in range(count)]
    for future in futures:
        future.result()
    return time.perf_counter() - begun


def round_trip(executor: shmexec.SharedExecutor, count: int = 2000) -> float:
    """Median seconds of a call and its result."""
    seconds = []
    for i in range(count):
        begun = time.perf_counter()
        executor.submit(operator.neg, i).result()
        seconds.append(time.perf_counter() - begun)
    return sorted(seconds)[count // 2]


def array_trip(executor: shmexec.SharedExecutor, array: np.ndarray, count: int = 300) -> float:
    """Median seconds of a call with a shared array."""
    seconds = []
    for _ in range(count):
        begun = time.perf_counter()
        executor.submit(len, array).result()
        seconds.append(time.perf_counter() - begun)
    return sorted(seconds)[count // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", type=int, default=1_000_000, help="tasks of the largest burst")
    largest = parser.parse_args().largest
    with shmexec.SharedExecutor(2) as executor:
        burst(executor, 1000)
        count = 100
        while count <= largest:
            seconds = min(burst(executor, count) for _ in range(3 if count < 100_000 else 1))
            print(f"burst of {count:>9,}: {seconds / count * 1e6:6.2f} us a task")
            count *= 10
        waiting = min(largest, 200_000)
        executor.submit(time.sleep, 0.0).result()
        for _ in range(2):  # both workers are busy
            executor.submit(time.sleep, 2.0)
        gc.collect()
        before = resident()
        futures = [executor.submit(operator.neg, i) for i in range(waiting)]
        print(f"waiting task: {(resident() - before) / waiting:,.0f} bytes ({waiting:,} of them)")
        for future in futures:
            future.result()
        del futures
    for workers in (2, 4, 16, 64):
        with shmexec.SharedExecutor(workers) as executor:
            list(executor.map(operator.neg, range(workers * 50), chunksize=1))
            print(
                f"{workers:>3} workers: round trip {round_trip(executor) * 1e6:6.1f} us, "
                f"burst of 20,000 {20_000 / burst(executor, 20_000):10,.0f} tasks/s"
            )
    with shmexec.SharedExecutor(1) as executor:
        array = shmexec.ones(_ARRAY_BYTES // 8)
        array_trip(executor, array)
        for live in (10, 1000, 100_000):
            others = [shmexec.empty(64) for _ in range(live)]
            print(f"{live:>7,} live arrays: call with one of 128 KiB {array_trip(executor, array) * 1e6:6.1f} us")
            del others
        for size in (1 << 17, 1 << 26, 1 << 30):
            array = shmexec.empty(size // 8)
            array[:: 1 << 18] = 1
            print(f"array of {size >> 10:>9,} KiB: {array_trip(executor, array) * 1e6:6.1f} us a call")


if __name__ == "__main__":
    main()
