"""Starts worker processes, under fork, forkserver (our own) or spawn.

Purpose: a worker can be started by any process and any thread of it, and runs whatever
"package.module:function" names.
Guarantees: what a start opens and does not hand out is closed again, also if it fails. The child ends when
this process ends, however.
Assumptions: the worker's side (`shmexec.worker`) is named and not imported: the parent's and the child's
halves share no code but `shmexec.transport`.

Some facts about starting processes (CPython 3.11 to 3.13, Linux)
    ``Process.start`` refuses in daemonic processes, and ``multiprocessing.active_children`` waits for what it
    started.
    A spawned child imports the user's main module again: a script without ``if __name__ == "__main__"``
    starts itself for ever.
    A child with a resource tracker of its own unlinks its parent's SharedMemory (3.11, 3.12).
    Pipe ends that were forked into siblings stay open: end-of-file comes late, or never. PR_SET_PDEATHSIG
    fires when the *thread* ends.
    SIGTERM that comes before a process has its handlers kills it, or runs its parent's handler.
    ``os.fork`` while another thread is in a threaded BLAS product hangs both processes.
What this means for us
    Processes are started by our own means and watched by pidfds, both ways. Main is never sent: what lives
    there goes by value.
    The tracker always runs before, and its descriptor is passed on; its lock, which a thread may hold that a forked
    child has not, is made anew there. SIGTERM and SIGINT are blocked over each
    birth.
    The default is a fork server of our own, which has one thread; "fork" is for those who ask for it.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from multiprocessing import process, resource_tracker, spawn, util
from typing import Any, Self

from shmexec.pool import fork_server
from shmexec.pool.fork_server import METHODS
from shmexec.pool.spawning import (
    Passing,
    Reducer,
    next_identity,
    pickle_job,
    spawning,
    write_payload,
)
from shmexec.pool.worker_process import UNKNOWN_CODE, WorkerProcess, adopt, open_pidfd, startable
from shmexec.transport.launch import (
    DeferredJob,
    InheritedJob,
    Job,
    SameDescriptor,
    StartRequest,
    resolve,
    send_descriptors,
)

WORKER = "shmexec.worker.bootstrap:WorkerSelf"  # what a pickled start becomes in the child
FORK_WORKER = "shmexec.worker.bootstrap:fork_worker"

__all__ = ["METHODS", "UNKNOWN_CODE", "Launcher", "WorkerProcess"]

_util: Any = util  # for what typeshed does not declare
_tracker: Any = resource_tracker


class Launcher:
    """Starts workers by one method.

    Parameters
    ----------
    method : {"fork", "forkserver", "spawn"}
    preload : sequence of str
        Modules that the fork server imports before it forks.
    reducer_override : callable, optional
        Asked first how to pickle each object of a job; returns what ``__reduce__`` would, or NotImplemented.
    """

    def __init__(
        self, method: str, *, preload: Sequence[str] = ("numpy",), reducer_override: Reducer | None = None
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
        self.method = method
        self._preload = tuple(preload)
        self._reducer = reducer_override
        self._server: fork_server.ForkServer | None = None
        self._server_pid = 0  # of the process that holds the server: a forked child does not
        self._closed = False

    def prepare(self) -> None:
        """Begin to start what will start the workers; returns at once."""
        if self.method == "forkserver":
            self._hold_server().start()

    def start(
        self,
        entry: str,
        job: object,
        *,
        name: str,
        fds: Sequence[int] = (),
        fork_guard: AbstractContextManager[None] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> WorkerProcess:
        """Start a worker that calls ``entry(job, fds)``, and ends when that returns.

        Parameters
        ----------
        entry : str
            "package.module:function".
        job : object
            Inherited under fork, by value else; a `DeferredJob` in two parts. Locks, queues and connections of the
            same context may be in it; the caller keeps them alive until the worker has them.
        name : str
            Of the process.
        fds : sequence of int
            Descriptors that the worker gets, as a list, under these or other numbers. The caller keeps its
            own.
        fork_guard : context manager, optional
            Entered right around ``os.fork()`` under the method fork, and left in parent and child.
        variables : mapping of str to str, optional
            For the environment of an interpreter that is started anew, before it imports anything. (Under the other
            methods what is imported is there already: the entry has to see to it.)

        Raises
        ------
        OSError
            If no process can be started.
        """
        if self._closed:
            raise ValueError("the launcher is closed")
        with startable():
            tracker = resource_tracker.getfd()
        assert tracker is not None, "it has just been started"
        made: list[WorkerProcess] = []
        try:
            self._start(made, entry, job, tracker, name, fds, fork_guard or contextlib.nullcontext(), variables or {})
            return made[0]
        except BaseException:  # Ctrl-C may come when it has been started
            for worker in made:
                worker.kill()
                worker.join()
                worker.close()
            raise

    def _start(
        self,
        made: list[WorkerProcess],
        entry: str,
        job: object,
        tracker: int,
        name: str,
        fds: Sequence[int],
        fork_guard: AbstractContextManager[None],
        variables: Mapping[str, str],
    ) -> None:
        with ExitStack() as ends:
            owner = open_pidfd(os.getpid())
            ends.callback(os.close, owner)
            if self.method == "fork":
                inherited = tuple(map(SameDescriptor, fds))
                request = self._request(
                    entry, InheritedJob(_deferred(job, InheritedJob)), inherited, SameDescriptor(owner), name
                )
                _start_forked(made, request, fork_guard)
                return
            passing = Passing(by_socket=self.method == "forkserver")
            with spawning(passing):
                passed = tuple(map(passing.descriptor, fds))
                pickled = pickle_job(_deferred(job, lambda rest: pickle_job(rest, self._reducer)), self._reducer)
                request = self._request(entry, pickled, passed, passing.descriptor(owner), name)
                payload = write_payload(WORKER, request, environment=self.method == "forkserver")
            ends.callback(os.close, payload)
            if self.method == "spawn":
                _start_spawned(made, payload, tracker, passing.numbers, name, variables)
            else:
                _start_by_server(made, self._hold_server(), [payload, tracker, *passing.numbers], name)

    def close(self) -> None:
        """Give up the fork server, which ends if nobody else uses it: its workers should have ended before.

        May be repeated.
        """
        self._closed = True
        if self._server is not None and self._server_pid == os.getpid():
            fork_server.let_go(self._server)
        self._server = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _request(self, entry: str, job: Job, descriptors: Any, owner: Any, name: str) -> StartRequest:
        return StartRequest(
            entry=entry,
            job=job,
            descriptors=descriptors,
            owner=owner,
            name=name,
            identity=next_identity(),
            parent_name=process.current_process().name,
            parent_pid=os.getpid(),
        )

    def _hold_server(self) -> fork_server.ForkServer:
        if self._server is None or self._server_pid != os.getpid():
            self._server, self._server_pid = fork_server.hold(self._preload), os.getpid()
        return self._server


def _deferred(job: object, wrap: Callable[[object], Job]) -> object:
    return DeferredJob(job.head, wrap(job.rest)) if isinstance(job, DeferredJob) else job


# What is made is appended before a signal handler can raise.


def _start_forked(made: list[WorkerProcess], request: StartRequest, guard: AbstractContextManager[None]) -> None:
    with fork_server.signals_blocked(), startable():
        pid = resolve(FORK_WORKER)(request, guard)
        made.append(adopt(pid, request.name))


def _start_spawned(
    made: list[WorkerProcess],
    payload: int,
    tracker: int,
    numbers: list[int],
    name: str,
    variables: Mapping[str, str],
) -> None:
    command = spawn.get_command_line(tracker_fd=tracker, pipe_handle=payload)
    if variables and "-c" in command:
        program = command.index("-c") + 1
        command[program] = f"import os; os.environ.update({dict(variables)!r}); {command[program]}"
    with fork_server.signals_blocked(), startable():
        pid = _util.spawnv_passfds(fork_server.executable(), command, [payload, tracker, *numbers])
        made.append(adopt(pid, name))


def _start_by_server(
    made: list[WorkerProcess], server: fork_server.ForkServer, descriptors: list[int], name: str
) -> None:
    link, pid, pidfd = server.fork()
    made.append(WorkerProcess(pid, pidfd, name, link))  # until here Ctrl-C closes the link, upon which it ends
    try:
        send_descriptors(link, descriptors)
    except ConnectionError:
        pass  # it has died already: its sentinel says so


def _free_tracker() -> None:
    """In a forked child: whoever held the resource tracker's lock is not here."""
    _tracker._resource_tracker._lock = threading.RLock()


os.register_at_fork(after_in_child=_free_tracker)
