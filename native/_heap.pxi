# The heap of this process tree, those of others, and references to their blocks.

import os

from shmexec.errors import SharedMemoryFull, StaleName

from cpython.buffer cimport PyBuffer_FillInfo
from libc.errno cimport EBADMSG, ENOMEM, ENOSPC, EPERM, ESTALE
from libc.stdlib cimport calloc, free

from native cimport *

cdef extern from "<errno.h>" nogil:
    enum:
        EOWNERDEAD

cdef extern from "layout.h" nogil:
    enum:
        SX_EXTENT_BLOCKS
        SX_PAGE_BYTES
    uint32_t sx_load_relaxed32 "sx_load_relaxed"(uint32_t *word)
    void sx_store_relaxed32 "sx_store_relaxed"(uint32_t *word, uint32_t value)

# The heap of this process tree, and those of others that attach() opened. They are never unmapped: an array may be freed
# while the interpreter ends.
cdef sx_heap_t *own = NULL
cdef list foreign = []  # of Heap


cdef int check_code(int code, uint64_t bytes) except -1:
    """Turns a code of the heap's into an exception that says what it means there."""
    if code >= 0:
        return 0
    if code == -ENOMEM:
        error = SharedMemoryFull(full_message(bytes))
        error.bytes_needed = bytes
        raise error
    if code == -ESTALE:
        raise StaleName("the shared block of this name is gone: the last array on it was dropped before the name was used")
    if code == -EPERM:
        raise RuntimeError("this process has no part in the shared heap: it was forked from a worker, or by C code, and sees "
                           "private copies; start it with multiprocessing's spawn or forkserver to share arrays")
    if code == -ENOSPC:
        raise RuntimeError("the shared heap has no place for another process (255 at a time)")
    if code == -EOWNERDEAD:
        raise ProcessLookupError("the process that started this one is dead")
    if code == -EBADMSG:
        raise RuntimeError("the shared heap is damaged: some process has written where it should not, and the description of "
                           "this block makes no sense any more")
    return sx_check(code)


def full_message(uint64_t bytes):
    """Why there is no memory for so many bytes more, and what to do."""
    cdef sx_heap_info_t info
    if own == NULL:
        return "the kernel gives no shared memory"
    sx_heap_info(own, &info)
    if info.bytes_resident + bytes + SX_PAGE_BYTES <= info.bytes_limit:
        where = "/dev/shm is full" if own.segment.kind == SX_POSIX else "the kernel refuses more"
        return (f"no shared memory for {bytes:,} bytes more: {where}, though the heap might take {info.bytes_limit:,} and has "
                f"{info.bytes_resident:,}; {info.bytes_in_use:,} are in use by {info.blocks:,} arrays and messages. Drop arrays "
                f"that are no longer needed, or make room for more: see shmexec's guide, \"In containers and under "
                f"limits\"{about_tickets()}")
    return (f"no shared memory for {bytes:,} bytes more: {info.bytes_in_use:,} are in use by {info.blocks:,} arrays and "
            f"messages, results that nobody has dropped included, and the heap may take {info.bytes_limit:,}. Drop arrays "
            f"that are no longer needed, or raise max_bytes of the executor{about_tickets()}")


cdef sx_heap_t *the_heap() except NULL:
    """The heap of this process tree; the first process that needs one makes it."""
    global own
    cdef sx_heap_t *heap
    if own == NULL:
        take_offered_heap()
    if own == NULL:
        heap = <sx_heap_t *> calloc(1, sizeof(sx_heap_t))
        if heap == NULL:
            raise MemoryError
        try:
            make_heap(heap)
        except BaseException:
            free(heap)
            raise
        adopt_heap(heap)
    return own


cdef int adopt_heap(sx_heap_t *heap) except -1:
    global own
    own = heap
    sx_heap_unlink_at_exit(heap)
    register_hooks()
    return 0


cdef bint hooks_registered = False


cdef int register_hooks() except -1:
    global hooks_registered
    if not hooks_registered:
        os.register_at_fork(before=fork_before, after_in_parent=fork_after_in_parent, after_in_child=fork_after_in_child)
        hooks_registered = True
    return 0


