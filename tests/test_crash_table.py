"""The table of docs/internals/crash-recovery.md: who dies, how, and at which stage; what the user sees of it.

What only C knows of (taking a task, allocating, publishing) is in test_killed_at_step.py; deaths in user code and of
idle workers under every start method, and those that break a pool, are in test_death.py.
"""

import os
import signal
import threading
from pathlib import Path

import faults
import numpy as np
import pytest
import sequencer
import tasks
import ways

import shmexec
from shmexec import WorkerDied


@pytest.fixture(params=faults.DEATHS)
def death(request, tmp_path):
    """A way to die, which workers can be sent."""
    if "SIGSTOP" not in request.param:
        yield faults.Death(request.param)
        return
    killer = sequencer.Killer(tmp_path / "stopped")
    yield faults.Death(request.param, killer.path)
    killer.close()


def other_calls_go_on(executor):
    shared, plain = shmexec.ones(10_000), np.ones(10_000)
    assert list(executor.map(np.sum, [shared, plain, 3])) == [10_000, 10_000, 3]
    assert executor.submit(tasks.make_shared, 10_000, 2).result().sum() == 20_000


# ---- a worker dies while it does something for a call: this call fails, and no other -----------------


GUILTY = {
    "unpickling its arguments": lambda death: (tasks.give, [np.ones(9000), faults.DiesInUnpickling(death)]),
    "in user code": lambda death: (death, np.ones(9000)),
    "pickling its result": lambda death: (faults.die_in_pickling, death, np.ones(9000), np.ones(9)),
}


@pytest.mark.parametrize("stage", GUILTY)
def test_a_worker_that_dies_over_a_call_fails_that_call_alone(make_executor, death, stage):
    executor = make_executor(2)
    function, *args = GUILTY[stage](death)
    for way in ways.WAYS.values():
        if way is ways.by_map and len(args) > 1:
            executor.submit(tasks.pid).result()
        error = way(executor, function, *args)
        assert isinstance(error, WorkerDied)
        assert error.exitcode == faults.DEATHS[death.how]
        assert sequencer.is_gone(error.pid)
        assert error.call in (getattr(function, "__qualname__", ""), "Death")
        other_calls_go_on(executor)
    assert executor.stats().workers_died == len(ways.WAYS)


# ---- a worker dies while it does nothing for a call: nobody sees it -----------------------------------


def test_a_worker_that_dies_idle_fails_nothing(make_executor, gate, death):
    executor = make_executor(1)
    for times, way in enumerate(ways.WAYS.values()):
        now = gate(str(times))
        pid = executor.submit(faults.die_in_thread, death, now).result()
        now.open()
        sequencer.wait_until(lambda pid=pid: sequencer.is_gone(pid))
        assert way(executor, tasks.double, times) == 2 * times
    assert executor.stats().workers_died == len(ways.WAYS)


@pytest.mark.parametrize("stage", ["starting", "initializing"])
def test_a_worker_that_dies_as_it_comes_up_fails_nothing(make_executor, tmp_path, death, stage):
    every_other = faults.EveryOther(death, tmp_path / "times")
    if stage == "starting":
        executor = make_executor(1, None, print, (every_other.when_unpickled(),), max_tasks_per_child=1)
    else:
        executor = make_executor(1, None, every_other, max_tasks_per_child=1)
    for number, way in enumerate(ways.WAYS.values()):
        assert way(executor, tasks.double, number) == 2 * number
    executor.shutdown()
    assert executor.stats().workers_died >= len(ways.WAYS)


def test_a_worker_that_is_killed_before_anything_of_it_has_run_fails_nothing(make_executor):
    for number, way in enumerate(ways.WAYS.values()):
        executor = make_executor(1)
        executor.submit(tasks.double, 0)
        for process in executor._processes.values():
            process.kill()
        assert way(executor, tasks.double, number) == 2 * number
        executor.shutdown()


def test_a_worker_that_dies_as_it_ends_fails_nothing(make_executor, death):
    for number, way in enumerate(ways.WAYS.values()):
        executor = make_executor(2, finalizer=death)
        assert way(executor, tasks.double, number) == 2 * number
        executor.shutdown()
        assert executor.stats().workers_died == 0  # it had been told to end


def test_a_worker_that_dies_as_it_ends_after_its_last_call_fails_nothing(make_executor, death):
    executor = make_executor(1, finalizer=death, max_tasks_per_child=1)
    for number, way in enumerate(ways.WAYS.values()):
        assert way(executor, tasks.double, number) == 2 * number
    executor.shutdown()
    assert executor.stats().workers_died == 0


