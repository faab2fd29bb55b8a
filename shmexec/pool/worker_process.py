"""A worker process as its parent sees it.

Purpose: the part of ``multiprocessing.Process`` that users of a pool's ``_processes`` expect, on a pidfd.
Guarantees: a signal never reaches a process that merely got the same pid; the end is seen at once, whoever
holds copies of our descriptors, and also if somebody else has waited for the child. All methods may be called
by several threads.
"""

import contextlib
import errno
import os
import select
import signal
import socket
import threading
import time
import weakref
from collections.abc import Iterator

_REASONS = {
    errno.EAGAIN: "no more processes can be started; raise the limit of this user (ulimit -u, RLIMIT_NPROC) or of the "
    "control group (pids.max; --pids-limit of a container), end others, or ask for fewer workers (max_workers)",
    errno.ENOMEM: "there is no memory for one more process; free some, raise the limit (ulimit -v, or the control "
    "group's memory), or ask for fewer workers (max_workers)",
    errno.EMFILE: "this process has as many descriptors as it may have; raise the limit (ulimit -n, RLIMIT_NOFILE), "
    "close files, or ask for fewer workers (max_workers)",
    errno.ENFILE: "the machine has as many open files as it may have (fs.file-max)",
}

UNKNOWN_CODE = 255  # somebody else took the exit status, or it died with the fork server


def open_pidfd(pid: int) -> int:
    """A pidfd, or an OSError that says what is missing."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            reason = "shmexec needs Linux 5.4 or newer, and no filter that forbids pidfd_open"
            raise OSError(error.errno, reason) from error
        raise


def explained(code: int) -> OSError:
    """Why no process can be started, and what to do about it."""
    return OSError(code, f"{os.strerror(code)}: {_REASONS.get(code, 'no process can be started')}")


@contextlib.contextmanager
def startable() -> Iterator[None]:
    """A process is started in here: an OSError for want of something says what that is."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS:
            raise
        raise explained(error.errno) from error


def adopt(pid: int, name: str) -> "WorkerProcess":
    """What stands for a child that has just been started; the child is killed if there can be nothing."""
    try:
        return WorkerProcess(pid, open_pidfd(pid), name)
    except BaseException:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        raise


class WorkerProcess:
    """A started worker; made by `shmexec.pool.launcher.Launcher.start`.

    Attributes
    ----------
    pid : int
    name : str
    sentinel : int
        A pidfd: ready when the process has ended.
    daemon : bool
        False: a worker may have children.
    """

    daemon = False

    def __init__(self, pid: int, pidfd: int, name: str, link: socket.socket | None = None) -> None:
        self.pid = pid
        self.name = name
        self._pidfd = pidfd
        self._link = link  # where the fork server reports the exit status; None: it is our own child
        self._exitcode: int | None = None
        self._lock = threading.Lock()  # for one to take the exit status; nobody waits while holding it
        self._close_pidfd = weakref.finalize(self, os.close, pidfd)
        self._close_pidfd.atexit = False

    @property
    def sentinel(self) -> int:
        if not self._close_pidfd.alive:
            raise ValueError("process object is closed")
        return self._pidfd

    @property
    def ident(self) -> int:
        """The pid, as multiprocessing also calls it."""
        return self.pid

    @property
    def exitcode(self) -> int | None:
        """None while the process lives; -N if signal N killed it; 255 if nobody could tell us."""
        if self._exitcode is None and _is_ready(self.sentinel, 0.0):
            self._take_status()
        return self._exitcode

    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self.exitcode is None

    def join(self, timeout: float | None = None) -> None:
        """Wait until the process has ended, at most ``timeout`` seconds."""
        if self._exitcode is None and _is_ready(self.sentinel, timeout):
            self._take_status()

    def terminate(self) -> None:
        """Send SIGTERM: the worker leaves as by ``sys.exit(143)``.

        Once is enough: the worker repeats it to itself until Python has seen it (a signal that comes between Python's
        last look for one and a system call that waits is slept through, in any other program). It ends the worker's
        task once; a call in C that does not come back needs `kill`.
        """
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(signal.SIGKILL)

    def close(self) -> None:
        """Give back the descriptors.

        Raises
        ------
        ValueError
            If the process lives.
        """
        if self._close_pidfd.alive and self.exitcode is None:
            raise ValueError("a process that is running cannot be closed: join() or terminate() it first")
        self._close_pidfd()

    def _send(self, signum: signal.Signals) -> None:
        if self._exitcode is None:
            try:
                signal.pidfd_send_signal(self.sentinel, signum)
            except ProcessLookupError:
                pass

    def _take_status(self) -> None:
        with self._lock:
            if self._exitcode is None:
                link = self._link
                self._exitcode = _own_status(self.sentinel) if link is None else _sent_status(link)
                self._link = None

    def __repr__(self) -> str:
        if not self._close_pidfd.alive:
            state = f"exitcode={self._exitcode} closed"
        else:
            state = "started" if self.is_alive() else f"exitcode={self._exitcode}"
        return f"<WorkerProcess {self.name!r} pid={self.pid} {state}>"


def _is_ready(descriptor: int, timeout: float | None) -> bool:
    """Whether it becomes readable in time. Not select(): it refuses descriptors over 1023."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if timeout is None:
        return bool(poll.poll())
    end = time.monotonic() + timeout
    while True:  # poll() cuts off fractions of a millisecond: without the loop a wait might be a little short
        left = end - time.monotonic()
        if poll.poll(max(0.0, left * 1000)):
            return True
        if left <= 0:
            return False


def _own_status(pidfd: int) -> int:
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except ChildProcessError:
        return UNKNOWN_CODE  # SIGCHLD is ignored, or somebody waits for all children
    assert result is not None, "without WNOHANG there is a result"
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def _sent_status(link: socket.socket) -> int:
    with link:
        try:
            data = link.recv(8)
        except ConnectionError:
            data = b""
    return int.from_bytes(data, "little", signed=True) if len(data) == 8 else UNKNOWN_CODE
