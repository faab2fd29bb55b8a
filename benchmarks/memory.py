"""What memory results of ordinary NumPy code take: the peak of the process tree against the data.

    python benchmarks/memory.py

Eight arrays of 100 MB go in by name and eight come out, made by plain `a * 2` in two workers. Measured is the
proportional set size (PSS, of /proc/<pid>/smaps_rollup) of the parent and its children, sampled every 20 ms, above what
the idle pool takes.
"""

import threading
from pathlib import Path

import numpy as np

from shmexec import SharedExecutor, ones, trim

SIZE = 12_500_000
COUNT = 8


def double(a):
    return a * 2


def tree():
    """The processes below this one, and this one."""
    found, waiting = [], ["self"]
    while waiting:
        process = Path("/proc", waiting.pop())
        found.append(process)
        try:
            for task in (process / "task").iterdir():
                waiting += (task / "children").read_text().split()
        except OSError:  # it has ended
            continue
    return found


def pss():
    """Bytes."""
    total = 0
    for process in tree():
        try:
            lines = (process / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


class Peak(threading.Thread):
    """Samples until it is told to stop."""

    def __init__(self):
        super().__init__(daemon=True)
        self.bytes = 0
        self._over = threading.Event()

    def run(self):
        while not self._over.wait(0.02):
            self.bytes = max(self.bytes, pss())

    def stop(self):
        self._over.set()
        self.join()
        return max(self.bytes, pss())


def main():
    with SharedExecutor(2) as ex:
        list(ex.map(np.ones, [100_000] * 8))
        trim()
        idle = pss()
        peak = Peak()
        peak.start()
        arrays = [ones(SIZE) for _ in range(COUNT)]
        results = list(ex.map(double, arrays))
        above = peak.stop() - idle
        data = sum(a.nbytes for a in arrays + results)
        copied = ex.stats().bytes_copied_out
    print(f"8 in, 8 out: {data / 1e6:,.0f} MB of data, peak PSS of the tree {above / 1e6:,.0f} MB more than idle")
    print(f"peak / data             {above / data:8.3f}")
    print(f"bytes of results copied {copied:8}")


if __name__ == "__main__":
    main()
