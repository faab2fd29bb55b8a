"""Measures a run: bytes that are pickled, bytes through the parent's pipes, peak memory of the process tree.

Purpose: numbers for two executors that mean the same thing for both.

Guarantees: sampling takes at most about a twentieth of one core, however large the processes are.

Assumptions: Linux's /proc for memory and pipes; elsewhere these two are None, "not measured".
"""

import os
import pickle
import threading
import time
from pathlib import Path
from typing import Any

_PROC = Path("/proc")


class PickledBytes:
    """What ProcessPoolExecutor writes into its pipes for the values that are added.

    Counted, once: the pickle of each argument as it goes and of each result as it comes, that is, every byte
    of every array in them and the few bytes around. Not counted: the function's name, and that pickling,
    writing, reading and unpickling each move the same bytes again.
    """

    def __init__(self) -> None:
        self.arguments = 0
        self.results = 0

    def add_argument(self, value: object) -> None:
        self.arguments += pickled_size(value)

    def add_result(self, value: object) -> None:
        self.results += pickled_size(value)


def pickled_size(value: object) -> int:
    """Length of the value's pickle; the arrays in it are measured out of band, not copied."""
    buffers: list[int] = []

    def measure(buffer: pickle.PickleBuffer) -> None:
        buffers.append(buffer.raw().nbytes)

    return len(pickle.dumps(value, protocol=5, buffer_callback=measure)) + sum(buffers)


def bytes_read_and_written() -> int | None:
    """By this process through system calls, since it began: with a ProcessPoolExecutor, its pipes."""
    try:
        fields = dict(line.split(": ") for line in (_PROC / "self/io").read_text().splitlines())
    except OSError:
        return None
    return int(fields["rchar"]) + int(fields["wchar"])


class PeakMemory:
    """The largest PSS of this process and all its descendants together, in bytes, during the `with` block.

    PSS, the proportional set size: a page that n processes map counts 1/n in each, so that shared memory
    counts once.
    """

    INTERVAL = 0.1  # seconds
    _LOOK_FOR_PROCESSES = 1.0  # seconds

    def __init__(self) -> None:
        self.peak: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_stopped, name="peak memory", daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()

    def _sample_until_stopped(self) -> None:
        tree: list[int] = []
        looked = -1e9
        while True:
            began = time.monotonic()
            if began - looked > self._LOOK_FOR_PROCESSES:
                tree, looked = process_tree(os.getpid()), began
            total = [pss for pid in tree if (pss := proportional_set_size(pid)) is not None]
            if total:
                self.peak = max(self.peak or 0, sum(total))
            if self._stop.is_set():  # this was the last look
                return
            # The kernel walks every page to answer: rest twenty times as long as that took.
            self._stop.wait(max(self.INTERVAL, 20 * (time.monotonic() - began)))


def proportional_set_size(pid: int) -> int | None:
    """In bytes; None if the process has gone, belongs to another, or the system does not tell."""
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return None


def process_tree(root: int) -> list[int]:
    """The process and its descendants; only itself where there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text(errors="replace")
        except OSError:
            continue
        parent = int(stat.rpartition(")")[2].split()[1])  # the name, in parentheses, may hold anything
        children.setdefault(parent, []).append(int(entry.name))
    tree = [root]
    for pid in tree:  # grows while it is walked
        tree += children.get(pid, [])
    return tree
