"""What the results of ordinary NumPy code cost: against threads, and against one copy.

    python benchmarks/results.py

Side by side in one run, on 100 MB of float64 and two workers; medians. Times on a shared machine are noisy, their
ratios less.
"""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import shmexec
from shmexec import SharedExecutor

SIZE = 12_500_000
ROUNDS = 21


def double(a):
    return a * 2


def nothing(a):
    return None


def seconds(call):
    begun = time.perf_counter()
    result = call()
    spent = time.perf_counter() - begun
    del result
    return spent


def main():
    shared = shmexec.share(np.random.default_rng(0).random(SIZE))
    plain = np.array(shared)
    warm = np.empty_like(plain)
    small = np.ones(1)
    with SharedExecutor(2) as processes, ThreadPoolExecutor(2) as threads:
        ways = {
            "a * 2 in a thread": lambda: threads.submit(double, shared).result(),
            "a * 2 by name, result by name": lambda: processes.submit(double, shared).result(),
            "np.copyto to warm memory": lambda: np.copyto(warm, plain),
            "a plain array goes in": lambda: processes.submit(nothing, plain).result(),
            "a call without arrays": lambda: processes.submit(nothing, small).result(),
        }
        times = {name: [] for name in ways}
        for round_number in range(ROUNDS + 2):
            for name, call in ways.items():
                spent = seconds(call)
                if round_number >= 2:  # the first fill the caches
                    times[name].append(spent)
        copied = processes.stats().bytes_copied_out
    middle = {name: statistics.median(values) for name, values in times.items()}
    for name, value in middle.items():
        print(f"{name:32} {1000 * value:8.2f} ms")
    thread, ours, copy, into, _ = middle.values()
    print(f"a * 2: processes / threads       {ours / thread:8.2f}")
    print(f"in: plain / copyto               {into / copy:8.2f}")
    print(f"bytes of results copied          {copied:8}")


if __name__ == "__main__":
    main()
