# Arrays for receivers that are not known: a pickle names the heap, the block and a ticket, and whoever reads it finds them.

import weakref

# Blocks that are in pickles just now, by (heap, number, birth): all arrays over one block are pickled with the same object, and
# pickle itself sees to it that this is done once in each pickle, with one ticket.
cdef object blocks_in_pickles = weakref.WeakValueDictionary()

cdef int offered_kind = 0
cdef int offered = -1  # descriptor of the heap that the parent of this process has, for when one is needed here


# ---- which heap ---------------------------------------------------------------------------------------------------------------


def offer_heap(int kind, int number):
    """In a child that multiprocessing has started: the heap of its parent, as `heap_address` has it.

    This process takes part in it when it first needs one. A descriptor is taken over, and keeps the heap; of one without, only
    whoever takes part in it keeps it: then that is now.
    """
    global offered, offered_kind
    cdef sx_segment_t segment
    segment.kind = kind
    if not sx_segment_is_file(&segment):
        try:
            if own == NULL:
                attach_own(kind, number)
        except StaleName:  # all who had it have ended
            pass
        return
    os.set_inheritable(number, False)
    if own == NULL and offered < 0:
        offered_kind, offered = kind, number
    else:
        os.close(number)


def heritage():
    """(kind, number) of the heap that children of this process are to be offered. A descriptor stays this process's."""
    return (offered_kind, offered) if own == NULL and offered >= 0 else heap_address()


def is_descriptor(int kind):
    """Whether the number of a heap of this kind is a descriptor."""
    cdef sx_segment_t segment
    segment.kind = kind
    return bool(sx_segment_is_file(&segment))


cdef int attach_own(int kind, int number) except -1:
    cdef sx_heap_t *heap = <sx_heap_t *> calloc(1, sizeof(sx_heap_t))
    if heap == NULL:
        raise MemoryError
    code = sx_heap_attach(heap, kind, number, 0)
    if code:
        free(heap)  # the mapping, if there is one, stays: no block in it was held
        check_code(code, 0)
    return adopt_heap(heap)


cdef int take_offered_heap() except -1:
    global offered
    if offered < 0:
        return 0
    attach_own(offered_kind, offered)
    offered = -1
    return 0


cdef int refuse_offered_heap() except -1:
    global offered
    if offered >= 0:
        fd, offered = offered, -1
        os.close(fd)
    return 0


cdef sx_heap_t *heap_with(uint64_t identity) noexcept:
    """One of those that this process has, of which it sees no private copy."""
    if own != NULL and own.header.identity == identity and own.me.slot:
        return own
    for other in foreign:
        if (<Heap> other).heap.header.identity == identity and (<Heap> other).heap.me.slot:
            return (<Heap> other).heap
    return NULL


cdef sx_heap_t *find_heap(str segment, uint64_t identity) except NULL:
    """The heap of a ticket: one that this process has, or opened now. A process without a heap takes it for its own."""
    cdef sx_heap_t *heap
    cdef Heap opened
    if own == NULL:
        take_offered_heap()
    heap = heap_with(identity)
    if heap != NULL:
        return heap
    opened = open_segment(segment)
    heap = heap_with(identity)  # another thread may have been faster, while this one looked for the segment
    if own == NULL and heap == NULL:
        heap = opened.heap
        adopt_heap(heap)
    else:
        foreign.append(opened)
    heap = heap_with(identity)
    if heap == NULL:
        raise StaleName(f"{segment} is another heap by now")
    return heap


cdef Heap open_segment(str segment):
    """From the process that gave the name; if that has ended, from any other that still has the segment."""
    for again in whoever_has(segment):
        try:
            return Heap(again)
        except StaleName:
            pass
    raise StaleName(f"{segment} is gone: all processes that had this heap have ended")


def whoever_has(str segment):
    yield segment
    which = segment.rpartition(":")[2]
    for _, again in segment_names():
        if again.rpartition(":")[2] == which and again[:5] == segment[:5]:
            yield again


# ---- tickets ------------------------------------------------------------------------------------------------------------------


def open_tickets():
    """How many pickles there are that nobody has read, counting each for each block in it."""
    return 0 if own == NULL else sx_ticket_count(own)


cdef str about_tickets():
    unread = sx_ticket_count(own)
    return "" if not unread else (f". {unread:,} are kept for pickles that nobody has read so far: trim(unclaimed=True) frees "
                                  "them, if nobody ever will")


cdef Block block_in_pickle(sx_heap_t *heap, sx_name_t name):
    cdef Block block
    key = heap.header.identity, name.block, name.birth
    block = blocks_in_pickles.get(key)
    if block is None:
        block = hold_block(heap, name.block, name.birth)
        blocks_in_pickles[key] = block
    return block


cdef tuple place_in_pickle(cnp.ndarray array, Block block):
    return block, <Py_ssize_t> (<char *> cnp.PyArray_DATA(array) - block.place.start)


def block_of(cnp.ndarray array):
    """(block, offset of the first element) if the array lies in shared memory that somebody asked for; else None.

    In whichever heap. What a task's plain code made in this worker only happens to lie there.
    """
    cdef sx_name_t name
    cdef char *low
    cdef char *high
    bounds(array, &low, &high)
    if low == high:
        return None
    if own == NULL or not sx_heap_find(own, low, high, &name):
        return block_elsewhere(array)
    return None if is_own_plain(name.block) else place_in_pickle(array, block_in_pickle(own, name))


def block_elsewhere(cnp.ndarray array):
    """As block_of(), but only in the heaps of other trees."""
    cdef sx_heap_t *heap
    cdef sx_name_t name
    cdef char *low
    cdef char *high
    if not foreign:
        return None
    bounds(array, &low, &high)
    for other in foreign:
        heap = (<Heap> other).heap
        if low != high and sx_heap_find(heap, low, high, &name):
            return place_in_pickle(array, block_in_pickle(heap, name))
    return None


def name_elsewhere(Block block):
    """(kernel name of the heap, its identity, block, birth): what array_elsewhere() takes. Weak, as all names are."""
    return kernel_name(block.heap), block.heap.header.identity, block.name.block, block.name.birth


def array_elsewhere(str segment, uint64_t identity, uint32_t number, uint64_t birth, Py_ssize_t offset, dtype, tuple shape,
                    tuple strides, bint writeable, bint fortran):
    """The array of this name in the heap of whichever tree. Raises StaleName, PermissionError."""
    cdef Block block = hold_block(find_heap(segment, identity), number, birth)
    return rebuild(block, offset, dtype, shape, strides, writeable, fortran)


def issue_ticket(Block block):
    """What claim_ticket() takes; until then the block is kept, whatever becomes of this process. None: too many are open."""
    cdef uint32_t entry, seq
    code = sx_ticket_issue(block.heap, block.name.block, &entry, &seq)
    if code == -ENOSPC:
        return None
    check_code(code, 0)
    return *name_elsewhere(block), entry, seq


def claim_ticket(str segment, uint64_t identity, uint32_t number, uint64_t birth, uint32_t entry, uint32_t seq):
    """The block, held by this process. A second claim is good as long as somebody else holds it. Raises StaleName."""
    cdef sx_heap_t *heap = find_heap(segment, identity)
    cdef Block block = hold_block(heap, number, birth)
    sx_ticket_claim(heap, number, entry, seq)
    return block


def array_in(Block block, Py_ssize_t offset, dtype, tuple shape, tuple strides, bint writeable, bint fortran):
    """An array over a part of a block."""
    return rebuild(block, offset, dtype, shape, strides, writeable, fortran)
