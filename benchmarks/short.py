"""Calls with short arguments and results, beside a thread pool: scalars, small arrays, containers of them, keywords.

python benchmarks/short.py [--workers 2] [--calls 400]
"""

import argparse
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np

import shmexec
from shmexec.bench.timing import median_of_warm


def give(x: Any) -> Any:
    """What it is given."""
    return x


def scale(x: Any, by: float = 1.0) -> float:
    """With a keyword."""
    return by


def mean(a: Any) -> Any:
    """A NumPy scalar."""
    return a[:10].mean()


def figures(a: Any) -> dict[str, Any]:
    """What a measurement is."""
    return {"mean": a.mean(), "count": len(a), "first": a[:10]}


def make(size: int) -> Any:
    """A small array."""
    return np.ones(size)


def median(executor: Executor, count: int, function: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
    """Microseconds of a call and its result."""
    return median_of_warm(lambda: executor.submit(function, *args, **kwargs).result(), 0.0, count, count)() * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--calls", type=int, default=400)
    chosen = parser.parse_args()
    shared, small = shmexec.share(np.arange(100_000.0)), np.ones(128)
    cases: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = {
        "a number in and out": (give, (1,), {}),
        "a keyword": (scale, (1,), {"by": 2.0}),
        "a shared array and a keyword": (scale, (shared,), {"by": 2.0}),
        "a NumPy scalar out": (mean, (shared,), {}),
        "a list in and out": (give, ([1, 2, 3],), {}),
        "1 KiB in": (scale, (small,), {}),
        "1 KiB out": (make, (128,), {}),
        "1 KiB in and out": (give, (small,), {}),
        "a dict of figures out": (figures, (small,), {}),
        "8 KiB in": (scale, (np.ones(1024),), {}),
    }
    print(f"{'us':32}{'shmexec':>10}{'threads':>10}")
    with shmexec.SharedExecutor(chosen.workers) as ours, ThreadPoolExecutor(chosen.workers) as threads:
        for name, (function, args, kwargs) in cases.items():
            for _ in range(2):  # the second counts
                row = [median(executor, chosen.calls, function, *args, **kwargs) for executor in (ours, threads)]
            print(f"{name:32}{row[0]:10.1f}{row[1]:10.1f}")


if __name__ == "__main__":
    main()
