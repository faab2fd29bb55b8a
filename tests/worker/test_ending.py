"""How workers end: like programs, under every start method, for every reason."""

import ctypes
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from shmexec import _core
from shmexec.pool.launcher import METHODS, Launcher
from shmexec.worker import ending

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file

PARENT = Path(__file__).with_name("traced_parent.py")
ENDINGS = {"return": 0, "exit": 7, "terminate": 143, "parent killed": None}


@dataclass
class Traces:
    """What a worker and its parent left."""

    directory: Path
    exitcode_wanted: int | None
    parent: dict[str, Any]  # what the parent said while it lived
    names: Counter[str]  # of what ran in the worker


@pytest.fixture(scope="module", params=itertools.product(METHODS, ENDINGS), ids=lambda param: f"{param[0]}-{param[1]}")
def traces(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Traces:
    """One worker's whole life, in a program of its own."""
    method, way = request.param
    directory = tmp_path_factory.mktemp("traces")
    answer, answers = os.pipe()
    arguments = [sys.executable, str(PARENT), method, way, str(directory), str(answers)]
    with subprocess.Popen(arguments, pass_fds=[answers]) as program, open(answer, "rb") as file:
        os.close(answers)
        if way == "parent killed":
            said = file.read(2)
            program.kill()
        else:
            said = b""
        said += file.read()  # until the worker, which has the other end too, is gone
    parent = json.loads(said)
    return Traces(directory, ENDINGS[way], parent, Counter(parent.get("traces", all_traces(directory))))


def all_traces(directory: Path) -> list[str]:
    """What has left traces up to now, in whatever process."""
    made_by_c = [path.name for path in directory.glob("* C handler")]
    return (directory / "traces").read_text().splitlines() + made_by_c


def test_the_exit_code_says_why(traces: Traces) -> None:
    assert traces.parent.get("exitcode") == traces.exitcode_wanted


@pytest.mark.parametrize("what", ["atexit", "weakref.finalize", "util.Finalize", "thread", "C handler"])
def test_what_a_worker_registered_runs_once(traces: Traces, what: str) -> None:
    assert traces.names[f"worker {what}"] == 1


def test_what_the_parent_registered_does_not_run_in_a_worker(traces: Traces) -> None:
    assert [name for name in traces.names if name.startswith("parent")] == []


@pytest.mark.parametrize("log", ["log", "main log"])
def test_an_unflushed_file_in_a_module_global_is_complete(traces: Traces, log: str) -> None:
    assert (traces.directory / log).read_text() == "everything that was written"


def test_logging_is_shut_down(traces: Traces) -> None:
    assert (traces.directory / "records").read_text() == "everything that was logged\n"


def test_a_parents_temporary_files_survive_its_workers(traces: Traces) -> None:
    if traces.parent:
        assert traces.parent["temporary file"]
        assert traces.parent["temporary directory"]


def test_a_parents_unflushed_file_is_written_by_the_parent_alone(traces: Traces) -> None:
    assert (traces.directory / "parent's").read_text() == ("once" if traces.parent else "")


def test_a_parents_own_end_runs_everything(traces: Traces) -> None:
    if traces.parent:
        after = Counter(all_traces(traces.directory)) - traces.names
        assert after == Counter(
            f"parent {what}" for what in ("atexit", "weakref.finalize", "util.Finalize", "C handler")
        )


# ---- what a task may do about it ----


@pytest.fixture(params=METHODS)
def launcher(request: pytest.FixtureRequest) -> Iterator[Launcher]:
    with Launcher(request.param) as launcher:
        yield launcher


def wait_for_signals() -> None:
    while True:
        time.sleep(0.01)  # not pause(): a signal that comes just before it would be slept through


def run_until_ready(
    launcher: Launcher, life: Callable[[list[int]], None], signum: int | None
) -> tuple[int | None, bytes]:
    """The exit code and what the worker wrote after b"r", when it has been sent a signal."""
    reads, writes = os.pipe()
    worker = launcher.start("operator:call", life, name="w", fds=[writes])
    os.close(writes)
    with open(reads, "rb") as file:
        assert file.read(1) == b"r"
        if signum is not None:
            signal.pidfd_send_signal(worker.sentinel, signum)
        written = file.read()
    worker.join()
    code = worker.exitcode
    worker.close()
    return code, written


def test_a_loop_can_ask_whether_a_task_swallowed_the_end(launcher: Launcher) -> None:
    def life(fds: list[int]) -> None:
        assert not ending.is_ending()
        ending.raise_if_ending()
        try:
            os.write(fds[0], b"r")
            wait_for_signals()
        except BaseException:
            os.write(fds[0], b"swallowed")
        assert ending.is_ending()
        ending.raise_if_ending()

    assert run_until_ready(launcher, life, signal.SIGTERM) == (143, b"swallowed")


def test_a_second_sigterm_does_not_disturb_the_clean_up(launcher: Launcher) -> None:
    def life(fds: list[int]) -> None:
        try:
            os.write(fds[0], b"r")
            wait_for_signals()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            os.write(fds[0], b"cleaned up")

    assert run_until_ready(launcher, life, signal.SIGTERM) == (143, b"cleaned up")


def test_ctrl_c_leaves_a_worker_alone(launcher: Launcher) -> None:
    def life(fds: list[int]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.write(fds[0], b"r")

    assert run_until_ready(launcher, life, None) == (0, b"")


def test_a_process_that_a_task_forks_dies_of_sigterm(launcher: Launcher) -> None:
    def life(fds: list[int]) -> None:
        os.write(fds[0], b"r")
        pid = os.fork()
        if pid == 0:
            for fd in fds:
                os.close(fd)
            while True:
                signal.pause()
        os.kill(pid, signal.SIGTERM)
        os.write(fds[0], str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())

    assert run_until_ready(launcher, life, None) == (0, b"-15")


def test_a_fork_in_a_worker_of_a_worker_leaves_no_signal_blocked(launcher: Launcher) -> None:
    method = launcher.method

    def inner(fds: list[int]) -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        os.write(fds[0], str(sorted(blocked)).encode())

    def life(fds: list[int]) -> None:
        os.write(fds[0], b"r")
        with Launcher(method) as nested:
            worker = nested.start("operator:call", inner, name="inner", fds=fds)
            worker.join()

    assert run_until_ready(launcher, life, None) == (0, b"[]")


def test_a_process_that_a_task_forks_keeps_its_own_exit_code(launcher: Launcher) -> None:
    def life(fds: list[int]) -> None:
        os.write(fds[0], b"r")
        pid = os.fork()
        if pid == 0:
            os._exit(5)
        os.write(fds[0], str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())

    assert run_until_ready(launcher, life, None) == (0, b"5")


def test_an_exit_handler_that_fails_does_not_stop_the_others(launcher: Launcher) -> None:
    def life(fds: list[int]) -> None:
        import atexit
        import sys

        atexit.register(os.write, fds[0], b"first")
        atexit.register(lambda: 1 / 0)
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - lasts to the end
        os.write(fds[0], b"r")

    assert run_until_ready(launcher, life, None) == (0, b"first")


def test_a_worker_that_sleeps_on_a_word_ends_at_sigterm(launcher: Launcher) -> None:
    def life(fds: list[int]) -> None:
        word = ctypes.c_uint32(0)
        ending.ring_on_term(ctypes.addressof(word))
        os.write(fds[0], b"r")
        while True:
            seen = word.value
            ending.raise_if_ending()
            _core.futex_wait(ctypes.addressof(word), seen)

    assert run_until_ready(launcher, life, signal.SIGTERM) == (143, b"")
