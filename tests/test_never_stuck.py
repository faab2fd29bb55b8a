"""What waits goes on as soon as it can: states in which nobody would have looked again, each forced by gates.

A wait that is slept over shows as the suite's time-out.
"""

import os
import signal
import sys
import threading
from concurrent.futures import CancelledError, wait

import pytest
import sequencer
import tasks

import shmexec
from shmexec.pool.crew import Crew, Worker


class Slow:
    """Its pickling says that it has begun, and waits."""

    def __init__(self):
        self.entered, self.leave = threading.Event(), threading.Event()

    def __reduce__(self):
        self.entered.set()
        self.leave.wait()
        return int, ()


def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def collects(executor, count):
    """Until so many calls have been answered, by whoever; this thread helps."""

    def has_collected():
        executor._pool.desk.help()
        return executor.stats().calls_done == count

    sequencer.wait_until(has_collected)


# ---- calls that wait for others ----


def test_the_collector_does_not_wait_for_an_outcome_in_its_own_hands(executor, gate):
    """It pickles one call while a leader reads what the next depends on, and leaves the rest to the collector."""
    gates = [(gate(f"begun {i}"), gate(f"leave {i}")) for i in range(2)]
    first, second = (executor.submit(tasks.pass_gates, begun, leave, i) for i, (begun, leave) in enumerate(gates))
    for begun, _ in gates:
        begun.wait_open()
    wait([first], timeout=0)  # it has a condition from now on: that takes Python
    slow = Slow()
    behind = executor.submit(tasks.give, first), executor.submit(tasks.add, second, slow)
    gates[1][1].open()
    slow.entered.wait()
    gates[0][1].open()
    collects(executor, 2)
    slow.leave.set()
    assert [future.result() for future in (first, second, *behind)] == [0, 1, 0, 1]


def test_who_comes_to_wait_between_an_answer_and_its_futures_end_is_not_forgotten(lonely, gate):
    begun, leave = gate("begun"), gate("leave")
    done = lonely.stats().calls_done
    future = lonely.submit(tasks.pass_gates, begun, leave, 1)
    begun.wait_open()
    with future._condition:
        leave.open()
        collects(lonely, done + 1)
        assert not future.done()
        behind = lonely.submit(tasks.give, future)
    assert behind.result() == 1


def test_a_callback_that_ends_the_thread_holds_nobody_up(lonely, gate):
    begun, leave = gate("begun"), gate("leave")
    lonely.submit(tasks.pass_gates, begun, leave)
    begun.wait_open()
    kept, future = lonely.submit(tasks.give, 1), lonely.submit(tasks.give, 2)
    behind = lonely.submit(tasks.give, future)
    future.add_done_callback(lambda _: sys.exit())
    assert kept.cancel()  # there is room for `behind`, which fails as it is packed
    with pytest.raises(SystemExit):
        future.cancel()
    with pytest.raises(CancelledError):
        behind.result()
    leave.open()


# ---- rings that are full of calls that were taken back ----

DATA = b"x" * 1500


def stop_when_up(first, up):
    """All workers but one: wait to come up; and stop when the parent has been told, before the ring is looked at."""
    from shmexec.worker.loop import Loop

    answer = Loop._answer

    def answer_and_stop(loop, *arguments):
        answer(loop, *arguments)
        Loop._answer = answer
        os.kill(os.getpid(), signal.SIGSTOP)

    try:
        os.mkdir(first)
    except FileExistsError:
        up.wait_open()
        Loop._answer = answer_and_stop


@pytest.fixture
def full(make_executor, gate, tmp_path):
    """(executor, seat of a worker that is not up and whose ring is full, its pid, a gate for it)."""
    up, begun, leave = gate("up"), gate("begun"), gate("leave")
    executor = make_executor(2, None, stop_when_up, (tmp_path / "first", up))
    executor.submit(tasks.give, 1).result()
    workers = executor._pool._workers
    (first,) = workers
    executor.submit(tasks.pass_gates, begun, leave)
    begun.wait_open()
    kept = executor.submit(tasks.give, DATA)
    sequencer.wait_until(lambda: len(workers) == 2)
    ((seat, worker),) = [(seat, worker) for seat, worker in workers.items() if seat is not first]
    while not all(each.is_full for each in workers):
        executor.submit(tasks.give, DATA).cancel()
    assert executor.cancel(kept)
    yield executor, seat, worker.process.pid, up
    leave.open()


def wait_stopped(seat, pid):
    sequencer.wait_until(lambda: sequencer.state_of(pid) == "T" and seat.is_ready)


