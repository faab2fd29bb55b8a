"""What it costs to send an array to a worker and to get it back: by size, against the standard library, in one run.

    python benchmarks/transfer.py [--repeat 30] [--largest 1073741824]

Prints medians in microseconds of `executor.submit(identity, array).result()`, the executors in turn in each round,
so that a machine that changes its pace changes it for all. `shared` sends an array of `shmexec.empty`; `plain` an
ordinary one, which is copied once.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any

import numpy as np

import shmexec
from shmexec import SharedExecutor


def identity(array: Any) -> Any:
    return array


def seconds(executor: Executor, array: Any) -> float:
    begun = time.perf_counter()
    executor.submit(identity, array).result()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=30)
    parser.add_argument("--largest", type=int, default=1 << 30, help="bytes")
    options = parser.parse_args()
    print(f"{'bytes':>14} {'stdlib':>12} {'plain':>12} {'shared':>12}   stdlib / shared")
    with ProcessPoolExecutor(1) as stdlib, SharedExecutor(1) as ours:
        seconds(stdlib, 0), seconds(ours, 0)
        size = 1 << 10
        while size <= options.largest:
            shared = shmexec.zeros(size, np.uint8)
            plain = np.zeros(size, np.uint8)
            ways: dict[str, Callable[[], float]] = {
                "plain": lambda plain=plain: seconds(ours, plain),
                "shared": lambda shared=shared: seconds(ours, shared),
            }
            if size <= 1 << 28:  # above, the standard library's pool takes seconds and gigabytes a call
                ways["stdlib"] = lambda plain=plain: seconds(stdlib, plain)
            repeat = options.repeat if size <= 1 << 24 else max(3, options.repeat // 6)
            rounds = [{name: way() for name, way in ways.items()} for _ in range(repeat + 1)][1:]
            median = {name: statistics.median(r[name] for r in rounds) * 1e6 for name in ways}
            ratio = f"{median['stdlib'] / median['shared']:10.1f}" if "stdlib" in median else ""
            figures = [median.get(name, float("nan")) for name in ("stdlib", "plain", "shared")]
            print(f"{size:14,}", *(f"{figure:12.0f}" for figure in figures), f"  {ratio}")
            del shared, plain, ways
            size *= 8


if __name__ == "__main__":
    main()
