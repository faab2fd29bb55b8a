# Messages between a parent and its workers: what they hold, and the rings that carry them.

from libc.errno cimport EAGAIN, EBADMSG, EINTR
from libc.stdlib cimport malloc, realloc
from libc.string cimport memset


@cython.no_gc  # blocks refer to nothing
cdef class Holds:
    """References to blocks, each once: what a message names, kept as long as somebody may still need it.

    Those of other heaps are apart: they are not in the record, and their receiver finds them by itself.
    """
    cdef sx_posted_name_t *names
    cdef uint32_t count, capacity
    cdef sx_table_t seen
    cdef list elsewhere

    def __cinit__(self):
        self.names = NULL
        memset(&self.seen, 0, sizeof(self.seen))

    def __dealloc__(self):
        self.release()
        free(self.names)

    def __len__(self):
        return self.count + (0 if self.elsewhere is None else len(self.elsewhere))

    def __iter__(self):
        """Those of this heap."""
        for i in range(self.count):
            yield self.names[i].block, self.names[i].birth

    cdef int make_room(self, size_t capacity) except -1:
        if capacity > 0xffffffff:
            raise MemoryError
        wider = realloc(self.names, capacity * sizeof(sx_posted_name_t))
        if wider == NULL:
            raise MemoryError
        self.names = <sx_posted_name_t *> wider
        self.capacity = <uint32_t> capacity
        return 0

    cdef int copy(self, sx_message_t *raw) except -1:
        """The names of a message to come, where nobody else can change them; when they are held, the caller sets the count."""
        cdef uint32_t i
        self.make_room(<size_t> raw.name_count + 1)
        memcpy(self.names, raw.names, raw.name_count * sizeof(sx_posted_name_t))
        raw.names = self.names
        for i in range(raw.name_count):
            if sx_table_find(&self.seen, self.names[i].block) == NULL and sx_table_add(&self.seen, self.names[i].block) == NULL:
                raise MemoryError
        return 0

    cdef int append(self, uint32_t block, uint64_t birth) except -1:
        """Takes over a reference that the caller has."""
        if self.count == self.capacity:
            self.make_room(<size_t> self.capacity * 2 + 8)
        if sx_table_add(&self.seen, block) == NULL:
            raise MemoryError
        self.names[self.count].block = block
        self.names[self.count].birth = birth
        self.names[self.count].lazy = 0
        self.count += 1
        return 0

    def add(self, uint32_t block, uint64_t birth):
        """Hold a block that this process holds already."""
        if sx_table_find(&self.seen, block) == NULL:
            self.append(block, birth)
            sx_heap_hold_again(own, block)

    def add_elsewhere(self, Block block):
        """Hold a block of the heap of another tree."""
        if self.elsewhere is None:
            self.elsewhere = []
        if block not in self.elsewhere:
            self.elsewhere.append(block)

    def add_all(self, Holds other):
        for i in range(other.count):
            self.add(other.names[i].block, other.names[i].birth)
        for block in other.elsewhere or ():
            self.add_elsewhere(block)

    cpdef release(self):
        self.elsewhere = None
        while self.count > 0:
            self.count -= 1
            sx_heap_release(own, self.names[self.count].block)
        sx_table_clear(&self.seen)


cdef class Message:
    """What came through a ring: the numbers, the two parts of the payload, and holds on the blocks that it names."""
    cdef readonly uint32_t kind
    cdef readonly uint64_t call
    cdef readonly uint64_t function
    cdef readonly object first   # bytes, or a memoryview of the spilled block
    cdef readonly object second
    cdef readonly Holds holds    # None in a worker: the parent holds a task's blocks
    cdef readonly bint withdrawn  # a task that the parent took back: only what it ships along counts


cdef int fill(Message message, sx_heap_t *heap, sx_message_t *raw) except -1:
    cdef Block spill
    cdef uint64_t begin
    message.kind = raw.kind
    message.call = raw.call
    message.function = raw.function
    if raw.flags & SX_SPILLED:
        spill = hold_block(heap, raw.spill.block, raw.spill.birth)
        spill.readonly = True
        begin = <uint64_t> raw.name_count * sizeof(sx_posted_name_t)
        whole = memoryview(spill)
        if raw.first != spill.place.start + begin or begin + raw.first_bytes + raw.second_bytes > spill.place.bytes:
            raise BadMessage("a block that has changed")
        message.first = whole[begin:begin + raw.first_bytes]
        message.second = whole[begin + raw.first_bytes:begin + raw.first_bytes + raw.second_bytes]
    else:
        message.first = raw.first[:raw.first_bytes]
        message.second = raw.second[:raw.second_bytes]
    return 0


class BadMessage(Exception):
    """A ring holds something that nobody writes: its other side is broken, as good as dead."""


