"""The native part of a process's end: bells that signals ring, and what works when Python does not."""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

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
        _core.watch_owner(os.pidfd_open(owner), -1, signal.SIGTERM, 0.01, 0.01, 42)
        while True:
            signal.pause()

    assert in_a_child(hang) == 42


def test_the_end_of_a_pipe_is_the_end_of_its_owner() -> None:
    def hang() -> None:
        reads, writes = os.pipe()
        _core.watch_owner(os.pidfd_open(os.getpid()), reads, 0, 0.0, 0.0, 43)
        os.close(writes)
        while True:
            signal.pause()

    assert in_a_child(hang) == 43


def deadlock() -> None:
    """Wait for a lock of this same thread: no signal ends that."""
    mutex = ctypes.create_string_buffer(256)  # zeros are a free pthread_mutex_t
    for _ in range(2):
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)  # with the GIL


def dead() -> int:
    """A pidfd of a process that is dead."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    pidfd = os.pidfd_open(pid)
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
    return pidfd


def test_a_process_that_cannot_begin_its_end_after_its_owners_is_not_given_the_grace() -> None:
    def hang() -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)
        _core.watch_owner(dead(), -1, signal.SIGTERM, 0.05, 1e6, 44)
        deadlock()

    assert in_a_child(hang) == 44


def test_one_that_has_begun_is() -> None:
    def clean_up(*_: object) -> None:
        _core.note_end()
        signal.signal(signal.SIGTERM, lambda *_: None)
        time.sleep(2.5)  # longer than the patience
        os._exit(46)

    def end() -> None:
        signal.signal(signal.SIGTERM, clean_up)
        _core.watch_owner(dead(), -1, signal.SIGTERM, 2.0, 1e6, 45)
        while True:
            signal.pause()

    assert in_a_child(end) == 46


def test_a_signal_is_repeated_until_the_end_has_begun() -> None:
    seen: list[int] = []

    def count(*_: object) -> None:
        seen.append(1)
        if len(seen) == 3:
            _core.note_end()
            os._exit(47)

    def wait() -> None:
        signal.signal(signal.SIGTERM, count)
        _core.watch_owner(os.pidfd_open(os.getpid()), -1, signal.SIGTERM, 0.0, 0.0, 48)
        _core.signal_bell(signal.SIGTERM, 0)
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            time.sleep(0.01)

    assert in_a_child(wait) == 47


def test_whoever_has_closed_the_descriptors_of_the_bell_finds_nothing_in_files() -> None:
    def close() -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)
        _core.watch_owner(os.pidfd_open(os.getpid()), -1, signal.SIGTERM, 0.0, 0.0, 48)
        _core.signal_bell(signal.SIGTERM, 0)
        watcher = next(name for name in os.listdir("/proc/self/task") if int(name) != os.getpid())
        while Path(f"/proc/self/task/{watcher}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            os.sched_yield()
        os.closerange(3, 1000)
        files = [os.memfd_create("file") for _ in range(500)]
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(int(any(os.fstat(number).st_size for number in files)))

    assert in_a_child(close) == 0
