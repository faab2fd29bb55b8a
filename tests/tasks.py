"""What workers run in the tests: functions that can be imported, in a module that loads little."""

import concurrent.futures
import multiprocessing
import os
import signal

import numpy as np

import shmexec


def give(value):
    return value


def sum_behind_gates(say, wait, array):
    pass_gates(say, wait)
    return float(array.sum())


def raise_it(error):
    raise error


def call(function):
    return function()


def add(a, b):
    return a + b


def double(x):
    return x * 2


def pid(*_):
    return os.getpid()


def die_once(path, value=None):
    """Kills its worker the first time that it is called with this path."""
    if not os.path.exists(path):
        open(path, "x").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def pass_gates(say, wait, value=None):
    """Say that we have come here, wait for leave to go on."""
    say.open()
    wait.wait_open()
    return value


def describe(array):
    """What a worker sees of an array."""
    flags = array.flags
    return {
        "type": type(array),
        "dtype": array.dtype,
        "shape": array.shape,
        "strides": array.strides,
        "writeable": flags.writeable,
        "shared": shmexec.is_shared(array),
        "values": np.array(array, copy=True, subok=False),
    }


def leave_a_pool_open():
    """The standard library's, with a process that only the end of a thread of its tells to go."""
    global left_open
    left_open = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    return left_open.submit(os.getpid).result()


def fill(array, value):
    array[...] = value


def write_there(array, value):
    """Write, and return what the array holds afterwards; for arrays that are private."""
    array[...] = value
    return array.flags.writeable, np.array(array, copy=True)


def make_shared(shape, value, dtype=float):
    made = shmexec.empty(shape, dtype)
    made[...] = value
    return made


def count_blocks():
    return shmexec.heap_info().blocks


def add_first(table, x):
    return x + table[0]


def write_buffer(data, x):
    """What is in the first byte after x was added to it."""
    view = memoryview(data)
    view[0] += x
    return view[0]


_cache = {}


def cached(n):
    return _cache.setdefault(n, np.zeros(n))


_steps = 0


class Stepper:
    @classmethod
    def step(cls):
        global _steps
        _steps += 1
        return cls.__name__, _steps


def _unnamed():
    class Nameless:
        def step(self):
            global _steps
            _steps += 1
            return _steps

    return Nameless


class BorrowingStepper(_unnamed()):
    """Its method has no name by which it could be imported."""
