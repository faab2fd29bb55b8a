# The parent's side of a pool as far as it takes no Python code: calls of atoms and arrays by name in, answers out.
#
# Purpose: a call's way there and back in a few microseconds, in the thread that asks.
# Guarantees
#   D1 whatever stops a leader (its answer, a time-out, a signal handler that raises), it lays the baton down
#   D2 between an answer's leaving its ring and its future's end no Python code runs, unless it is a finalizer's: a signal
#      handler cannot raise there. What takes Python (a condition to acquire, callbacks, a map) goes to the
#      collector, which is no thread that gets signals
#   D3 user code never runs under the lock, nor does anything that may set off the collection of garbage
# Assumptions: the GIL is held; the ledger and the seats are touched under the lock, which the pool's Python code takes, too.
#
# `backlog` holds what is left for the collector: (seat, message), (future, unread value), or a future that has callbacks.

import os
import types

from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject, PyTypeObject
from libc.string cimport memcpy

cdef enum:
    KIND_CALL = 1
    KIND_RESULT = 5
    KIND_FAILURE = 6
    KIND_ATOM = 10
    MOST_KNOWN = 256
    MOST_ANSWERS = 512  # in one go: then others may have the GIL
    AT_ONCE = 1500  # nanoseconds from a glance to the next call: a loop that only submits takes 800 to 1500, one that waits more
    MANY = 31  # callbacks that are added without a glance then

cdef tuple NO_ARGUMENTS = ()
cdef Holds NO_HOLDS = Holds()


