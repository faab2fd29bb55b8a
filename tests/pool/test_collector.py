"""The collector's threads: how often they look, and what is said if there can be none."""

import os
import threading

import pytest

import shmexec
from shmexec import _core
from shmexec.pool.collector import Collector

CANNOT = "can't start new thread"


def new_desk(event: int) -> _core.Desk:
    """One for which nothing ever comes."""
    return _core.Desk(_core.Hub.create(event), _core.Ledger(1, 1), _core.LazyFuture, None, lambda: None)


@pytest.mark.parametrize("is_calling", [False, True], ids=["it runs them", "the other runs one"])
def test_who_leaves_callbacks_to_the_other_does_not_ring_for_it(is_calling: bool) -> None:
    """Or it would ring for itself, and go round and round until the callback that runs is over."""
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    nothing = lambda *_: None  # noqa: E731
    collector = Collector(event, new_desk(event), nothing, nothing, nothing, lambda: 60.0, nothing, "collector")
    collector._callbacks.append(lambda: None)
    if is_calling:
        collector._calling.acquire()
    collector._serve([])
    if is_calling:
        with pytest.raises(BlockingIOError):
            os.eventfd_read(event)
    else:
        assert os.eventfd_read(event) == 1  # it sleeps no more: the other is to look when the 60 seconds are over
    collector.close()


def test_no_thread_to_be_had_is_an_error_that_names_the_limit_and_what_was_submitted_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError(CANNOT)

    executor = shmexec.SharedExecutor(1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match=f"{CANNOT}: .*RLIMIT_NPROC"):
            executor.submit(abs, -1)
    assert executor.submit(abs, -2).result() == 2
    assert executor.stats().calls_done == 2
    executor.shutdown()


def test_a_shutdown_that_had_no_thread_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError(CANNOT)

    executor = shmexec.SharedExecutor(1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match=CANNOT):
            executor.submit(abs, -1)
        with pytest.raises(RuntimeError, match=CANNOT):
            executor.shutdown()
    executor.shutdown()
    assert not executor._processes
    assert executor.stats().calls_done == 1


def test_the_event_is_not_closed_under_a_thread_that_writes_to_it() -> None:
    """The number may be another file's by then."""
    reader, event = os.pipe()
    os.set_blocking(event, False)
    os.write(event, bytes(1 << 20))  # as much as the pipe takes
    os.set_blocking(event, True)
    desk = new_desk(event)
    writer = threading.Thread(target=desk.baton.ring_here)
    writer.start()
    while not desk.baton.is_ringing:
        os.sched_yield()
    desk.close()
    desk.baton.close_event()
    os.fstat(event)
    os.read(reader, 1 << 16)
    writer.join()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(event)
    os.close(reader)
    os.close(desk.sender.timer)
