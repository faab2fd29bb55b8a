"""Kills everything, again and again, and looks at what the kernel has left: `python -m tests.killing --rounds N`.

One round: a process makes a heap and arrays in it, forks two children who make more, and at a random moment all of
them get SIGKILL at once. With --pool it is a SharedExecutor with two workers and work in flight. Afterwards no memory
is left, whatever the kind of segment; no System V segment; and no POSIX name but those of the dead, which the next heap
removes. SHMEXEC_SEGMENT chooses the kind.
"""

import argparse
import gc
import importlib
import mmap
import os
import random
import signal
import sys
import time
from pathlib import Path

TOUCHED = 4 << 20  # bytes at least that each heap has in a round that is not cut short


def shared_memory():
    """Bytes that the kernel has in shared memory of any kind."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Shmem:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("/proc/meminfo does not tell")


def system_v():
    """Ids of System V segments of this user."""
    rows = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return {row.split()[1] for row in rows if row.split()[7] == str(os.geteuid())}


def posix():
    return {name for name in os.listdir("/dev/shm") if name.startswith("shmexec-")}


def _heap_and_children(came_so_far):
    import shmexec

    array = shmexec.ones(TOUCHED // 8)
    came_so_far()
    for _ in range(2):
        if os.fork() == 0:
            break
    while True:
        other = shmexec.ones(random.randrange(1, 1 << 18))
        array[: other.size // 4] = 2
        del other


def _pool(came_so_far):
    import numpy as np

    import shmexec

    array = shmexec.ones(TOUCHED // 8)
    with shmexec.SharedExecutor(2) as executor:
        executor.submit(int).result()
        came_so_far()
        for _ in executor.map(np.sqrt, [array] * 100_000, buffersize=8):
            pass


def kill_once(body, rng, coming_up):
    """One round; half of them are cut short.

    Whether the heap was in use, and the seconds that it took to come to that.
    """
    with mmap.mmap(-1, mmap.PAGESIZE) as mark:
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            try:
                os.setpgid(0, 0)
                random.seed(rng.random())
                body(lambda: mark.write_byte(1))
            finally:
                os._exit(1)
        try:
            os.setpgid(pid, pid)
        except PermissionError:  # it has done so itself
            pass
        if rng.random() < 0.5:
            time.sleep(rng.random() * coming_up)
        else:
            while not mark[0] and time.monotonic() < began + 60:
                time.sleep(0.0005)
            coming_up = time.monotonic() - began
            time.sleep(rng.random() * 0.005)
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return mark[0], coming_up


def run(rounds, seed, *, pool=False):
    """What was done, and what is left: bytes; System V segments and POSIX names, before and after a sweep."""
    importlib.import_module("shmexec.executor")  # so that the rounds are about heaps, and not about imports
    from shmexec import _core

    assert not _core.heap_is_open(), "the rounds have heaps of their own"
    rng = random.Random(seed)
    gc.freeze()
    _core.sweep_segments()
    memory, segments, names = shared_memory(), system_v(), posix()
    in_use, coming_up = 0, 0.01
    for _ in range(rounds):
        came, coming_up = kill_once(_pool if pool else _heap_and_children, rng, coming_up)
        in_use += came
    deadline = time.monotonic() + 30  # orphans of the dead are torn down by whoever inherits them
    while system_v() - segments and time.monotonic() < deadline:
        time.sleep(0.05)
    before = len(system_v() - segments), len(posix() - names)
    _core.sweep_segments()
    while posix() - names and time.monotonic() < deadline:  # one that an orphan has open stays until that is gone
        time.sleep(0.05)
        _core.sweep_segments()
    after = len(system_v() - segments), len(posix() - names)
    while shared_memory() > memory + rounds * TOUCHED // 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    return {
        "heaps in use when they were killed": in_use,
        "bytes": shared_memory() - memory,
        "System V segments": before[0],
        "and after a sweep": after[0],
        "POSIX names": before[1],
        "and then": after[1],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pool", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()
    left = run(options.rounds, options.seed, pool=options.pool)
    kind = os.environ.get("SHMEXEC_SEGMENT") or "memfd"
    print(f"{kind}: {options.rounds} rounds in {time.monotonic() - began:.0f} s, seed {options.seed}; {left}")
    return int(left["bytes"] > options.rounds * TOUCHED // 2 or left["and after a sweep"] > 0 or left["and then"] > 0)


if __name__ == "__main__":
    sys.exit(main())
