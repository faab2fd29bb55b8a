# The parent's side of a pool as far as it takes no Python code: calls of atoms in, answers out, and who collects them.
#
# Purpose: a call's way there and back in a few microseconds, in the thread that asks.
# Guarantees
#   D1 one thread at a time has the baton, and it alone reads the answer rings; whatever stops a leader (its answer, a time-out, a
#      signal handler that raises), it lays the baton down, and the collector is rung for what comes from then on (hub.h)
#   D2 between an answer's leaving its ring and its future's end no Python code runs, unless it is a finalizer's: a signal
#      handler cannot raise there. What takes Python (a condition to acquire, callbacks, a map, a failure) goes to the
#      collector, which is no thread that gets signals
#   D3 user code never runs under the lock, nor does anything that may set off the collection of garbage
# Assumptions: the GIL is held but where `nogil` says; the ledger and the seats are touched under the lock, which the pool's
# Python code takes, too.
#
# `backlog` holds what is left for the collector: (seat, message), (future, unread value), or a future that has callbacks.

import os
import pickle
import types

from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject, PyTypeObject
from libc.string cimport memcpy

cdef enum:
    NOBODY
    LEADER
    COLLECTOR
    GLANCER  # who adds a callback, and wakes the collector itself
    SPINNER  # the collector, which only looks: a leader may take the baton from it

cdef enum:
    KIND_CALL = 1
    KIND_RESULT = 5
    KIND_ATOM = 10
    LONGEST_ATOMS = 2048
    PATIENCE = 1000000  # nanoseconds until a worker is woken for calls that wait behind others
    MOST_KNOWN = 256
    MOST_ANSWERS = 512  # in one go: then others may have the GIL
    GLANCE = 10000  # nanoseconds, at most
    AT_ONCE = 1500  # from a glance to the next call a loop that only submits takes 800 to 1500, one that waits 2000 to 6000
    MANY = 31  # callbacks that are added without a glance then

ctypedef struct cost_t:
    uint64_t bytes_by_name
    uint64_t bytes_copied
    double seconds

cdef object dumps = pickle.dumps
cdef object loads = pickle.loads
cdef dict NO_KEYWORDS = {}
cdef tuple NO_ARGUMENTS = ()
cdef Holds NO_HOLDS = Holds()


