"""Calls that are tried again when their worker has died, and pools whose workers die again and again."""

import itertools
import os
import signal
import sys
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
import sequencer
import tasks

import shmexec
from shmexec import TaskTimeout, WorkerDied


def die_until(counter, attempt, value=None):
    """Die at the attempts before this one."""
    counter[0] += 1
    if counter[0] < attempt:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def count_and_raise(counter):
    counter[0] += 1
    raise ValueError("no")


def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def counter():
    return shmexec.zeros(1, "i8")


def still_works(executor):
    assert list(executor.map(tasks.double, range(10))) == list(range(0, 20, 2))


def test_a_call_whose_worker_died_is_run_again(executor, counter):
    assert executor.options(retries=3).submit(die_until, counter, 3, "done").result() == "done"
    assert counter[0] == 3
    assert executor.stats().workers_died == 2


def test_so_often_and_not_once_more(executor, counter):
    error = executor.options(retries=2).submit(die_until, counter, 100).exception()
    assert isinstance(error, WorkerDied)
    assert error.exitcode == -9
    assert "die_until (attempt 3)" in str(error)
    assert counter[0] == 3
    still_works(executor)


def test_without_retries_it_is_not_run_again(executor, counter):
    assert isinstance(executor.options(timeout=1000).submit(die_until, counter, 2).exception(), WorkerDied)
    assert counter[0] == 1


def test_an_exception_is_an_answer(executor, counter):
    assert isinstance(executor.options(retries=5).submit(count_and_raise, counter).exception(), ValueError)
    assert counter[0] == 1


def count_and_linger(counter, begun, never):
    counter[0] += 1
    tasks.pass_gates(begun, never)


def test_a_call_whose_time_was_up_is_not_run_again(make_executor, counter, gate):
    executor = make_executor(1)
    assert executor.submit(die_until, counter, 0).result() is None  # it is up, and has imported this module
    counter[0] = 0
    limited = executor.options(timeout=2, retries=5)
    assert isinstance(limited.submit(count_and_linger, counter, gate("begun"), gate("never")).exception(), TaskTimeout)
    assert counter[0] == 1


def test_nor_is_one_that_was_cancelled(executor, counter, gate):
    begun = gate("begun")
    future = executor.options(retries=5).submit(count_and_linger, counter, begun, gate("never"))
    begun.wait_open()
    assert executor.cancel(future)
    sequencer.wait_until(future.cancelled)
    still_works(executor)
    assert counter[0] == 1


def test_each_attempt_has_the_whole_time(executor, counter):
    assert executor.options(timeout=1000, retries=2).submit(die_until, counter, 3, "done").result() == "done"


def test_an_attempt_sees_what_a_dead_one_has_written(executor, counter):
    def add_one(array, counter):
        array += 1
        die_until(counter, 2)
        return array

    for array in (shmexec.zeros(50_000), np.zeros(50_000)):  # shared, and a copy that is private to the call
        counter[0] = 0
        assert (executor.options(retries=1).submit(add_one, array, counter).result() == 2).all()


def die_at(i, where, counter):
    if i == where:
        die_until(counter, 2)
    return i


def test_in_a_map_each_item_is_run_again_by_itself(executor, counter):
    limited = executor.options(retries=1)
    items = range(10), itertools.repeat(4), itertools.repeat(counter)
    assert list(limited.map(die_at, *items)) == list(range(10))
    assert counter[0] == 2
    counter[0] = 0
    assert list(limited.map(die_at, *items, chunksize=5)) == list(range(10))
    assert counter[0] == 2
    counter[0] = 0
    assert sorted(limited.map(die_at, *items, ordered=False)) == list(range(10))


def test_all_memory_comes_back_however_often_a_call_is_run(executor, counter):
    executor.submit(tasks.pid).result()
    before = shmexec.heap_info().blocks
    array = np.ones(100_000)
    long = os.urandom(50_000)  # the message lies in a block of its own
    executor.options(retries=2).submit(die_until, counter, 3, (array, long)).result()
    counter[0] = 0
    executor.options(retries=1).submit(die_until, counter, 3, (array, long)).exception()
    executor.submit(tasks.pid).result()
    assert shmexec.heap_info().blocks <= before


def test_retries_make_no_sense_where_a_death_ends_all(make_executor):
    with pytest.raises(ValueError, match="retries cannot be used with on_worker_death='break'"):
        make_executor(1, on_worker_death="break").options(retries=1)


@pytest.mark.parametrize(
    ("retries", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError), ("1", TypeError)]
)
def test_retries_are_a_number(executor, retries, error):
    with pytest.raises(error, match="retries must be"):
        executor.options(retries=retries)


# ---- workers that die again and again


def die_when_ready():
    """After it has said that it is ready, and before it looks for calls."""
    sys.modules["shmexec.worker.loop"]._core.serve_calls = kill


def test_workers_that_die_before_they_begin_anything_break_the_pool(make_executor):
    executor = make_executor(1, None, die_when_ready)
    future = executor.options(retries=1000).submit(tasks.give, 1)
    with pytest.raises(BrokenProcessPool, match="3 worker processes in a row died before they had come up or begun"):
        future.result()


def test_calls_that_die_at_every_attempt_break_the_pool_in_the_end(make_executor):
    executor = make_executor(1)
    made = [executor.options(retries=1).submit(kill) for _ in range(12)]
    errors = [future.exception() for future in made]
    assert [type(error) for error in errors[:10]] == [WorkerDied] * 10
    assert all(type(error) is BrokenProcessPool for error in errors[10:])
    assert "the workers of 10 calls in a row died at every attempt" in str(errors[11])


def die_but_the_first(counter):
    counter[0] += 1
    if counter[0] > 1:
        kill()


def test_the_pool_goes_on_with_the_workers_that_are_up(make_executor, gate, counter, caplog):
    executor = make_executor(2, None, die_but_the_first, (counter,))
    begun, leave = gate("begun"), gate("leave")
    busy = executor.submit(tasks.pass_gates, begun, leave, "spared")
    begun.wait_open()
    others = [executor.submit(tasks.double, i) for i in range(5)]
    sequencer.wait_until(lambda: any("the pool goes on with 1" in text for text in caplog.messages))
    leave.open()
    assert busy.result() == "spared"
    assert [future.result() for future in others] == [0, 2, 4, 6, 8]
    assert counter[0] == 4
    executor.shutdown()
    del executor
