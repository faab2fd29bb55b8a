# A future whose life runs no Python code unless somebody asks for what takes some.
#
# Some facts: a `concurrent.futures.Future` is made with a condition variable, which is most of its price, and whoever finishes
# it runs Python code under that: a signal handler may raise in it, between the ring and the future. `wait` and `as_completed`
# take the condition, look at the state and add themselves to the waiters; nobody else needs one.
# What this means for us: the condition is made when somebody asks for it. "Is there one?" and "it is done" are one step: no
# Python runs between them, and the GIL is held (this extension does not declare that it can do without). If there is one, the
# thread that finishes the future takes it first, as the standard library's does. Threads in `result` sleep at a gate.

import threading

from libc.stdint cimport int32_t

cdef enum:
    PENDING
    RUNNING
    CANCELLED
    CANCELLED_AND_NOTIFIED
    FINISHED

cdef tuple STATES = ("PENDING", "RUNNING", "CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED")


cdef object cancelled_error():
    from concurrent.futures import CancelledError
    return CancelledError()


cdef object log():
    import logging
    return logging.getLogger("concurrent.futures")


cdef class Unread:
    """A value or an exception as it came: bytes, and holds on the blocks that they name."""
    cdef readonly Packed packed
    cdef bint is_read    # by the future itself, which thinks that it is alone
    cdef bint is_shared

    def __init__(self, Packed packed not None):
        self.packed = packed

    def share(self):
        """It is sent on; False: too late, an array of this process may own what it names."""
        self.is_shared = not self.is_read
        return self.is_shared

    def begin_read(self):
        """Whether the reader is alone."""
        self.is_read = not self.is_shared
        return self.is_read


cdef int64_t deadline_of(timeout) except? -2:
    """On the clock of sx_now(); -1: none."""
    cdef double seconds
    if timeout is None:
        return -1
    seconds = timeout
    if seconds > 1e9:
        return -1
    return <int64_t> sx_now() + (<int64_t> (seconds * 1e9) if seconds > 0 else 0)


