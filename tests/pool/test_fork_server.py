"""The fork server: shared, replaced when it dies, gone when it is not used."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing import connection, spawn
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from shmexec.pool import fork_server
from shmexec.pool.launcher import Launcher, WorkerProcess

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file


Ask = Callable[..., Any]
Waiting = Callable[[Launcher], AbstractContextManager[WorkerProcess]]
ExitCode = Callable[[Launcher, Callable[[list[int]], object]], int | None]


def test_launchers_share_a_fork_server(forkserver: Launcher, ask: Ask) -> None:
    with Launcher("forkserver") as other:
        parents = ask(forkserver, os.getppid), ask(other, os.getppid)
    assert parents[0] == parents[1] != os.getpid()
    assert ask(forkserver, os.getppid) == parents[0]


def test_another_preload_is_another_fork_server(forkserver: Launcher, ask: Ask) -> None:
    with Launcher("forkserver", preload=["numpy", "colorsys"]) as other:
        assert ask(other, os.getppid) != ask(forkserver, os.getppid)
        assert ask(other, lambda: "colorsys" in sys.modules)
        assert not ask(forkserver, lambda: "colorsys" in sys.modules)


def test_a_module_that_cannot_be_preloaded_is_left_to_the_workers(exitcode_of: ExitCode) -> None:
    with Launcher("forkserver", preload=["there.is.no.such.module"]) as launcher:
        assert exitcode_of(launcher, lambda fds: None) == 0


def test_what_is_no_string_in_the_search_path_is_ignored_as_by_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fork_server.search_path()
    monkeypatch.setattr(sys, "path", [*sys.path, Path("/nowhere"), None, b"bytes"])
    assert fork_server.search_path() == before


def test_without_an_interpreter_to_start_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawn, "get_executable", lambda: None)
    with pytest.raises(RuntimeError, match="set_executable"):
        fork_server.ForkServer(("numpy", "no_fork_server_of_others")).start()


def test_an_interpreter_that_cannot_be_executed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(spawn, "_python_exe", os.fsencode(tmp_path / "python"))
    with Launcher("forkserver", preload=["colorsys"]) as launcher, pytest.raises(OSError, match="no such program"):
        launcher.start("shmexec.worker.loop:run", None, name="never")


def test_a_fork_server_that_was_killed_is_replaced(forkserver: Launcher, ask: Ask, waiting_worker: Waiting) -> None:
    server = ask(forkserver, os.getppid)
    with waiting_worker(forkserver) as worker:
        os.kill(server, signal.SIGKILL)
        assert ask(forkserver, os.getppid) != server
        assert worker.is_alive()
    assert worker.exitcode == 255


def test_a_fork_server_that_is_not_used_any_more_is_gone() -> None:
    launcher = Launcher("forkserver")
    launcher.prepare()
    launcher.close()  # the fixture looks for children


def test_a_process_that_the_user_forks_has_a_fork_server_of_its_own(forkserver: Launcher, ask: Ask) -> None:
    server = ask(forkserver, os.getppid)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if ask(forkserver, os.getppid) != server else 2
            forkserver.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert ask(forkserver, os.getppid) == server


def test_a_fork_server_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    source = """
import os, signal
from shmexec.pool import fork_server
from shmexec.pool.launcher import Launcher
launcher = Launcher("forkserver")
job = lambda fds: (os.write(1, b"%d %d\\n" % (os.getppid(), os.getpid())), signal.pause())
worker = launcher.start("operator:call", job, name="w")
copy = os.fork()  # holds copies of all our descriptors
if copy:
    os.write(1, b"%d\\n" % copy)
signal.pause()
"""
    program = subprocess.Popen([sys.executable, "-P", "-c", source], stdout=subprocess.PIPE, start_new_session=True)
    assert program.stdout is not None
    lines = sorted((program.stdout.readline().split(), program.stdout.readline().split()), key=len)
    (copy,), (server, worker) = (list(map(os.pidfd_open, map(int, line))) for line in lines)
    program.kill()
    program.wait()
    connection.wait([server])
    os.killpg(program.pid, signal.SIGKILL)
    for fd in copy, server, worker:
        connection.wait([fd])  # or they may still be seen on their way out
        os.close(fd)
    program.stdout.close()


def test_workers_draw_different_legacy_random_numbers(ask: Ask) -> None:
    with Launcher("forkserver", preload=["numpy", "numpy.random"]) as launcher:

        def draw() -> object:
            import numpy as np

            return np.random.random(), np.random.default_rng().random()

        first, second = ask(launcher, draw), ask(launcher, draw)
    assert first[0] != second[0]
    assert first[1] != second[1]


def test_a_worker_that_may_not_have_all_its_descriptors_says_so_and_ends(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))\n"
    monkeypatch.setattr(fork_server, "COMMAND", limit + fork_server.COMMAND)
    with Launcher("forkserver", preload=["numpy", "colorsys"]) as launcher:
        worker = launcher.start("operator:call", len, name="w", fds=[0] * 40)
        worker.join()
        assert worker.exitcode == 1
        worker.close()
    assert "a worker gets" in capfd.readouterr().err
