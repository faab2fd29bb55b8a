"""Kills everything, again and again, and looks at what the kernel has left: `python -m tests.killing --rounds N`.

One round: a process makes a heap and arrays in it, forks two children who make more, and at a random moment all of
them get SIGKILL at once. With --pool it is a SharedExecutor with two workers and work in flight. Afterwards no memory
is left, whatever the kind of segment; no System V segment; and no POSIX name but those of the dead, which the next heap
removes. However many rounds there were: what is tolerated does not grow with them. SHMEXEC_SEGMENT chooses the kind.
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

from tests.kernel_memory import Account

TOUCHED = 4 << 20  # bytes at least that each heap has in a round that is not cut short


def system_v(creators):
    """Ids of System V segments that these processes have made."""
    rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()]
    id_, creator = rows[0].index("shmid"), rows[0].index("cpid")
    return {row[id_] for row in rows[1:] if int(row[creator]) in creators}


def posix(creators):
    """Names in /dev/shm of the segments of these."""
    names = [name for name in os.listdir("/dev/shm") if name.startswith("shmexec-")]
    return {name for name in names if name.split("-")[1] in map(str, creators)}


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


def kill_once(body, account, rng, coming_up):
    """One round; half of them are cut short.

    The process that was killed, whether its heap was in use, and the seconds that it took to come to that.
    """
    with mmap.mmap(-1, mmap.PAGESIZE) as mark:
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            try:
                os.setpgid(0, 0)
                account.join()
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
        return pid, mark[0], coming_up


def run(rounds, seed, *, pool=False):
    """What was done, and what is left: bytes; System V segments and POSIX names, before and after a sweep."""
    importlib.import_module("shmexec.executor")  # so that the rounds are about heaps, and not about imports
    from shmexec import _core

    assert not _core.heap_is_open(), "the rounds have heaps of their own"
    rng = random.Random(seed)
    gc.freeze()
    _core.sweep_segments()
    killed, in_use, coming_up = set(), 0, 0.01
    with Account() as account:
        for _ in range(rounds):
            pid, came, coming_up = kill_once(_pool if pool else _heap_and_children, account, rng, coming_up)
            killed.add(pid)
            in_use += came
        deadline = time.monotonic() + 30  # orphans of the dead are torn down by whoever inherits them
        while system_v(killed) and time.monotonic() < deadline:
            time.sleep(0.05)
        before = len(system_v(killed)), len(posix(killed))
        _core.sweep_segments()
        while posix(killed) and time.monotonic() < deadline:  # one that an orphan has open stays until that is gone
            time.sleep(0.05)
            _core.sweep_segments()
        return {
            "heaps in use when they were killed": in_use,
            "bytes": account.left(),
            "which are": str(account),
            "System V segments": before[0],
            "and after a sweep": len(system_v(killed)),
            "POSIX names": before[1],
            "and then": len(posix(killed)),
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
    return int(left["bytes"] > 0 or left["and after a sweep"] > 0 or left["and then"] > 0)


if __name__ == "__main__":
    sys.exit(main())