cdef class Desk:
    """Where the calls of one pool go out and come in.

    Parameters
    ----------
    hub : Hub
    ledger : Ledger
    future_type : type
        A LazyFuture.
    pool : object
        What the futures are of.
    feed : callable
        Does what is to be done next in Python.
    """
    cdef readonly Lock lock
    cdef readonly Ledger ledger
    cdef readonly Baton baton
    cdef readonly Sender sender
    cdef readonly object backlog
    cdef readonly dict dependents     # future: calls that wait for it; under the lock
    cdef public bint is_open          # takes calls; under the lock
    cdef readonly uint64_t calls_done, bytes_by_name_out, bytes_copied_out
    cdef readonly uint64_t bytes_by_name_in, bytes_copied_in  # of `submit` alone
    cdef object future_type, pool, feed
    cdef uint64_t numbers
    cdef dict known
    cdef object leading               # what the leader leads for: a Watch
    cdef int collecting               # looks at the rings under way: one, or of who has the baton some within others
    cdef uint64_t glanced_at          # when a glance saw an answer; 0: not since the last call

    def __init__(self, Hub hub, Ledger ledger, future_type, pool, feed):
        know_waiters()
        self.lock = Lock()
        self.ledger = ledger
        ledger.cores = hub.cores
        self.backlog = deque()
        self.baton = Baton(hub)
        self.sender = Sender(self.lock, ledger, self.baton, self.backlog)
        self.dependents = {}
        self.is_open = True
        self.future_type, self.pool, self.feed = future_type, pool, feed
        self.known = {}

    # ---- calls

    cpdef uint64_t next_number(self):
        self.numbers += 1
        return self.numbers

    cpdef LazyFuture new_future(self):
        cdef LazyFuture future
        future = <LazyFuture> (<PyTypeObject *> self.future_type).tp_new(self.future_type, <PyObject *> NO_ARGUMENTS, NULL)
        future.desk, future.pool = self, self.pool
        return future

    def learn(self, function, Known known):
        """Calls of this function with short arguments need no Python, while `known` is current."""
        if known.is_short:
            if len(self.known) >= MOST_KNOWN and function not in self.known:
                self.known.clear()
            self.known[function] = known

    def submit(self, function, tuple args, dict keywords=None, Known known=None):
        """The future of a call of a known function with short arguments, and arrays by name.

        None: it is another, or the pool has first to do something.

        `known`: what the function is known as, for who wants it as it was then; else as it is now.
        """
        cdef PyObject *found
        cdef bytes data
        cdef Holds holds
        cdef walk_t walk
        cdef Call call
        cdef LazyFuture future
        cdef bint rest
        cdef type kind = type(function)
        if not self.is_open or not (kind is types.FunctionType or kind is types.BuiltinFunctionType) or self.lock.is_mine():
            return None
        if known is None:
            found = PyDict_GetItem(self.known, function)
            if found == NULL or not (<Known> found).is_current(function):
                return None
            known = <Known> found
        holds = NO_HOLDS
        walk.by_name = walk.copied = 0
        if not keywords and are_atoms(args):
            data = dump_atoms(args)
        else:
            holds = Holds.__new__(Holds)
            memset(&walk, 0, sizeof(walk))
            data = dump_arguments(args, keywords, holds, &walk)
            if data is None:
                return None
        if len(data) > LONGEST_ATOMS:
            return None
        if self.glanced_at:
            self.note_haste()
        future = self.new_future()
        call = Call.__new__(Call)
        call.kind, call.future, call.function, call.args = KIND_CALL, future, function, ()
        future.call = call
        call.packed = Packed.__new__(Packed)
        call.packed.data, call.packed.holds = data, holds
        call.packed.bytes_by_name, call.packed.bytes_copied = walk.by_name, walk.copied
        call.function_number, call.function_packed = known.number, known.packed
        call.is_atoms = call.is_light = True
        self.lock.take()
        if not self.is_open or self.ledger.wants_worker():
            self.lock.drop()
            future.call = None  # or both would wait, with what the call holds, for the collection of garbage
            return None
        self.numbers += 1
        call.number = self.numbers
        if walk.by_name or walk.copied:
            self.bytes_by_name_in += walk.by_name
            self.bytes_copied_in += walk.copied
            add_traffic(walk.by_name, walk.copied)
        self.ledger.submit(call)
        rest = self.sender.pump_and_drop()
        if rest:
            self.feed()
        elif (self.baton.holder == NOBODY or self.baton.holder == SPINNER) and sx_crew_has_answer(&self.baton.crew):
            self.help()
        return future

    def adopt(self, Call call not None):
        """So that `call_of` finds the call of this future."""
        (<LazyFuture> call.future).call = call

    def packed(self, Call call not None):
        """Under the lock: it is pickled. A light one can be cancelled until a worker has begun it."""
        self.ledger.packed(call)
        if call.is_light:
            (<LazyFuture> call.future).state = PENDING

    def call_of(self, LazyFuture future not None):
        """The call of a future that is not done, or None."""
        return future.call

    # ---- who waits

    cdef int lead(self, Watch watch, int64_t deadline) except -1:
        """Collect until this is over or the time is. False: another thread does, or the collector is needed.

        A signal handler, or a finalizer, that waits while its thread leads leads with the same baton; and lays it down for the
        collector, unless that is in the middle of a look at the rings. Who led before finds that out.
        """
        cdef Baton baton = self.baton
        cdef bint is_again = baton.is_mine(), keeps = self.collecting > 0
        if not is_again and not baton.take(LEADER):
            return False
        before, self.leading = self.leading if is_again else None, watch
        watch.led += 1
        try:
            while True:
                seen = sx_hub_turn(baton.hub.hub)
                self.collect()
                watch.tell()
                if watch.is_over():
                    return True
                if not baton.is_mine():
                    return False
                if baton.is_wanted and not (is_again and keeps):
                    is_again = False
                    return False
                if deadline >= 0 and <int64_t> sx_now() >= deadline:
                    return True
                baton.pause(seen, deadline)
                if not baton.is_mine():
                    return watch.is_over()  # by who had it meanwhile
        finally:
            watch.led -= 1
            if baton.is_mine():
                self.leading = before if is_again else None
                if not is_again:
                    baton.lay_down()

    cdef int glance(self, Call call) except -1:
        """A callback was added: if the answer comes in a few microseconds, collect it, and wake the collector for the callback.

        Else the worker wakes it, from another core, while this thread, which is about to sleep, still keeps it off its own: the
        kernel puts it beside the worker, which spins. An answer that is there already is one that it has been woken for.
        Rejected: to run the callback here. Who holds a lock that the callback wants would wait for itself.
        """
        cdef Baton baton = self.baton
        cdef bint is_due = False
        if (call.state != SENT or self.ledger.sent_calls != 1 or call.seat.channel.woke != SX_WAS_AWAKE
                or self.lock.is_mine() or sx_crew_has_answer(&baton.crew)):
            return 0
        if baton.glances.skip:  # before the baton is taken: who gives it back rings for what has come meanwhile
            baton.glances.skip -= 1
            return 0
        if not baton.take(GLANCER):
            return 0
        try:
            is_due = baton.glance()
            if is_due:
                self.collect()
        finally:
            baton.lay_down()
            if is_due:
                baton.ring_here()
                self.glanced_at = sx_now()
        return 0

    cdef void note_haste(self) noexcept:
        """The next call comes: does this thread wait for callbacks? If not, those of many answers at a time cost less."""
        if sx_now() - self.glanced_at < AT_ONCE:
            self.baton.glances.skip = MANY
        self.glanced_at = 0

    cpdef int help(self) except -1:
        """Collect what there is, if nobody else does."""
        if self.baton.take(LEADER):
            try:
                self.collect()
            finally:
                self.baton.lay_down()
        return 0

    # ---- answers; with the baton

    cdef int collect(self) except -1:
        """Read the answers that are there; how many."""
        cdef Py_ssize_t i = 0
        cdef int left = MOST_ANSWERS
        cdef bint rest = False
        self.collecting += 1
        try:
            while i < len(self.baton.watched):  # by index: a worker may be added meanwhile
                seat = <Seat> self.baton.watched[i]
                i += 1
                if seat.is_full:
                    self.lock.take()
                    seat.is_full = False
                    rest |= self.sender.pump_and_drop()
                while left > 0 and self.take_answer(seat, &rest):
                    left -= 1
        finally:
            self.collecting -= 1
        if (rest or self.backlog) and self.baton.holder == LEADER:
            self.baton.ring()
        return MOST_ANSWERS - left

    cdef bint take_answer(self, Seat seat, bint *rest) except -1:
        """One answer of a worker, if there is one."""
        cdef sx_message_t raw
        cdef Call call = None
        cdef bint is_odd
        cdef cost_t cost
        cdef Unread unread
        cdef Message message
        cdef Packed packed
        cdef bytes data
        cdef Channel channel = seat.channel
        cdef int code = sx_ring_peek(channel.block.heap, &channel.channel.answers, &raw)
        if code == 0:
            return False
        if code > 0 and (raw.kind == KIND_ATOM or raw.kind == KIND_RESULT or raw.kind == KIND_FAILURE):
            call = self.find(seat, raw.call)
        is_odd = raw.first_bytes != sizeof(cost) or raw.kind == KIND_ATOM and raw.flags & SX_SPILLED
        if code < 0 or call is None or call.job is not None or is_odd:
            try:
                message = channel.receive()
            except BadMessage:
                if not seat.is_leaving:
                    seat.is_leaving = True
                    self.backlog.append((seat, None))
                return False
            self.backlog.append((seat, message))
            return True
        memcpy(&cost, raw.first, sizeof(cost))
        if raw.kind == KIND_ATOM:
            data = raw.second[:raw.second_bytes]
            sx_ring_pop(&channel.channel.answers, &raw)
            try:
                value = read_short(data, raw.second_bytes)
            except BaseException as error:
                self.end(call, cost, None, error, rest)
            else:
                self.end(call, cost, value, None, rest)
        else:
            try:
                message = channel.receive()
            except BadMessage:
                if not seat.is_leaving:
                    seat.is_leaving = True
                    self.backlog.append((seat, None))
                return False
            packed = Packed.__new__(Packed)
            packed.data, packed.holds = message.second, message.holds
            packed.bytes_by_name, packed.bytes_copied = cost.bytes_by_name, cost.bytes_copied
            unread = Unread.__new__(Unread)
            unread.packed = packed
            if raw.kind == KIND_RESULT:
                self.end(call, cost, unread, None, rest)
            else:
                self.end(call, cost, None, unread, rest)
        return True

    cdef Call find(self, Seat seat, uint64_t number):
        for item in seat.sent:
            if (<Call> item).number == number:
                return <Call> item
        return None

    def find_call(self, Seat seat, uint64_t number):
        """The call of this number that the worker has, or None."""
        return self.find(seat, number)

    cdef int end(self, Call call, cost_t cost, value, error, bint *rest) except -1:
        """A call has been answered."""
        cdef LazyFuture future = <LazyFuture> call.future
        cdef bint is_done
        self.lock.take()
        if call.state != SENT:
            self.lock.drop()
            return 0
        self.ledger.ended(call)
        self.ledger.note(cost.seconds * 1e9)
        self.count(cost)
        is_done = future.try_finish(value, error)
        if is_done:  # not before: who waits for it need not, and who is about to wait has to see it
            self.release_dependents(future)
        rest[0] |= self.sender.pump_and_drop()
        rest[0] |= not self.is_open  # the last call of a pool that closes: the collector ends it
        call.release()
        if not is_done and type(self.leading) is LeadingEvent and future.try_finish_led(value, error, self.leading):
            is_done = True
            self.lock.take()
            self.release_dependents(future)
            rest[0] |= self.sender.pump_and_drop()
        if not is_done:
            self.backlog.append((future, value, error))
        elif future.callbacks:
            self.backlog.append((future,))
        return 0

    cdef void count(self, cost_t cost) noexcept:
        self.calls_done += 1
        self.bytes_by_name_out += cost.bytes_by_name
        self.bytes_copied_out += cost.bytes_copied
        add_traffic(cost.bytes_by_name, cost.bytes_copied)

    def note_answer(self, uint64_t by_name, uint64_t copied, double seconds):
        """Under the lock: an answer that went to the backlog."""
        self.count(cost_t(by_name, copied, seconds))
        self.ledger.note(seconds * 1e9)

    cpdef release_dependents(self, future):
        """Under the lock: what waits for this future need not any more."""
        if self.dependents:
            for item in self.dependents.pop(future, ()):
                (<Call> item).missing -= 1
                if (<Call> item).missing == 0:
                    self.ledger.unblock(<Call> item)

    # ---- the collector

    def try_collect(self):
        """Read all answers, if nobody else does."""
        if self.baton.take(COLLECTOR):
            try:
                self.collect()
            finally:
                self.baton.lay_down()

    def spin(self):
        """Look at the rings for a while, and read what comes. False: there is nothing, or a leader does it."""
        if self.backlog:
            return True
        if not self.baton.look():
            return False
        try:
            self.collect()
        finally:
            self.baton.lay_down()
        return True

    def collect_all(self):
        """With the baton: read all answers."""
        while self.collect():
            pass

    def close(self):
        """No worker is left; nobody will be woken any more."""
        self.baton.close()
        self.feed = None

    def forget_in_child(self):
        """In a process that was forked: the rings are the parent's."""
        self.lock = self.sender.lock = Lock()  # whoever held it is not here
        self.is_open = False
        self.baton.close()
