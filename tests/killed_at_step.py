"""A worker, or the parent of one, kills itself right before its n-th store to shared memory, for n = 1, 2, ... until
its script comes to an end; after each death everything has to be as `docs/internals/crash-recovery.md` says.

By hand, for all n (some minutes; the extension is built into a folder of its own first)::

    python tests/killed_at_step.py worker
    python tests/killed_at_step.py parent --method fork

`--stride K --seed S` takes every K-th step, from one that the seed chooses.
"""

import argparse
import ctypes
import gc
import mmap
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
KILL_AT, SPARED, VICTIM, STEPS = range(4)
PR_SET_CHILD_SUBREAPER = 36


# ---- the build ------------------------------------------------------------------------------------


def build(folder):
    """The package in this folder, with an extension that can be killed at any step."""
    for part in "native", "shmexec", "setup.py", "pyproject.toml", "README.md":
        source = HERE.parent / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("_core*.so", "_core.c", "__pycache__"))
        else:
            shutil.copy(source, folder)
    (folder / "tests" / "native").mkdir(parents=True)
    shutil.copy(HERE / "native" / "steps.c", folder / "tests" / "native")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    environment = {**os.environ, "SHMEXEC_TEST_STEPS": "1", "CFLAGS": "-O0"}
    built = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr


def run(folder, *arguments, **options):
    """This file as a program, with that extension."""
    plan = folder / "plan"
    plan.write_bytes(bytes(mmap.PAGESIZE))
    path = os.pathsep.join([str(folder), str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "SHMEXEC_TEST_STEPS": str(plan)}
    command = [sys.executable, __file__, *map(str, arguments), "--built", folder]
    return subprocess.run(command, env=environment, **options)


class Plan:
    """Who dies when: what tests/native/steps.c reads."""

    def __init__(self):
        with open(os.environ["SHMEXEC_TEST_STEPS"], "r+b") as file:
            self._words = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("Q")

    def arm(self, at):
        """The next process but this one that comes to a step dies before its `at`-th."""
        self._words[KILL_AT] = 0
        self._words[SPARED], self._words[VICTIM], self._words[STEPS] = os.getpid(), 0, 0
        self._words[KILL_AT] = at

    def disarm(self):
        """Nobody dies any more. Who was chosen, and how many steps it took."""
        self._words[KILL_AT] = 0
        return self._words[VICTIM], self._words[STEPS]


# ---- the script -----------------------------------------------------------------------------------


def script(make_executor):
    """A pool's life, with every way that a value can cross. What failed: the names of calls."""
    import numpy as np
    import tasks

    import shmexec
    from shmexec import WorkerDied

    shared, plain = shmexec.share(np.arange(6000.0)), np.arange(20_000.0)
    executor = make_executor()
    made = {
        "atoms": (executor.submit(tasks.double, 4), 8),
        "shared": (executor.submit(np.sum, shared), shared.sum()),
        "plain": (executor.submit(tasks.double, plain), plain * 2),
        "long": (executor.submit(tasks.give, list(range(3000))), list(range(3000))),
        "shipped": (executor.submit(lambda x: x + shared[5], 3), 8.0),
        "made there": (executor.submit(tasks.make_shared, 30_000, 7), np.full(30_000, 7.0)),
        "back": (executor.submit(tasks.give, shared), shared),
        "back again": (executor.submit(tasks.give, [shared, shared[1:], plain]), [shared, shared[1:], plain]),
        "raised": (executor.submit(tasks.raise_it, ValueError("x")), ValueError),
    }
    made["forwarded"] = (executor.submit(np.sum, made["made there"][0]), 210_000.0)
    died = []
    for name, (future, wanted) in made.items():
        error = future.exception()
        if isinstance(error, WorkerDied):
            assert name == "forwarded" or error.exitcode == -9, error
            if name != "forwarded" or "made there" not in died:
                died.append(name)
        elif wanted is ValueError:
            assert type(error) is ValueError, (name, error)
        else:
            assert error is None, (name, error)
            assert same(future.result(), wanted), name
    try:
        assert list(executor.map(tasks.add, range(50), range(50))) == list(range(0, 100, 2))
        assert same(list(executor.map(tasks.double, [shared, plain, shared])), [shared * 2, plain * 2, shared * 2])
    except WorkerDied:
        died.append("map")
    counted = executor.stats().workers_died
    executor.shutdown()
    return died, counted


def same(one, other):
    import numpy as np

    if isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return np.array_equal(one, other)


def figures():
    """What must be as it was when all is over: blocks, processes in the heap."""
    from shmexec import _core

    for _ in range(3):
        gc.collect()
    broken = _core.check_heap(True)
    assert broken is None, broken
    return _core.heap_figures()[5], _core.heap_figures()[7]


def made_by(method):
    import shmexec

    context = None if method == "default" else multiprocessing.get_context(method)
    return lambda: shmexec.SharedExecutor(1, context)


# ---- the deaths -----------------------------------------------------------------------------------


def kill_worker(plan, at, method):
    """One death of a worker; False: it has lived through it all."""
    before = figures()
    plan.arm(at)
    died, counted = script(made_by(method))
    victim, steps = plan.disarm()
    was_killed = steps >= at
    assert victim
    assert len(died) <= 1, died
    assert counted <= 1
    assert not died or (was_killed and counted), (died, was_killed, counted)
    assert figures() == before, f"{figures()}, before it was {before}"
    return was_killed, died


def kill_parent(plan, at, method):
    """One death of a process that has a pool, and is itself a member of this process's heap."""
    from shmexec import _core

    before = figures()
    plan.arm(at)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if script(made_by(method)) == ([], 0) else 2
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)  # its workers and its fork server, which are this process's now
    victim, steps = plan.disarm()
    was_killed = steps >= at
    assert victim == pid
    assert code == (-9 if was_killed else 0), code
    _core.reap_dead()
    assert figures() == before, f"{figures()}, before it was {before}"
    return was_killed, []


def main(who, method, seed, stride, seconds):
    """All deaths; the first that leaves anything behind raises."""
    import shmexec

    plan = Plan()
    shmexec.empty(1)
    keeper = made_by(method)()  # keeps the fork server
    if who == "worker":
        assert script(made_by(method)) == ([], 0)
        kill = kill_worker
    else:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        keeper.shutdown()
        kill = kill_parent
    begun, deaths, lived, failed = time.monotonic(), 0, 0, {}
    at = 1 + seed % stride
    while lived < 3 and time.monotonic() - begun < seconds:  # the number of steps is not always the same
        try:
            was_killed, died = kill(plan, at, method)
        except BaseException:
            print(f"killed before step {at}", file=sys.stderr)
            raise
        deaths += was_killed
        lived += not was_killed
        for name in died:
            failed[name] = failed.get(name, 0) + 1
        at += stride
    keeper.shutdown()
    took = time.monotonic() - begun
    print(f"{who}, {method}: {deaths} deaths up to step {at}, in {took:.0f} s; calls that failed: {failed}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("who", choices=["worker", "parent"])
    parser.add_argument("--method", default="default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--built", type=Path)
    options = parser.parse_args()
    if options.built is None:
        with tempfile.TemporaryDirectory() as scratch:
            build(Path(scratch))
            sys.exit(run(Path(scratch), *sys.argv[1:]).returncode)
    main(options.who, options.method, options.seed, options.stride, options.seconds)