cdef bint are_atoms(tuple values):
    """Whether plain pickle says all of these; long ones are found out afterwards."""
    for value in values:
        kind = type(value)
        if not (kind is int or kind is float or kind is str or value is None or kind is bool or kind is bytes or kind is complex):
            return False
        if kind is str and len(<str> value) > LONGEST_ATOMS or kind is bytes and len(<bytes> value) > LONGEST_ATOMS:
            return False
    return True


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
    cdef readonly object backlog
    cdef readonly dict dependents     # future: calls that wait for it; under the lock
    cdef readonly list failed         # (call, error), of sending; under the lock
    cdef public bint is_open          # takes calls; under the lock
    cdef readonly uint64_t calls_done, bytes_by_name_out, bytes_copied_out
    cdef Hub hub
    cdef object future_type, pool, feed
    cdef uint64_t numbers
    cdef uint64_t published           # of calls that wait, what who looks sees
    cdef dict known
    cdef list watched                 # of seats
    cdef sx_channel_t *channels[MOST_RINGS]  # theirs; only who has the baton takes one away
    cdef sx_crew_t crew
    cdef sx_spin_t pauses, looks, glances  # of leaders, of the collector, of who adds a callback
    cdef uint64_t glanced_at          # when a glance saw an answer; 0: not since the last call
    cdef sx_sleepers_t sleepers       # threads of the collector
    cdef int ringing                  # threads that write to the event without the GIL
    cdef readonly uint64_t spins, hits, thefts
    cdef int holder                   # of the baton
    cdef unsigned long owner          # that thread
    cdef object leading               # what it leads for: a Watch
    cdef bint is_wanted               # by the collector, which cannot be refused
    cdef int64_t alarm                # when the collector has to look at a call with a limit; -1: never
    cdef readonly int timer           # a descriptor, which who collects closes
    cdef bint is_timed                # it is set
    cdef bint has_ended               # nobody is to be woken any more, or this is a forked child
    cdef bint is_closed               # the event, or will be by the last who writes to it

    def __init__(self, Hub hub, Ledger ledger, future_type, pool, feed):
        self.lock = Lock()
        self.ledger = ledger
        self.backlog = deque()
        self.dependents = {}
        self.failed = []
        self.is_open = True
        self.hub = hub
        ledger.cores = hub.cores
        self.future_type, self.pool, self.feed = future_type, pool, feed
        self.known = {}
        self.watched = []
        self.crew.heap = hub.block.heap
        self.crew.channels = self.channels
        self.crew.count = 0
        memset(&self.pauses, 0, sizeof(self.pauses))
        memset(&self.looks, 0, sizeof(self.looks))
        memset(&self.glances, 0, sizeof(self.glances))
        self.glances.longest = GLANCE
        memset(&self.sleepers, 0, sizeof(self.sleepers))
        self.holder = NOBODY
        self.alarm = -1
        self.timer = sx_timer_create()
        if self.timer < 0:
            raise OSError(-self.timer, os.strerror(-self.timer))
        sx_hub_leave(hub.hub, &self.crew, hub.event)

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
        """Calls of this function with atoms need no Python, while `known` is current."""
        if known.is_short:
            if len(self.known) >= MOST_KNOWN and function not in self.known:
                self.known.clear()
            self.known[function] = known

    def submit(self, function, tuple args, Known known=None):
        """The future of a call of a known function with atoms; None: it is another, or the pool has first to do something.

        `known`: what the function is known as, for who wants it as it was then; else as it is now.
        """
        cdef PyObject *found
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
        if not are_atoms(args):
            return None
        data = dumps((args, NO_KEYWORDS), 5)
        if len(<bytes> data) > LONGEST_ATOMS:
            return None
        if self.glanced_at:
            self.note_haste()
        future = self.new_future()
        call = Call.__new__(Call)
        call.kind, call.future, call.function, call.args = KIND_CALL, future, function, ()
        future.call = call
        call.packed = Packed.__new__(Packed)
        call.packed.data, call.packed.holds = data, NO_HOLDS
        call.function_number, call.function_packed = known.number, known.packed
        call.is_atoms = call.is_light = True
        self.lock.take()
        if not self.is_open or self.ledger.wants_worker():
            self.lock.drop()
            return None
        self.numbers += 1
        call.number = self.numbers
        self.ledger.submit(call)
        rest = self.pump_and_drop()
        if rest:
            self.feed()
        elif (self.holder == NOBODY or self.holder == SPINNER) and sx_crew_has_answer(&self.crew):
            self.help()
        return future

    cdef bint pump_and_drop(self):
        try:
            return self.pump()
        finally:
            self.keep_time()
            self.lock.drop()

    cdef void keep_time(self) noexcept:
        """Under the lock: calls that wait behind others, while a worker sleeps, do so for a millisecond at most."""
        if self.ledger.is_sparing and not (self.is_timed or self.has_ended):
            self.is_timed = True
            sx_timer_set(self.timer, PATIENCE)
        self.ledger.is_sparing = False

    cdef bint pump(self):
        """Under the lock: hand out what is packed. True: there is something to do in Python."""
        cdef Ledger ledger = self.ledger
        cdef Call call
        cdef Seat seat
        while True:
            if ledger.packed_calls:
                call = <Call> ledger.packed_calls[0]
                seat = ledger.seat_for(call)
                if seat is None:
                    self.publish()
                    return len(ledger.seats) + ledger.starting < ledger.max_workers
                ledger.packed_calls.popleft()
                self.send(seat, call)
                if self.failed:
                    return True
            elif ledger.waiting and ledger.is_time_to_pack():
                return True
            else:
                seat = ledger.held_up()
                if seat is None:
                    if self.published:
                        self.publish()
                    return False
                self.withdraw(seat, seat.sent[len(seat.sent) - 1])

    cpdef void publish(self):
        """Under the lock: for who looks, how many calls wait that no worker was told of; large numbers roughly."""
        cdef uint64_t count = self.ledger.count_waiting()
        if count != self.published and (count < 64 or count - self.published + (count >> 5) > count >> 4):
            self.published = count
            sx_board_waiting(self.hub.hub, count)

    def take_step(self, list taken not None, bint is_broken):
        """Under the lock: the next step. What is left to do of it comes into `taken`, since a signal handler may raise as soon as
        this returns. False: there is none.
        """
        if self.failed:
            taken.extend(self.failed)
            self.failed.clear()
            return True
        step = None if is_broken else self.ledger.next_step()
        self.keep_time()
        if step is None:
            self.publish()
            return False
        if type(step) is Send:
            self.send((<Send> step).seat, (<Send> step).call)
        elif type(step) is Withdraw:
            self.withdraw((<Withdraw> step).seat, (<Withdraw> step).call)
        else:
            taken.append(step)
        return True

    cpdef send(self, Seat seat, Call call):
        """Under the lock: put a packed call into a worker's ring, if it is not full."""
        cdef LazyFuture future = <LazyFuture> call.future
        cdef int64_t position
        cdef bint is_known = call.function_number != 0 and seat.shipped.use(call.function_number)
        if call.is_light and future.is_over():
            self.ledger.cannot_send(call)
            self.failed.append((call, None))  # cancelled
            return
        if call.function_number == 0:
            call.packed.holds.add_all(call.function_packed.holds)
        shipped = b"" if is_known else call.function_packed.data
        try:
            position = seat.channel.put(
                call.kind, call.number, call.function_number, call.packed.holds, shipped, call.packed.data,
                self.ledger.sent_calls == 0, call.limit != 0
            )
        except BadMessage:  # a stray write: its death is judged like any other
            seat.is_leaving = True
            self.backlog.append((seat, None))
            self.call_collector()
            position = -1
        except (MemoryError, ValueError) as error:
            self.ledger.cannot_send(call)
            self.failed.append((call, error))
            return
        if seat.channel.woke == SX_WOKEN:
            self.pauses.extra = self.looks.extra = SX_WAKE
        elif seat.channel.woke == SX_WOKEN_AFTER_PAUSE:
            self.pauses.hold = self.looks.hold = 1
        if position < 0:
            seat.is_full = True
            self.ledger.not_sent(call)
            return
        if call.function_number and not is_known:
            seat.shipped.add(call.function_number, None)
        call.ships_function = not is_known
        call.position = position
        if call.is_light:
            future.state = RUNNING
        self.ledger.sent(seat, call)
        if call.limit:
            self.ledger.start_clock(seat, call, sx_now())
            if self.alarm < 0 or seat.due < self.alarm:
                self.alarm = seat.due
                self.call_collector()

    cpdef withdraw(self, Seat seat, Call call):
        """Under the lock: take a call back from a worker's ring, if the worker has not begun it.

        Those behind it that count on the function that it ships are taken back before.
        """
        cdef bint taken_back
        cdef Py_ssize_t i
        if call.ships_function and call.function_number:
            i = len(seat.sent) - 1
            while seat.sent[i] is not call:
                if (<Call> seat.sent[i]).function_number == call.function_number:
                    self.withdraw(seat, seat.sent[i])
                i -= 1
        taken_back = sx_task_withdraw(&seat.channel.channel.tasks, call.position)
        self.ledger.withdrawn(seat, call, taken_back)
        if taken_back and call.is_light:
            (<LazyFuture> call.future).state = PENDING
        if taken_back and call.ships_function:
            seat.shipped.drop(call.function_number)

    cdef recall(self, Call call):
        """Take back a light call that is to be cancelled, if it is not its turn yet at the worker that has it.

        The first that a worker has is under way, be it awake or not: cancelling all of many calls leaves some that run.
        """
        cdef bint rest = False
        if self.lock.is_mine():
            return
        self.lock.take()
        try:
            if (call.is_light and call.state == SENT and call.seat.sent[0] is not call and not call.has_begun
                    and not self.has_ended):
                self.withdraw(call.seat, call)
                rest = call.state == SENT and self.pump()  # for those that were taken back before it
        finally:
            self.keep_time()
            self.lock.drop()
        if rest:
            self.call_collector()

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

    # ---- the baton

    cdef bint take(self, int who) noexcept:
        if self.has_ended or (self.is_wanted and who != COLLECTOR):
            return False
        if self.holder == SPINNER:
            sx_hub_pass(self.hub.hub)
        elif self.holder != NOBODY:
            return False
        self.holder = who
        self.owner = PyThread_get_thread_ident()
        if who == COLLECTOR:
            self.is_wanted = False
        sx_hub_take(self.hub.hub)
        return True

    cdef void leave(self) noexcept:
        self.holder = NOBODY
        if not self.has_ended:
            sx_hub_leave(self.hub.hub, &self.crew, self.hub.event)
            if self.is_wanted:
                self.call_collector()

    cdef void call_collector(self) noexcept:
        if not self.has_ended:
            sx_event_write(self.hub.event)

    cdef void kick(self) noexcept:
        sx_hub_kick(self.hub.hub)

    cdef int lead(self, Watch watch, int64_t deadline) except -1:
        """Collect until this is over or the time is. False: another thread does, or the collector is needed."""
        cdef bint is_again = self.holder != NOBODY and self.owner == PyThread_get_thread_ident()
        if not is_again and not self.take(LEADER):
            return False
        before, self.leading = self.leading, watch
        watch.led += 1
        try:
            while True:
                seen = sx_hub_turn(self.hub.hub)
                self.collect()
                watch.tell()
                if watch.is_over():
                    return True
                if self.is_wanted and not is_again:
                    return False
                if deadline >= 0 and <int64_t> sx_now() >= deadline:
                    return True
                self.pause(seen, deadline)
        finally:
            watch.led -= 1
            self.leading = before
            if not is_again:
                self.leave()

    cdef int pause(self, uint32_t seen, int64_t deadline) except -1:
        """Look again for a while, then sleep until there is something to look at. Raises what a signal handler does."""
        cdef sx_crew_t crew = self.crew  # others may add workers while this thread looks
        cdef int64_t nanoseconds = -1
        cdef bint is_due
        cdef int code = 0
        cdef sx_hub_t *hub = self.hub.hub
        with nogil:
            is_due = sx_hub_spin(hub, &self.pauses, &crew, self.hub.cores, seen)
        if not is_due and not sx_hub_begin_sleep(hub, &self.crew, seen):
            if deadline >= 0:
                nanoseconds = max(0, deadline - <int64_t> sx_now())
            with nogil:
                code = sx_hub_sleep(hub, seen, nanoseconds)
                sx_heap_answer_trim(crew.heap)  # a worker that waits for memory rings, too
        PyErr_CheckSignals()
        return 0

    cdef int glance(self, Call call) except -1:
        """A callback was added: if the answer comes in a few microseconds, collect it, and wake the collector for the callback.

        Else the worker wakes it, from another core, while this thread, which is about to sleep, still keeps it off its own: the
        kernel puts it beside the worker, which spins. An answer that is there already is one that it has been woken for.
        Rejected: to run the callback here. Who holds a lock that the callback wants would wait for itself.
        """
        cdef sx_crew_t crew = self.crew
        cdef sx_hub_t *hub = self.hub.hub
        cdef bint is_due = False
        if (call.state != SENT or self.ledger.sent_calls != 1 or call.seat.channel.woke != SX_WAS_AWAKE
                or self.lock.is_mine() or sx_crew_has_answer(&crew)):
            return 0
        if self.glances.skip:  # before the baton is taken: who gives it back rings for what has come meanwhile
            self.glances.skip -= 1
            return 0
        if not self.take(GLANCER):
            return 0
        try:
            is_due = sx_hub_spin(hub, &self.glances, &crew, self.hub.cores, sx_hub_turn(hub))
            if is_due:
                self.collect()
        finally:
            self.leave()
            if is_due:
                self.ring_here()
                self.glanced_at = sx_now()
        return 0

    cdef void note_haste(self) noexcept:
        """The next call comes: does this thread wait for callbacks? If not, those of many answers at a time cost less."""
        if sx_now() - self.glanced_at < AT_ONCE:
            self.glances.skip = MANY
        self.glanced_at = 0

    cpdef void ring_here(self) noexcept:
        """Wake the collector on this core, and let it have the GIL: it may be through before this thread goes on."""
        cdef int event = self.hub.event
        if self.has_ended:
            return
        sx_place_here(&self.sleepers)
        self.ringing += 1
        with nogil:
            sx_event_write(event)
        self.ringing -= 1
        if self.is_closed and not self.ringing:
            os.close(event)

    cpdef int help(self) except -1:
        """Collect what there is, if nobody else does."""
        if self.take(LEADER):
            try:
                self.collect()
            finally:
                self.leave()
        return 0

    @property
    def is_ringing(self):
        """Whether some thread writes to the event without the GIL."""
        return self.ringing > 0

    @property
    def has_answer(self):
        """Whether there is one that nobody has read."""
        return bool(sx_crew_has_answer(&self.crew))

    @property
    def leader_sleeps(self):
        """Whether some thread has the baton and has gone to sleep with it."""
        return self.holder == LEADER and sx_hub_leader_sleeps(self.hub.hub)

    # ---- answers; with the baton

    cdef int collect(self) except -1:
        """Read the answers that are there; how many."""
        cdef Py_ssize_t i = 0
        cdef int left = MOST_ANSWERS
        cdef bint rest = False
        while i < len(self.watched):  # by index: a worker may be added meanwhile
            seat = <Seat> self.watched[i]
            i += 1
            if seat.is_full:
                self.lock.take()
                seat.is_full = False
                rest |= self.pump_and_drop()
            while left > 0 and self.take_answer(seat, &rest):
                left -= 1
        if (rest or self.backlog) and self.holder == LEADER:
            self.call_collector()
        return MOST_ANSWERS - left

    cdef bint take_answer(self, Seat seat, bint *rest) except -1:
        """One answer of a worker, if there is one."""
        cdef sx_message_t raw
        cdef Call call = None
        cdef cost_t cost
        cdef Unread unread
        cdef Message message
        cdef Packed packed
        cdef Channel channel = seat.channel
        cdef int code = sx_ring_peek(channel.block.heap, &channel.channel.answers, &raw)
        if code == 0:
            return False
        if code > 0 and (raw.kind == KIND_ATOM or raw.kind == KIND_RESULT):
            call = self.find(seat, raw.call)
        if code < 0 or call is None or call.job is not None or raw.first_bytes != sizeof(cost):
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
                value = loads(data)
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
            self.end(call, cost, unread, None, rest)
        return True

    cdef Call find(self, Seat seat, uint64_t number):
        for item in seat.sent:
            if (<Call> item).number == number:
                return <Call> item
        return None

    cdef int end(self, Call call, cost_t cost, value, error, bint *rest) except -1:
        """A call has been answered."""
        cdef LazyFuture future = <LazyFuture> call.future
        self.lock.take()
        if call.state != SENT:
            self.lock.drop()
            return 0
        self.ledger.ended(call)
        self.ledger.note(cost.seconds * 1e9)
        self.count(cost)
        self.release_dependents(future)
        rest[0] |= self.pump_and_drop()
        rest[0] |= not self.is_open  # the last call of a pool that closes: the collector ends it
        call.release()
        if not future.try_finish(value, error) and not (
            type(self.leading) is LeadingEvent and future.try_finish_led(value, error, self.leading)
        ):
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

    def watch(self, Seat seat not None):
        """From now on this worker's answers are seen."""
        if self.crew.count == MOST_RINGS:
            raise ValueError(f"a pool has at most {MOST_RINGS} workers")
        if seat in self.watched:
            return
        self.watched.append(seat)
        self.channels[self.crew.count] = seat.channel.channel
        self.crew.count += 1

    def unwatch(self, Seat seat):
        """With the baton: this worker is dead, and its answers are read."""
        self.watched.remove(seat)
        self.crew.count = 0
        for left in self.watched:
            self.channels[self.crew.count] = (<Seat> left).channel.channel
            self.crew.count += 1

    def find_call(self, Seat seat, uint64_t number):
        """The call of this number that the worker has, or None."""
        return self.find(seat, number)

    # ---- limits

    def on_timer(self):
        """Calls may have waited behind others for a millisecond."""
        with self.lock:
            self.is_timed = False
            self.ledger.hurry()

    def set_alarm(self):
        """Under the lock: the time at which to look at the next call with a limit is what the ledger says."""
        self.alarm = self.ledger.next_due()

    @property
    def is_due(self):
        """Whether some call with a limit has to be looked at."""
        return self.alarm >= 0 and <int64_t> sx_now() >= self.alarm

    @property
    def seconds_to_alarm(self):
        """Until that is so; None: it is never, or whoever has the baton has been told to lay it down, and will ring."""
        if self.alarm < 0 or self.is_wanted:
            return None
        return max(0, self.alarm - <int64_t> sx_now()) * 1e-9

    def try_take(self):
        """The baton, for the collector; False: a leader has it, and has been told to lay it down and ring."""
        if self.take(COLLECTOR):
            return True
        self.is_wanted = True
        self.kick()
        return False

    def falls_asleep(self):
        """This thread is about to sleep for the event."""
        sx_place_falls_asleep(&self.sleepers)

    def is_awake(self):
        """It is no longer asleep."""
        sx_place_is_awake(&self.sleepers)

    def try_collect(self):
        """Read all answers, if nobody else does."""
        if self.take(COLLECTOR):
            try:
                self.collect()
            finally:
                self.leave()

    def spin(self):
        """Look at the rings for a while, and read what comes. False: there is nothing, or a leader does it."""
        cdef sx_crew_t crew = self.crew
        cdef uint32_t seen
        cdef bint is_due
        if self.backlog:
            return True
        if self.holder != NOBODY or not self.take(COLLECTOR):
            return False
        self.spins += 1
        mine = self.spins
        self.holder = SPINNER
        seen = sx_hub_turn(self.hub.hub)
        with nogil:
            is_due = sx_hub_spin(self.hub.hub, &self.looks, &crew, self.hub.cores, seen)
        if self.holder != SPINNER or self.spins != mine:
            self.thefts += 1
            return False  # taken
        self.holder = COLLECTOR
        try:
            if is_due:
                self.hits += 1
                self.collect()
        finally:
            self.leave()
        return is_due

    def collect_all(self):
        """With the baton: read all answers."""
        while self.collect():
            pass

    def lay_down(self):
        """The collector has done what it needed the baton for."""
        self.leave()

    def ring(self):
        """Wake the collector."""
        self.call_collector()

    def close(self):
        """No worker is left; nobody will be woken any more."""
        self.has_ended = True
        self.feed = None

    def close_event(self):
        """Close the event, or leave that to a thread that is writing to it."""
        self.is_closed = True
        if not self.ringing:
            os.close(self.hub.event)

    def forget_in_child(self):
        """In a process that was forked: the rings are the parent's."""
        self.lock = Lock()  # whoever held it is not here
        self.is_open = False
        self.has_ended = True
