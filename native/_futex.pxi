# futex.h for Python: sleep until a 32-bit word changes.

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR, ETIMEDOUT

cdef extern from "futex.h":
    ctypedef struct sx_atomic32_t:
        pass
    int sx_futex_wait(sx_atomic32_t *word, unsigned int seen, long long nanoseconds) noexcept nogil
    int sx_futex_wake(sx_atomic32_t *word, int count) noexcept nogil


def futex_wait(size_t address, unsigned int seen, seconds=None):
    """Sleep, without the GIL, while the 32-bit word at ``address`` equals ``seen``.

    Parameters
    ----------
    address : int
        Of a mapped, aligned word.
    seen : int
        The value that the caller has acted upon.
    seconds : float, optional
        Give up after so long; None: never.

    Returns
    -------
    bool
        False if the time is over; True if the word may have changed. Python's signal handlers have run, and
        may have raised.
    """
    cdef long long nanoseconds = -1 if seconds is None else <long long> (max(0.0, seconds) * 1e9)
    cdef sx_atomic32_t *word_ptr = <sx_atomic32_t *> address
    cdef int code
    with nogil:
        code = sx_futex_wait(word_ptr, seen, nanoseconds)
    PyErr_CheckSignals()
    if code == -ETIMEDOUT:
        return False
    if code != -EINTR:
        sx_check(code)
    return True


def futex_wake(size_t address, int count=1):
    """Wake at most ``count`` sleepers on the word at ``address``; return how many were woken."""
    cdef int code = sx_futex_wake(<sx_atomic32_t *> address, count)
    if code < 0:
        sx_check(code)
    return code
