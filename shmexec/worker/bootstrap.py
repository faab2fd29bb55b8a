"""The child's side of a start: from the first line that runs in a worker process to the call of its entry.

Purpose: one life for all start methods, as a process that multiprocessing knows.
Guarantees: whatever happens, the process ends by `ending.leave`; the frames that a forked child inherited are
never returned to.
Assumptions: SIGTERM and SIGINT are blocked from the birth of the process.

===========  =============================================================  ==============================
start        first line here                                                job and descriptors
===========  =============================================================  ==============================
fork         `fork_worker`, in the parent                                   inherited
forkserver   `run_payload`, in a child of the fork server                   pickled; sent over a socket
spawn        `WorkerSelf`, from ``multiprocessing.spawn.spawn_main``        pickled; inherited over exec
===========  =============================================================  ==============================
"""

import os
import pickle
import signal
import sys
from contextlib import AbstractContextManager
from multiprocessing import process, resource_tracker, spawn
from typing import Any, NoReturn

from shmexec.transport.launch import StartRequest, resolve
from shmexec.transport.standard import open_standard_descriptors
from shmexec.worker import ending
from shmexec.worker.forking import Fork

_spawn: Any = spawn  # for what typeshed does not declare
_tracker: Any = resource_tracker


class WorkerSelf(process.BaseProcess):
    """What ``multiprocessing.current_process()`` is in a worker.

    A BaseProcess, so that coverage.py's hook of ``BaseProcess._bootstrap`` and everything that
    multiprocessing does for a child (after-fork hooks, stdin, the names) apply. It is made in the child: the
    parent needs no such object.
    """

    _start_method = None  # the child's default context stays undecided
    _identity: tuple[int, ...]
    _parent_name: str
    _parent_pid: int

    def __init__(self, request: StartRequest) -> None:
        super().__init__(name=request.name, daemon=False)  # a worker may have children
        self._identity = request.identity
        self._parent_name = request.parent_name
        self._parent_pid = request.parent_pid
        self._owner = request.owner.detach()
        self._request: StartRequest | None = request

    def _bootstrap(self, parent_sentinel: int | None = None) -> NoReturn:
        code = 1
        try:
            if parent_sentinel is not None:
                os.close(parent_sentinel)  # from spawn_main; a pidfd says the same, whoever else holds a pipe
            os.set_inheritable(self._owner, False)
            base: Any = super()
            code = base._bootstrap(self._owner)
        except BaseException:
            ending.report()
        finally:
            ending.leave(code)

    def run(self) -> None:
        try:
            ending.serve(self._work, self._owner)
        finally:  # before multiprocessing waits for children that only a thread's end tells to go (till Python 3.12)
            ending.end_threads()

    def _work(self) -> None:
        request, self._request = self._request, None
        assert request is not None, "a worker runs once"
        open_standard_descriptors()
        descriptors = [descriptor.detach() for descriptor in request.descriptors]
        tracker = _tracker._resource_tracker._fd  # None: it has not been asked for
        for number in (*descriptors, *(() if tracker is None else (tracker,))):
            os.set_inheritable(number, False)  # by exec; a fork passes them on as it does all
        entry, job = resolve(request.entry), request.job.load()
        del request  # the pickle may be long
        entry(job, descriptors)


def fork_worker(request: StartRequest, guard: AbstractContextManager[None]) -> int:
    """Fork a worker out of this process, and return its pid; in the child it does not return.

    ``guard`` is entered right around ``os.fork()``, and left in both processes.
    """
    parent = os.getpid()
    pid = 0
    try:
        with Fork(), guard:
            pid = os.fork()
        if pid == 0:
            WorkerSelf(request)._bootstrap()
    except BaseException:
        if os.getpid() == parent:
            if pid > 0:  # Ctrl-C, seen by another thread: nobody will know of the child
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            raise
        ending.report()
    finally:
        if os.getpid() != parent:
            ending.leave(1)
    return pid


def run_payload(payload: int) -> NoReturn:
    """Become the worker that a file describes: its environment, multiprocessing's preparation data, the
    worker itself.

    Called in a child of the fork server; the caller sees to `ending.leave` if this raises.
    """
    with open(payload, "rb") as pickles:
        change_environment(pickle.load(pickles))
        _spawn.prepare(pickle.load(pickles))
        worker = pickle.load(pickles)
    if "numpy.random" in sys.modules:  # loaded before the fork: all workers would draw the same numbers
        sys.modules["numpy.random"].seed()
    worker._bootstrap()
    raise AssertionError("a worker came back from its end")


def change_environment(wanted: dict[str, str]) -> None:
    """Make ``os.environ`` equal to ``wanted``."""
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)