def fork_before():
    if own != NULL:
        sx_fork_before(own)
    for heap in foreign:
        sx_fork_before((<Heap> heap).heap)


def fork_after_in_parent():
    if own != NULL:
        sx_fork_after_in_parent(own)
    for heap in foreign:
        sx_fork_after_in_parent((<Heap> heap).heap)


def fork_after_in_child():
    cdef int code = 0
    if own != NULL:
        code = sx_fork_after_in_child(own)
    for heap in foreign:
        sx_fork_after_in_child((<Heap> heap).heap)
    if code == -EOWNERDEAD:
        os._exit(1)  # reaped together with its parent
    if code and own.is_private:  # it would share what it must not
        os.write(2, b"shmexec: a forked process ends: there is no memory for its private view of the shared heap\n")
        os._exit(1)


def heap_address():
    """What a worker needs to attach the heap of this process tree, which is made if there is none yet: the kind, and a number."""
    cdef sx_heap_t *heap = the_heap()
    return heap.segment.kind, heap.segment.number


def heap_descriptors():
    """The descriptor of the heap, as a tuple; empty for a kind that has none."""
    cdef sx_heap_t *heap = the_heap()
    return (heap.segment.number,) if sx_segment_is_file(&heap.segment) else ()


def heap_is_open():
    return own != NULL


def attach_heap(int kind, int number, uint32_t reserved_slot):
    """In a worker: take part in the heap of the parent, in the slot that the parent keeps for this process.

    The number is as of `heap_address`; a descriptor stays the caller's. A forked worker has the heap already and came up in its
    slot in the fork hook.
    """
    cdef sx_heap_t *heap
    if own == NULL:
        heap = <sx_heap_t *> calloc(1, sizeof(sx_heap_t))
        if heap == NULL:
            raise MemoryError
        heap.segment.kind = kind
        check_code(sx_heap_attach(heap, kind, os.dup(number) if sx_segment_is_file(&heap.segment) else number, reserved_slot), 0)
        adopt_heap(heap)
        refuse_offered_heap()
    elif own.me.slot != reserved_slot:
        raise RuntimeError("this process takes part in another shared heap already")
    own.is_worker = 1


def reserve_slot():
    """A slot for a worker that is about to be started; this process alone will reap it."""
    cdef uint32_t slot = sx_slot_reserve(the_heap(), 1)
    if slot == 0:
        check_code(-ENOSPC, 0)
    return slot


def reap_slot(uint32_t slot):
    """Everything that a worker held comes back. Its death is certain, and its answers are read."""
    cdef int reaped
    with nogil:
        reaped = sx_slot_reap(own, slot)
    return bool(reaped)


def expect_fork(uint32_t slot):
    """The next os.fork() makes the worker of this slot; 0 takes it back."""
    sx_fork_expect(the_heap(), slot)


def reap_dead():
    """Take back what dead processes held that no pool looks after, in whichever heap. The number of them in this tree's."""
    for heap in foreign:
        reap_dead_in((<Heap> heap).heap)
    return 0 if own == NULL else reap_dead_in(own)


cdef uint32_t reap_dead_in(sx_heap_t *heap) noexcept:
    cdef uint32_t reaped
    with nogil:
        sx_fork_poll(heap)
        reaped = sx_slot_reap_dead(heap)
    return reaped


def set_limit(uint64_t bytes):
    """Bound the memory of the heap; 0: back to 80 % of the machine's or the cgroup's memory, or what the segment can have."""
    sx_store_relaxed(&the_heap().header.bytes_limit, bytes or sx_heap_default_limit(own))


def machine_memory():
    """Bytes: the smaller of physical memory and the control group's limit."""
    return sx_machine_memory()


