"""Objects that fail at a named stage of their way to a worker and back."""

import ctypes
import os
import resource
import signal
import threading
import time


class Boom(Exception):
    """What they fail with."""


class UnpicklableHere:
    """Cannot be pickled: as an argument it fails in the parent, as a result in the worker."""

    def __init__(self, error=Boom):
        self.error = error

    def __reduce__(self):
        raise self.error("no pickle of this")


class UnpicklableThere:
    """Can be pickled, but not unpickled: as an argument it fails in the worker, as a result in the parent."""

    def __init__(self, error=Boom):
        self.error = error

    def __reduce__(self):
        return fail, (self.error, "no unpickling of this")


class NonsenseReduce:
    """Its __reduce__ returns what no pickler understands."""

    def __reduce__(self):
        return 5


class Death:
    """Called, it ends the process, in one of the ways of `DEATHS`; `stopped` is a FIFO for who kills those that have
    stopped, see `sequencer.Killer`.
    """

    def __init__(self, how="SIGKILL", stopped=None):
        self.how, self.stopped = how, stopped

    def __call__(self, *_):
        if self.how == "SIGSEGV":
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # not faulthandler's, which a forked worker may have
            ctypes.string_at(0)
        elif self.how == "os._exit":
            os._exit(7)
        elif self.how == "SIGSTOP, then SIGKILL":
            with open(self.stopped, "wb", buffering=0) as file:
                file.write(os.getpid().to_bytes(8, "little"))
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(1000)  # another thread may be stopped first
        elif self.how == "out of memory":
            exhaust_memory()
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when there is no memory


DEATHS = {"SIGKILL": -9, "SIGSEGV": -11, "os._exit": 7, "SIGSTOP, then SIGKILL": -9, "out of memory": -9}  # exit codes


def exhaust_memory():
    """Until this process can have no more, neither of its own nor shared."""
    pages = int(open("/proc/self/statm").read().split()[0])  # noqa: SIM115 - dies soon
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE"),) * 2)
    kept = []
    for size in 1 << 24, 1 << 20, 1 << 16, 1 << 10:
        try:
            while True:
                kept.append(bytearray(size))
        except MemoryError:
            pass


class EveryOther:
    """Called, or unpickled, it does what is given at the first, third, fifth, ... time; a file counts."""

    def __init__(self, action, path):
        self.action, self.path = action, path

    def __call__(self, *_):
        with open(self.path, "ab") as file:
            file.write(b".")
            times = file.tell()
        if times % 2:
            self.action()

    def when_unpickled(self):
        return WhenUnpickled(self)


class WhenUnpickled:
    """Whoever unpickles it does what is given."""

    def __init__(self, action):
        self.action = action

    def __reduce__(self):
        return self.action, ()


class DiesInPickling:
    """Whoever pickles it dies."""

    def __init__(self, death=Death()):  # noqa: B008 - has no state
        self.death = death

    def __reduce__(self):
        self.death()
        return int, ()


class DiesInUnpickling(WhenUnpickled):
    """Whoever unpickles it dies."""

    def __init__(self, death=Death()):  # noqa: B008
        super().__init__(death)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_thread(death, gate):
    """When the gate is open, whatever the process is doing then."""
    threading.Thread(target=lambda: (gate.wait_open(), death()), daemon=True).start()
    return os.getpid()


def die_in_pickling(death, *things):
    """Of the result, when the things before it have been dealt with."""
    return [*things, DiesInPickling(death)]


class PickledSoOften:
    """Can be pickled a given number of times."""

    def __init__(self, times):
        self.left = times

    def __reduce__(self):
        self.left -= 1
        if self.left < 0:
            raise Boom("pickled too often")
        return int, ()


class BadInit(Exception):
    """Its __init__ wants more than what pickle gives it: the pickle is made, and cannot be read."""

    def __init__(self, first, second):
        super().__init__(first)
        self.second = second


class HoldsLock(Exception):
    """Has an attribute that no pickle can hold."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class RaisesFrom(Exception):
    """An exception whose pickling, or unpickling, raises what is given."""

    def __init__(self, text, *, pickling=None, unpickling=None):
        super().__init__(text)
        self.pickling, self.unpickling = pickling, unpickling

    def __reduce__(self):
        if self.pickling is not None:
            raise self.pickling("at pickling")
        return fail, (self.unpickling, "at unpickling")


class MuteError(Exception):
    """Cannot even say what it is."""

    def __str__(self):
        raise Boom("no words")


class SaysWhereUnpickled:
    """Knows in which processes it was unpickled."""

    def __init__(self, pids=()):
        self.pids = tuple(pids)

    def __reduce__(self):
        return said_where, (self.pids,)


def said_where(pids):
    return SaysWhereUnpickled((*pids, os.getpid()))


def fail(error, text):
    raise error(text)


def make(kind, *arguments, **options):
    """An object of this kind, made in a worker and returned."""
    return kind(*arguments, **options)


def throw(kind, *arguments, **options):
    """Raises an exception made in the worker."""
    raise kind(*arguments, **options)
