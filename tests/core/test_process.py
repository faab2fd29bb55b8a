"""The native part of a process's end: bells that signals ring, and what works when Python does not."""

import ctypes
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from shmexec import _core

# ---- the bell: SIGTERM between a look for signals and a sleep ----


@pytest.fixture
def word() -> ctypes.c_uint32:
    return ctypes.c_uint32(0)


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """The signals that Python's handler of SIGUSR1 has seen."""
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda signum, frame: seen.append(signum))
    yield seen
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_that_comes_before_the_sleep_is_not_slept_through(word: ctypes.c_uint32, handled: list[int]) -> None:
    _core.signal_bell(signal.SIGUSR1, ctypes.addressof(word))
    seen = word.value
    os.kill(os.getpid(), signal.SIGUSR1)
    assert _core.futex_wait(ctypes.addressof(word), seen, 60.0)
    assert word.value == seen + 1
    assert handled == [signal.SIGUSR1]


def test_a_bell_that_is_set_twice_rings_once(word: ctypes.c_uint32, handled: list[int]) -> None:
    for _ in range(2):
        _core.signal_bell(signal.SIGUSR1, ctypes.addressof(word))
    os.kill(os.getpid(), signal.SIGUSR1)
    assert (word.value, handled) == (1, [signal.SIGUSR1])


def test_a_bell_that_is_taken_away_leaves_the_handler(word: ctypes.c_uint32, handled: list[int]) -> None:
    _core.signal_bell(signal.SIGUSR1, ctypes.addressof(word))
    _core.signal_bell(signal.SIGUSR1, 0)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert (word.value, handled) == (0, [signal.SIGUSR1])


def test_a_signal_without_a_handler_can_have_no_bell(word: ctypes.c_uint32) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        _core.signal_bell(signal.SIGUSR2, ctypes.addressof(word))


def test_a_forked_child_rings_nobodys_bell(word: ctypes.c_uint32, handled: list[int]) -> None:
    _core.signal_bell(signal.SIGUSR1, ctypes.addressof(word))
    pid = os.fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(word.value)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_wait_whose_time_is_over_says_so(word: ctypes.c_uint32) -> None:
    assert not _core.futex_wait(ctypes.addressof(word), 0, 0.001)
    assert _core.futex_wait(ctypes.addressof(word), 1, None)
    assert _core.futex_wake(ctypes.addressof(word)) == 0


# ---- the native last resorts ----


def in_a_child(function: Callable[[], None]) -> int:
    """The exit code of a forked child that runs it."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_deadline_ends_a_process_that_holds_the_gil() -> None:
    def hang() -> None:
        _core.deadline(0.01, 41)
        ctypes.PyDLL(None).pause()

    assert in_a_child(hang) == 41


def test_a_process_that_does_not_end_after_its_owner_is_ended() -> None:
    def hang() -> None:
        owner = os.fork()
        if owner == 0:
            os._exit(0)
        signal.signal(signal.SIGTERM, lambda *_: None)
        _core.watch_owner(os.pidfd_open(owner), -1, signal.SIGTERM, 0.01, 42)
        while True:
            signal.pause()

    assert in_a_child(hang) == 42


def test_the_end_of_a_pipe_is_the_end_of_its_owner() -> None:
    def hang() -> None:
        reads, writes = os.pipe()
        _core.watch_owner(os.pidfd_open(os.getpid()), reads, 0, 0.0, 43)
        os.close(writes)
        while True:
            signal.pause()

    assert in_a_child(hang) == 43
