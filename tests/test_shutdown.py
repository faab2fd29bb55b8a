"""How pools end: shutdown, garbage, the end of the interpreter; and what runs in workers as they come and go."""

import gc
import multiprocessing
import os
import signal
import threading
import weakref
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
import sequencer
import tasks

import shmexec


def pool_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("shmexec")]


def test_shutdown_waits_for_all_calls(make_executor, method):
    executor = make_executor(2, method)
    made = [executor.submit(tasks.double, i) for i in range(20)]
    executor.shutdown()
    assert all(future.done() for future in made)
    assert [future.result() for future in made] == list(range(0, 40, 2))
    assert not executor._processes
    assert not pool_threads()


def test_shutdown_without_wait_lets_calls_finish(executor, gate):
    say, wait = gate("say"), gate("wait")
    busy = executor.submit(tasks.pass_gates, say, wait, 5)
    say.wait_open()
    queued = [executor.submit(tasks.double, i) for i in range(10)]
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(tasks.double, 1)
    wait.open()
    assert busy.result() == 5
    assert [future.result() for future in queued] == list(range(0, 20, 2))


def test_shutdown_cancels_what_waits(executor, gate):
    say, wait = gate("say"), gate("wait")
    busy = [executor.submit(tasks.pass_gates, say, wait, i) for i in range(2)]
    for _ in busy:
        say.wait_open()
    queued = [executor.submit(tasks.double, i) for i in range(30)]
    late = executor.submit(tasks.double, busy[0])
    executor.shutdown(wait=False, cancel_futures=True)
    wait.open(2)
    executor.shutdown(wait=True)
    assert [future.result() for future in busy] == [0, 1]
    assert late.cancelled()
    assert sum(future.cancelled() for future in queued) >= 26
    assert all(future.cancelled() or future.result() is not None for future in queued)
    assert futures.wait(queued).not_done == set()


def test_shutdown_may_be_repeated_and_may_come_first(make_executor):
    executor = make_executor(2)
    executor.shutdown()
    executor.shutdown(wait=False)
    executor.shutdown(cancel_futures=True)
    for submit in executor.submit, executor.map:
        with pytest.raises(RuntimeError):
            submit(tasks.double, [1])