def heap_figures():
    """(kind, kernel name, in use, resident, limit, blocks, holders, processes)."""
    cdef sx_heap_info_t info
    cdef sx_heap_t *heap = the_heap()
    with nogil:
        sx_heap_info(heap, &info)
    return (sx_segment_kind_name(heap.segment.kind).decode(), kernel_name(heap), info.bytes_in_use, info.bytes_resident,
            info.bytes_limit, info.blocks, info.holders, info.processes)


cdef str kernel_name(sx_heap_t *heap):
    cdef char text[SX_NAME_BYTES]
    sx_check(sx_segment_name(&heap.segment, text))
    return text.decode()


cdef uint64_t traffic[2]


def count_traffic(uint64_t by_name, uint64_t copied):
    """An argument or a result of a pool of this process has crossed."""
    add_traffic(by_name, copied)


cdef inline void add_traffic(uint64_t by_name, uint64_t copied) noexcept:
    if by_name or copied:
        traffic[0] += by_name
        traffic[1] += copied
        if own != NULL:
            sx_board_traffic(own, traffic[0], traffic[1])


def traffic_figures():
    """Bytes by name and bytes copied, of all pools of this process."""
    return traffic[0], traffic[1]


def trim_heap(bint unclaimed=False):
    cdef sx_heap_t *heap = own
    if heap != NULL:
        with nogil:
            sx_fork_poll(heap)
            sx_slot_reap_dead(heap)
            if unclaimed:
                sx_ticket_drop_all(heap)
            sx_heap_trim(heap)


def answer_trim():
    """If another process has called trim() since the last time: give the free pages of this one back."""
    if own != NULL:
        with nogil:
            sx_heap_answer_trim(own)


def check_heap(bint quiet=True):
    """The invariants of the heap, executed: None, or the one that is broken."""
    cdef const char *broken
    if own == NULL:
        return None
    broken = sx_heap_check(own, quiet)
    return None if broken == NULL else broken.decode()


def mapped_inode(size_t address):
    """Inode of the file that is mapped at this address of this process; 0: none, or it cannot be known."""
    return sx_mapped_inode(<const void *> address)


def has_huge_pages():
    """Whether the kernel gave 2 MiB pages so far: None before the first."""
    cdef uint64_t tried = own.header.huge_pages if own != NULL else 0
    return None if tried == 0 else tried == 1


def is_half_full():
    """Whether more than half of what the heap may take is in use."""
    cdef sx_heap_info_t info
    cdef uint64_t half = sx_load_relaxed(&own.header.bytes_limit) // 2
    if sx_segment_resident(&own.segment) <= half:  # cheap, and mostly enough
        return False
    with nogil:
        sx_heap_info(own, &info)
    return info.bytes_in_use > half


cpdef uint64_t threshold():
    """Bytes from which on plain memory is worth a block of its own: the measured break-even of "copied into a block" against
    "inside the message" is 8-32 KiB on 2 MiB pages, 64 KiB on 4 KiB pages."""
    return 64 << 10 if has_huge_pages() is False else 32 << 10


# ---- blocks ------------------------------------------------------------------------------------------------------------------


cdef class Heap:
    """The heap of another process tree, opened by attach()."""
    cdef sx_heap_t *heap

    def __cinit__(self, str name):
        self.heap = NULL
        cdef sx_heap_t *heap = <sx_heap_t *> calloc(1, sizeof(sx_heap_t))
        if heap == NULL:
            raise MemoryError
        code = sx_heap_open(heap, name.encode())
        if code:
            free(heap)
            raise_unopened(name, code)
        self.heap = heap
        register_hooks()


cdef class Block:
    """One reference to a block of a heap: what an array over it has as its base. Exports the bytes that were asked for."""
    cdef sx_heap_t *heap
    cdef sx_name_t name
    cdef sx_place_t place  # checked, once: what stands in the descriptor afterwards does not matter
    cdef bint readonly
    cdef object __weakref__

    def __cinit__(self):
        self.heap = NULL

    def __dealloc__(self):
        if self.heap != NULL:
            sx_heap_release(self.heap, self.name.block)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.place.start, <Py_ssize_t> self.bytes(), self.readonly, flags)

    def __releasebuffer__(self, Py_buffer *view):
        pass

    cdef uint64_t bytes(self) noexcept:
        return self.place.bytes

    @property
    def number(self):
        return self.name.block

    @property
    def birth(self):
        return self.name.birth


