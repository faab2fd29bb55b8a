"""The parent's side of the fork server, and who shares it.

Purpose: one fork server per process and list of preloaded modules, shared by all launchers, there as long as
one of them is open.
Guarantees: a fork server that has died is replaced by the next start; it is stopped and reaped when the last
launcher lets it go; a process that the user forks has nothing to do with its parent's.
Assumptions: whoever stops the last launcher has joined its workers: their exit statuses are lost with the
server.

One lock guards all that is here; nobody waits for an answer while holding it. A collection of garbage may run a
finalizer in a thread that has it, and the finalizer may want to wait for a pool that needs it: `is_held_here` tells.

What `shmexec.worker.zygote` says about the conversation is binding; this side only knows its name.
"""

import atexit
import errno
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import process, spawn, util
from typing import Any

from shmexec.pool import log
from shmexec.pool.worker_process import explained, open_pidfd, startable
from shmexec.transport.standard import open_standard_descriptors

# BLAS has no thread of its own in the server; each worker asks for as many as it may have (shmexec/worker/threads.py)
COMMAND = """\
import gc, os, sys
gc.disable()  # the modules stay: looking through them takes a tenth of their import
os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path[:] = {path!r}
from shmexec.worker.zygote import main
main({control}, {owner}, {preload!r})
"""
METHODS = ("fork", "forkserver", "spawn")  # of starting a worker
WORKERS = ("numpy", "shmexec.worker.loop")  # what the workers of a pool need
# then SIGKILL: it may be stuck in the import of a module, and holds nothing that anyone needs
STOP_SECONDS = 5.0
NOT_EXECUTED = 255  # the exit code of multiprocessing's child whose `exec` has failed

_process: Any = process  # for what typeshed does not declare
_util: Any = util


@contextmanager
def signals_blocked() -> Iterator[None]:
    """For this thread, and so for what it starts: SIGTERM and SIGINT wait until a handler is ready."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class ForkServer:
    """A fork server: not started, started, or dead and not noticed yet."""

    def __init__(self, preload: Sequence[str]) -> None:
        self.users = 0
        self._preload = tuple(preload)
        self._control: socket.socket | None = None
        self._pidfd = -1
        self._last_code: int | None = None  # of one that has died

    def start(self) -> None:
        """Begin to start it, unless it has been started."""
        if is_held_here():  # a finalizer's, in the middle of a start: who forks will start it
            return
        with _lock:
            self._started()

    def fork(self) -> tuple[socket.socket, int, int]:
        """Fork a child that waits for descriptors: the link to it, its pid, a pidfd.

        Raises
        ------
        OSError
            If the server dies twice, which it does when it cannot be started at all; or if it cannot fork, or this
            process cannot take what it sends: then it says what there is no more of.
        """
        from shmexec.transport.launch import receive_with_descriptors  # while the server comes up

        for _ in range(2):
            with ExitStack() as undo:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                undo.enter_context(ours)
                with _lock:
                    control = self._started()
                    with theirs:
                        try:
                            socket.send_fds(control, [b"f"], [theirs.fileno()])
                        except ConnectionError:
                            pass  # the answer will be the end of file
                try:
                    answer, received = receive_with_descriptors(ours, 8, 1)
                except (EOFError, ConnectionError):
                    self._bury(control)
                    continue
                pid = int.from_bytes(answer, "little", signed=True)
                if not received:  # and the child, if there is one, sees the end of the link
                    raise explained(-pid if pid < 0 else errno.EMFILE)
                undo.pop_all()
                return ours, pid, received[0]
        raise OSError(_why_dead(self._last_code))

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        with _lock:
            if self._control is not None:
                try:
                    self._control.send(b"q")  # not just close: a forked child may hold a copy of the socket
                except ConnectionError:
                    pass
                self._reap(STOP_SECONDS)

    def forget(self) -> None:
        """In a forked child: the server is the parent's."""
        self.users = 0
        if self._control is not None:
            self._control.close()
            os.close(self._pidfd)
            self._control = None

    def _started(self) -> socket.socket:
        if self._control is not None:
            return self._control
        open_standard_descriptors()
        with ExitStack() as ends:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo = ends.enter_context(ExitStack())
            undo.enter_context(ours)
            ends.enter_context(theirs)
            owner = open_pidfd(os.getpid())
            ends.callback(os.close, owner)
            command = COMMAND.format(path=search_path(), control=theirs.fileno(), owner=owner, preload=self._preload)
            arguments = [os.fsdecode(executable()), *_util._args_from_interpreter_flags(), "-c", command]
            with signals_blocked(), startable():
                pid = _util.spawnv_passfds(executable(), arguments, [theirs.fileno(), owner])
                self._pidfd = open_pidfd(pid)
                self._control = ours
                undo.pop_all()  # all in here: Ctrl-C is raised as the signals are let through
        return ours

    def _bury(self, control: socket.socket) -> None:
        """Reap a server that has gone, unless another thread has done that and started a new one."""
        with _lock:
            if self._control is not control:
                return
            self._reap(0.0)
        log.tell(log.at_once, log.WARNING, "the fork server has died; another is started")

    def _reap(self, grace: float) -> None:
        assert self._control is not None, "only what was started is reaped"
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(grace * 1000):
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
            self._last_code = ended.si_status if ended is not None and ended.si_code == os.CLD_EXITED else None
        except ChildProcessError:
            self._last_code = None  # somebody else has
        self._control.close()
        os.close(self._pidfd)
        self._control = None