def test_room_in_a_ring_is_seen_whoever_reads_the_answers_just_then(full):
    executor, seat, pid, up = full
    last = executor.submit(tasks.give, DATA)
    up.open()
    wait_stopped(seat, pid)
    baton = executor._pool.desk.baton
    sequencer.wait_until(baton.try_take)
    os.kill(pid, signal.SIGCONT)
    sequencer.wait_until(lambda: seat.sleeps() and sequencer.state_of(pid) == "S")
    baton.lay_down()
    answered = threading.Event()
    last.add_done_callback(lambda _: answered.set())
    answered.wait()
    assert last.result() == DATA


def test_a_worker_that_could_not_be_told_to_end_is_told_again(lonely, monkeypatch):
    """Its ring may be full of calls that were taken back; when it has skipped them it rings."""
    tell, told = Worker.try_stop, []

    def tell_later(worker):
        told.append(len(told) > 0 and tell(worker))
        lonely._pool.desk.baton.ring()
        return told[-1]

    monkeypatch.setattr(Worker, "try_stop", tell_later)
    lonely.shutdown()
    assert told == [False, True]


# ---- workers that are not up ----


def wait_unless_first(first, up):
    try:
        os.mkdir(first)
    except FileExistsError:
        up.wait_open()


def test_a_call_that_was_sent_to_a_worker_that_is_not_up_goes_to_one_that_is_idle(make_executor, gate, tmp_path):
    up, begun, leave = gate("up"), gate("begun"), gate("leave")
    executor = make_executor(2, None, wait_unless_first, (tmp_path / "first", up))
    executor.submit(tasks.give, 1).result()
    busy = executor.submit(tasks.pass_gates, begun, leave, 2)
    begun.wait_open()
    other = executor.submit(tasks.give, 3)
    sequencer.wait_until(lambda: len(executor._processes) == 2)
    leave.open()
    assert [busy.result(), other.result()] == [2, 3]


def test_a_pool_does_not_end_while_a_worker_is_being_started(make_executor, monkeypatch, gate):
    """Its start is then over, and it is told to end as the others are."""
    begun, leave = gate("begun"), gate("leave")
    executor = make_executor(2)
    futures = [executor.submit(tasks.pass_gates, begun, leave, 0)]
    begun.wait_open()
    starting, go_on = threading.Event(), threading.Event()
    start = Crew.start

    def start_when_told(crew, **how):
        starting.set()
        go_on.wait()
        return start(crew, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Crew, "start", start_when_told)
        submitting = in_thread(lambda: futures.append(executor.submit(tasks.give, 1)))
        starting.wait()
        leave.open()
        executor.shutdown(wait=False)
        go_on.set()
        submitting.join()
    executor.shutdown()
    assert [future.result() for future in futures] == [0, 1]
    assert not executor._processes


# ---- Ctrl-C ----


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.fixture
def interrupts():
    """SIGUSR1 is Ctrl-C."""
    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)


class Endless:
    """Its pickling lasts until a signal comes."""

    def __init__(self):
        self.entered = threading.Event()

    def __reduce__(self):
        self.entered.set()
        while True:
            os.sched_yield()


def test_calls_of_others_behind_one_whose_pickling_is_interrupted_are_sent(lonely, interrupts):
    endless, others = Endless(), []

    def submit_and_interrupt():
        endless.entered.wait()
        others.append(lonely.submit(tasks.give, 5))
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    thread = in_thread(submit_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        lonely.submit(tasks.add, 1, endless)
    thread.join()
    assert others[0].result() == 5


@pytest.mark.parametrize("times", [1, 2])
def test_calls_of_others_are_not_lost_if_the_start_of_the_first_worker_is_interrupted(
    make_executor, monkeypatch, times
):
    executor, others = make_executor(1), []
    start = Crew.start
    left = times

    def interrupted(crew, **how):
        nonlocal left
        if not left:
            return start(crew, **how)
        left -= 1
        if not others:
            in_thread(lambda: others.append(executor.submit(tasks.give, 5))).join()
        raise KeyboardInterrupt

    monkeypatch.setattr(Crew, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        executor.submit(tasks.give, 3)
    if times == 2:  # also as the other's call was to have a worker
        executor.shutdown()
    assert others[0].result() == 5


def test_a_handler_that_waits_while_its_thread_leads_learns_of_a_death(executor, gate):
    begun, leave = gate("begun"), gate("leave")
    future = executor.submit(tasks.pass_gates, begun, leave, 1)
    begun.wait_open()
    raised = []

    def ask():
        raised.append(executor.submit(os._exit, 3).exception())
        leave.open()

    with sequencer.signal_once(ask, lambda: executor._pool.desk.baton.leader_sleeps):
        assert future.result() == 1
    assert isinstance(raised[0], shmexec.WorkerDied)