cdef class Channel:
    """The two rings and the bell between a parent and one worker, in one block."""
    cdef Block block
    cdef sx_channel_t *channel
    cdef sx_outbox_t *outbox
    cdef sx_wait_t how
    cdef int woke  # the worker, for the last task

    def __cinit__(self, Block block):
        self.block = block
        memset(&self.how, 0, sizeof(self.how))
        if block.place.size < sizeof(sx_channel_t):
            raise BadMessage("a channel that is none")
        self.channel = <sx_channel_t *> block.place.start
        self.outbox = <sx_outbox_t *> calloc(1, OUTBOX_BYTES)
        if self.outbox == NULL:
            raise MemoryError

    def __dealloc__(self):
        free_outbox(self.outbox)

    @staticmethod
    def create(uint32_t worker_slot, Hub hub=None):
        """The parent's: a new one for the worker that will have this slot, in the pool of this hub."""
        made = Channel(new_block(sizeof(sx_channel_t), SX_ZERO))
        made.channel.worker_slot = worker_slot
        if hub is not None:
            sx_board_introduce(made.block.heap, worker_slot, made.block.name, hub.block.name)
        return made

    @staticmethod
    def open(uint32_t number, uint64_t birth):
        """The worker's, by the name of the parent's."""
        return Channel(hold_block(the_heap(), number, birth))

    @property
    def name(self):
        return self.block.name.block, self.block.name.birth

    # -- the parent

    cdef int64_t put(self, uint32_t kind, uint64_t call, uint64_t function, Holds holds, first, second,
                     bint is_alone=False, bint is_timed=False) except -2:
        """Publish a task and wake the worker if it sleeps; its position, or -1 if the ring is full.

        The caller keeps ``holds`` until the answer or the worker's certain death. A long message is copied into a block of
        its own, which is added to ``holds``. Raises BadMessage, ValueError, SharedMemoryFull.
        """
        cdef sx_message_t raw
        cdef int code
        cdef bytes function_bytes = first if type(first) is bytes else bytes(first)
        cdef bytes data = second if type(second) is bytes else bytes(second)
        if len(function_bytes) > <Py_ssize_t> 0xffffffff:
            raise ValueError("the function of this call, with what it has captured, is longer than 4 GiB: pass the "
                             "values as arguments")
        memset(&raw, 0, sizeof(raw))
        raw.kind, raw.call, raw.function, raw.is_alone = kind, call, function, is_alone
        raw.flags = SX_TIMED if is_timed else 0
        raw.names, raw.name_count = holds.names, holds.count
        raw.first, raw.first_bytes = function_bytes, <uint32_t> len(function_bytes)
        raw.second, raw.second_bytes = data, <uint64_t> len(data)
        code = sx_task_send(self.block.heap, self.channel, &raw)
        if code == -EAGAIN:
            return -1
        if code == -EBADMSG:
            raise BadMessage("the task ring")
        check_code(code, raw.second_bytes + raw.first_bytes)
        if raw.flags & SX_SPILLED:
            holds.append(raw.spill.block, raw.spill.birth)
        self.woke = raw.woke
        return <int64_t> raw.position

    def stop(self, uint32_t kind):
        """Tell the worker to end when it has run what it was sent; False: the ring is full. Raises BadMessage."""
        return self.put(kind, 0, 0, Holds.__new__(Holds), b"", b"") >= 0

    def was_started(self, uint64_t position):
        """Has the worker begun the task at this position? After certain death: had it?"""
        return bool(sx_task_was_started(&self.channel.tasks, position))

    def begun_at(self, uint64_t position):
        """When, in nanoseconds of `now`, the worker began the task with a limit at this position; 0: it has not."""
        return min(sx_task_begun(self.channel, position), sx_now())  # the worker may have written anything

    cdef Message receive(self):
        """The next answer, with holds on all that it names, or None. Raises BadMessage."""
        cdef sx_message_t raw
        cdef Message message = Message.__new__(Message)
        cdef Holds holds = Holds.__new__(Holds)
        cdef int code = sx_ring_peek(self.block.heap, &self.channel.answers, &raw)
        if code == 0:
            return None
        if code < 0:
            raise BadMessage("the answer ring")
        try:
            fill(message, self.block.heap, &raw)
        except (StaleName, RuntimeError) as error:
            raise BadMessage("an answer in a block that is gone") from error
        holds.copy(&raw)
        if sx_outbox_consume(self.block.heap, self.channel, &raw):
            raise BadMessage("an answer that names a block that is gone")
        holds.count = raw.name_count
        if raw.flags & SX_SPILLED:
            sx_heap_release(self.block.heap, raw.spill.block)  # message.first and second have their own
        message.holds = holds
        return message

    def ring(self):
        """Wake the worker, whatever it sleeps for."""
        sx_channel_ring_worker(self.block.heap, self.channel, 1)

    # -- the worker

    @property
    def bell_address(self):
        return <size_t> &self.block.heap.slots[sx_channel_slot(self.channel)].bell

    def wait_task(self, int64_t nanoseconds=-1):
        """Sleep until a task is there, somebody rings, or a signal came. The caller looks at everything again."""
        cdef int code
        cdef uint32_t seen = sx_channel_bell(self.block.heap, self.channel)
        PyErr_CheckSignals()  # after the bell was read: a signal that comes later has moved it
        with nogil:
            code = sx_channel_wait(self.block.heap, self.channel, &self.how if nanoseconds < 0 else NULL, seen, nanoseconds)
            sx_outbox_settle(self.block.heap, self.outbox, &self.channel.answers)
        if code == -EINTR:
            PyErr_CheckSignals()

    @property
    def has_task(self):
        """Whether there is something in the ring."""
        return not sx_ring_is_empty(&self.channel.tasks)

    def name_function(self, uint64_t number, str name):
        """For who looks: what a function that was shipped here is called."""
        text = name.encode("utf-8", "replace")
        sx_board_name_function(self.channel, number, text, <uint64_t> len(text))

    def next_task(self):
        """Begin the next task, or None. Raises BadMessage.

        A task that the parent has withdrawn comes with its first part only: the blocks that it names may be gone.
        """
        cdef sx_message_t raw
        cdef Message message = Message.__new__(Message)
        cdef int code = sx_ring_peek(self.block.heap, &self.channel.tasks, &raw)
        if code == 0:
            return None
        if code < 0:
            raise BadMessage("the task ring")
        if raw.flags & SX_TIMED:
            sx_task_note_time(self.channel)
        message.withdrawn = not sx_task_start(&raw)
        if message.withdrawn and raw.flags & SX_SPILLED:
            raw.first_bytes = 0
        if message.withdrawn:
            raw.flags, raw.second_bytes = 0, 0
        fill(message, self.block.heap, &raw)
        sx_ring_pop(&self.channel.tasks, &raw)
        return message

    def answer(self, uint32_t kind, uint64_t call, Holds holds, bytes first, bytes second):
        """Publish an answer. False: the ring is full, try again after the parent has read. The caller rings the hub."""
        cdef sx_message_t raw
        cdef int code
        memset(&raw, 0, sizeof(raw))
        raw.kind, raw.call, raw.name_count = kind, call, holds.count
        raw.first, raw.first_bytes = first, <uint32_t> len(first)
        raw.second, raw.second_bytes = second, <uint64_t> len(second)
        code = sx_outbox_publish(self.block.heap, self.outbox, &self.channel.answers, &raw, holds.names)
        if code == -EAGAIN:
            return False
        check_code(code, raw.second_bytes)
        return True