cdef class Borrowed:
    """A copy-on-write view of a block that others read, too: what is written into it is seen by nobody else."""
    cdef Block block
    cdef void *mapping
    cdef uint64_t mapped
    cdef char *start

    def __cinit__(self):
        self.mapping = NULL

    def __dealloc__(self):
        if self.mapping != NULL:
            sx_segment_give_back(self.mapping, self.mapped)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.start, <Py_ssize_t> self.block.bytes(), 0, flags)

    def __releasebuffer__(self, Py_buffer *view):
        pass


cdef Borrowed borrow_block(Block block):
    """None: the kernel refuses another mapping."""
    cdef Borrowed made = Borrowed.__new__(Borrowed)
    cdef void *mapping
    cdef sx_heap_t *heap = block.heap
    offset = block.place.start - heap.segment.base
    made.start = sx_segment_borrow(&heap.segment, offset, block.place.size, &mapping, &made.mapped)
    if made.start == NULL:
        return None
    made.mapping = mapping
    made.block = block
    return made


def borrow(uint32_t number, uint64_t birth):
    """A writeable view of a block, of which others see no change, as an object that exports its bytes. Raises StaleName."""
    cdef Block block = hold_block(the_heap(), number, birth)
    made = borrow_block(block)
    return bytearray(block) if made is None else made


cdef Block new_block(uint64_t bytes, int flags):
    cdef Block block = Block.__new__(Block)
    cdef sx_heap_t *heap = the_heap()
    cdef sx_name_t name
    cdef char *start
    cdef int code
    with nogil:
        code = sx_heap_alloc(heap, bytes, flags, &name, &start)
    check_code(code, bytes)
    block.heap = heap
    block.name = name
    check_code(sx_heap_place(heap, name.block, &block.place), 0)
    return block


cdef Block hold_block(sx_heap_t *heap, uint32_t number, uint64_t birth):
    cdef Block block = Block.__new__(Block)
    cdef sx_name_t name
    name.block = number
    name.birth = birth
    check_code(sx_heap_hold(heap, name), 0)
    block.heap = heap
    block.name = name
    check_code(sx_heap_place(heap, number, &block.place), 0)
    return block


def allocate(uint64_t bytes):
    """A new block for a plain buffer, as an object that exports its bytes."""
    return new_block(bytes, SX_PLAIN)


cpdef bint is_plain(uint32_t number) noexcept:
    """Whether a block of the heap that this process holds was made for code that did not ask for shared memory."""
    return bool(sx_load_relaxed32(&sx_block_of(own, number).plain))


cpdef bint is_own_plain(uint32_t number) noexcept:
    """Whether that is so, and the code ran here, in a worker: to the pools that it makes the array is a plain one."""
    return own.is_worker and is_plain(number) and sx_extent_is_mine(own, number // SX_EXTENT_BLOCKS)


def mark_shared(uint32_t number):
    """Somebody asks for this block now."""
    sx_store_relaxed32(&sx_block_of(own, number).plain, 0)


def block_size(uint32_t number):
    """Bytes that a block takes."""
    return sx_heap_size(own, number)


cpdef bint is_sparse(uint64_t bytes, uint32_t number) noexcept:
    """Whether they are so small a part of a block that a copy is better than keeping the whole: it costs at most a sixteenth
    of one pass over the memory, and the rest can be freed."""
    return bytes * 16 < sx_heap_size(own, number)


def kept_plain(Holds holds):
    """The plain blocks among these that this process has other references to."""
    return frozenset([number for number, _ in holds if is_plain(number) and sx_heap_count(own, number) > 1])


def hold(uint32_t number, uint64_t birth, bint readonly=False):
    """A reference to the block of this name, as an object that exports its bytes. Raises StaleName."""
    cdef Block block = hold_block(the_heap(), number, birth)
    block.readonly = readonly
    return block
