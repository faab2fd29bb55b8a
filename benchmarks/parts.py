"""Where the microseconds of a short call go.

python benchmarks/parts.py
"""

import marshal
import operator
import time
import timeit
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from shmexec import SharedExecutor

COUNT = 100_000
CALLS = 3000


def microseconds(statement: Callable[[], Any]) -> float:
    """Of the fastest of five runs, less what an empty call takes."""
    empty = min(timeit.repeat(lambda: None, number=COUNT, repeat=5))
    return (min(timeit.repeat(statement, number=COUNT, repeat=5)) - empty) / COUNT * 1e6


def main() -> None:
    arguments, number = marshal.dumps((7,), 2), marshal.dumps(-7, 2)
    for name, statement in {
        "dumps of the arguments": lambda: marshal.dumps((7,), 2),
        "loads of the arguments": lambda: marshal.loads(arguments),
        "dumps of the result": lambda: marshal.dumps(-7, 2),
        "loads of the result": lambda: marshal.loads(number),
        "a standard Future": Future,
        "a look at the clock": time.perf_counter,
    }.items():
        print(f"{name:24} {microseconds(statement):6.2f} us")
    with SharedExecutor(2) as executor:
        for _ in range(10):
            begun = time.perf_counter()
            for _ in range(CALLS):
                executor.submit(operator.neg, 7).result()
            round_trip = time.perf_counter() - begun
        begun = time.perf_counter()
        futures = [executor.submit(operator.neg, 7) for _ in range(CALLS)]
        submit = time.perf_counter() - begun
        for future in futures:
            future.result()
        print(f"{'submit':24} {submit / CALLS * 1e6:6.2f} us")
        print(f"{'submit and result':24} {round_trip / CALLS * 1e6:6.2f} us")


if __name__ == "__main__":
    main()
