"""The workers' side: tasks that say when they begin and end, check what they are given, and die as they are told.

The board is shared memory: what a process has written there stays when it is killed.
"""

import ctypes
import faulthandler
import os
import signal
import time
from dataclasses import dataclass

import numpy as np

import shmexec
from tests.chaos import things

CALLS = 1 << 15
PIDS = 1 << 22  # Linux has no larger ones


class Board:
    """Which calls were begun and ended, how often and by whom; which processes are about to die, and where.

    A worker that is doomed dies in the call that has lit its fuse, after that has begun, unless it dies ``anywhere``
    (of a timer, or from outside), or while it unpickles the call ``burnt``.
    """

    def __init__(self):
        self.begun = shmexec.zeros(CALLS, "i4")  # how often
        self.by = shmexec.zeros(CALLS, "i4")  # the pid of the last
        self.ended = shmexec.zeros(CALLS, "i4")
        self.doomed = shmexec.zeros(PIDS, "u1")
        self.anywhere = shmexec.zeros(PIDS, "u1")
        self.burnt = shmexec.zeros(PIDS, "i4")  # the number of the call, plus one
        self.stopped = shmexec.zeros(PIDS, "u1")

    def begin(self, call):
        self.by[call] = os.getpid()
        self.begun[call] += 1

    def end(self, call):
        self.ended[call] += 1


_board = None


def come_up(board):
    """The initializer of the pool."""
    global _board
    _board = board
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # what a watchdog asks for
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


@dataclass(frozen=True)
class Fuse:
    """How the worker of a call dies, if it does.

    ``"timer"``: after so many seconds, by a signal of the kernel's, wherever it is then: in this call, in its answer,
    or in one that comes after. The others: as soon as it is lit, at the stage that it was given for.
    """

    means: str = ""
    seconds: float = 0.0
    stage: str = "begin"

    def light(self, stage, call=-1):
        if not self.means or stage != self.stage:
            return
        pid = os.getpid()
        _board.burnt[pid] = call + 1
        _board.doomed[pid] = 1
        if self.means == "timer":
            _board.anywhere[pid] = 1
            signal.setitimer(signal.ITIMER_REAL, self.seconds)
        elif self.means == "SIGKILL":
            os.kill(pid, signal.SIGKILL)
        elif self.means == "SIGSEGV":
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            ctypes.string_at(0)
        elif self.means == "os._exit":
            os._exit(7)
        elif self.means == "SIGSTOP":
            _board.stopped[pid] = 1  # somebody kills it then
            os.kill(pid, signal.SIGSTOP)


MEANS = ("SIGKILL", "SIGSEGV", "os._exit", "SIGSTOP")
STAGES = ("unpickling", "begin", "checked", "end", "pickling")


class Burning:
    """Lights a fuse where it is unpickled, or where it is pickled by a worker."""

    def __init__(self, fuse, stage, call):
        self.fuse, self.stage, self.call = fuse, stage, call

    def __getstate__(self):
        if self.stage == "pickling" and _board is not None:
            self.fuse.light("pickling")
        return self.fuse, self.stage, self.call

    def __setstate__(self, state):
        self.fuse, self.stage, self.call = state
        if self.stage == "unpickling" and _board is not None:
            self.fuse.light("unpickling", self.call)


class WrongValue(Exception):
    """What a worker was given is not what was sent."""


def check(expected, values):
    for i, (digest, value) in enumerate(zip(expected, values, strict=True)):
        if digest != things.digest(value):
            raise WrongValue(f"argument {i} of type {type(value).__name__}")


@dataclass(frozen=True)
class Order:
    """What a call is to do.

    Attributes
    ----------
    call : int
        Its place on the board.
    expected : tuple of int
        Digests of its arguments.
    result : (str, int)
        The thing to return; the name ``"echo"``: the arguments; ``"sum"``: their digests.
    """

    call: int
    fuse: Fuse
    expected: tuple
    result: tuple
    seconds: float = 0.0


def run(order, *values):
    """A task."""
    if order.seconds >= 10:
        _board.doomed[os.getpid()] = 1  # it will be ended for that, as soon as it is seen to have begun
    _board.begin(order.call)
    order.fuse.light("begin")
    check(order.expected, values)
    order.fuse.light("checked")
    if order.seconds:
        time.sleep(order.seconds)
    name, seed = order.result
    if name == "echo":
        made = list(values)
    elif name == "sum":
        made = [things.digest(value) for value in values]
    else:
        made = things.make(name, seed)
    order.fuse.light("end")
    burning = Burning(order.fuse, "pickling", order.call) if order.fuse.stage == "pickling" else None
    _board.end(order.call)
    return made, burning


def run_burning(order, burning, *values):
    """A task with an argument that may kill."""
    return run(order, *values)


def add_to(order, array, amount):
    """A task that writes into shared memory."""
    _board.begin(order.call)
    order.fuse.light("begin")
    array += amount
    order.fuse.light("checked")
    _board.end(order.call)
    return float(np.sum(array))


def atom(call, fuse_seconds, x):
    """A task of numbers only, which takes the fast way."""
    _board.begin(call)
    if fuse_seconds:
        Fuse("timer", fuse_seconds).light("begin")
    _board.end(call)
    return 3 * x + 1


def item(order, value):
    """One item of a map."""
    return run(order, value)
