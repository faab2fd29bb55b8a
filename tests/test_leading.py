"""A thread that waits for a result collects answers itself: what can go wrong with that, each as a test.

The order of events is forced by gates; a wait that is slept over shows as the suite's time-out.
"""

import os
import signal
import sys
import threading
from concurrent.futures import CancelledError, as_completed, wait
from concurrent.futures.process import BrokenProcessPool

import pytest
import sequencer
import tasks

import shmexec


class ResultThatAsks:
    """Its unpickling, in the parent, waits for another call."""

    executor = None

    def __reduce__(self):
        return _ask, ()


def _ask():
    return ResultThatAsks.executor.submit(tasks.give, 7).result()


def make_one_that_asks():
    return ResultThatAsks()


def in_thread(function):
    """Runs it; returns the thread and where its outcome will be."""
    outcome = []

    def run():
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def has_baton(executor):
    """Until some thread is the leader and asleep: only then is it sure to be woken by what comes."""
    while not executor._pool.desk.baton.leader_sleeps:
        os.sched_yield()


def test_a_future_that_another_thread_cancels_wakes_its_leader(lonely, gate):
    begun, leave = gate("begun"), gate("leave")
    lonely.submit(tasks.pass_gates, begun, leave)
    begun.wait_open()
    waiting = [lonely.submit(tasks.add, i, i) for i in range(4)]
    last = waiting[-1]
    thread, outcome = in_thread(last.result)
    has_baton(lonely)
    assert last.cancel()
    thread.join()
    assert isinstance(outcome[0], CancelledError)
    leave.open()
    assert [future.result() for future in waiting[:-1]] == [0, 2, 4]


def test_callbacks_never_run_in_the_thread_that_waits(lonely, gate):
    """It may hold a lock that the callback wants."""
    lock, ran_in = threading.Lock(), []
    called = threading.Event()

    def callback(future):
        with lock:
            ran_in.append(threading.current_thread())
        called.set()

    for i in range(20):
        begun, leave = gate(f"begun {i}"), gate(f"leave {i}")
        future = lonely.submit(tasks.pass_gates, begun, leave, 1)
        future.add_done_callback(callback)  # not done yet: then it would run here, as everywhere
        with lock:
            leave.open()
            assert future.result() == 1
        called.wait()
        called.clear()
    assert threading.current_thread() not in ran_in


def test_who_adds_a_callback_may_collect_the_answer_but_does_not_run_the_callback(lonely):
    """It may hold a lock that the callback wants."""
    if lonely._pool.desk.ledger.cores < 2:
        pytest.skip("nobody looks for answers where there is no core to spare")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(100)  # nobody else does anything between two looks here
    ran_in, called, collected = [], threading.Event(), 0
    try:
        while collected < 5:
            future = lonely.submit(tasks.give, 1)
            if future.done():  # then it would run here, as everywhere
                continue
            future.add_done_callback(lambda _: (ran_in.append(threading.current_thread()), called.set()))
            collected += future.done()
            called.wait()
            called.clear()
    finally:
        sys.setswitchinterval(interval)
    assert threading.current_thread() not in ran_in


def test_unpickling_a_result_may_wait_for_another_call(executor):
    ResultThatAsks.executor = executor
    try:
        assert executor.submit(make_one_that_asks).result() == 7
        futures = [executor.submit(make_one_that_asks) for _ in range(8)]
        assert [future.result() for future in futures] == [7] * 8
    finally:
        ResultThatAsks.executor = None


def test_an_answer_comes_while_its_worker_is_deep_in_the_next_call(lonely, gate):
    begun, leave = gate("begun"), gate("leave")
    first = lonely.submit(tasks.give, 5)
    second = lonely.submit(tasks.pass_gates, begun, leave, 6)
    begun.wait_open()
    assert first.result() == 5
    assert not second.done()
    leave.open()
    assert second.result() == 6


class Interrupted(Exception):
    pass


def interrupt():
    raise Interrupted


def test_a_signal_handler_that_raises_lays_the_baton_down(lonely, gate):
    begun, leave = gate("begun"), gate("leave")
    future = lonely.submit(tasks.pass_gates, begun, leave, 9)
    begun.wait_open()
    with sequencer.signal_once(interrupt, lambda: lonely._pool.desk.baton.leader_sleeps), pytest.raises(Interrupted):
        future.result()
    assert not lonely._pool.desk.baton.leader_sleeps
    answered = threading.Event()
    future.add_done_callback(lambda _: answered.set())
    leave.open()
    answered.wait()  # by the collector: no thread leads
    assert future.result() == 9


