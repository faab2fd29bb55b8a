"""What goes from a launcher to the worker process that it starts.

Purpose: the messages and descriptors of a start, the same for all start methods, known to the parent's side
and the child's.
Guarantees: a descriptor that arrives here is closed in programs that the receiver starts.
Assumptions: both ends run the same version of shmexec; the child may not have the parent's ``sys.path`` yet
when it imports this.
"""

import array
import errno
import importlib
import os
import pickle
import socket
from typing import Any, NamedTuple, Protocol

DESCRIPTORS_PER_MESSAGE = 250  # Linux takes 253 (SCM_MAX_FD)


class Descriptor(Protocol):
    """A descriptor on its way to the child; multiprocessing's reducers use the same shape."""

    def detach(self) -> int:
        """The descriptor's number in the child."""


class SameDescriptor:
    """A descriptor that the child inherits under its own number (fork, spawn)."""

    def __init__(self, number: int) -> None:
        self.number = number

    def detach(self) -> int:
        return self.number


class SentDescriptor:
    """A descriptor that the child receives over a socket (fork server): the how-manieth."""

    received: list[int] = []  # noqa: RUF012 - of this process; filled before any job is loaded

    def __init__(self, index: int) -> None:
        self.index = index

    def detach(self) -> int:
        return self.received[self.index]


class Job(Protocol):
    """What the worker is to do, on its way to the child."""

    def load(self) -> object:
        """The job itself; called in the child, when everything that it may need to import can be imported."""


class InheritedJob:
    """A job that is there already, because the child was forked with it in memory."""

    def __init__(self, job: object) -> None:
        self.job = job

    def load(self) -> object:
        return self.job


class PickledJob:
    """A job by value."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def load(self) -> object:
        return pickle.loads(self.data)


class DeferredJob:
    """A job whose rest is loaded by the worker itself, when it has done what the head tells it.

    In the launcher's hands `rest` is the thing itself, in the worker's a `Job`.
    """

    def __init__(self, head: Any, rest: Any) -> None:
        self.head = head
        self.rest = rest


class StartRequest(NamedTuple):
    """Who the worker is and what it runs.

    ``entry`` ("package.module:function") is called with the job and the list of descriptors. ``owner`` is a
    pidfd of the parent.
    """

    entry: str
    job: Job
    descriptors: tuple[Descriptor, ...]
    owner: Descriptor
    name: str
    identity: tuple[int, ...]
    parent_name: str
    parent_pid: int


def resolve(name: str) -> Any:
    """What "package.module:attribute" stands for."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def call(name: str, *args: object) -> object:
    """Call it. For pickles made by a layer that cannot import what they speak of."""
    return resolve(name)(*args)


def send_descriptors(link: socket.socket, descriptors: list[int]) -> None:
    """Send their number, then the descriptors."""
    link.sendall(len(descriptors).to_bytes(8, "little"))
    for start in range(0, len(descriptors), DESCRIPTORS_PER_MESSAGE):
        socket.send_fds(link, [b"d"], descriptors[start : start + DESCRIPTORS_PER_MESSAGE])


def receive_descriptors(link: socket.socket) -> list[int]:
    """Receive what `send_descriptors` sent; EOFError if the other end is gone before all has come, OSError if this
    process may not have so many.
    """
    received: list[int] = []
    count = int.from_bytes(receive_exactly(link, 8), "little")
    while len(received) < count:
        wanted = min(count - len(received), DESCRIPTORS_PER_MESSAGE)
        found = receive_with_descriptors(link, 1, wanted)[1]
        if len(found) < wanted:  # the kernel has dropped the rest
            raise OSError(errno.EMFILE, f"{os.strerror(errno.EMFILE)}: a worker gets {count} descriptors")
        received += found
    return received


def receive_exactly(link: socket.socket, size: int) -> bytes:
    """So many bytes, or EOFError."""
    data = b""
    while len(data) < size:
        piece = link.recv(size - len(data))
        if not piece:
            raise EOFError("the other end is closed")
        data += piece
    return data


def receive_with_descriptors(link: socket.socket, size: int, count: int) -> tuple[bytes, list[int]]:
    """One message of at most ``size`` bytes and ``count`` descriptors, or EOFError.

    `socket.recv_fds` does the same, but ignores its flags: its descriptors would be open in programs that
    another thread starts.
    """
    numbers = array.array("i")
    room = socket.CMSG_LEN(count * numbers.itemsize)
    data, ancillary, _, _ = link.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
    if not data:
        raise EOFError("the other end is closed")
    return data, list(numbers)
