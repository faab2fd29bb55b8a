"""Finalizers, which the collection of garbage runs in any thread at any moment: within a step of the pool, too.

Each test has the lock of the pool when the finalizer runs; what it must not do is wait for that lock.
"""

import gc
import threading
import weakref
from concurrent import futures

import faults
import pytest
import sequencer
import tasks

import shmexec
from shmexec.pool import fork_server, log


class Cycle:
    """Is garbage only when somebody collects; calls a function then."""

    def __init__(self, last_words=None, **attributes):
        self.me, self.last_words = self, last_words
        self.__dict__.update(attributes)

    def __del__(self):
        if self.last_words is not None:
            self.last_words()


@pytest.fixture
def collected():
    """No garbage but what the test makes, and none goes before the test says so."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def until_pools_end():
    sequencer.wait_until(lambda: not any(thread.name.startswith("shmexec") for thread in threading.enumerate()))


def collect_under(lock):
    with lock:
        gc.collect()


@pytest.mark.parametrize("used", [False, True])
def test_an_executor_in_a_cycle_ends_whatever_its_last_thread_is_doing(collected, used):
    executor = shmexec.SharedExecutor(2)
    assert not used or executor.submit(tasks.double, 4).result() == 8
    lock, pool = executor._pool.desk.lock, weakref.ref(executor._pool)
    Cycle(executor=executor)
    del executor
    collect_under(lock)
    sequencer.wait_until(lambda: not gc.collect() and pool() is None)  # closed, a thread may have it for a moment yet
    until_pools_end()


@pytest.mark.parametrize("whose", ["the fork server's", "another pool's", "the log's"])
def test_a_finalizer_that_shuts_down_does_not_wait_while_its_thread_has_a_lock(executor, gate, collected, whose):
    locks = {
        "the fork server's": fork_server._lock,
        "another pool's": executor._pool.desk.lock,
        "the log's": log._logging,
    }
    other = shmexec.SharedExecutor(1)
    say, wait = gate("say"), gate("wait")
    future = other.submit(tasks.pass_gates, say, wait, 5)
    say.wait_open()
    pool = weakref.ref(other._pool)
    Cycle(other.shutdown)
    del other
    collect_under(locks[whose])
    wait.open()
    assert future.result() == 5
    del future
    sequencer.wait_until(lambda: not gc.collect() and pool() is None)


def test_an_executor_in_a_cycle_finishes_its_calls(collected, gate):
    executor = shmexec.SharedExecutor(1)
    say, wait = gate("say"), gate("wait")
    made = [executor.submit(tasks.pass_gates, say, wait, 5), executor.submit(tasks.double, 4)]
    say.wait_open()
    lock = executor._pool.desk.lock
    Cycle(executor=executor)
    del executor
    collect_under(lock)
    wait.open()
    assert [future.result() for future in made] == [5, 8]
    del made
    until_pools_end()


def test_a_finalizer_may_submit_and_shut_down(executor, collected):
    executor.submit(tasks.double, 0).result()
    made = []
    Cycle(lambda: made.append(executor.submit(tasks.double, 4)))  # nothing to do in Python
    Cycle(lambda: made.append(executor.submit(tasks.describe, shmexec.ones(3))))
    collect_under(executor._pool.desk.lock)
    assert {type(future.result()) for future in made} == {int, dict}
    Cycle(executor.shutdown)
    collect_under(executor._pool.desk.lock)
    until_pools_end()


def test_a_finalizer_may_cancel(make_executor, gate, collected):
    executor = make_executor(1)
    say, wait = gate("say"), gate("wait")
    busy = executor.submit(tasks.pass_gates, say, wait)
    say.wait_open()
    queued = [executor.submit(tasks.give, i) for i in range(9)]
    late = executor.submit(tasks.give, queued[-1])
    Cycle(queued[-1].cancel)
    collect_under(executor._pool.desk.lock)
    assert queued[-1].cancelled()
    wait.open()
    busy.result()
    assert [future.result() for future in queued[:-1]] == list(range(8))
    assert isinstance(late.exception(), futures.CancelledError)


@pytest.mark.parametrize("chunksize", [None, 2])
def test_the_iterator_of_a_map_may_go_in_the_middle_of_a_step(executor, collected, chunksize):
    results = executor.map(tasks.double, range(1000), chunksize=chunksize)
    assert next(results) == 0
    Cycle(results=results)
    del results
    collect_under(executor._pool.desk.lock)
    assert executor.submit(tasks.double, 4).result() == 8


def test_a_finalizer_that_wants_to_wait_in_the_middle_of_a_step_is_told_so(executor, gate, collected, monkeypatch):
    raised = []
    monkeypatch.setattr("sys.unraisablehook", lambda args: raised.append(str(args.exc_value)))
    say, wait = gate("say"), gate("wait")
    future = executor.submit(tasks.pass_gates, say, wait, 5)
    Cycle(future.result)
    Cycle(executor.stats)
    collect_under(executor._pool.desk.lock)
    assert len(raised) == 2
    assert all("in the middle of a step" in text for text in raised)
    wait.open()
    assert future.result() == 5


def test_pickling_that_leaves_by_sys_exit_fails_its_call_and_not_the_collector(make_executor, gate):
    executor = make_executor(1)
    say, wait = gate("say"), gate("wait")
    busy = [executor.submit(tasks.pass_gates, say, wait, i) for i in range(3)]
    say.wait_open()
    exits = [executor.submit(tasks.give, faults.UnpicklableHere(SystemExit)) for _ in range(2)]
    wait.open(3)
    assert [type(future.exception()) for future in exits] == [SystemExit] * 2
    assert [future.result() for future in busy] == [0, 1, 2]
    assert executor.submit(tasks.double, 4).result() == 8
