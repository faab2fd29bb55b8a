"""Limits of time, and cancelling what runs: whose call ends, with what, and that nobody else's does.

Where the order of events matters it is forced: gates stop the worker, the baton in the test's own hands keeps the
parent from reading answers.
"""

import asyncio
import itertools
import os
import signal
import threading
import time
from concurrent import futures
from concurrent.futures import CancelledError

import numpy as np
import pytest
import sequencer
import tasks

import shmexec
from shmexec import TaskTimeout
from shmexec.pool import lives

SHORT = 0.05  # seconds; for calls that never end by themselves
LONG = 1000.0


@pytest.fixture
def short_grace(monkeypatch):
    """For calls that SIGTERM does not end."""
    monkeypatch.setattr(lives, "_LIMIT_GRACE", 0.2)


@pytest.fixture
def long_grace(monkeypatch):
    """For calls whose worker the test kills itself."""
    monkeypatch.setattr(lives, "_LIMIT_GRACE", LONG)


def kill_workers(executor):
    for pid in list(executor._processes):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def lonely(make_executor):
    """A pool of one worker, which is up, and has imported this module."""
    executor = make_executor(1)
    executor.submit(tasks.give, 0).result()
    executor.submit(block_term, False).result()
    return executor


class Baton:
    """In the test's hands: nobody reads answers."""

    def __init__(self, executor):
        self.desk = executor._pool.desk

    def __enter__(self):
        sequencer.wait_until(self.desk.baton.try_take)
        return self

    def __exit__(self, *_):
        self.desk.baton.lay_down()

    def wait_answer(self):
        sequencer.wait_until(lambda: self.desk.baton.has_answer)

    def wait_due(self):
        sequencer.wait_until(lambda: self.desk.sender.is_due)


def still_works(executor):
    assert list(executor.map(tasks.double, range(10))) == list(range(0, 20, 2))


def linger(*_):
    time.sleep(LONG)


def block_term(is_blocked):
    signal.pthread_sigmask(signal.SIG_BLOCK if is_blocked else signal.SIG_UNBLOCK, {signal.SIGTERM})


def seat_of(executor):
    (seat,) = executor._pool.desk.ledger.seats
    return seat


# ---- a call whose time is up


def test_a_call_over_its_time_fails_with_what_is_known_and_its_worker_is_replaced(lonely):
    pid = lonely.submit(tasks.pid).result()
    error = lonely.options(timeout=SHORT).submit(linger).exception()
    assert type(error) is TaskTimeout
    assert isinstance(error, TimeoutError)
    assert "linger" in str(error)
    assert "0.05 seconds" in str(error)
    assert str(pid) in str(error)
    assert sequencer.is_gone(pid)
    still_works(lonely)
    assert lonely.stats().workers_died == 0
    assert lonely.stats().workers_started == 2


def test_time_limits_hold_under_every_start_method(make_executor, method):
    executor = make_executor(1, method)
    assert isinstance(executor.options(timeout=SHORT).submit(linger).exception(), TaskTimeout)
    assert executor.options(timeout=LONG).submit(tasks.give, 5).result() == 5


def test_the_clean_up_of_a_worker_runs_when_the_time_is_up(make_executor, gate):
    cleaned = gate("cleaned")
    executor = make_executor(1, finalizer=cleaned.open)
    assert isinstance(executor.options(timeout=SHORT).submit(linger).exception(), TaskTimeout)
    cleaned.wait_open()


def sit_in_c():
    sum(itertools.repeat(0))


def swallow_all():
    while True:
        try:
            time.sleep(LONG)
        except BaseException:
            pass


@pytest.mark.parametrize("function", [sit_in_c, swallow_all])
def test_a_call_that_does_not_let_itself_be_ended_is_killed_after_the_grace(lonely, short_grace, function):
    assert isinstance(lonely.options(timeout=SHORT).submit(function).exception(), TaskTimeout)
    still_works(lonely)


def test_a_stopped_worker_is_killed_too(lonely, short_grace):
    def stop():
        os.kill(os.getpid(), signal.SIGSTOP)

    assert isinstance(lonely.options(timeout=SHORT).submit(stop).exception(), TaskTimeout)
    still_works(lonely)


def hoard(*given):
    global kept
    kept = [shmexec.ones(4 << 20) for _ in range(4)] + list(given)
    time.sleep(LONG)


def test_its_memory_is_back_when_the_future_is_done(lonely):
    array = shmexec.ones(1 << 20)
    lonely.submit(tasks.give, 0).result()
    before = shmexec.heap_info()
    for given in (array, np.ones(1 << 20)):
        assert isinstance(lonely.options(timeout=SHORT).submit(hoard, given).exception(), TaskTimeout)
    lonely.submit(tasks.give, 0).result()
    after = shmexec.heap_info()
    assert after.blocks <= before.blocks
    assert (array == 1).all()


