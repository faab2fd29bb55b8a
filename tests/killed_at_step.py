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
    for part in "steps.c", "sites.h":
        shutil.copy(HERE / "native" / part, folder / "tests" / "native")
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


# ---- the places ---------------------------------------------------------------------------------

SITE_BYTES = 32  # as in tests/native/sites.h


def all_sites():
    """{(file, line)} of each SX_STEP() in native/."""
    found = set()
    for path in (HERE.parent / "native").glob("*.[ch]"):
        if path.name != "_core.c":
            lines = path.read_text().splitlines()
            found |= {
                (path.name, i) for i, line in enumerate(lines, 1) if "SX_STEP()" in line and "#define" not in line
            }
    return found


# Functions that the script below does not come to, or not in each run: the program in tests/native that does.
ELSEWHERE = {
    ("extent.c", "rebuild"): "adoption",
    ("extent.c", "sx_extent_adopt"): "adoption",
    ("extent.c", "sx_extent_claim_huge"): "kill_points",
    ("extent.c", "sx_extent_drop_huge"): "kill_points",
    ("heap.c", "unreserve"): "sizes",
    ("hub.c", "sx_hub_begin_sleep"): "handovers",
    ("hub.c", "sx_hub_leave"): "handovers",  # by chance here: an answer that comes just then
    ("hub.c", "sx_hub_pass"): "handovers",
    ("pages.c", "take_idle_page"): "kill_points",
    ("pages.c", "sx_heap_trim"): "kill_points",
    ("ring.c", "sx_task_withdraw"): "messages",
    ("slot.c", "sx_slot_unguard"): "kill_points",
    ("ticket.c", "mark"): "kill_points",
    ("ticket.c", "sx_ticket_claim"): "kill_points",
    ("ticket.c", "sx_ticket_drop_all"): "kill_points",
    ("ticket.c", "sx_ticket_issue"): "kill_points",
}


def visited(path):
    """Those that the processes came to that had this path in SHMEXEC_TEST_SITES."""
    content = path.read_bytes()
    count = int.from_bytes(content[:8], "little")
    assert (count + 1) * SITE_BYTES <= len(content), "more than there is room for"
    texts = (content[i : i + SITE_BYTES] for i in range(SITE_BYTES, (count + 1) * SITE_BYTES, SITE_BYTES))
    parts = (text.partition(b"\n")[0].decode().partition(":") for text in texts)
    return {(name, int(line)) for name, _, line in parts}


def name_of(site):
    """(file, function): what a site is called however many lines come before it."""
    file, line = site
    lines = (HERE.parent / "native" / file).read_text().splitlines()
    heads = [text for text in lines[:line] if text.endswith("{") and not text.startswith((" ", "}", "enum", "typedef"))]
    return file, heads[-1].partition("(")[0].split()[-1].lstrip("*")


# ---- the script -----------------------------------------------------------------------------------


WRAPS = range(20, 40)  # calls with bytes, which together need more room than a ring has
MAPPED = range(50, 100)
CALLS = 100


