"""Calls one after the other when the pool has rested, and beside busy loops of other processes.

python benchmarks/rested.py [--workers 2] [--rests 20] [--busy 1]
"""

import argparse
import operator
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import shmexec
from shmexec.bench.timing import timed

_CALLS = 400
_REST = 0.5  # seconds


def call(executor: shmexec.SharedExecutor) -> float:
    """Seconds of one call and its result."""
    return timed(lambda: executor.submit(operator.neg, 1).result())


def after_a_rest(executor: shmexec.SharedExecutor) -> list[float]:
    """Seconds of each of some calls."""
    time.sleep(_REST)
    return [call(executor) for _ in range(_CALLS)]


def for_seconds(executor: shmexec.SharedExecutor, seconds: float) -> list[float]:
    """Seconds of each of as many as there is time for."""
    end = time.perf_counter() + seconds
    found = []
    while time.perf_counter() < end:
        found.append(call(executor))
    return found


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """So many processes that compute."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def spread(values: list[float], scale: float) -> str:
    """Least to most: one of ten, the median, nine of ten."""
    ordered = sorted(values)
    return "  ".join(f"{ordered[int(len(ordered) * part)] * scale:8.2f}" for part in (0.1, 0.5, 0.9))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rests", type=int, default=20)
    parser.add_argument("--busy", type=int, default=1, help="processes that compute besides")
    chosen = parser.parse_args()
    with shmexec.SharedExecutor(chosen.workers) as executor:
        for_seconds(executor, 0.2)
        rows = [after_a_rest(executor) for _ in range(chosen.rests)]
        print(f"{'':32}{'10 %':>8}  {'50 %':>8}  {'90 %':>8}")
        print(f"{f'first call after {_REST} s [us]':32}{spread([row[0] for row in rows], 1e6)}")
        print(f"{f'first {_CALLS} calls [ms]':32}{spread([sum(row) for row in rows], 1e3)}")
        with busy_loops(chosen.busy):
            found = for_seconds(executor, 2.0)
        each = f"each, beside {chosen.busy} busy loops [us]"
        print(f"{each:32}{spread(found, 1e6)}   {len(found) / 2:,.0f} calls a second")


if __name__ == "__main__":
    main()
