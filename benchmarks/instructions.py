"""Instructions that a call of nothing takes, in the parent and in the worker, as valgrind's callgrind counts them.

python benchmarks/instructions.py

Needs valgrind. Each pool runs twice, a few calls and many; what the second took more, divided by the calls that it made
more, is what is printed: start and end cancel out. On one core, since otherwise what spins while it waits is counted,
and that depends on how slow valgrind makes the other side. What the kernel executes is not counted.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from multiprocessing import get_context
from pathlib import Path
from typing import Any

FEW = 1000
POOLS = {"shmexec": 40_000, "threads": 10_000, "processes": 2000}  # so many more: the shorter a call, the more


def make(name):
    if name == "threads":
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(1)
    if name == "processes":
        from concurrent.futures import ProcessPoolExecutor

        return ProcessPoolExecutor(1, get_context("fork"))
    from shmexec import SharedExecutor

    return SharedExecutor(1, get_context("fork"))


def without_pidfds() -> None:
    """Valgrind 3.19 knows no pidfds: a pipe in the place of each, at whose end a thread waits for the child."""
    children: dict[int, int] = {}
    waitid = os.waitid

    def pidfd_open(pid: int, flags: int = 0) -> int:
        reading, writing = os.pipe()
        if pid != os.getpid():  # that one is for workers that outlive their parent: here it waits for them
            children[reading] = pid

            def wait() -> None:
                waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
                os.close(writing)

            threading.Thread(target=wait, daemon=True).start()
        return reading

    def waitid_of(kind: int, number: int, options: int) -> Any:
        if kind == os.P_PIDFD:
            kind, number = os.P_PID, children[number]
        return waitid(kind, number, options)

    os.pidfd_open, os.waitid = pidfd_open, waitid_of


def call(name: str, count: int) -> None:
    """What runs under valgrind: says the number of its worker."""
    import operator

    without_pidfds()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with make(name) as executor:
        executor.submit(operator.neg, 7).result()
        print(*getattr(executor, "_processes", ()))
        for _ in range(count):
            executor.submit(operator.neg, 7).result()


def counted(name: str, count: int) -> tuple[int, int]:
    """Instructions of the parent and of the worker."""
    with tempfile.TemporaryDirectory() as folder:
        # not on the command line: a worker writes its name over that, and valgrind reads it there again after a fork
        (Path(folder) / ".valgrindrc").write_text(f"--trace-children=yes --callgrind-out-file={folder}/%p\n")
        program = subprocess.Popen(
            ["valgrind", "-q", "--tool=callgrind", sys.executable, Path(__file__).resolve(), "--pool", name,
             "--calls", str(count)],
            stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONHASHSEED": "0"}, cwd=folder,
        )  # fmt: skip
        said, _ = program.communicate()
        if program.returncode:
            raise SystemExit(f"{name}: ended with status {program.returncode}")
        workers = [int(word) for word in said.split()]
        return total(Path(folder), program.pid), sum(total(Path(folder), pid) for pid in workers)


def total(folder: Path, pid: int) -> int:
    text = (folder / str(pid)).read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(("totals:", "summary:")))


def main() -> None:
    parser = argparse.ArgumentParser(description="Instructions of a call of nothing.")
    parser.add_argument("--pool", choices=POOLS, help="run its calls here, uncounted")
    parser.add_argument("--calls", type=int, default=FEW)
    options = parser.parse_args()
    if options.pool:
        call(options.pool, options.calls)
        return
    print(f"{'':12} {'parent':>8} {'worker':>8} {'both':>8}   instructions a call")
    for name, count in POOLS.items():
        few, many = counted(name, FEW), counted(name, FEW + count)
        parent, worker = ((more - less) / count for more, less in zip(many, few, strict=True))
        print(f"{name:12} {parent:8.0f} {worker:8.0f} {parent + worker:8.0f}", flush=True)


if __name__ == "__main__":
    main()