def script(make_executor, runs):
    """A pool's life, with every way that a value can cross. What failed: the names of calls."""
    import counted
    import numpy as np
    import tasks

    import shmexec
    from shmexec import WorkerDied

    runs[:] = 0
    shared, plain, gate = shmexec.share(np.arange(6000.0)), np.arange(20_000.0), shmexec.zeros(1)
    executor = make_executor(counted.come_up, runs)
    numbers = {}

    def send(name, wanted, function, *arguments, to=executor):
        numbers[name] = number = len(numbers)
        return to.submit(function, number, *arguments), wanted

    made = {
        "shared": (executor.submit(np.sum, shared), shared.sum()),
        "back": (executor.submit(tasks.give, shared), shared),
        "shipped": (executor.submit(lambda x: x + shared[5], 3), 8.0),
        "atoms": send("atoms", 8, counted.double, 4),
        "summed": send("summed", shared.sum(), counted.total, shared),
        "plain": send("plain", plain * 2, counted.run, tasks.double, plain),
        "long": send("long", list(range(3000)), counted.run, tasks.give, list(range(3000))),
        "made there": send("made there", np.full(30_000, 7.0), counted.run, tasks.make_shared, 30_000, 7),
        "back again": send(
            "back again", [shared, shared[1:], plain], counted.run, tasks.give, [shared, shared[1:], plain]
        ),
        "raised": send("raised", ValueError, counted.run, tasks.raise_it, ValueError("x")),
        "reported": send("reported", "half of it", counted.report, "half of it"),
        "shrunk": send("shrunk", np.ones(29_000), counted.shrink, 30_000, 29_000),
        "trimmed": send("trimmed", None, counted.trim),
        "limited": send("limited", 6, counted.double, 3, to=executor.options(timeout=1000)),
    }
    made["forwarded"] = send("forwarded", 210_000.0, counted.total, made["made there"][0])
    made["gate"] = send("gate", len(numbers), counted.pass_gate, gate)
    while not runs[numbers["gate"]] and not made["gate"][0].done():
        time.sleep(0.0005)
    withdrawn = {name: send(name, 10, counted.double, 5) for name in ("withdrawn", "withdrawn too")}
    cancelled = set()
    if not made["gate"][0].done():  # its worker is at the gate, and cannot have begun them; nor is it ended for them
        assert all(map(executor.cancel, (future for future, _ in withdrawn.values())))
        cancelled = set(withdrawn)
    gate[0] = 1
    made.update({name: one for name, one in withdrawn.items() if name not in cancelled})
    for i in WRAPS:
        made[f"wrap {i}"] = executor.submit(counted.run, i, tasks.give, bytes([i]) * 2000), bytes([i]) * 2000
        numbers[f"wrap {i}"] = i
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
        if name in numbers:
            assert runs[numbers[name]] == 1 or (error and runs[numbers[name]] == 0), (name, runs[numbers[name]], error)
    assert not any(runs[numbers[name]] for name in cancelled), "was begun, and cancelled"
    try:
        doubled = executor.map(counted.double, MAPPED, range(50), chunksize=5)
        assert list(doubled) == list(range(0, 100, 2))
        assert (runs[MAPPED.start : MAPPED.stop] == 1).all()
        assert list(executor.map(tasks.add, range(50), range(50))) == list(range(0, 100, 2))
        assert same(list(executor.map(tasks.double, [shared, plain, shared])), [shared * 2, plain * 2, shared * 2])
    except WorkerDied:
        died.append("map")
    stats = executor.stats().workers_died
    executor.shutdown()
    check_runs(runs)
    return died, stats


def check_runs(runs):
    """Whoever died: nothing was run again."""
    assert (runs <= 1).all(), f"calls that were run again: {runs}"


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
    return lambda come_up=None, *given: shmexec.SharedExecutor(1, context, come_up, given)


# ---- the deaths -----------------------------------------------------------------------------------


def kill_worker(plan, at, method, runs):
    """One death of a worker; False: it has lived through it all."""
    before = figures()
    plan.arm(at)
    died, counted = script(made_by(method), runs)
    victim, steps = plan.disarm()
    was_killed = steps >= at
    assert victim
    assert len(died) <= 1, died
    assert counted <= 1
    assert not died or (was_killed and counted), (died, was_killed, counted)
    assert figures() == before, f"{figures()}, before it was {before}"
    return was_killed, died


def kill_parent(plan, at, method, runs):
    """One death of a process that has a pool, and is itself a member of this process's heap."""
    from shmexec import _core

    before = figures()
    plan.arm(at)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if script(made_by(method), runs) == ([], 0) else 2
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
    check_runs(runs)
    _core.reap_dead()
    assert figures() == before, f"{figures()}, before it was {before}"
    return was_killed, []


def main(who, method, seed, stride, seconds):
    """All deaths; the first that leaves anything behind raises."""
    import shmexec

    plan = Plan()
    runs = shmexec.zeros(CALLS, "i4")
    keeper = made_by(method)()  # keeps the fork server
    if who == "worker":
        assert script(made_by(method), runs) == ([], 0)
        kill = kill_worker
    else:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        keeper.shutdown()
        kill = kill_parent
    begun, deaths, lived, failed = time.monotonic(), 0, 0, {}
    at = 1 + seed % stride
    while lived < 3 and time.monotonic() - begun < seconds:  # the number of steps is not always the same
        try:
            was_killed, died = kill(plan, at, method, runs)
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