cdef class LazyFuture(Watch):
    """The state of a future, with what `concurrent.futures.Future` has of methods; to be inherited from before that."""
    cdef int state
    cdef object value, error, waiters, callbacks, condition
    cdef PyThread_type_lock gate  # closed until the future is done; made by the first thread that waits there
    cdef Desk desk                # until it is done
    cdef Call call                # until it is done
    cdef public object pool

    def __dealloc__(self):
        if self.gate != NULL:
            PyThread_free_lock(self.gate)

    def __reduce__(self):
        raise TypeError(f"cannot pickle '{type(self).__name__}' object")

    # -- what the standard library's code looks at

    @property
    def _state(self):
        return STATES[self.state]

    @property
    def _result(self):
        return self.value

    @_result.setter
    def _result(self, value):
        self.value = value

    @property
    def _exception(self):
        return self.read_error()

    @_exception.setter
    def _exception(self, error):
        self.error = error

    @property
    def _condition(self):
        if self.condition is None:
            made = new_condition()  # others may run meanwhile
            if self.condition is None:
                self.condition = made
        return self.condition

    @property
    def _waiters(self):
        if self.waiters is None:
            self.waiters = [] if self.desk is None else Waiters(self.desk)
        return self.waiters

    @property
    def _done_callbacks(self):
        if self.callbacks is None:
            self.callbacks = []
        return self.callbacks

    # -- its life

    cdef bint is_over(self) noexcept:
        return self.state >= CANCELLED

    cdef bint try_finish(self, value, error):
        """Done, unless there is a condition to take first, or it is over."""
        if self.condition is not None or self.is_over():
            return False
        self.value, self.error = value, error
        self.state = FINISHED
        self.wake()
        return True

    cdef bint try_finish_led(self, value, error, LeadingEvent leading) except -1:
        """Done, if only the leader itself has it in `wait` or `as_completed`: it will tell its waiters."""
        condition = self.condition
        if self.is_over() or type(condition) is not Condition or not condition.acquire(False):
            return False
        waiters = list(self.waiters or ())
        is_own = not condition._waiters
        for waiter in waiters:
            is_own = is_own and type(waiter) in WAITERS and waiter.event is leading
        if is_own:
            self.value, self.error = value, error
            self.state = FINISHED
            self.wake()
        condition.release()
        if is_own:
            leading.told.append((self, waiters))
        return is_own

    cdef void wake(self):
        """Whoever is in `result`."""
        desk, self.desk = self.desk, None
        self.call = None
        if self.gate != NULL:
            PyThread_release_lock(self.gate)
        if self.led and desk is not None:
            desk.baton.kick()

    def forsake(self, error):
        """In a forked child: whoever would finish it is the parent's, and so are the threads that may have its locks."""
        if not self.is_over():
            self.condition = self.waiters = self.callbacks = None
            self.gate = NULL  # not freed: it is closed
            self.value, self.error, self.state = None, error, FINISHED
            self.desk = None
            self.call = None

    cdef finish(self, value, error):
        cdef bint is_first
        if not self.try_finish(value, error):
            with self._condition:
                is_first = not self.is_over()
                if is_first:
                    self.value, self.error = value, error
                    self.state = FINISHED
                    self.wake()
                    for waiter in self._waiters:
                        if error is None:
                            waiter.add_result(self)
                        else:
                            waiter.add_exception(self)
                    self.condition.notify_all()
            if not is_first:
                from concurrent.futures import InvalidStateError
                raise InvalidStateError(f"{self._state}: {self!r}")
        self._invoke_callbacks()

    def set_result(self, result):
        """As the standard library's."""
        self.finish(result, None)

    def set_exception(self, exception):
        """As the standard library's."""
        self.finish(None, exception)

    def set_cancelled(self):
        """Its call was killed, or taken back when its future was running already."""
        cdef bint is_first
        with self._condition:
            is_first = not self.is_over()
            if is_first:
                self.state = CANCELLED_AND_NOTIFIED
                self.wake()
                for waiter in self._waiters:
                    waiter.add_cancelled(self)
                self.condition.notify_all()
        if is_first:
            self._invoke_callbacks()

    def set_running_or_notify_cancel(self):
        """As the standard library's."""
        if self.state == PENDING:
            self.state = RUNNING
            return True
        if self.state != CANCELLED:
            log().critical("Future %s in unexpected state: %s", id(self), self._state)
            raise RuntimeError("Future in unexpected state")
        if self.condition is None:
            self.state = CANCELLED_AND_NOTIFIED
            return False
        with self.condition:
            self.state = CANCELLED_AND_NOTIFIED
            for waiter in self._waiters:
                waiter.add_cancelled(self)
        return False

    def begin(self):
        """Its call is about to be packed or sent, or has failed before that. False: it was cancelled."""
        if self.state == CANCELLED_AND_NOTIFIED:
            return False
        return self.state == RUNNING or self.set_running_or_notify_cancel()

    def cancel(self):
        """As the standard library's, but who waits learns of it at once, not when it would have been this call's turn.

        A light call can be cancelled until it is its turn at a worker.
        """
        cdef bint is_first
        cdef bint is_pools = self.desk is not None
        if self.state == RUNNING and self.call is not None and self.desk is not None:
            self.desk.sender.recall(self.call)
        is_first = self.state == PENDING
        if is_first and self.condition is None:
            self.state = CANCELLED_AND_NOTIFIED if is_pools else CANCELLED
            self.wake()
        elif is_first:
            with self.condition:
                is_first = self.state == PENDING
                if is_first:
                    self.state = CANCELLED_AND_NOTIFIED if is_pools else CANCELLED
                    self.wake()
                    if is_pools:
                        for waiter in self._waiters:
                            waiter.add_cancelled(self)
                    self.condition.notify_all()
        if is_first:
            self._invoke_callbacks()
        return self.cancelled()

    # -- questions

    def cancelled(self):
        """As the standard library's."""
        return self.state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def running(self):
        """As the standard library's."""
        return self.state == RUNNING

    def done(self):
        """As the standard library's."""
        return self.is_over()

    def add_done_callback(self, fn):
        """As the standard library's. The callback of a future that is not done runs in the collector."""
        if not self.is_over():
            self._done_callbacks.append(fn)
            if self.desk is not None and self.call is not None:
                self.desk.glance(self.call)
            return
        try:
            fn(self)
        except Exception:
            log().exception("exception calling callback for %r", self)

    cpdef wait_over(self, timeout=None):
        """Until it is done or cancelled. The thread helps to collect answers. Raises TimeoutError."""
        cdef int64_t deadline
        if self.is_over():
            return
        if self.desk is not None and self.desk.lock.is_mine():
            raise RuntimeError("a finalizer that the collection of garbage ran in the middle of a step of the pool's cannot wait "
                               "for a result of that pool")
        deadline = deadline_of(timeout)
        while not self.is_over():
            if self.desk is None or not self.desk.lead(self, deadline):
                self.follow(deadline)
            if not self.is_over() and deadline >= 0 and <int64_t> sx_now() >= deadline:
                raise TimeoutError

    cdef int follow(self, int64_t deadline) except -1:
        """Sleep until somebody else has finished it, or the time is over. Raises what a signal handler does."""
        cdef long long microseconds = -1
        cdef PyLockStatus status
        if self.gate == NULL:
            self.gate = PyThread_allocate_lock()
            if self.gate == NULL:
                raise MemoryError
            PyThread_acquire_lock(self.gate, NOWAIT_LOCK)
        if deadline >= 0:
            microseconds = max(0, deadline - <int64_t> sx_now()) // 1000 + 1
        with nogil:
            status = PyThread_acquire_lock_timed(self.gate, microseconds, 1)
        if status == PY_LOCK_ACQUIRED:
            PyThread_release_lock(self.gate)  # for the next
        elif status == PY_LOCK_INTR:
            PyErr_CheckSignals()
        return 0

    def result(self, timeout=None):
        """As the standard library's."""
        if not self.is_over():
            self.wait_over(timeout)
        if self.state != FINISHED:
            raise cancelled_error()
        if self.error is not None:
            raise self.read_error()
        if type(self.value) is Unread and not self.read_marshalled(<Unread> self.value):
            return self._read()
        return self.value

    cdef bint read_marshalled(self, Unread unread) except -1:
        """Read a value that takes no pickle. False: it takes one, or cannot be read.

        No code of Python runs, so that nobody comes in between: neither another thread nor a signal handler, whose exception
        would be taken for what the value is.
        """
        if unread.is_read or type(unread.packed.data) is not bytes or not is_result_tag(<bytes> unread.packed.data):
            return False
        try:
            value = load_result(unread.packed.data, unread.begin_read())
        except Exception:
            unread.is_read = False
            return False
        if self.value is unread:
            self.value = value
        return True

    def exception(self, timeout=None):
        """As the standard library's."""
        if not self.is_over():
            self.wait_over(timeout)
        if self.state != FINISHED:
            raise cancelled_error()
        if self.error is None and type(self.value) is Unread:
            try:
                self._read()
            except BaseException:
                if self.error is None:
                    raise
        return self.read_error()

    cdef object read_error(self):
        """The exception, which is unpickled by who asks first."""
        if type(self.error) is Unread:
            with self._condition:  # one reads, the others wait; re-entrant
                if type(self.error) is Unread:
                    self.error = self._load_exception((<Unread> self.error).packed.data)
        return self.error
