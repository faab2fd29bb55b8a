# process.h for Python: watching the owner, ending, and what the end needs to know of namespaces.

from cpython.dict cimport PyDict_Next
from cpython.long cimport PyLong_FromVoidPtr
from cpython.object cimport PyObject

import os

cdef extern from "process.h":
    int sx_watch_owner(int owner_pidfd, int extra_fd, int signum, double patience, double grace, int code) noexcept nogil
    int sx_continue_without_reader(int pipe_fd) noexcept nogil
    int sx_continue_without_parent() noexcept nogil
    void sx_note_end() noexcept nogil
    int sx_deadline(double seconds, int code) noexcept nogil
    void sx_exit_now(int code) noexcept
    int sx_exit_barrier() noexcept nogil
    int sx_flush_all() noexcept nogil
    int sx_signal_bell(int signum, sx_atomic32_t *word) noexcept nogil
    int sx_name_thread(const char *name) noexcept nogil
    int sx_name_command(const char *title) noexcept nogil


cdef int sx_check(int code) except -1:
    """Turns 0 or -errno into an exception; `check_code` does so for the heap, where some codes say more."""
    if code < 0:
        raise OSError(-code, os.strerror(-code))
    return 0


def watch_owner(int owner, int extra, int signum, double patience, double grace, int code):
    """End this process after its owner; and, from now on, repeat a signal that has a bell until `note_end`.

    Parameters
    ----------
    owner : int
        A pidfd of the owner, which must stay open.
    extra : int
        The read end of a pipe whose other end the owner holds, or -1.
    signum : int
        Sent to the calling thread, repeatedly, when the owner is dead; 0 for none.
    patience : float
        Seconds after that until ``_exit``, if the process has not begun its end by then.
    grace : float
        If it has.
    code : int
        The exit status if the grace was not enough.

    Raises
    ------
    OSError
        If no thread can be started.
    """
    sx_check(sx_watch_owner(owner, extra, signum, patience, grace, code))


def continue_without_reader(int pipe):
    """If this process is stopped when the last one closes the read end of this pipe, it runs on.

    Parameters
    ----------
    pipe : int
        The write end, which must stay open.

    Raises
    ------
    OSError
        If the kernel refuses.
    """
    sx_check(sx_continue_without_reader(pipe))


def continue_without_parent():
    """If this process is stopped when its parent dies, it runs on. OSError if the kernel refuses."""
    sx_check(sx_continue_without_parent())


def note_end():
    """This process has begun its end: nobody need ask it again."""
    sx_note_end()


def deadline(double seconds, int code):
    """Call ``_exit(code)`` in so many seconds, whatever this process is doing then."""
    sx_check(sx_deadline(seconds, code))


def exit_now(int code):
    """Call ``exit(3)``, with the GIL held and the interpreter whole. Never returns."""
    sx_exit_now(code)


def exit_barrier():
    """In a child of fork: keep the C exit handlers that it inherited from running."""
    sx_check(sx_exit_barrier())


def flush_all():
    """Write out what C code has buffered in any ``FILE``."""
    with nogil:  # a thread in the middle of reading a FILE may keep us waiting
        sx_flush_all()  # a stream that cannot be written is its owner's to notice


def signal_bell(int signum, size_t address):
    """Let the present handler of a signal also ring a bell: increment the 32-bit word at ``address`` and wake
    its sleepers.

    A thread that has read the word, then looked for pending signals, and then goes to sleep on the word
    cannot sleep through a signal that came in between.

    Parameters
    ----------
    signum : int
    address : int
        Of a mapped, aligned word; 0 takes the bell away.

    Raises
    ------
    OSError
        If the signal has no handler.
    """
    sx_check(sx_signal_bell(signum, <sx_atomic32_t *> address))


def name_thread(str name):
    """What ps and its like are to show of this thread; of the process, if this is its main thread. 15 bytes are kept."""
    encoded = name.encode()
    sx_name_thread(encoded)  # a sandbox may forbid it: then the name stays


def name_command(str title):
    """What they are to show as this process's command line, cut to the length of that."""
    encoded = title.encode()
    sx_name_command(encoded)


def made_here(dict space, set ids):
    """The names in a namespace whose values' ``id()`` is in ``ids``.

    The values are looked at by address alone: their reference counts are not touched, so no memory page that
    is shared with the process that forked this one is copied.
    """
    cdef Py_ssize_t position = 0
    cdef PyObject *key_ptr = NULL
    cdef PyObject *value_ptr = NULL
    names = []
    while PyDict_Next(space, &position, &key_ptr, &value_ptr):
        if PyLong_FromVoidPtr(value_ptr) in ids:
            names.append(<object> key_ptr)
    return names
