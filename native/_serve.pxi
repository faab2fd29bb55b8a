# The worker's loop as far as it takes no Python code of ours: calls of functions that are here, one after the other.

import pickle

from cpython.object cimport PyCallable_Check, PyObject_CallObject

cdef object dumps = pickle.dumps
cdef object loads = pickle.loads
cdef bint is_interrupted = False


def interrupt_serving(bint is_now):
    """From now on `serve_calls` asks its `check` between calls; False: no more. It costs as much as the rest of the loop."""
    global is_interrupted
    is_interrupted = is_now


def serve_calls(Channel channel not None, Hub hub not None, Recent functions not None, check, pack, answer, fail):
    """Run the calls that come, and wait for more; return when there is something else, which the caller has to deal with.

    Parameters
    ----------
    channel : Channel
    hub : Hub
    functions : Recent
        What this worker has: callables, by number.
    check : callable
        Called between calls once `interrupt_serving` was; raises if this process is to end.
    pack : callable
        ``pack(box, function)``: the value in the box, which is not short, as a message.
    answer : callable
        ``answer(call, packed, seconds)``: sends what `pack` has given, and what found the ring full or has more to say.
    fail : callable
        ``fail(call, error, seconds)``: the function, its arguments or its result have raised.
    """
    cdef sx_message_t raw
    cdef cost_t cost
    cdef uint64_t call, begun
    cdef uint32_t woken
    cdef sx_heap_t *heap = channel.block.heap
    cdef sx_channel_t *rings = channel.channel
    cdef int code
    cdef int tag
    cdef bytes data, out
    cdef Holds holds = NO_HOLDS
    cdef tuple args = None
    memset(&cost, 0, sizeof(cost))
    the_running.begin(channel, 0)
    while True:
        code = sx_ring_peek(heap, &rings.tasks, &raw)
        if code == 0:
            answer_trim()  # who asked while this worker was busy did not ring; who asks now does
            channel.wait_task()
            if is_interrupted:
                check()
            continue
        if code < 0 or raw.kind != KIND_CALL or raw.first_bytes or raw.flags & (SX_SPILLED | SX_TIMED) or raw.function == 0:
            return
        function = functions.get(raw.function)
        data = raw.second[:raw.second_bytes]
        tag = raw.second[0] if raw.second_bytes else 0
        if not PyCallable_Check(function) or tag == BUFFERS_TAG or not sx_task_start(&raw):
            return
        call = raw.call
        sx_ring_pop(&rings.tasks, &raw)
        functions.use(raw.function)
        the_running.call, the_running.item = call, 0
        begun = sx_now()
        sx_board_begin(rings, call, raw.function, begun)
        sx_numpy_task(1)
        out, holds, cost.bytes_by_name, cost.bytes_copied = None, NO_HOLDS, 0, 0
        try:
            if tag == ATOMS_TAG:
                args, keywords = <tuple?> read_atoms(data, <uint64_t> len(data)), None
            elif tag == ARRAYS_TAG:
                args, keywords = read_arguments(data, <uint64_t> len(data))
            else:
                args, keywords = <tuple> loads(data)
            data = None
            value = function(*args, **keywords) if keywords else PyObject_CallObject(function, args)
            args = keywords = None
            if is_short_atom(value):
                out = dump_atoms(value)
                if len(out) > LONGEST_ANSWER:
                    out = None
            else:
                holds = Holds.__new__(Holds)
                if PyArray_CheckExact(value):
                    out = dump_result(value, holds, Py_REFCNT(value) == 1)
                if out is None:
                    out = dump_short(value, holds, &cost)
                else:
                    cost.bytes_by_name = <uint64_t> cnp.PyArray_NBYTES(value)
                if out is not None and holds.count:
                    value = None
            if out is None:
                holds = NO_HOLDS
                box = [value]
                value = None
                packed = pack(box, function)
                box = None
            error = None
        except BaseException as raised:
            error = raised
            data = args = keywords = value = box = packed = None
        finally:
            sx_numpy_task(-1)
        function = None
        cost.seconds = (sx_now() - begun) * 1e-9
        sx_board_end(rings)  # before the answer, upon which the parent looks at that line
        if error is not None:
            fail(call, error, cost.seconds)
            error = None
        elif out is None:
            answer(call, packed, cost.seconds)
            packed = None
        elif the_running.has_reported or not publish(channel, call, &cost, out, holds):
            is_marshalled = holds.count or out[0] == SHORT_TAG
            packed = Packed(out if is_marshalled else dumps(value, 5), holds, cost.bytes_by_name, cost.bytes_copied)
            answer(call, (packed, ()), cost.seconds)
            packed = None
        else:
            woken = hub.ring()
            if woken != SX_AWAKE:
                channel.how.spin.extra = SX_WAKE
                channel.how.spin.gives_way = woken == SX_COLLECTOR and hub.cores > 1  # on one core all make way anyhow
        value = out = holds = None
        the_running.call = 0
        if is_interrupted:
            check()


def run_plain(function, tuple items not None, int64_t until, list values not None, list box not None):
    """Call a function on one item after the other, as long as it returns atoms and the time, in nanoseconds, is not over.

    The atoms are appended to `values`; a value that is none to `box`, and it is the last. How many items that were.
    """
    cdef Py_ssize_t at = 0
    cdef bint is_atom = True
    while is_atom and at < len(items):
        the_running.item = at
        value = PyObject_CallObject(function, <tuple> items[at])
        is_atom = is_short_atom(value)
        (values if is_atom else box).append(value)
        value = None
        at += 1
        PyErr_CheckSignals()  # a function in C looks at none
        if <int64_t> sx_now() > until:
            break
    return at


cdef bint publish(Channel channel, uint64_t call, cost_t *cost, bytes data, Holds holds) except -1:
    """Something short; `holds` holds the arrays that it names. False: the ring is full."""
    cdef sx_message_t raw
    cdef int code
    memset(&raw, 0, sizeof(raw))
    raw.kind, raw.call, raw.name_count = KIND_RESULT if holds.count else KIND_ATOM, call, holds.count
    raw.first, raw.first_bytes = <const char *> cost, sizeof(cost[0])
    raw.second, raw.second_bytes = data, <uint64_t> len(data)
    code = sx_outbox_publish(channel.block.heap, channel.outbox, &channel.channel.answers, &raw, holds.names)
    if code == -EAGAIN:
        return False
    check_code(code, raw.second_bytes)
    return True
