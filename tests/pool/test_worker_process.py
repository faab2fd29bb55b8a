"""A worker as its parent sees it: alive, told to end, ended."""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import cloudpickle
import pytest

from shmexec.pool.launcher import Launcher, WorkerProcess

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file


Waiting = Callable[[Launcher], AbstractContextManager[WorkerProcess]]
ExitCode = Callable[[Launcher, Callable[[list[int]], object]], int | None]


@pytest.mark.parametrize(
    ("life", "code"), [(lambda fds: None, 0), (lambda fds: sys.exit(7), 7), (lambda fds: sys.exit(), 0)]
)
def test_the_exit_code_is_that_of_the_worker(
    launcher: Launcher, life: Callable[[list[int]], None], code: int, exitcode_of: ExitCode
) -> None:
    assert exitcode_of(launcher, life) == code


def test_an_exception_ends_a_worker_with_code_1(
    launcher: Launcher, capfd: pytest.CaptureFixture[str], exitcode_of: ExitCode
) -> None:
    assert exitcode_of(launcher, lambda fds: 1 // 0) == 1
    assert "ZeroDivisionError" in capfd.readouterr().err


@pytest.mark.parametrize(("method", "code"), [("terminate", 143), ("kill", -9)])
def test_a_worker_that_is_told_to_end_ends(launcher: Launcher, method: str, code: int, waiting_worker: Waiting) -> None:
    with waiting_worker(launcher) as worker:
        assert worker.is_alive()
        assert worker.exitcode is None
        getattr(worker, method)()
        worker.join()
        assert not worker.is_alive()
        assert worker.exitcode == code


def test_sigterm_before_a_worker_is_ready_ends_it_as_later(launcher: Launcher) -> None:
    worker = launcher.start("operator:call", lambda fds: [time.sleep(0.01) for _ in iter(int, 1)], name="w")
    worker.terminate()
    worker.join()
    assert worker.exitcode == 143
    worker.close()


def test_a_worker_process_looks_like_multiprocessings(launcher: Launcher, waiting_worker: Waiting) -> None:
    with waiting_worker(launcher) as worker:
        assert (worker.name, worker.ident, worker.daemon) == ("waiting", worker.pid, False)
        assert "started" in repr(worker)
        worker.join(0.001)
        assert worker.is_alive()
        with pytest.raises(ValueError, match="running"):
            worker.close()
    assert worker.exitcode == 0
    assert "closed" in repr(worker)
    with pytest.raises(ValueError, match="closed"):
        _ = worker.sentinel
    worker.close()
    worker.kill()


@pytest.mark.parametrize("method", ["fork", "spawn"])  # those of the fork server are its own children
def test_an_exit_status_that_somebody_else_took_is_255(method: str, waiting_worker: Waiting) -> None:
    with Launcher(method) as launcher, waiting_worker(launcher) as worker:
        worker.kill()
        os.waitpid(worker.pid, 0)
        worker.join()
        assert worker.exitcode == 255


def test_many_threads_may_wait_for_one_worker(launcher: Launcher, waiting_worker: Waiting) -> None:
    codes = []
    with waiting_worker(launcher) as worker:
        threads = [threading.Thread(target=lambda: (worker.join(), codes.append(worker.exitcode))) for _ in range(8)]
        for thread in threads:
            thread.start()
        worker.kill()
        for thread in threads:
            thread.join()
    assert codes == [-9] * 8
