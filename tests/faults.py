"""Objects that fail at a named stage of their way to a worker and back."""

import os
import signal
import threading


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


class DiesInPickling:
    """Whoever pickles it is killed."""

    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)
        return int, ()


class DiesInUnpickling:
    """Whoever unpickles it is killed."""

    def __reduce__(self):
        return die, ()


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


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def make(kind, *arguments, **options):
    """An object of this kind, made in a worker and returned."""
    return kind(*arguments, **options)


def throw(kind, *arguments, **options):
    """Raises an exception made in the worker."""
    raise kind(*arguments, **options)
