"""What the tests of the pool share: launchers, and ways to use a worker."""

import functools
import os
import pickle
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cloudpickle
import pytest

from shmexec.pool.launcher import METHODS, Launcher, WorkerProcess

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file


@pytest.fixture(params=METHODS)
def launcher(request: pytest.FixtureRequest) -> Iterator[Launcher]:
    with Launcher(request.param) as launcher:
        yield launcher


@pytest.fixture
def forkserver() -> Iterator[Launcher]:
    with Launcher("forkserver") as launcher:
        yield launcher


def tell(function: Callable[[], object], fds: list[int]) -> None:
    with open(fds[0], "wb") as file:
        file.write(pickle.dumps(function()))


def ask(launcher: Launcher, function: Callable[[], object], **options: Any) -> Any:
    """What the function returns in a worker."""
    reads, writes = os.pipe()
    job = functools.partial(tell, function)
    worker = launcher.start("operator:call", job, name="asked", fds=[writes], **options)
    os.close(writes)
    with open(reads, "rb") as file:
        answer = file.read()
    worker.join()
    assert worker.exitcode == 0
    worker.close()
    return pickle.loads(answer)


@contextmanager
def waiting_worker(launcher: Launcher) -> Iterator[WorkerProcess]:
    """A worker that is ready, and waits until the block ends."""
    ready, says_ready = os.pipe()
    waits, ends = os.pipe()

    def wait(fds: list[int]) -> None:
        os.write(fds[0], b"r")
        os.close(fds[2])
        while not select.select([fds[1]], [], [], 0.01)[0]:
            pass  # a signal that comes just before a wait without end would be slept through

    worker = launcher.start("operator:call", wait, name="waiting", fds=[says_ready, waits, ends])
    os.close(says_ready)
    os.close(waits)
    assert os.read(ready, 1) == b"r"
    os.close(ready)
    try:
        yield worker
    finally:
        os.close(ends)
        worker.join()
        worker.close()


def exitcode_of(launcher: Launcher, life: Callable[[list[int]], object]) -> int | None:
    worker = launcher.start("operator:call", life, name="w")
    worker.join()
    code = worker.exitcode
    worker.close()
    return code


@pytest.fixture(name="ask")
def ask_fixture() -> Any:
    return ask


@pytest.fixture(name="waiting_worker")
def waiting_worker_fixture() -> Any:
    return waiting_worker


@pytest.fixture(name="exitcode_of")
def exitcode_of_fixture() -> Any:
    return exitcode_of
