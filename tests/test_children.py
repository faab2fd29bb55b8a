"""Processes that users start: forks of the parent and of workers, and programs that workers run."""

import concurrent.futures
import fcntl
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker

import numpy as np
import pytest
import sequencer
import tasks

import shmexec

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def code_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_a_fork(function):
    """The exit code of a forked child in which this is run: 0 if it returns True."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = 0 if function() else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    return code_of(pid)


# ---- the parent forks --------------------------------------------------------------------------------


def test_a_fork_while_calls_run_leaves_them_to_the_parent(make_executor, gate):
    executor = make_executor(1)
    say, wait = gate("say"), gate("wait")
    done = executor.submit(tasks.make_shared, 10_000, 3)
    assert done.result().sum() == 30_000
    busy = executor.submit(tasks.pass_gates, say, wait, 5)
    say.wait_open()
    made = [executor.submit(tasks.double, i) for i in range(5)]  # in the ring of the worker
    made += [executor.submit(np.sum, np.ones(10_000)), executor.submit(tasks.double, made[0])]
    results = executor.map(tasks.double, range(100))
    called = []
    made[0].add_done_callback(lambda future: called.append(os.getpid()))

    def child():
        nonlocal results
        broken = [type(future.exception()) is BrokenProcessPool for future in [busy, *made]]
        waited = concurrent.futures.wait(made).not_done == set()
        with pytest.raises(BrokenProcessPool):
            next(results)
        del results
        made.clear()
        gc.collect()  # what it drops must not be cancelled in the parent
        executor.shutdown()
        return all(broken) and waited and not called and done.result().sum() == 30_000

    assert in_a_fork(child) == 0
    wait.open()
    assert [future.result() for future in made] == [0, 2, 4, 6, 8, 10_000, 0]
    assert busy.result() == 5
    assert list(results) == list(range(0, 200, 2))
    sequencer.wait_until(lambda: called == [os.getpid()])


def test_a_map_that_goes_in_a_fork_takes_nothing_from_the_parent(make_executor, gate):
    executor = make_executor(1)
    say, wait = gate("say"), gate("wait")
    busy = executor.submit(tasks.pass_gates, say, wait, 5)
    say.wait_open()
    results = [executor.map(tasks.double, range(100)), executor.map(tasks.double, range(100), chunksize=7)]
    assert in_a_fork(lambda: (results.clear(), gc.collect()) is not None) == 0
    wait.open()
    assert busy.result() == 5
    assert [list(one) for one in results] == [list(range(0, 200, 2))] * 2


def test_forks_of_a_parent_with_busy_threads_neither_hang_nor_disturb(executor):
    stop, sums = threading.Event(), []

    def submit():
        for i in itertools.count():
            shared = shmexec.ones(10_000 + i % 5)
            sums.append(executor.submit(np.sum, shared).result() - shared.size)
            sums.append(sum(executor.map(tasks.double, range(5))) - 20)
            if stop.is_set():
                return

    def child():
        array = shmexec.ones(50_000)
        with shmexec.SharedExecutor(1) as own:
            return own.submit(np.sum, array).result() == 50_000

    threads = [threading.Thread(target=submit) for _ in range(2)]
    for thread in threads:
        thread.start()
    codes = [in_a_fork(child) for _ in range(8)]
    stop.set()
    for thread in threads:
        thread.join()
    assert codes == [0] * 8
    assert not any(sums)


def test_a_fork_while_a_thread_starts_a_process_leaves_the_child_able_to_start_workers():
    """The standard library's resource tracker has a lock, which then belongs to nobody in the child."""
    held, leave = threading.Event(), threading.Event()

    def hold():
        with resource_tracker._resource_tracker._lock:
            held.set()
            leave.wait()

    def child():
        with shmexec.SharedExecutor(1) as own:
            return own.submit(tasks.give, 5).result() == 5

    resource_tracker.ensure_running()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert in_a_fork(child) == 0
    finally:
        leave.set()
        thread.join()


FORKS = """
import os, sys, threading, time
import numpy as np, shmexec, tasks

ex = shmexec.SharedExecutor(2)
kept = ex.submit(np.ones, 100_000).result()
pending = [ex.submit(time.sleep, 0.01) for _ in range(50)]
pid = os.fork()
if pid == 0:
    kept += 1
    sys.exit(3)  # by the interpreter's end, in which pools are shut down
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
assert kept[0] == 2  # what was shared stays shared
for future in pending:
    future.result()
print(ex.submit(tasks.double, 4).result())
"""


def test_a_forked_child_may_end_as_a_program_does(script):
    ran = script(f"import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n{FORKS}")
    assert ran.stdout == "8\n"


