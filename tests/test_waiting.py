"""`wait` and `as_completed` collect answers themselves: what can go wrong with that, each as a test."""

import os
import signal
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, as_completed, wait

import numpy as np
import pytest
import sequencer
import tasks
from test_leading import Interrupted, has_baton, in_thread, interrupt

import shmexec


def exit_behind_gate(gate):
    gate.wait_open()
    os._exit(3)


def test_the_thread_in_wait_reads_the_answers_itself(lonely, gate):
    begun, leave = gate("begun"), gate("leave")
    futures = [lonely.submit(tasks.pass_gates, begun, leave, 1), lonely.submit(tasks.give, 2)]
    begun.wait_open()
    thread, outcome = in_thread(lambda: wait(futures))
    has_baton(lonely)
    assert not any(future.done() for future in futures)
    leave.open()
    thread.join()
    assert outcome[0].done == set(futures)
    assert [future.result() for future in futures] == [1, 2]


def test_the_thread_in_as_completed_reads_the_answers_itself(lonely, gate):
    leaves = [gate(f"leave {i}") for i in range(3)]
    begun = [gate(f"begun {i}") for i in range(3)]
    futures = [lonely.submit(tasks.pass_gates, begun[i], leaves[i], i) for i in range(3)]
    completed = as_completed(futures)
    for i in range(3):
        thread, outcome = in_thread(lambda: next(completed))
        begun[i].wait_open()
        has_baton(lonely)
        leaves[i].open()
        thread.join()
        assert outcome == [futures[i]]
    assert list(completed) == []


def test_several_threads_may_wait_for_the_same_futures(executor):
    for _ in range(50):
        futures = [executor.submit(tasks.give, i) for i in range(6)]
        threads = [in_thread(lambda fs=futures: wait(fs)) for _ in range(3)]
        threads.append(in_thread(lambda fs=futures: set(as_completed(fs))))
        assert wait(futures).done == set(futures)
        for thread, outcome in threads:
            thread.join()
            assert getattr(outcome[0], "done", outcome[0]) == set(futures)


def test_wait_ends_with_the_futures_of_others_too(lonely, gate):
    begun, leave = gate("begun"), gate("leave")
    never = lonely.submit(tasks.pass_gates, begun, leave)
    begun.wait_open()
    foreign = Future()
    thread, outcome = in_thread(lambda: wait([never, foreign], return_when=FIRST_COMPLETED))
    has_baton(lonely)
    foreign.set_result(1)
    thread.join()
    assert outcome[0].done == {foreign}
    leave.open()
    with ThreadPoolExecutor(1) as threads:
        assert len(wait([never, threads.submit(tasks.give, 1), foreign]).done) == 3


def test_wait_over_two_pools_ends(make_executor):
    a, b = make_executor(1), make_executor(1)
    for _ in range(100):
        futures = [pool.submit(tasks.give, i) for i in range(3) for pool in (a, b)]
        assert len(wait(futures).done) == 6
        assert len(list(as_completed(futures))) == 6


def test_a_time_out_leaves_the_futures_as_they_are(lonely, gate):
    begun, leave = gate("begun"), gate("leave")
    future = lonely.submit(tasks.pass_gates, begun, leave, 3)
    begun.wait_open()
    for timeout in (0, -1, 0.001, 0.02):
        assert wait([future], timeout).not_done == {future}
        with pytest.raises(TimeoutError):
            next(as_completed([future], timeout))
    leave.open()
    assert wait([future], 1e12).done == {future}
    assert future.result(0) == 3


def test_a_signal_handler_that_raises_in_wait_loses_no_answer(lonely, gate):
    begun, leave = gate("begun"), gate("leave")
    future = lonely.submit(tasks.pass_gates, begun, leave, np.arange(3))
    begun.wait_open()
    with sequencer.signal_once(interrupt, lambda: lonely._pool.desk.baton.leader_sleeps), pytest.raises(Interrupted):
        wait([future])
    follower, outcome = in_thread(lambda: wait([future]))
    leave.open()
    follower.join()
    assert outcome[0].done == {future}
    assert future.result().tolist() == [0, 1, 2]


def test_a_future_s_condition_is_made_without_a_step_of_python_code(executor):
    """`wait` asks for it with those of other futures taken: a signal handler that raised would leave them locked."""
    future, steps = executor.submit(tasks.give, 1), []
    sys.setprofile(lambda frame, event, _: event == "call" and steps.append(frame.f_code.co_name))
    try:
        condition = future._condition
    finally:
        sys.setprofile(None)
    assert steps == []
    assert vars(condition).keys() == vars(threading.Condition()).keys()
    notified, outcome = in_thread(lambda: _wait_for(condition))
    while not condition._waiters:
        os.sched_yield()
    with condition, condition:
        condition.notify_all()
    notified.join()
    assert outcome == [True]


def _wait_for(condition):
    with condition:
        return condition.wait(60)


def test_signal_handlers_that_raise_at_any_moment_lose_no_answer(executor):
    """Between any two steps of the waiter's Python code, but for those that take or release a condition: there the
    standard library itself leaves it locked for ever.
    """

    def interrupt(signum, frame):
        if frame.f_code.co_name not in ("__enter__", "__exit__"):
            raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        for i in range(400):
            futures = [executor.submit(tasks.give, k) for k in range(4)]
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 2e-6 * (i % 100) + 1e-6)
                    wait(futures)
                    list(as_completed(futures))
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupted:
                interrupted += 1
            assert wait(futures).done == set(futures)
            assert [future.result() for future in futures] == list(range(4))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted


def test_failures_and_deaths_end_a_wait(executor, gate):
    begun, leave = gate("begun"), gate("leave")
    kept = executor.submit(tasks.pass_gates, begun, leave)
    begun.wait_open()
    failed = executor.submit(tasks.raise_it, ValueError("no"))
    assert wait([kept, failed], return_when=FIRST_EXCEPTION).done == {failed}
    die = gate("die")
    died = executor.submit(exit_behind_gate, die)
    thread, outcome = in_thread(lambda: wait([kept, died], return_when=FIRST_EXCEPTION))
    has_baton(executor)
    die.open()
    thread.join()
    assert outcome[0].done == {died}
    assert isinstance(died.exception(), shmexec.WorkerDied)
    leave.open()
    assert wait([kept]).done == {kept}


@pytest.mark.parametrize("value", [5, np.arange(5)], ids=["atom", "array"])
@pytest.mark.parametrize("way", [lambda last: list(as_completed([last])), lambda last: list(wait([last]).done)])
def test_a_future_that_another_thread_cancels_ends_a_wait(lonely, gate, way, value):
    begun, leave = gate("begun"), gate("leave")
    first = lonely.submit(tasks.pass_gates, begun, leave)
    begun.wait_open()
    # a worker is told of some: those run, to the standard library's mind
    *told, last = [lonely.submit(tasks.give, value) for i in range(6)]
    thread, outcome = in_thread(lambda: way(last))
    has_baton(lonely)
    assert last.cancel()
    thread.join()
    assert outcome == [[last]]
    leave.open()
    assert wait([first, *told]).done == {first, *told}