def test_calls_that_wait_go_to_the_worker_that_replaces_it(lonely):
    late = lonely.options(timeout=SHORT).submit(linger)
    others = [lonely.submit(tasks.double, i) for i in range(20)]
    assert isinstance(late.exception(), TaskTimeout)
    assert [future.result() for future in others] == list(range(0, 40, 2))


def test_the_clock_does_not_run_before_the_call_has_begun(lonely):
    """The worker stands still with the call in its ring, for longer than the limit."""
    pid = lonely.submit(tasks.pid).result()
    os.kill(pid, signal.SIGSTOP)
    try:
        future = lonely.options(timeout=1.0).submit(tasks.pid)
        seat = seat_of(lonely)
        first = seat.due
        sequencer.wait_until(lambda: seat.due != first)  # somebody has looked, and it had not begun
    finally:
        os.kill(pid, signal.SIGCONT)
    assert future.result() == pid


def test_an_answer_that_is_there_when_the_time_is_judged_counts(lonely):
    with Baton(lonely) as baton:
        future = lonely.options(timeout=1e-9).submit(tasks.give, 5)
        baton.wait_answer()
        baton.wait_due()
    assert future.result() == 5
    assert lonely.stats().workers_started == 1


def test_an_answer_after_the_verdict_is_dropped(lonely, gate, monkeypatch):
    leave = gate("leave")
    monkeypatch.setattr(lives.Lives, "end_doomed", lambda *_: None)  # before it is told to end
    future = lonely.options(timeout=SHORT).submit(tasks.pass_gates, gate("begun"), leave)
    seat = seat_of(lonely)
    sequencer.wait_until(lambda: seat.doomed is not None)
    done = lonely.stats().calls_done
    with Baton(lonely) as baton:
        leave.open()
        baton.wait_answer()
    kill_workers(lonely)
    assert isinstance(future.exception(), TaskTimeout)
    assert lonely.stats().calls_done == done
    still_works(lonely)


def test_a_call_with_a_limit_that_dies_by_itself_is_a_death(lonely):
    future = lonely.options(timeout=LONG).submit(os._exit, 7)
    assert future.exception().exitcode == 7
    still_works(lonely)


def test_a_time_that_is_up_does_not_break_a_pool_that_deaths_break(make_executor):
    executor = make_executor(1, on_worker_death="break")
    assert isinstance(executor.options(timeout=SHORT).submit(linger).exception(), TaskTimeout)
    still_works(executor)


def test_time_limits_go_with_max_tasks_per_child(make_executor):
    executor = make_executor(1, max_tasks_per_child=1)
    limited = executor.options(timeout=LONG)
    pids = [limited.submit(tasks.pid).result() for _ in range(3)]
    assert len(set(pids)) == 3
    assert isinstance(executor.options(timeout=SHORT).submit(linger).exception(), TaskTimeout)
    assert limited.submit(tasks.give, 1).result() == 1


def test_a_pool_that_shuts_down_waits_for_a_call_until_its_time_is_up(make_executor):
    executor = make_executor(1)
    future = executor.options(timeout=SHORT).submit(linger)
    executor.shutdown(wait=True)
    assert isinstance(future.exception(), TaskTimeout)


def linger_at(i, where):
    if i == where:
        time.sleep(LONG)
    return i


