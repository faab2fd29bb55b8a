# What the ledger speaks of: calls, seats (workers, as far as calls go), the steps to take; and the lock that guards them.

from collections import OrderedDict

from cpython.pythread cimport (
    NOWAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_get_thread_ident,
    PyThread_release_lock, PyThread_type_lock, WAIT_LOCK,
)

cdef extern from "pythread.h" nogil:
    ctypedef enum PyLockStatus:
        PY_LOCK_FAILURE
        PY_LOCK_ACQUIRED
        PY_LOCK_INTR
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int may_be_interrupted)

cdef enum:
    LIGHT = 2048  # bytes

cpdef enum CallState:
    BLOCKED = 1
    WAITING
    PACKING
    PACKED
    SENT
    DOOMED
    ENDED

cpdef enum Verdict:
    OVERTIME = 1  # its time was up
    UNWANTED      # it was cancelled


cdef class Lock:
    """Mutual exclusion for sections in C and in Python. Who waits for it waits without the GIL."""
    cdef PyThread_type_lock lock
    cdef unsigned long owner  # 0: nobody has it

    def __cinit__(self):
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    cdef void take(self) noexcept:
        if not PyThread_acquire_lock(self.lock, NOWAIT_LOCK):
            with nogil:
                PyThread_acquire_lock(self.lock, WAIT_LOCK)
        self.owner = PyThread_get_thread_ident()

    cdef void drop(self) noexcept:
        self.owner = 0
        PyThread_release_lock(self.lock)

    cpdef bint is_mine(self) noexcept:
        """Whether this thread has it: whoever asks is a finalizer, which the collection of garbage runs in the middle of
        something."""
        return self.owner == PyThread_get_thread_ident()

    def __enter__(self):
        if self.is_mine():
            raise RuntimeError("the pool was asked for this by a finalizer that the collection of garbage ran while the same "
                               "thread was in the middle of a step of the pool's")
        self.take()

    def __exit__(self, kind, error, traceback):  # not *exception: that takes more of the stack than __enter__, which is checked
        self.drop()


cdef class Packed:
    """Bytes on their way, the blocks that they name, and how many bytes of data went by name or were copied."""
    cdef readonly object data  # bytes, or a memoryview of a spilled block
    cdef readonly Holds holds
    cdef readonly uint64_t bytes_by_name
    cdef readonly uint64_t bytes_copied

    def __init__(self, data, Holds holds not None, uint64_t bytes_by_name=0, uint64_t bytes_copied=0):
        self.data = data
        self.holds = holds
        self.bytes_by_name = bytes_by_name
        self.bytes_copied = bytes_copied


cdef class Recent:
    """Which functions a worker has, the least recently used of them first: the same on both sides of a channel."""
    cdef object table
    cdef Py_ssize_t size
    cdef uint64_t last  # nothing changes if it is used again

    def __init__(self, Py_ssize_t size):
        self.table = OrderedDict()
        self.size = size
        self.last = 0

    cpdef bint use(self, uint64_t number) except -1:
        if number == self.last:
            return True
        if number not in self.table:
            return False
        self.table.move_to_end(number)
        self.last = number
        return True

    cpdef add(self, uint64_t number, value):
        self.table[number] = value
        self.last = number
        if len(self.table) > self.size:
            self.table.popitem(False)

    cpdef set(self, uint64_t number, value):
        self.table[number] = value

    cpdef get(self, uint64_t number):
        return self.table.get(number)

    cpdef drop(self, uint64_t number):
        self.table.pop(number, None)
        self.last = 0


cdef class Call


cdef class Seat:
    """A worker, as far as calls go."""
    cdef readonly uint64_t number
    cdef readonly Channel channel
    cdef readonly Recent shipped
    cdef readonly list sent  # of calls, in the order of its ring
    cdef public bint is_ready
    cdef public bint is_leaving  # takes no more calls
    cdef public bint is_full     # its ring is, of calls that were withdrawn and that it has not skipped yet
    cdef readonly Call timed     # the call with a limit that it has: that one alone
    cdef readonly int64_t due    # when somebody has to look at that
    cdef readonly Call doomed    # the call because of which this worker is made to end
    cdef uint64_t used           # the later, the warmer its caches; 0: it has answered nothing yet

    def __init__(self, uint64_t number, Channel channel=None, Recent shipped=None):
        self.number = number
        self.channel = channel
        self.shipped = shipped
        self.sent = []

    cpdef bint is_up(self) noexcept:
        """It has come up, as far as the parent knows."""
        return self.channel is None or self.is_ready or self.used > 0

    cpdef bint sleeps(self) noexcept:
        """It is not up yet, or waits for somebody to wake it."""
        return self.channel is not None and not (
            self.is_up() and sx_channel_is_awake(self.channel.block.heap, self.channel.channel))

    cdef Py_ssize_t room(self, Py_ssize_t depth) noexcept:
        return 0 if self.is_leaving or self.is_full or self.timed is not None else depth - len(self.sent)


