"""Workers that die: who dies, when, and what the user sees. Everything else goes on."""

import atexit
import ctypes
import os
import pickle
import signal
import subprocess
import threading
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import faults
import numpy as np
import pytest
import sequencer
import tasks
import ways

import shmexec
from shmexec import WorkerDied
from shmexec.pickling.functions import Received


def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def fault(*_):
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    ctypes.string_at(0)


def leave(*_):
    os._exit(7)


def terminate(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    return "not reached"


DEATHS = {"SIGKILL": (kill, -9), "SIGSEGV": (fault, -11), "os._exit": (leave, 7), "SIGTERM": (terminate, 143)}


def still_works(executor):
    assert list(executor.map(tasks.double, range(10))) == list(range(0, 20, 2))


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("by", ways.WAYS)
def test_a_dead_worker_fails_its_call_with_all_that_is_known(executor, death, by):
    function, code = DEATHS[death]
    error = ways.WAYS[by](executor, function)
    assert isinstance(error, WorkerDied)
    assert isinstance(error, BrokenProcessPool)
    assert error.exitcode == code
    assert error.pid > 0
    assert error.call == function.__name__
    assert str(error.pid) in str(error)
    assert function.__name__ in str(error)
    assert pickle.loads(pickle.dumps(error)).pid == error.pid
    assert sequencer.is_gone(error.pid)
    assert error.pid not in executor._processes
    still_works(executor)
    assert executor.stats().workers_died == 1


@pytest.mark.parametrize("death", DEATHS)
def test_death_is_seen_under_every_start_method(make_executor, method, death):
    function, code = DEATHS[death]
    executor = make_executor(2, method)
    error = executor.submit(function).exception()
    assert (type(error), error.exitcode) == (WorkerDied, code)
    still_works(executor)


def test_other_calls_are_run_exactly_once(make_executor, gate, tmp_path):
    executor = make_executor(2)
    say, wait, other = gate("say"), gate("wait"), gate("other")

    def die(say, wait):
        tasks.pass_gates(say, wait)
        kill()

    def note(i):
        descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{i}\n".encode())
        os.close(descriptor)
        return i

    victim = executor.submit(die, say, wait)
    bystander = executor.submit(tasks.pass_gates, say, other, "spared")
    say.wait_open()
    say.wait_open()
    calls = [executor.submit(note, i) for i in range(30)]  # some are in the ring of the one that will die
    wait.open()
    assert isinstance(victim.exception(), WorkerDied)
    assert [future.result() for future in calls] == list(range(30))
    other.open()
    assert bystander.result() == "spared"
    assert sorted(map(int, (tmp_path / "log").read_text().split())) == list(range(30))


def test_many_deaths_in_a_row_fail_only_the_guilty(executor):
    functions = [kill if i % 4 == 1 else tasks.double for i in range(24)]
    made = [executor.submit(function, i) for i, function in enumerate(functions)]
    for i, future in enumerate(made):
        if i % 4 == 1:
            assert isinstance(future.exception(), WorkerDied)
        else:
            assert future.result() == 2 * i
    assert executor.stats().workers_died == 6


def test_a_death_in_a_chunk_fails_that_chunk(executor):
    got = executor.map(lambda i: kill() if i == 5 else i, range(12), chunksize=4)
    assert [next(got) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(WorkerDied):
        next(got)
    still_works(executor)


@pytest.mark.parametrize("kind", [faults.DiesInUnpickling, faults.DiesInPickling])
def test_death_at_the_way_in_or_out_fails_its_call(executor, kind):
    if kind is faults.DiesInUnpickling:
        future = executor.submit(tasks.give, kind())
    else:
        future = executor.submit(faults.make, kind)
    error = future.exception()
    assert (type(error), error.exitcode) == (WorkerDied, -9)
    still_works(executor)


def test_the_memory_of_a_dead_worker_comes_back(executor):
    executor.submit(tasks.pid).result()
    before = shmexec.heap_info()

    def hoard(given):
        global kept
        kept = [shmexec.ones(4 << 20) for _ in range(4)] + [shmexec.ones(n) for n in range(1, 3000, 100)] + [given]
        kill()

    for _ in range(3):
        given = shmexec.ones(1 << 20)
        assert isinstance(executor.submit(hoard, given).exception(), WorkerDied)
        assert (given == 1).all()
        assert isinstance(executor.submit(hoard, np.ones(1 << 20)).exception(), WorkerDied)
        del given
    after = shmexec.heap_info()
    assert after.blocks <= before.blocks
    assert after.bytes_in_use <= before.bytes_in_use + (1 << 20)
    still_works(executor)


def test_results_of_a_dead_worker_stay(executor):
    kept = [executor.submit(tasks.make_shared, size, 7).result() for size in (10, 10_000, 1_000_000)]
    unread = executor.submit(tasks.make_shared, 20_000, 8)
    futures.wait([unread])
    for _ in range(3):
        executor.submit(kill).exception()
    others = [shmexec.zeros(size) for size in (10, 10_000, 20_000, 1_000_000) * 3]
    assert all((array == 7).all() for array in kept)
    assert (unread.result() == 8).all()
    assert not any(other.any() for other in others)
    assert executor.submit(np.sum, kept[2]).result() == 7_000_000


def test_a_worker_that_dies_idle_costs_no_call(executor):
    for _ in range(3):
        pid = executor.submit(tasks.pid).result()
        process = executor._processes[pid]
        process.kill()
        sequencer.wait_until(lambda pid=pid: pid not in executor._processes)
        still_works(executor)
    assert executor.stats().workers_died == 3


def test_killing_all_idle_workers_costs_no_call(make_executor, method):
    executor = make_executor(2, method)
    still_works(executor)
    for process in list(executor._processes.values()):
        process.kill()
    still_works(executor)


def die_at_first(counter):
    counter[0] += 1
    if counter[0] <= 2:
        kill()


def test_a_worker_that_dies_while_starting_costs_no_call(make_executor, method):
    counter = shmexec.zeros(1, "i8")
    executor = make_executor(1, method, die_at_first, (counter,))
    assert executor.submit(tasks.double, 4).result() == 8
    assert counter[0] == 3
    executor.shutdown()
    del executor


def test_workers_that_always_die_while_starting_break_the_pool(make_executor, method):
    executor = make_executor(2, method, kill)
    with pytest.raises(BrokenProcessPool, match="before they had come up"):
        executor.submit(tasks.double, 4).result()
    with pytest.raises(BrokenProcessPool):
        executor.submit(tasks.double, 4)


def fail_to_start(text):
    raise faults.Boom(text)


def test_an_initializer_that_raises_breaks_the_pool_and_says_why(make_executor, method):
    executor = make_executor(2, method, fail_to_start, ("no licence",))
    made = []
    try:
        made += [executor.submit(tasks.double, i) for i in range(5)]
    except BrokenProcessPool:
        pass
    for future in made:
        with pytest.raises(BrokenProcessPool, match="no licence"):
            future.result()
    sequencer.wait_until(lambda: not executor._processes)
    with pytest.raises(BrokenProcessPool, match="no licence"):
        executor.submit(tasks.double, 4)


def fail_in_the_second(first, say, wait):
    """Of two workers; the end of the one that fails takes its time."""
    try:
        os.close(os.open(first, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        atexit.register(tasks.pass_gates, say, wait)
        raise faults.Boom("no licence") from None


def test_a_worker_whose_initializer_has_failed_holds_nobody_up_while_it_ends(make_executor, gate, tmp_path):
    say, wait, called = gate("say"), gate("wait"), threading.Event()
    executor = make_executor(2, "forkserver", fail_in_the_second, (tmp_path / "first", say, wait))
    begun, leave = gate("begun"), gate("leave")
    futures = [executor.submit(tasks.pass_gates, begun, leave, 0)]
    begun.wait_open()
    futures.append(executor.submit(tasks.double, 1))  # the second worker is started for it
    say.wait_open()
    leave.open()
    futures.append(executor.submit(tasks.double, 2))
    futures[-1].add_done_callback(lambda _: called.set())  # which the collector runs
    called.wait()
    assert [future.result() for future in futures] == [0, 2, 4]
    wait.open()
    sequencer.wait_until(lambda: not executor._processes)
    with pytest.raises(BrokenProcessPool, match="no licence"):
        executor.submit(tasks.double, 4)


def test_death_breaks_the_pool_if_that_was_asked_for(make_executor, gate):
    executor = make_executor(2, on_worker_death="break")
    say, wait = gate("say"), gate("wait")
    busy = executor.submit(tasks.pass_gates, say, wait)
    say.wait_open()
    guilty = executor.submit(kill)
    others = []
    try:
        others += [executor.submit(tasks.double, i) for i in range(10)]
    except BrokenProcessPool:
        pass
    assert isinstance(guilty.exception(), WorkerDied)
    for future in [busy, *others]:
        error = future.exception()
        assert isinstance(error, BrokenProcessPool)
        assert "SIGKILL" in str(error) or "signal 9" in str(error)
    with pytest.raises(BrokenProcessPool):
        executor.submit(tasks.double, 1)


def test_a_dead_fork_server_is_replaced(make_executor):
    executor = make_executor(2)
    pid = executor.submit(tasks.pid).result()
    server = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert server != os.getpid()
    os.kill(server, signal.SIGKILL)
    sequencer.wait_until(lambda: sequencer.is_gone(server))
    still_works(executor)
    error = executor.submit(kill).exception()
    assert isinstance(error, WorkerDied)
    still_works(executor)
    executor.submit(kill).exception()
    still_works(executor)


SERVERS_THAT_DIE = """
import os, sys
import shmexec
from concurrent.futures.process import BrokenProcessPool
from shmexec.pool import fork_server
fork_server.COMMAND = "import os; os._exit(1)  # {path} {control} {owner} {preload}"
with shmexec.SharedExecutor(2) as executor:
    for _ in range(2):
        try:
            print(executor.submit(sum, [1, 2]).result())
        except BrokenProcessPool as error:
            print(error)
"""


def test_fork_servers_that_always_die_break_the_pool_and_it_says_why(script):
    ran = script(SERVERS_THAT_DIE, check=False)
    assert ran.returncode == 0, ran.stderr
    said = ran.stdout.splitlines()
    assert len(said) == 2
    assert all("no worker process could be started: the fork server died" in line for line in said)


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSEGV", "os._exit"])
def test_an_answer_that_was_given_before_the_death_arrives(lonely, gate, how):
    wait, desk = gate("wait"), lonely._pool.desk
    pid = lonely.submit(faults.die_in_thread, faults.Death(how), wait).result()
    lonely.submit(tasks.make_shared, 9, 1).result()
    sequencer.wait_until(desk.baton.try_take)  # now nobody reads answers, nor judges deaths
    try:
        future = lonely.submit(tasks.make_shared, 100_000, 7)
        sequencer.wait_until(lambda: desk.baton.has_answer)
        wait.open()
        sequencer.wait_until(lambda: sequencer.is_gone(pid))
    finally:
        desk.baton.lay_down()
    assert future.exception() is None
    assert future.result().sum() == 700_000
    still_works(lonely)
    assert lonely.stats().workers_died == 1


def die_when_skipping():
    Received.withdrawn = kill


def test_a_worker_that_dies_as_it_skips_a_withdrawn_task_costs_no_call(lonely, gate):
    say, wait = gate("say"), gate("wait")
    lonely.submit(die_when_skipping).result()
    busy = lonely.submit(tasks.pass_gates, say, wait, "done")
    say.wait_open()
    unwanted = lonely.submit(tasks.give, np.ones(9000))
    assert lonely._pool.counts() == (0, 2), "it is in the worker's ring"
    assert lonely.cancel(unwanted)
    behind = lonely.submit(tasks.double, 4)
    wait.open()
    assert busy.result() == "done"
    assert behind.result() == 8
    assert unwanted.cancelled()
    assert lonely.stats().workers_died == 1
    still_works(lonely)


PARENT = """
import os, signal, sys, time, multiprocessing
import numpy as np, shmexec, tasks
from sequencer import Gate
method = sys.argv[1] if sys.argv[1] != "None" else None
ex = shmexec.SharedExecutor(2, method and multiprocessing.get_context(method))
def work(path, i):
    os.mkdir(f"{path}-{i}")
    time.sleep(1000)
made = [ex.submit(work, sys.argv[2], i) for i in range(2)]
while not all(os.path.exists(f"{sys.argv[2]}-{i}") for i in range(2)):
    time.sleep(0.001)
parents = {int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1]) for pid in ex._processes}
print(*ex._processes, *parents - {os.getpid()}, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("stopped", [0, 2, 3], ids=["running", "stopped", "all stopped"])
def test_nothing_survives_a_parent_that_is_killed(script, method, tmp_path, stopped):
    see_all_end(script, method, tmp_path / "work", stopped=stopped, server_dies_first=False)


@pytest.mark.parametrize("stopped", [0, 2], ids=["running", "stopped"])
def test_nothing_survives_a_fork_server_and_a_parent_that_are_killed_one_after_the_other(script, tmp_path, stopped):
    see_all_end(script, "forkserver", tmp_path / "work", stopped=stopped, server_dies_first=True)


def see_all_end(script, method, path, *, stopped, server_dies_first):
    program = script.start(PARENT, method, path)
    with program:
        pids = list(map(int, program.stdout.readline().split()))
        assert len(pids) >= 2
        if server_dies_first:
            os.kill(pids[2], signal.SIGKILL)
            sequencer.wait_until(lambda: sequencer.is_gone(pids[2]))
        for pid in pids[:stopped]:  # the workers, then the fork server
            os.kill(pid, signal.SIGSTOP)
            sequencer.wait_until(lambda pid=pid: sequencer.state_of(pid) == "T")
        program.kill()
    assert program.returncode == -signal.SIGKILL
    for pid in pids:
        sequencer.wait_until(lambda pid=pid: sequencer.is_gone(pid))
    assert subprocess.run(["true"], check=True).returncode == 0