def _why_dead(code: int | None) -> str:
    if code != NOT_EXECUTED:
        return "the fork server died while it was starting a worker; see its standard error"
    return (
        f"the interpreter {os.fsdecode(executable())!r} cannot be executed: there may be no such program, or the "
        "environment is too long for one (os.environ); multiprocessing.set_executable() names another"
    )


def with_workers_modules(names: Sequence[str]) -> tuple[str, ...]:
    """What the fork server of a pool imports: also what ``multiprocessing.set_forkserver_preload`` was told."""
    theirs = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    told = getattr(theirs, "_preload_modules", None) or ()
    return tuple(dict.fromkeys((*WORKERS, *names, *(name for name in told if name != "__main__"))))


def search_path() -> list[str]:
    """``sys.path`` for a process with another working directory, as multiprocessing sends it.

    Without what is no string, which imports do not look at either.
    """
    return [path or _process.ORIGINAL_DIR or "" for path in sys.path if isinstance(path, str)]


def executable() -> bytes:
    """The interpreter for other processes. Raises RuntimeError if nobody knows it."""
    found = spawn.get_executable()
    if not found:
        raise RuntimeError("sys.executable is not set: multiprocessing.set_executable() names the interpreter to start")
    return os.fsencode(found)


# ---- who shares it ----

_servers: dict[tuple[str, ...], ForkServer] = {}
_lock = threading.RLock()


def is_held_here() -> bool:
    """Whether this thread is in the middle of something here: it must not wait for a pool."""
    is_owned: bool = _lock._is_owned()  # type: ignore[attr-defined]  # what threading.Condition asks of a lock
    return is_owned


def hold(preload: Sequence[str]) -> ForkServer:
    """The fork server with these modules, which stays until `let_go`."""
    with _lock:
        server = _servers.setdefault(tuple(preload), ForkServer(preload))
        server.users += 1
        return server


def let_go(server: ForkServer) -> None:
    """End one use; the last one stops the server."""
    with _lock:
        server.users -= 1
        if server.users == 0:
            server.stop()


@contextmanager
def kept(preload: Sequence[str]) -> Iterator[None]:
    """It comes up while in here what will use it is made."""
    server = hold(preload)
    try:
        server.start()
        yield
    finally:
        let_go(server)


def _forget_all() -> None:
    global _lock
    _lock = threading.RLock()  # another thread may have it
    for server in _servers.values():
        server.forget()


os.register_at_fork(after_in_child=_forget_all)
atexit.register(_forget_all)  # a launcher that nobody closed: the server sees the end of file