# ---- a worker forks ----------------------------------------------------------------------------------


def fork_and_leave_by(how):
    """How a child ends that a task forks, and what the worker says afterwards."""
    array = np.ones(10_000)
    pid = os.fork()
    if pid == 0:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - the child's only
        array[:] = 7
        if how == "return":
            return "nobody sees this"
        if how == "raise":
            raise ValueError("nor this")
        if how == "sys.exit":
            sys.exit(5)
        os._exit(6)
    return code_of(pid), array.sum()


@pytest.mark.parametrize("how", ["return", "raise", "sys.exit", "os._exit"])
def test_a_process_that_a_task_forks_is_no_worker(make_executor, how):
    executor = make_executor(1)
    wanted = {"return": 0, "raise": 1, "sys.exit": 5, "os._exit": 6}[how]
    for _ in range(2):  # known to the worker at the second time
        assert executor.submit(fork_and_leave_by, how).result() == (wanted, 10_000)
        assert next(executor.map(fork_and_leave_by, [how])) == (wanted, 10_000)
        assert list(executor.map(fork_and_leave_by, [how], chunksize=2)) == [(wanted, 10_000)]
    assert executor.submit(tasks.double, 4).result() == 8
    assert executor.stats().workers_died == 0


def in_process(queue):
    queue.put(float(shmexec.ones(10_000).sum()))


def start_process(method):
    import multiprocessing.forkserver

    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=in_process, args=(queue,))
    process.start()
    value = queue.get()
    process.join()
    if method == "forkserver":
        multiprocessing.forkserver._forkserver._stop()  # or it ends some time after this process
    return value, process.exitcode


def test_a_task_may_use_multiprocessing(executor):
    for method in "spawn", "forkserver":
        assert executor.submit(start_process, method).result() == (10_000, 0)


def test_a_worker_that_is_killed_leaves_the_children_of_its_tasks_alone(make_executor):
    executor = make_executor(1)

    def work():
        child = subprocess.Popen(["sleep", "1000"])
        return child.pid

    pid = executor.submit(work).result()
    executor.submit(os._exit, 3).exception()
    assert not sequencer.is_gone(pid)
    assert executor.submit(tasks.double, 4).result() == 8
    os.kill(pid, signal.SIGKILL)
    sequencer.wait_until(lambda: sequencer.is_gone(pid))


# ---- a worker runs programs --------------------------------------------------------------------------


def inheritable():
    """What a program that is started here would have open, but for the standard streams."""
    numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    found = {}
    for number in numbers:
        try:
            if number > 2 and not fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                found[number] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            pass  # the listing's own
    return found


def of_a_program():
    code = "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])"
    return subprocess.run([sys.executable, "-c", code], close_fds=False, capture_output=True, text=True).stdout


def test_programs_that_a_worker_runs_inherit_nothing(make_executor, method):
    before = inheritable()
    executor = make_executor(1, method)
    assert executor.submit(inheritable).result() == (before if method == "fork" else {})
    assert executor.submit(os._exit, 3).exception() is not None
    assert executor.submit(inheritable).result() == {}  # a replacement
    assert executor.submit(of_a_program).result() == "[0, 1, 2]\n"


# ---- exits -------------------------------------------------------------------------------------------

IN_A_CALLBACK = """
import os, sys, time
import shmexec, tasks
from sequencer import Gate
ex = shmexec.SharedExecutor(2)
gate = Gate(sys.argv[1])  # a callback that comes too late is called by who adds it
pending = [ex.submit(gate.wait_open), *(ex.submit(time.sleep, 0.01) for _ in range(20))]
pending[0].add_done_callback(lambda future: {exits}(3))
gate.open()
print([future.result() for future in pending] == [None] * 21)
print(ex.submit(tasks.double, 4).result())
"""


def test_an_exit_inside_a_callback_is_logged_and_ends_nothing(script, tmp_path):
    ran = script(IN_A_CALLBACK.format(exits="sys.exit"), tmp_path / "gate", check=False)
    assert (ran.returncode, ran.stdout) == (0, "True\n8\n")
    assert "exception calling callback" in ran.stderr


def test_a_process_that_ends_inside_a_callback_takes_its_workers_along(script, relatives, tmp_path):
    ran = script(IN_A_CALLBACK.format(exits="os._exit"), tmp_path / "gate", check=False)
    assert ran.returncode == 3
    sequencer.wait_until(lambda: not relatives())


def test_a_pool_of_the_standard_library_that_a_task_leaves_open_ends_with_its_worker(make_executor):
    executor = make_executor(1)
    child = executor.submit(tasks.leave_a_pool_open).result()
    executor.shutdown(wait=True)
    sequencer.wait_until(lambda: sequencer.is_gone(child))