def test_in_a_map_each_item_has_the_limit(lonely):
    got = lonely.options(timeout=2).map(linger_at, range(6), itertools.repeat(3))
    assert [next(got) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(TaskTimeout):
        next(got)
    still_works(lonely)


def test_in_a_map_with_a_chunk_size_each_chunk_has_the_limit(lonely):
    got = lonely.options(timeout=2).map(linger_at, range(6), itertools.repeat(3), chunksize=2)
    assert [next(got), next(got)] == [0, 1]
    with pytest.raises(TaskTimeout):
        next(got)


def test_thousands_of_calls_with_limits_wait_and_are_answered(executor):
    limited = executor.options(timeout=LONG)
    assert list(limited.map(tasks.double, range(3000))) == list(range(0, 6000, 2))


def test_several_views_of_one_pool_can_be_in_use(executor):
    short, long = executor.options(timeout=SHORT), executor.options(timeout=LONG)
    assert short._max_workers == executor._max_workers
    late = short.submit(linger)
    assert long.submit(tasks.give, 1).result() == 1
    assert executor.options().submit(tasks.give, 2).result() == 2
    assert list(executor.options().map(tasks.double, [1])) == [2]
    assert isinstance(late.exception(), TaskTimeout)

    async def work():
        return await asyncio.get_running_loop().run_in_executor(long, tasks.give, 3)

    assert asyncio.run(work()) == 3
    with long:
        pass
    with pytest.raises(RuntimeError):
        executor.submit(tasks.give, 4)


# ---- cancelling


def test_a_call_that_runs_is_cancelled_and_its_worker_replaced(lonely, gate):
    begun = gate("begun")
    future = lonely.submit(tasks.pass_gates, begun, gate("never"))
    begun.wait_open()
    (pid,) = lonely._processes
    assert not future.cancel(), "the standard library's rule"
    assert future.running()
    assert lonely.cancel(future)
    with pytest.raises(CancelledError):
        future.result()
    assert future.cancelled()
    assert sequencer.is_gone(pid)
    assert lonely.cancel(future), "it is cancelled"
    still_works(lonely)
    assert lonely.stats().workers_died == 0


def test_a_call_is_running_until_its_worker_is_dead(lonely, gate, long_grace):
    begun, leave = gate("begun"), gate("leave")
    lonely.submit(block_term, True).result()
    future = lonely.submit(tasks.pass_gates, begun, leave)
    begun.wait_open()
    assert lonely.cancel(future)
    assert future.running(), "it may be writing into its arguments"
    assert lonely.cancel(future), "once more"
    kill_workers(lonely)
    with pytest.raises(CancelledError):
        future.result()


def test_calls_behind_a_cancelled_one_are_run_exactly_once(lonely, gate, tmp_path):
    begun = gate("begun")
    future = lonely.submit(tasks.pass_gates, begun, gate("never"))

    def note(i):
        with open(tmp_path / f"{i}", "x"):
            return i

    others = [lonely.submit(note, i) for i in range(10)]
    atoms = [lonely.submit(tasks.double, i) for i in range(10)]
    begun.wait_open()
    assert lonely.cancel(future)
    assert [other.result() for other in others] == list(range(10))
    assert [other.result() for other in atoms] == list(range(0, 20, 2))


def test_a_call_that_begins_as_another_is_cancelled_is_not_killed(lonely, gate):
    """The worker has answered the first and begun the second, and the parent has not read that."""
    begun, leave = gate("begun"), gate("leave")
    with Baton(lonely):
        first = lonely.submit(tasks.give, 1)
        second = lonely.submit(tasks.pass_gates, begun, leave, 2)
        third = lonely.submit(tasks.give, 3)
        begun.wait_open()
        assert not lonely.cancel(first)
    leave.open()
    assert (first.result(), second.result(), third.result()) == (1, 2, 3)
    assert lonely.stats().workers_started == 1


def test_an_answer_that_is_there_cannot_be_cancelled(lonely):
    with Baton(lonely) as baton:
        future = lonely.submit(tasks.give, 5)
        baton.wait_answer()
    assert not lonely.cancel(future)
    assert future.result() == 5


def test_an_answer_that_comes_as_the_call_is_cancelled_is_dropped(lonely):
    with Baton(lonely) as baton:
        future = lonely.submit(tasks.give, 5)
        baton.wait_answer()  # which nobody reads now
        assert lonely.cancel(future)
    with pytest.raises(CancelledError):
        future.result()
    still_works(lonely)


def test_calls_that_wait_anywhere_can_be_cancelled(lonely, gate):
    begun, leave = gate("begun"), gate("leave")
    busy = lonely.submit(tasks.pass_gates, begun, leave)
    begun.wait_open()
    array = np.ones(100_000)
    waiting = [lonely.submit(np.sum, array) for _ in range(5)]  # one of them is in the ring
    dependent = lonely.submit(tasks.give, waiting[0])
    assert waiting[0].running(), "the worker was told of it"
    assert all(lonely.cancel(future) for future in waiting)
    assert all(future.cancelled() for future in waiting)
    leave.open()
    busy.result()
    assert isinstance(dependent.exception(), CancelledError)
    assert lonely.stats().workers_started == 1


def test_a_call_with_a_shared_array_can_be_cancelled_until_it_begins(lonely, gate):
    begun, leave = gate("begun"), gate("leave")
    busy = lonely.submit(tasks.pass_gates, begun, leave)
    begun.wait_open()
    array = shmexec.ones(10_000)
    waiting = [lonely.submit(np.sum, array) for _ in range(5)]
    assert waiting[0].running(), "the worker was told of it"
    assert all(future.cancel() for future in waiting[::2])
    leave.open()
    busy.result()
    assert [future.result() for future in waiting[1::2]] == [10_000] * 2
    assert all(future.cancelled() for future in waiting[::2])


class PickledBehindAGate:
    def __init__(self):
        self.begun, self.leave = threading.Event(), threading.Event()

    def __reduce__(self):
        self.begun.set()
        self.leave.wait()
        return int, ()


def test_a_call_can_be_cancelled_while_it_is_pickled(lonely, gate):
    begun, leave = gate("begun"), gate("leave")
    busy = [lonely.submit(tasks.pass_gates, begun, leave) for _ in range(2)]
    argument = PickledBehindAGate()
    future = lonely.submit(tasks.give, argument)  # the collector pickles it, when there is room
    begun.wait_open()
    leave.open(2)
    argument.begun.wait()
    assert lonely.cancel(future)
    argument.leave.set()
    with pytest.raises(CancelledError):
        future.result()
    futures.wait(busy)
    still_works(lonely)


def test_who_waits_for_a_cancelled_call_learns_of_it(lonely, gate):
    begun, seen = gate("begun"), futures.Future()
    future = lonely.submit(tasks.pass_gates, begun, gate("never"))
    begun.wait_open()
    future.add_done_callback(lambda done: seen.set_result(done.cancelled()))
    waiting = threading.Thread(target=lambda: futures.wait([future]))
    waiting.start()
    assert lonely.cancel(future)
    assert list(futures.as_completed([future])) == [future]
    waiting.join()
    assert seen.result()


def test_a_call_that_was_answered_cannot_be_cancelled(lonely):
    future = lonely.submit(tasks.give, 5)
    assert future.result() == 5
    assert not lonely.cancel(future)
    failed = lonely.submit(tasks.raise_it, ValueError("no"))
    futures.wait([failed])
    assert not lonely.cancel(failed)


def test_only_futures_of_the_same_executor_can_be_cancelled(lonely, make_executor):
    with pytest.raises(TypeError, match="future must be one that this executor's submit returned, not Future"):
        lonely.cancel(futures.Future())
    other = make_executor(1)
    with pytest.raises(ValueError, match="another executor"):
        other.cancel(lonely.submit(tasks.give, 1))


@pytest.mark.parametrize("argument", [0, np.ones(100_000)], ids=["atoms", "array"])
def test_a_call_that_is_taken_back_takes_no_other_calls_function_with_it(lonely, argument):
    """The function was to be shipped with it, and the call behind it counts on that."""
    lonely.submit(os._exit, 1).exception()
    pid = lonely.submit(tasks.pid).result()  # of a worker that does not have the function yet
    os.kill(pid, signal.SIGSTOP)
    try:
        first, second = lonely.submit(tasks.give, argument), lonely.submit(tasks.give, 1)
        assert len(seat_of(lonely).sent) == 2
        assert lonely.cancel(first)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert second.result() == 1
    assert first.cancelled()


def test_cancelling_beside_calls_that_end_loses_nothing(make_executor):
    """Whichever comes first: each call has its value or is cancelled, and all others have theirs."""
    executor = make_executor(2)
    executor.submit(tasks.give, 0).result()
    for i in range(60):
        made = [executor.submit(tasks.double, k) for k in range(6)]
        target = made[i % 6]
        if executor.cancel(target):
            with pytest.raises(CancelledError):
                target.result()
            made.remove(target)
        for future in made:
            assert future.result() % 2 == 0
    still_works(executor)


FORKED = """
import os, sys
import shmexec, tasks
from sequencer import Gate
with shmexec.SharedExecutor(1) as ex:
    ex.submit(tasks.give, 0).result()
    begun, leave = Gate("begun"), Gate("leave")
    busy = ex.submit(tasks.pass_gates, begun, leave)
    begun.wait_open()
    waiting = ex.submit(tasks.give, 5)
    pid = os.fork()
    if pid == 0:
        ex.cancel(waiting), ex.cancel(busy)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    leave.open()
    busy.result()
    print(waiting.result())
"""


def test_a_process_that_was_forked_cannot_cancel_its_parents_calls(script):
    assert script(FORKED).stdout == "5\n"


# ---- what makes no sense


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), np.float32(-2)])
def test_a_limit_that_is_no_time_is_refused(executor, timeout):
    with pytest.raises(ValueError, match="timeout must be greater than 0 seconds"):
        executor.options(timeout=timeout)


@pytest.mark.parametrize("timeout", ["1", True, [1]])
def test_a_limit_that_is_no_number_is_refused(executor, timeout):
    with pytest.raises(TypeError, match="timeout must be a number of seconds"):
        executor.options(timeout=timeout)


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, np.int64(1000), np.float32(1000), None])
def test_a_limit_may_be_any_number_of_seconds(executor, timeout):
    assert executor.options(timeout=timeout).submit(tasks.give, 1).result() == 1


def test_what_is_submitted_with_limits_is_checked_as_ever(executor):
    limited = executor.options(timeout=LONG)
    with pytest.raises(TypeError, match="fn must be a callable"):
        limited.submit(5)
    with pytest.raises(TypeError, match="fn must be a callable"):
        limited.map(5, [])
    with pytest.raises(ValueError, match="chunksize"):
        limited.map(tasks.give, [1], chunksize=0)
    with pytest.raises(TypeError, match="buffersize"):
        limited.map(tasks.give, [1], buffersize="2")
