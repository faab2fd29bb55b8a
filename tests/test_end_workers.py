"""terminate_workers and kill_workers: as the standard library's, and they never hang."""

import os
import time
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool

import pytest
import sequencer
import tasks

from shmexec.pool import lives

WAYS = ["terminate_workers", "kill_workers"]


@pytest.mark.parametrize("way", WAYS)
def test_workers_end_and_no_call_is_left_open(make_executor, gate, way):
    executor = make_executor(2)
    begun = gate("begun")
    running = [executor.submit(tasks.pass_gates, begun, gate(f"never-{i}")) for i in range(2)]
    begun.wait_open()
    begun.wait_open()
    waiting = [executor.submit(tasks.double, i) for i in range(500)]
    pids = list(executor._processes)
    getattr(executor, way)()
    for future in running:
        with pytest.raises(BrokenProcessPool, match=way):
            future.result()
    for future in waiting:
        assert isinstance(
            future.exception() if not future.cancelled() else CancelledError(), (BrokenProcessPool, CancelledError)
        )
    with pytest.raises(RuntimeError):
        executor.submit(tasks.give, 1)
    executor.shutdown(wait=True)
    assert all(map(sequencer.is_gone, pids))
    getattr(executor, way)()  # once more does nothing


@pytest.mark.parametrize("way", WAYS)
def test_a_pool_with_nothing_to_do_ends_too(make_executor, way):
    executor = make_executor(1)
    assert executor.submit(tasks.give, 1).result() == 1
    (process,) = executor._processes.values()
    getattr(executor, way)()
    executor.shutdown(wait=True)
    assert sequencer.is_gone(process.pid)


@pytest.mark.parametrize("way", WAYS)
def test_a_pool_that_never_started_a_worker_ends_too(make_executor, way):
    executor = make_executor(1)
    getattr(executor, way)()
    with pytest.raises(RuntimeError):
        executor.submit(tasks.give, 1)


def test_terminated_workers_clean_up(make_executor, gate):
    cleaned, begun = gate("cleaned"), gate("begun")
    executor = make_executor(1, finalizer=cleaned.open)
    executor.submit(tasks.pass_gates, begun, gate("never"))
    begun.wait_open()
    executor.terminate_workers()
    executor.shutdown(wait=True)
    cleaned.wait_open()


def swallow_all(begun):
    begun.open()
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            pass


@pytest.mark.parametrize("way", WAYS)
def test_workers_that_do_not_let_themselves_be_ended_are_killed(make_executor, gate, monkeypatch, way):
    if way == "terminate_workers":
        monkeypatch.setattr(lives, "_GRACE", 0.2)
    begun = gate("begun")
    executor = make_executor(1)
    future = executor.submit(swallow_all, begun)
    begun.wait_open()
    getattr(executor, way)()
    executor.shutdown(wait=True)
    assert isinstance(future.exception(), BrokenProcessPool)


@pytest.mark.parametrize("way", WAYS)
def test_after_a_death_has_broken_the_pool_nothing_is_raised(make_executor, way):
    executor = make_executor(1, on_worker_death="break")
    assert isinstance(executor.submit(os._exit, 1).exception(), BrokenProcessPool)
    getattr(executor, way)()
