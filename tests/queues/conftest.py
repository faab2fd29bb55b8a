"""For arrays through multiprocessing's own means: registered for one test, contexts, a process at the other end."""

import multiprocessing
import sys
from multiprocessing import forkserver, process
from multiprocessing.reduction import ForkingPickler

import numpy as np
import peers
import pytest

import shmexec
from shmexec import _core

METHODS = ("fork", "forkserver", "spawn")


def pytest_collection_modifyitems(items):
    for item in items:
        if "queues" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"))


@pytest.fixture(autouse=True)
def registered(nothing_left):
    shmexec.register_multiprocessing()
    yield
    for kind in np.ndarray, _core.Block:
        ForkingPickler._extra_reducers.pop(kind, None)
    process.current_process()._config.pop("shmexec", None)
    shmexec.trim(unclaimed=True)


@pytest.fixture(params=METHODS)
def context(request, monkeypatch):
    """A context whose children do not import pytest's main module, which has nothing for them."""
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", None)
    monkeypatch.delattr(main, "__file__", raising=False)
    made = multiprocessing.get_context(request.param)
    if request.param == "forkserver":
        made.set_forkserver_preload(["numpy"])
    yield made
    if request.param == "forkserver":
        forkserver._forkserver._stop()


@pytest.fixture
def start(context):
    """Starts processes of the context; they have ended when the test is over."""
    started = []

    def start(function, *arguments):
        started.append(context.Process(target=function, args=arguments))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.join()
        one.close()


@pytest.fixture
def ask(context, start):
    """Calls functions in another process, by a pipe."""
    here, there = context.Pipe()
    start(peers.answer, there)
    there.close()

    def ask(function, *arguments):
        here.send((function, arguments))
        return here.recv()

    yield ask
    here.send(None)
    here.close()