cdef class Hub:
    """Whom in the parent a worker wakes: hub.h; and the event that wakes the collector."""
    cdef Block block
    cdef sx_hub_t *hub
    cdef readonly int event
    cdef uint32_t cores  # by affinity and quota: with none to spare nobody spins in the parent, or makes way in a worker

    def __cinit__(self, Block block, int event):
        self.block = block
        self.event = event
        if block.place.size < sizeof(sx_hub_t):
            raise BadMessage("a hub that is none")
        self.hub = <sx_hub_t *> block.place.start

    @staticmethod
    def create(int event):
        cdef Hub hub
        hub = Hub(new_block(sizeof(sx_hub_t), SX_ZERO), event)
        hub.cores = sx_usable_cores()
        return hub

    @staticmethod
    def open(uint32_t number, uint64_t birth, int event):
        cdef Hub hub = Hub(hold_block(the_heap(), number, birth), event)
        hub.cores = sx_usable_cores()
        return hub

    @property
    def name(self):
        return self.block.name.block, self.block.name.birth

    cpdef uint32_t ring(self):
        """After an answer: wake who waits for it, if somebody sleeps."""
        return sx_hub_ring(self.hub, self.event)

    def ring_collector(self):
        """After what is no answer, so that a leader would not see it."""
        sx_event_write(self.event)


cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1


cdef extern from *:
    """
    #include "outbox.h"
    #include <stdlib.h>
    enum { OUTBOX_BYTES = sizeof(sx_outbox_t) };
    enum { MOST_RINGS = 256 };

    static void free_outbox(sx_outbox_t *outbox) {
        if (outbox) {
            sx_table_clear(&outbox->standing);
            free(outbox->log);
            free(outbox);
        }
    }
    """
    enum:
        OUTBOX_BYTES
        MOST_RINGS
    void free_outbox(sx_outbox_t *outbox) noexcept