cdef class Call:
    """One call of a function, or of one function on several items (CHUNK, SPAN)."""
    cdef readonly uint64_t number
    cdef readonly object kind
    cdef readonly object future
    cdef public object function  # until it is packed; of a call of atoms to the end
    cdef public tuple args
    cdef public dict kwargs
    cdef public object scope
    cdef public object job       # the SpanMap of a SPAN
    cdef readonly uint64_t begin  # its first item
    cdef readonly uint64_t count
    cdef readonly double budget
    cdef readonly int64_t limit  # nanoseconds that it may run; 0: no limit
    cdef readonly Py_ssize_t retries  # times that it may be run again after its worker has died
    cdef readonly Py_ssize_t deaths   # of workers that ran it
    cdef public int verdict      # a Verdict; 0: none
    cdef public bint has_futures  # among the arguments
    cdef public uint64_t missing  # those that are not done
    cdef public int state
    cdef public uint64_t function_number
    cdef public Packed function_packed
    cdef public Packed packed
    cdef bint is_atoms           # packed as it was submitted
    cdef readonly bint is_light  # packed it takes next to no memory of its own; its future is pending until it is sent
    cdef public bint has_begun   # sent, and cannot be taken back
    cdef public bint ships_function  # in that ring, for the first time
    cdef public uint64_t position    # in the ring of the worker that has it
    cdef readonly Seat seat      # that worker
    cdef object text

    def __init__(self, uint64_t number, kind, future, function, tuple args, dict kwargs, str name, scope=None, job=None,
                 uint64_t begin=0, uint64_t count=0, double budget=0.0, int64_t limit=0, Py_ssize_t retries=0):
        self.number = number
        self.kind = kind
        self.future = future
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.text = name
        self.scope = scope
        self.job = job
        self.begin = begin
        self.count = count
        self.budget = budget
        self.limit = limit
        self.retries = retries
        self.state = WAITING

    @property
    def name(self):
        """Of the function, for messages."""
        if self.text is None:
            self.text = self.function.__qualname__
        return self.text

    cdef bint weighs_little(self) noexcept:
        """Whether what it was packed into is short, and nothing was copied into blocks."""
        if self.limit or type(self.packed.data) is not bytes or len(<bytes> self.packed.data) > LIGHT:
            return False
        return self.packed.bytes_copied <= LIGHT and (
            self.function_number or self.function_packed is None or self.function_packed.bytes_copied <= LIGHT
        )

    cpdef release(self):
        """The call is over: what its arguments held goes."""
        if self.text is None and self.function is not None and not self.is_atoms:
            self.name
        self.function = self.scope = self.job = None
        self.args = ()
        self.kwargs = None
        self.release_blocks()
        self.packed = self.function_packed = None

    cdef void release_blocks(self):
        if self.packed is not None:
            self.packed.holds.release()
        if self.function_packed is not None and not self.is_atoms:
            self.function_packed.holds.release()


cdef class Pack:
    """Pickle this call; then `packed` or `ended`."""
    cdef readonly Call call

    def __init__(self, Call call):
        self.call = call


cdef class Send:
    """Put this call into this worker's ring; then `sent`."""
    cdef readonly Seat seat
    cdef readonly Call call

    def __init__(self, Seat seat, Call call):
        self.seat = seat
        self.call = call


cdef class Withdraw:
    """Try to take this call back, which waits behind another while a worker has nothing to do; then `withdrawn`."""
    cdef readonly Seat seat
    cdef readonly Call call

    def __init__(self, Seat seat, Call call):
        self.seat = seat
        self.call = call


cdef class Start:
    """Start a worker; then `started` or `not_started`, of which the first counts."""
    cdef readonly bint is_done