def test_several_threads_may_shut_down_at_once(executor):
    made = [executor.submit(tasks.double, i) for i in range(20)]
    threads = [threading.Thread(target=executor.shutdown) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [future.result() for future in made] == list(range(0, 40, 2))


def test_the_with_statement_shuts_down():
    with shmexec.SharedExecutor(2) as executor:
        future = executor.submit(tasks.make_shared, 1000, 3)
    assert future.result().sum() == 3000
    assert not pool_threads()


def test_results_are_there_after_shutdown(executor):
    made = [executor.submit(tasks.make_shared, size, 2) for size in (1, 100, 100_000)]
    plain = executor.submit(np.ones, 200_000)
    executor.shutdown()
    others = [shmexec.zeros(100_000) for _ in range(4)]
    assert [future.result().sum() for future in made] == [2, 200, 200_000]
    assert plain.result().sum() == 200_000
    made[2].result()[:] = 1
    assert not any(other.any() for other in others)


@pytest.mark.parametrize("with_callback", [False, True])
def test_a_pool_that_nobody_holds_ends(with_callback):
    executor = shmexec.SharedExecutor(2)
    called = threading.Event()
    future = executor.submit(tasks.double, 4)
    if with_callback:
        other = executor.submit(tasks.double, 5)
        other.add_done_callback(lambda done: called.set())
        called.wait()
        del other
    assert future.result() == 8
    del executor, future
    gc.collect()
    sequencer.wait_until(lambda: not pool_threads() and not multiprocessing.active_children())


def test_a_pool_that_nobody_holds_finishes_its_calls(gate):
    executor = shmexec.SharedExecutor(2)
    say, wait = gate("say"), gate("wait")
    future = executor.submit(tasks.pass_gates, say, wait, 9)
    queued = [executor.submit(tasks.double, i) for i in range(5)]
    say.wait_open()
    del executor
    gc.collect()
    wait.open()
    assert future.result() == 9
    assert [one.result() for one in queued] == [0, 2, 4, 6, 8]
    del future, queued
    sequencer.wait_until(lambda: not pool_threads())


def set_up(counter, array, text):
    global started
    started = (float(array.sum()), text)
    counter[0] += 1


def what_was_set_up():
    return started


@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("make", [np.ones, shmexec.ones], ids=["plain", "shared"])
def test_initializers_get_arrays(make_executor, method, make, size):
    counter = shmexec.zeros(1)
    executor = make_executor(1, method, set_up, (counter, make(size), "text"))
    assert executor.submit(what_was_set_up).result() == (size, "text")
    assert counter[0] == 1
    executor.submit(os._exit, 3).exception()  # its replacement is set up alike
    assert executor.submit(what_was_set_up).result() == (size, "text")
    executor.shutdown()


def keep(*things):
    global kept
    kept = things


def use_kept():
    with kept[0], kept[1]:
        kept[2].put("from there")
    kept[3].send("through the pipe")
    return type(kept[0]).__name__


@pytest.mark.parametrize("context", ["fork", "forkserver", "spawn"])
def test_initializers_get_locks_queues_and_pipes_of_the_context(make_executor, context):
    context = multiprocessing.get_context(context)
    here, there = context.Pipe()
    queue = context.SimpleQueue()
    executor = make_executor(1, context, keep, (context.Lock(), context.RLock(), queue, there))
    for _ in range(2):
        assert executor.submit(use_kept).result() == "Lock"
        assert queue.get() == "from there"
        assert here.recv() == "through the pipe"
        executor.submit(os._exit, 3).exception()
    executor.shutdown()
    for end in here, there, queue:
        end.close()


def test_initializers_and_finalizers_may_be_closures(make_executor, tmp_path, method):
    path = tmp_path / "ended"

    def begin(text):
        os.environ["BEGUN"] = text

    def end():
        with open(path, "a") as file:
            file.write(f"{os.getpid()}\n")

    executor = make_executor(2, method, begin, ("yes",), finalizer=end)
    pids = {executor.submit(tasks.pid).result()}
    assert executor.submit(lambda: os.environ["BEGUN"]).result() == "yes"
    pids |= set(executor._processes)
    executor.shutdown()
    assert set(map(int, path.read_text().split())) == pids


def test_finalizers_run_when_a_worker_is_terminated(make_executor, tmp_path):
    path = tmp_path / "ended"
    executor = make_executor(1, finalizer=lambda: path.write_text("yes"))
    pid = executor.submit(tasks.pid).result()
    executor._processes[pid].terminate()
    sequencer.wait_until(lambda: pid not in executor._processes)
    assert path.read_text() == "yes"


@pytest.mark.parametrize("method", [None, "forkserver", "spawn"])  # with fork it is refused, as in the standard library
def test_a_worker_is_replaced_after_its_last_task(make_executor, method):
    executor = make_executor(1, method, max_tasks_per_child=3)
    pids = list(executor.map(tasks.pid, range(10)))
    assert len(set(pids)) == 4
    assert sorted(pids.count(pid) for pid in set(pids)) == [1, 3, 3, 3]
    executor = make_executor(2, method, max_tasks_per_child=1)
    assert len(set(executor.map(tasks.pid, range(8)))) == 8
    assert executor.stats().workers_died == 0


@pytest.mark.parametrize("is_shut_down", [False, True])
def test_calls_of_a_pool_that_nobody_has_are_run_by_the_next_worker(gate, is_shut_down):
    executor = shmexec.SharedExecutor(1, max_tasks_per_child=1)
    say, wait = gate("say"), gate("wait")
    made = [executor.submit(tasks.pass_gates, say, wait, i) for i in range(3)]
    say.wait_open()
    pool = weakref.ref(executor._pool)
    if is_shut_down:
        executor.shutdown(wait=False)
    del executor
    gc.collect()
    wait.open(3)
    assert [future.result() for future in made] == [0, 1, 2]
    del made
    sequencer.wait_until(lambda: not gc.collect() and pool() is None)


def test_calls_fail_if_the_next_worker_cannot_be_started(make_executor, gate, monkeypatch):
    executor = make_executor(1, max_tasks_per_child=1)
    say, wait = gate("say"), gate("wait")
    made = [executor.submit(tasks.pass_gates, say, wait, i) for i in range(3)]
    say.wait_open()

    def start(**options):
        raise OSError("no more of them")

    monkeypatch.setattr(executor._pool._crew, "start", start)
    wait.open(3)
    assert made[0].result() == 0
    for future in made[1:]:
        with pytest.raises(BrokenProcessPool, match="no worker process could be started: no more of them"):
            future.result()


def test_a_worker_that_is_terminated_in_its_last_task_is_not_replaced(make_executor, gate):
    executor = make_executor(1, max_tasks_per_child=1)
    say, wait = gate("say"), gate("wait")
    made = [executor.submit(tasks.pass_gates, say, wait, i) for i in range(3)]
    say.wait_open()
    executor.terminate_workers()
    executor.shutdown()
    assert isinstance(made[0].exception(), BrokenProcessPool)
    assert all(future.cancelled() or isinstance(future.exception(), BrokenProcessPool) for future in made[1:])
    assert executor.stats().workers_started == 1


def inner(depth, array):
    array += 1
    if depth:
        with shmexec.SharedExecutor(1) as executor:
            return executor.submit(inner, depth - 1, array).result() + 1
    return 0


def test_pools_work_inside_workers_on_the_same_heap(make_executor, method):
    array = shmexec.zeros(1000)
    assert make_executor(1, method).submit(inner, 2, array).result() == 2
    assert (array == 3).all()


def in_daemon(queue, array):
    with shmexec.SharedExecutor(2) as executor:
        queue.put(executor.submit(np.sum, array).result())


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_pools_work_inside_daemonic_processes(context):
    context = multiprocessing.get_context(context)
    queue = context.SimpleQueue()
    process = context.Process(target=in_daemon, args=(queue, np.ones(1000)), daemon=True)
    process.start()
    assert queue.get() == 1000
    process.join()
    assert process.exitcode == 0
    process.close()
    queue.close()


EXIT = """
import shmexec, tasks, multiprocessing, sys
method = {method!r}
executor = shmexec.SharedExecutor(2, method and multiprocessing.get_context(method))
def work(i):
    import time
    time.sleep(0.01)
    with open("log", "a") as file:
        file.write("x")
    return shmexec.ones(1000)
made = [executor.submit(work, i) for i in range(12)]
kept = made[0].result()
{end}
"""


@pytest.mark.parametrize(
    "end", ["", "del executor", "executor.shutdown(wait=False)", "made[0].add_done_callback(print) or sys.exit(0)"]
)
def test_an_interpreter_that_ends_finishes_its_calls(script, method, end):
    script(EXIT.format(method=method, end=end))
    with open(os.path.join(script.folder, "log")) as log:
        assert log.read() == "x" * 12


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_pool_is_of_no_use_in_a_forked_child_and_unharmed_by_it(executor):
    assert executor.submit(tasks.double, 4).result() == 8
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            executor.submit(tasks.double, 4)
        except futures.BrokenExecutor:
            executor.shutdown()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert executor.submit(tasks.double, 5).result() == 10


def test_a_shutdown_that_cancels_leaves_the_calls_whose_turn_it_is(make_executor):
    """Also if no worker has woken yet: one that is stopped stands for one that the kernel lets wait."""
    executor = make_executor(1)
    pid = executor.submit(tasks.pid).result()
    os.kill(pid, signal.SIGSTOP)
    try:
        calls = [executor.submit(tasks.give, i) for i in range(20)]
        executor.shutdown(wait=False, cancel_futures=True)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert calls[0].result() == 0
    assert all(call.cancelled() for call in calls[1:])
