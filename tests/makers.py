"""Ordinary NumPy code that has never heard of shared memory; each makes one array of N float64 or more."""

import contextvars
import ctypes
import io
import os
import threading

import numpy as np

N = 100_000


def by_thread():
    out = []
    thread = threading.Thread(target=lambda: out.append(np.ones(N)))
    thread.start()
    thread.join()
    return out[0]


def loaded():
    file = io.BytesIO()
    np.save(file, np.arange(float(N)))
    file.seek(0)
    return np.load(file)


def resized():
    array = np.ones(10)
    array.resize(N)
    return array


def through_memoryview():
    return np.asarray(memoryview(np.ones(N)))


def through_address():
    owner = np.ones(N)
    view = np.ctypeslib.as_array((ctypes.c_double * N).from_address(owner.ctypes.data))
    KEPT[:] = [owner]
    return view


KEPT: list = []
CACHE: dict = {}

MAKERS = {
    "empty": lambda: np.empty(N),
    "zeros": lambda: np.zeros(N),
    "a ufunc": lambda: np.sqrt(np.arange(float(N)) * 2) + 1,
    "concatenate": lambda: np.concatenate([np.ones(N // 2)] * 2),
    "stack": lambda: np.stack([np.ones(N // 4)] * 4),
    "fft": lambda: np.fft.fft(np.ones(N)),
    "linalg": lambda: np.linalg.inv(np.eye(320)),
    "random": lambda: np.random.default_rng(1).normal(size=N),
    "sort": lambda: np.sort(np.arange(float(N))[::-1]),
    "load": loaded,
    "fromiter": lambda: np.fromiter(range(N), float),
    "loadtxt": lambda: np.loadtxt(io.StringIO("1\n" * N)),
    "fancy indexing": lambda: np.ones(N)[np.arange(N)],
    "resize": resized,
    "astype": lambda: np.arange(N).astype("f4"),
    "datetime64": lambda: np.arange(N).astype("M8[s]"),
    "a structured type": lambda: np.zeros(N, [("a", "i4"), ("b", "f8")]),
    "strings": lambda: np.full(N, "abc"),
    "a thread": by_thread,
    "an empty context": lambda: contextvars.Context().run(np.ones, N),
    "a step": lambda: np.ones(2 * N)[::2],
    "reversed": lambda: np.ones(N)[::-1],
    "a transpose": lambda: np.ones((300, 400)).T,
    "a broadcast": lambda: np.broadcast_to(np.ones(N), (3, N)),
    "a field": lambda: np.zeros(N, [("a", "i4"), ("b", "f8")])["b"],
    "a memoryview": through_memoryview,
    "an address": through_address,
}


def made_in_a_cache():
    """The same array at each call, as functools.lru_cache gives it."""
    return CACHE.setdefault("array", np.zeros(N))


def first_of_cache():
    return float(CACHE["array"][0])


def make(kind):
    return MAKERS[kind]()


def masked():
    return np.ma.masked_array(np.ones(N), np.arange(N) % 2)


def sparse_part():
    return np.arange(float(50 * N))[:5000]


def rows():
    return list(np.arange(4 * float(N)).reshape(16, -1))


def frees_what_it_returns():
    class Odd:
        def __init__(self):
            self.array = np.arange(float(N))

        def __reduce__(self):
            array, self.array = self.array, None
            return np.asarray, (array,)

    return Odd()


def forks_and_writes():
    """A child that a worker forks has its own copy of what plain code made."""
    array = np.zeros(N)
    pid = os.fork()
    if pid == 0:
        array[:] = 5
        other = np.ones(N)
        del array, other
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code, array


def fills_the_heap(count):
    """More than the bound: NumPy takes the rest elsewhere."""
    arrays = [np.full(4_000_000, i, "u1") for i in range(count)]
    return sum(int(array[-1]) for array in arrays)


def with_another_allocator():
    from shmexec import _core

    _core.set_handler(_core.numpy_handler())  # in this context, as another library may set one
    return np.arange(float(N))


def zeros_on_used_pages():
    for _ in range(3):
        np.full(N, 7.0)
    return not np.zeros(N).any() and not np.zeros(40 * N).any()


def alignment():
    return max(np.ones(n).ctypes.data % 64 for n in range(N, N + 50))