def test_the_leader_has_the_answers_for_others_too(executor, gate):
    begun, leave = gate("begun"), gate("leave")
    slow = executor.submit(tasks.pass_gates, begun, leave, 1)
    begun.wait_open()
    leader, first = in_thread(slow.result)
    has_baton(executor)
    quick = executor.submit(tasks.give, 2)
    follower, second = in_thread(quick.result)
    follower.join()
    assert second == [2]
    assert first == []
    leave.open()
    leader.join()
    assert first == [1]


def test_a_follower_is_not_forgotten_when_the_leader_goes(executor, gate):
    leave_first, leave_second, a, b = gate("first"), gate("second"), gate("a"), gate("b")
    first = executor.submit(tasks.pass_gates, a, leave_first, 1)
    second = executor.submit(tasks.pass_gates, b, leave_second, 2)
    a.wait_open()
    b.wait_open()
    leader, one = in_thread(first.result)
    has_baton(executor)
    follower, two = in_thread(second.result)
    leave_first.open()
    leader.join()
    leave_second.open()
    follower.join()
    assert (one, two) == ([1], [2])


def test_a_leader_whose_time_is_over_goes_and_others_get_their_answers(lonely, gate):
    begun, leave = gate("begun"), gate("leave")
    future = lonely.submit(tasks.pass_gates, begun, leave, 3)
    begun.wait_open()
    for timeout in (0, -1, 0.001, 0.02):
        with pytest.raises(TimeoutError):
            future.result(timeout)
    with pytest.raises(TimeoutError):
        future.exception(0.001)
    leave.open()
    assert wait([future]).done == {future}
    assert future.result(0) == 3


def test_a_leader_makes_way_for_who_judges_a_death(executor, gate):
    begun, leave = gate("begun"), gate("leave")
    kept = executor.submit(tasks.pass_gates, begun, leave, 4)
    begun.wait_open()
    leader, outcome = in_thread(kept.result)
    has_baton(executor)
    victim = executor.submit(os.kill, executor.submit(tasks.pid).result(), signal.SIGKILL)
    assert "SIGKILL" in str(victim.exception()) or "signal 9" in str(victim.exception())
    assert outcome == []
    leave.open()
    leader.join()
    assert outcome == [4]


def test_a_pool_that_closes_ends_when_a_leader_has_read_its_last_answer(lonely, gate):
    begun, leave = gate("begun"), gate("leave")
    future = lonely.submit(tasks.pass_gates, begun, leave, 5)
    begun.wait_open()
    leader, outcome = in_thread(future.result)
    has_baton(lonely)
    lonely.shutdown(wait=False)
    has_baton(lonely)
    leave.open()
    leader.join()
    assert outcome == [5]
    lonely._pool._collector.join()


def test_waiters_and_threads_in_result_share_the_answers(executor):
    for _ in range(100):
        futures = [executor.submit(tasks.give, i) for i in range(6)]
        thread, outcome = in_thread(lambda fs=futures: [future.result() for future in fs[::-1]])
        assert sorted(future.result() for future in as_completed(futures)) == list(range(6))
        thread.join()
        assert outcome == [[5, 4, 3, 2, 1, 0]]


def test_a_forked_child_reads_nothing_of_its_parents_answers(lonely, gate):
    begun, leave = gate("begun"), gate("leave")
    future = lonely.submit(tasks.pass_gates, begun, leave, 5)
    begun.wait_open()
    child = os.fork()
    if child == 0:
        code = 4
        try:
            future.result()
        except BrokenProcessPool:  # at once: nobody will answer there
            code = 3
        finally:
            os._exit(code)
    leave.open()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert future.result() == 5


def test_threads_that_lead_in_turn_lose_nothing(executor):
    """Time-outs at random moments, several threads, workers that are killed and replaced."""
    stop, failures = threading.Event(), []

    def loop(seed):
        i = seed
        try:
            while not stop.is_set():
                i += 1
                future = executor.submit(tasks.add, i, seed)
                while not future.done():
                    try:
                        future.result(timeout=(i % 7) * 2e-5)
                    except (TimeoutError, shmexec.WorkerDied):
                        continue
                assert isinstance(future.exception(), shmexec.WorkerDied) or future.result() == i + seed
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=loop, args=(seed,)) for seed in (1, 1000, 2000)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        executor.submit(tasks.give, 1).exception()
        victim = next(iter(executor._processes.values()))
        victim.kill()
        while victim.is_alive():
            os.sched_yield()
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert executor.submit(tasks.give, 1).result() == 1
