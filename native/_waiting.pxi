# What a thread leads for: a future, or the event of `concurrent.futures.wait` and `as_completed`.
#
# Some facts: those two put an object of theirs, a waiter, into each future, whose `event` they then wait for; whoever finishes a
# future tells its waiters, by methods in Python, under the future's condition. A signal handler may raise in any Python code of
# the main thread; a waiter that its thread has left by an exception is of no use to anybody any more.
# What this means for us: as a waiter is put into a future of ours, its event becomes one that leads. The leader finishes, in C, a
# future whose only waiters are its own, and tells them when all is in order again: if a handler raises there, it raises out of
# `wait`, and nobody misses what was not told. Futures that others wait for are left to the collector, as are conditions that
# somebody has taken, and waiters of kinds that we do not know.

import threading

cdef tuple WAITERS = ()
cdef object Event = threading.Event
cdef object Condition = threading.Condition


cdef int know_waiters() except -1:
    """As a desk is made: workers have none, and come up the sooner without the standard library's futures."""
    global WAITERS
    if not WAITERS:
        from concurrent.futures import _base
        WAITERS = (_base._AsCompletedWaiter, _base._FirstCompletedWaiter, _base._AllCompletedWaiter)
    return 0


cdef list parts_of_condition():
    """(name, what it is), of all that a Condition has. None: a new lock. A string: its method. A type: a new one."""
    prototype = Condition()
    parts = []
    for name, part in vars(prototype).items():
        if part is prototype._lock:
            parts.append((name, None))
        elif getattr(part, "__self__", None) is prototype._lock:
            parts.append((name, part.__name__))
        elif type(part) is deque:
            parts.append((name, deque))
        else:
            return []
    return parts


cdef object ReentrantLock = type(threading.RLock())
cdef list PARTS = parts_of_condition()


cdef object new_condition():
    """A `threading.Condition`, without a step of Python code.

    `wait` asks for a future's while it has taken those of others: a signal handler that raised here would leave them locked
    for ever. The standard library's own futures have theirs by then.
    """
    if not PARTS:
        return Condition()
    lock, made = ReentrantLock(), Condition.__new__(Condition)
    space = made.__dict__
    for name, part in PARTS:
        space[name] = lock if part is None else getattr(lock, part) if type(part) is str else part()
    return made


cdef class Watch:
    """What a thread may lead for."""
    cdef uint32_t led  # threads that collect answers for it

    cdef bint is_over(self) noexcept:
        return True

    cdef int tell(self) except -1:
        """With the baton: the leader's own Python code, on what it has collected."""
        return 0


cdef class LeadingEvent(Watch):
    """A `threading.Event` whose waiting thread collects answers."""
    cdef Desk desk
    cdef bint flag
    cdef object told     # (future, waiters): finished, and not yet told
    cdef object sleeper  # the event of who cannot lead

    def __init__(self, Desk desk not None):
        self.desk = desk
        self.told = deque()

    cdef bint is_over(self) noexcept:
        return self.flag

    cdef int tell(self) except -1:
        while self.told:
            future, waiters = self.told.popleft()
            for waiter in waiters:
                if (<LazyFuture> future).error is None:
                    waiter.add_result(future)
                else:
                    waiter.add_exception(future)
        return 0

    def is_set(self):
        """As `threading.Event`."""
        return self.flag

    def set(self):
        """As `threading.Event`."""
        self.flag = True
        if self.sleeper is not None:
            self.sleeper.set()
        if self.led:
            self.desk.baton.kick()

    def clear(self):
        """As `threading.Event`."""
        self.flag = False
        if self.sleeper is not None:
            self.sleeper.clear()

    def wait(self, timeout=None):
        """As `threading.Event`. The thread helps to collect answers."""
        cdef int64_t deadline = deadline_of(timeout)
        while not self.flag:
            if not self.desk.lead(self, deadline):
                self.follow(deadline)
            if deadline >= 0 and <int64_t> sx_now() >= deadline:
                break
        return self.flag

    cdef follow(self, int64_t deadline):
        """Sleep until it is set, or the time is over."""
        if self.sleeper is None:
            made = Event()  # others may run meanwhile
            if self.sleeper is None:
                self.sleeper = made
        if not self.flag:
            self.sleeper.wait(None if deadline < 0 else max(0, deadline - <int64_t> sx_now()) * 1e-9)


class Waiters(list):
    """Of a future: those whose threads will wait for it, and can lead."""

    def __init__(self, desk):
        self.desk = desk

    def append(self, waiter):
        """What `wait` and `as_completed` do, with the conditions of all their futures taken: nobody waits yet."""
        if type(waiter) in WAITERS and type(waiter.event) is Event and not waiter.event.is_set():
            waiter.event = LeadingEvent(self.desk)
        list.append(self, waiter)
