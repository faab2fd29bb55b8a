"""The fork server's side: a process that has loaded what workers need, and forks one for each request.

Purpose: a worker starts in the time of a fork, from a process that has one thread: nothing is half done in it
at a fork.
Guarantees: it ends when its owner says so, closes the control socket, or dies. It reports each child's exit
status. That the machine has no more processes, memory or descriptors is told to who asks, and ends nothing.
Assumptions: SIGTERM and SIGINT are blocked from its birth: it never handles them, and its children are born
with them blocked.

The conversation, with one link (a stream socket) per worker that is to be started::

    owner --control--> b"f" and the server's end of a link        fork
    owner --control--> b"q"                                       the server ends
    server --link----> pid (8 bytes) and a pidfd; or minus the errno, alone: no child
    owner --link-----> descriptors: payload, tracker, its own     read by the child
    server --link----> exit status (8 bytes)                      when the child has ended
"""

import errno
import gc
import importlib
import os
import select
import signal
import socket
from collections.abc import Sequence
from multiprocessing import resource_tracker
from typing import Any, NoReturn

from shmexec import _core
from shmexec.transport.launch import (
    SentDescriptor,
    receive_descriptors,
    receive_with_descriptors,
)
from shmexec.transport.standard import open_standard_descriptors
from shmexec.worker import bootstrap, ending
from shmexec.worker.forking import ignore_thread_warning

FORK, QUIT = b"f", b"q"
IDLE_MILLISECONDS = 50  # after which nobody seems to ask for more workers: until then it would be in their way
ALSO_LOADED = (  # then; the last first
    "multiprocessing.connection",  # by a worker whose job has locks or queues in it
    "multiprocessing.popen_spawn_posix",
    "multiprocessing.queues",
    "multiprocessing.synchronize",
    "concurrent.futures",
    "shmexec.pickling.crossings",  # by one whose calls return more than numbers
    "shmexec.pickling.reducing",
)

_tracker: Any = resource_tracker  # for what typeshed does not declare


class Server:
    """Forks on request and waits for the children."""

    def __init__(self, control: socket.socket, owner: int) -> None:
        self._control = control
        self._owner = owner
        self._links: dict[int, socket.socket] = {}  # pidfd of a child: where its status goes
        self._poll = select.poll()
        self._spare = os.dup(owner)  # its place is for the link of who asks when there is no other
        self._to_load = list(ALSO_LOADED)
        for number in control.fileno(), owner:
            self._poll.register(number, select.POLLIN)

    def run(self) -> None:
        """Serve until the owner has no more use for it."""
        is_over = False
        while not is_over:
            ready = {number for number, _ in self._poll.poll(IDLE_MILLISECONDS if self._to_load else None)}
            if not ready:
                load(self._to_load.pop())
                if not self._to_load:
                    freeze()
            for pidfd in ready & self._links.keys():
                self._report(pidfd)
            is_over = self._owner in ready or (self._control.fileno() in ready and not self._answer())
        for link in self._links.values():
            link.close()

    def _answer(self) -> bool:
        os.close(self._spare)  # without a place the kernel would drop the link, and nobody could be told why
        try:
            message, received = receive_with_descriptors(self._control, 1, 1)
        except (EOFError, ConnectionError):
            return False
        if message == QUIT:
            return False
        link = socket.socket(fileno=received[0])
        try:
            self._spare = os.dup(self._owner)
        except OSError as error:
            refuse(link, error)
            self._spare = os.dup(self._owner)
        else:
            self._fork(link)
        return True

    def _fork(self, link: socket.socket) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            refuse(link, error)
            return
        if pid == 0:
            try:
                self._forget()
                become_worker(link)
            except BaseException:
                ending.report()
            finally:
                ending.leave(1)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            refuse(link, error)
            return
        self._links[pidfd] = link
        self._poll.register(pidfd, select.POLLIN)
        try:
            socket.send_fds(link, [pid.to_bytes(8, "little", signed=True)], [pidfd])
        except OSError:
            pass  # who asked is gone: so will the child be, when it finds that out

    def _report(self, pidfd: int) -> None:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        assert result is not None, "without WNOHANG there is a result"
        status = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        self._poll.unregister(pidfd)
        os.close(pidfd)
        with self._links.pop(pidfd) as link:
            try:
                link.send(status.to_bytes(8, "little", signed=True))
            except OSError:
                pass  # nobody wants to know any more

    def _forget(self) -> None:
        """In the child: it has no part in the server's conversations."""
        self._control.close()
        os.close(self._owner)
        os.close(self._spare)
        for pidfd, link in self._links.items():
            os.close(pidfd)
            link.close()


def refuse(link: socket.socket, error: OSError) -> None:
    """Tell who asks for a child that there is none, and why."""
    with link:
        try:
            link.send((-(error.errno or errno.EAGAIN)).to_bytes(8, "little", signed=True))
        except OSError:
            pass  # it is gone


def load(name: str) -> None:
    """Import a module. If that fails it is left to the worker, where the traceback belongs."""
    try:
        importlib.import_module(name)
    except (Exception, SystemExit):
        pass


def freeze() -> None:
    """The collector of a child shall not write into pages that all share."""
    gc.collect()
    gc.freeze()


def become_worker(link: socket.socket) -> NoReturn:
    """In the child: receive what to be, and be it."""
    with link:
        try:
            payload, tracker, *SentDescriptor.received = receive_descriptors(link)
        except (EOFError, ConnectionError):
            ending.leave(0)  # the owner died, or gave up: there is nothing to be done
    _tracker._resource_tracker._fd = tracker
    bootstrap.run_payload(payload)


def main(control: int, owner: int, preload: Sequence[str]) -> NoReturn:
    """Run the fork server.

    Parameters
    ----------
    control : int
        The server's end of a SOCK_SEQPACKET socket.
    owner : int
        A pidfd of the process that it serves.
    preload : sequence of str
        Modules to import first. One that fails is left to the worker, where the traceback belongs.
    """
    code = 1
    try:
        for number in control, owner:
            os.set_inheritable(number, False)
        open_standard_descriptors()
        # ignored, which exec inherits, there would be no exit statuses
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for name in preload:
            load(name)
        ignore_thread_warning()  # of threads that C libraries keep
        gc.freeze()
        gc.enable()  # for the workers
        _core.continue_without_parent()  # or one that is stopped would never see that its owner is dead
        _core.name_thread("shmexec-server")
        _core.name_command(f"shmexec: fork server of process {os.getppid()}")
        with socket.socket(fileno=control) as link:
            Server(link, owner).run()
        code = 0
    except BaseException:
        ending.report()
    finally:
        ending.leave(code)