# ---- the fork server ---------------------------------------------------------------------------------


def server_of(executor):
    pid = next(iter(executor._processes))
    server = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert server != os.getpid()
    return server


def test_a_fork_server_that_dies_while_calls_run_fails_nothing(make_executor, gate):
    executor = make_executor(2)
    say, wait = gate("say"), gate("wait")
    busy = [executor.submit(tasks.pass_gates, say, wait, i) for i in range(2)]
    for _ in busy:
        say.wait_open()
    os.kill(server_of(executor), signal.SIGKILL)
    wait.open(2)
    assert [future.result() for future in busy] == [0, 1]
    for way in ways.WAYS.values():
        error = way(executor, faults.Death())
        assert isinstance(error, WorkerDied)
        assert error.exitcode in (-9, 255)  # nobody could tell: its parent was the dead server
        other_calls_go_on(executor)


def test_a_fork_server_that_dies_over_a_start_fails_nothing(make_executor):
    executor = make_executor(2)
    executor.submit(tasks.double, 0).result()
    server = server_of(executor)
    os.kill(server, signal.SIGSTOP)
    made = []
    starts = threading.Thread(target=lambda: made.extend(executor.submit(tasks.double, i) for i in range(9)))
    starts.start()  # a second worker
    os.kill(server, signal.SIGKILL)
    starts.join()
    assert [future.result() for future in made] == list(range(0, 18, 2))
    other_calls_go_on(executor)


# ---- the parent: nothing survives it ------------------------------------------------------------------

PARENT = """
import ctypes, os, signal, sys, time
import faults, numpy as np, shmexec, tasks
from sequencer import Gate

stage, said = sys.argv[1:]

def say():
    descriptor = os.open(said, os.O_WRONLY)
    os.write(descriptor, b".")
    os.close(descriptor)

def stay(*_):
    say()
    while True:
        time.sleep(1000)

def keep_the_gil(*_):
    mutex = ctypes.create_string_buffer(256)
    say()
    for _ in range(2):
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)

class StaysInPickling:
    def __reduce__(self):
        stay()

kept = shmexec.ones(100_000)
options = {"initializing": {"initializer": stay}, "ending": {"finalizer": say}}.get(stage, {})
ex = shmexec.SharedExecutor(2, **options)
calls = {
    "idle": lambda: ex.submit(say).result(),
    "starting": lambda: (ex.submit(tasks.double, 1), say()),
    "initializing": lambda: ex.submit(tasks.double, 1),
    "unpickling": lambda: ex.submit(tasks.give, [kept, faults.WhenUnpickled(stay)]),
    "in user code": lambda: [ex.submit(stay, np.ones(9000)) for _ in range(9)],
    "in C with the GIL": lambda: [ex.submit(keep_the_gil, kept) for _ in range(9)],
    "pickling its result": lambda: ex.submit(lambda: [np.ones(9000), StaysInPickling()]),
    "ending": lambda: (ex.submit(tasks.double, 1), ex.shutdown(wait=False)),
    "nothing": say,
}
calls[stage]()
sys.stdin.read()
os._exit(3)
"""
PARENTS = ["nothing", "starting", "initializing", "idle", "unpickling", "in user code", "in C with the GIL"]
PARENTS += ["pickling its result", "ending"]


def start_parent(script, gate, stage):
    said = gate("said")
    program = script.start(PARENT, stage, said.__getstate__())
    said.wait_open()
    return program


@pytest.mark.parametrize("stage", PARENTS)
def test_nothing_survives_a_parent_that_is_killed(script, gate, relatives, stage):
    with start_parent(script, gate, stage) as program:
        program.kill()
    assert program.returncode == -signal.SIGKILL
    sequencer.wait_until(lambda: not relatives())


def test_nothing_survives_a_parent_that_leaves_by_os_exit(script, gate, relatives):
    with start_parent(script, gate, "in user code") as program:
        program.stdin.close()
    assert program.returncode == 3
    sequencer.wait_until(lambda: not relatives())


@pytest.mark.parametrize("stage", ["starting", "idle", "in user code", "pickling its result"])
def test_nothing_is_left_when_all_are_killed_at_once(script, gate, relatives, stage):
    with start_parent(script, gate, stage) as program:
        there = [(os.pidfd_open(pid)) for pid, _, _ in relatives()]
        for signum in signal.SIGSTOP, signal.SIGKILL:  # stopped, none ends by itself because another was killed
            for process in there:
                signal.pidfd_send_signal(process, signum)
        for process in there:
            os.close(process)
    assert program.returncode == -signal.SIGKILL
    sequencer.wait_until(lambda: not relatives())
