# Segments: which kind the heap gets, those of all processes of the user, what dead ones have left.


from libc.errno cimport EACCES, EINVAL, ENOENT, ENOSYS, EPROTO


cdef list kind_names():
    return [sx_segment_kind_name(kind).decode() for kind in range(1, SX_KINDS + 1)]


cdef int make_heap(sx_heap_t *heap) except -1:
    """In a segment of the kind that SHMEXEC_SEGMENT names, or else of the first that can be had."""
    cdef int code = -ENOSYS
    names = kind_names()
    wanted = os.environ.get("SHMEXEC_SEGMENT") or None
    if wanted is not None and wanted not in names:
        raise ValueError(f"the environment variable SHMEXEC_SEGMENT is {wanted!r}; it may be {', '.join(names)}, or unset, "
                         "to take the first of these that can be had")
    refused = []
    for kind, name in enumerate(names, 1):
        if wanted is not None and name != wanted:
            continue
        code = sx_heap_create(heap, kind, <uint64_t> 1 << 40)
        if code == 0:
            if refused:
                import logging  # here and nowhere above: with it a worker comes up 2 ms later
                logging.getLogger("shmexec").warning("the shared heap is a %s segment: %s", name, "; ".join(refused))
            return 0
        refused.append(f"{name}: {why_refused(name, -code)}")
    reasons = "; ".join(refused)
    if code == -ENOMEM or code == -ENOSPC:
        raise SharedMemoryFull(f"the kernel gives no shared memory ({reasons})")
    raise OSError(-code, f"no shared memory can be had ({reasons})")


cdef str why_refused(str name, int code):
    hint = {
        ("memfd", ENOSYS): "memfd_create is unknown or blocked (seccomp)",
        ("memfd", EPERM): "memfd_create is blocked (seccomp)",
        ("sysv", ENOSYS): "System V shared memory is unknown or blocked (seccomp)",
        ("sysv", EPERM): "shmget is blocked (seccomp)",
        ("sysv", ENOSPC): "kernel.shmmni or kernel.shmall is reached",
        ("sysv", EINVAL): "kernel.shmmax is too small",
        ("posix", ENOENT): "there is no /dev/shm",
        ("posix", EACCES): "/dev/shm may not be written",
        ("posix", ENOSPC): "/dev/shm is full",
    }.get((name, code))
    said = os.strerror(code)
    return f"{hint} ({said})" if hint else said


cdef int raise_unopened(str name, int code) except -1:
    if code == -ESTALE:
        raise StaleName(f"{name} is gone: the process that gave this name has ended, or the name stands for something else now")
    if code == -EINVAL:
        raise StaleName(f"{name!r} is not the name of a segment of shared arrays")
    if code == -EPROTO:
        raise StaleName(f"{name} was made by another version of shmexec")
    if code == -EACCES or code == -EPERM:
        raise PermissionError(-code, f"{name} belongs to another user")
    return check_code(code, 0)


cdef void note_segment(void *context, int kind, const char *name) noexcept with gil:
    (<list> context).append((sx_segment_kind_name(kind).decode(), name.decode(errors="replace")))


def segment_names():
    """(kind, kernel name) of the segments of this user that may be heaps; one may come several times."""
    cdef list found = []
    sx_segment_each(note_segment, <void *> found)
    return found


def sweep_segments():
    """Remove what dead processes have left; (kind, name) of each."""
    cdef list removed = []
    for kind in range(1, SX_KINDS + 1):
        sx_segment_sweep(kind, note_segment, <void *> removed)
    return removed


def look_at_segment(str name):
    """Figures of the heap in a segment, without taking part in it.

    Returns
    -------
    tuple
        Identity, pid of the creator, pids of the processes that take part, bytes in use, resident, limit, virtual, blocks.

    Raises
    ------
    StaleName
        If it is gone, or no heap, or of another version.
    PermissionError
    """
    cdef sx_heap_t heap
    cdef sx_heap_info_t info
    cdef uint32_t pids[SX_PROCESSES]
    cdef uint32_t count
    code = sx_heap_peek(&heap, name.encode())
    if code:
        raise_unopened(name, code)
    with nogil:
        sx_heap_info(&heap, &info)
        count = sx_heap_pids(&heap, pids)
    result = (heap.header.identity, heap.header.creator_pid, [pids[i] for i in range(count)], info.bytes_in_use,
              info.bytes_resident, info.bytes_limit, info.bytes_virtual, info.blocks)
    sx_heap_close(&heap)
    return result


def look_at_pools(str name):
    """The workers of a heap, and what has crossed in it, without taking part in it.

    Returns
    -------
    workers : list of tuple
        For each: pid (0: it is coming up), pid of the parent, number of the pool, whether it sleeps, seconds for which a call has
        run (None: none does), name of its function, calls that it was told of ahead, calls of its pool that no worker was told
        of, and seconds since when there have been some.
    traffic : list of tuple
        Of each process with pools: pid, bytes by name, bytes copied.

    Raises
    ------
    As `look_at_segment`.
    """
    cdef sx_heap_t heap
    cdef sx_worker_view_t view
    cdef uint64_t by_name = 0, copied = 0, now
    cdef uint32_t slot, pid
    cdef list workers = [], traffic = []
    code = sx_heap_peek(&heap, name.encode())
    if code:
        raise_unopened(name, code)
    room = <sx_channel_t *> malloc(sizeof(sx_channel_t))
    try:
        if room == NULL:
            raise MemoryError
        now = sx_now()
        for slot in range(2, <uint32_t> SX_SLOTS, 2):
            pid = sx_board_counted(&heap, slot, &by_name, &copied)
            if pid:
                traffic.append((pid, by_name, copied))
            if sx_board_worker(&heap, slot, room, &view):
                workers.append((
                    view.pid, view.parent, view.hub, view.sleeps,
                    seconds_between(view.begun, now) if view.running else None,
                    view.name.decode("utf-8", "replace"), view.ahead, view.waiting,
                    seconds_between(view.since, now) if view.waiting else 0.0,
                ))
    finally:
        free(room)
        sx_heap_close(&heap)
    return workers, traffic


cdef double seconds_between(uint64_t begun, uint64_t now):
    return (now - begun) * 1e-9 if now > begun else 0.0


def process_command(uint32_t pid):
    """The command line of a process; None: there is no such process, or it may not be known."""
    cdef char text[512]
    if sx_process_command(pid, text, sizeof(text)):
        return None
    return text.decode(errors="replace")
