# Calls, and which worker has which: a state machine without I/O, whose every step can be taken without running Python code.
#
# Guarantees
#   - each call that was submitted ends exactly once: answered, failed, or cancelled
#   - a call that a worker had begun is given to no other worker, unless it has retries; one that it had not begun is never lost
#   - nothing goes on for ever: the death of a worker ends a call, or uses up a retry of one, or counts as `fruitless`, or the
#     worker had answered some call
#   - calls begin in the order of their submission, but for those that come back from a worker, which go first
# Assumption: the caller holds the pool's lock.
#
# The life of a call:
#
#    BLOCKED -> WAITING -> PACKING -> PACKED -> SENT -> ENDED
#       (its arguments         ^         ^        | \                                                            ^
#        are futures)          |         |        |  '--> DOOMED: its worker is made to end, because of this call; when it is dead
#                              |         |        |
#                              |         '--------'  given back: withdrawn for an idle worker, or its worker died before it
#                              |                     began, or while it ran and it has retries
#                              '--- in the hands of the thread that pickles it
#    from BLOCKED, WAITING and PACKED also -> ENDED (cancelled), from PACKING (cannot be pickled), from PACKED (cannot be sent)
#    from PACKING also -> WAITING (no memory for its arguments): nothing is packed until a call has ended
#    a call of atoms is packed as it is submitted: WAITING -> PACKED when it is its turn
#
# Some facts: a call that the parent learns of, answers and sends the next for takes it 2 us; a call may take the worker less, or
# an hour. What is packed ahead may hold memory: copies.
# What this means for us: a worker is told of `depth` calls ahead, and of light ones (atoms, and arrays that go by name) as many
# as keep it busy for some milliseconds, measured; whatever it has not begun can be withdrawn when another worker is idle. Light
# calls are pickled many at a time, when half of those are left: it takes Python, in another thread than reads the answers, and
# 2.6 changes of threads for each call where it was done one by one.
#
# Some facts: to wake a worker takes whoever does it 10 us, and the worker 30 to 100, and if all cores are busy it is in the way
# of those that work. 8 calls of 1 us on two workers and two cores are back after 50 us if one worker sleeps on, after 250 if not;
# 8 of 20 us after 170 us on both, and as long on one.
# What this means for us: calls of less than 10 us wait behind others rather than wake a worker, for 50 us if there is a core for
# it. What calls have taken of late may be wrong, and the call before them take an hour. So if calls still wait after a
# millisecond, whoever sleeps is woken for them (`hurry`), also if the one that they were sent to is not awake by then. One that
# is not awake yet gives its call to another that is idle.
#
# A call with a limit is sent to a worker that has no other, and no other is sent after it: so whoever is killed because of it was
# running nothing else. Its clock starts when the worker begins it. The earliest that this can have been is when it was sent: so
# somebody looks (`overdue`, `looked`) at that time and the limit, and if it has begun later, again when its time is up. There is
# one such time for each worker, however many calls wait.

from collections import deque

from libc.math cimport INFINITY

cdef enum:
    LEAST_LOOK = 20000000   # nanoseconds until one looks again whether a call has begun
    DEEPEST = 192           # light calls that a worker is told of ahead
    BUSY_NANOSECONDS = 4000000  # and for how long they should keep it busy: a slice of the scheduler
    SHORT = 10000           # nanoseconds of a call that no worker is woken for
    WORTH_A_WAKE = 50000    # nanoseconds of waiting, if there is a core for who is woken


cdef class Ledger:
    """Which calls there are, and which worker has which.

    Parameters
    ----------
    max_workers : int
    depth : int
        Calls that a worker is told of at a time: the one that it runs, and those that wait.
    eager : bool
        Start all workers with the first call, not each when it is needed.
    """
    cdef readonly list seats
    cdef public bint eager
    cdef public Py_ssize_t cores  # that workers and this process's threads may use
    cdef Py_ssize_t max_workers, depth, deep, starting, packing_count
    cdef Py_ssize_t wanted       # workers that calls have asked for and that were not started yet
    cdef set blocked
    cdef object waiting, packed_calls
    cdef bint is_starved         # no memory for arguments, until some call ends
    cdef uint64_t ends           # counts
    cdef double nanoseconds      # that a call takes, of late; -1: nobody knows
    cdef bint is_sparing         # some call was put behind others, while a worker slept
    cdef bint is_hurried
    cdef Py_ssize_t doomed_calls
    cdef readonly Py_ssize_t fruitless  # workers that died one after the other and had never begun anything
    cdef readonly Py_ssize_t in_vain    # calls one after the other that died at each of several attempts, with no answer between
    cdef uint64_t ends_before    # as of the last death
    cdef Py_ssize_t sent_calls
    cdef bint are_light          # the calls that are pickled, of late

    def __init__(self, Py_ssize_t max_workers, Py_ssize_t depth, *, bint eager=False):
        self.seats = []
        self.eager = eager
        self.max_workers = max_workers
        self.depth = self.deep = depth
        self.blocked = set()
        self.waiting = deque()
        self.packed_calls = deque()
        self.nanoseconds = -1
        self.cores = 1 << 20

    # -- events: calls

    cpdef submit(self, Call call, bint blocked=False):
        """A new call; blocked: its arguments are not there yet."""
        call.state = BLOCKED if blocked else WAITING
        if not blocked and self.wants_worker():
            self.wanted += 1
        if blocked:
            self.blocked.add(call)
        elif call.is_atoms and not self.waiting and not self.packing_count:
            call.state = PACKED
            self.packed_calls.append(call)
        else:
            self.waiting.append(call)

    cpdef unblock(self, Call call):
        """Its arguments are there."""
        if call.state == BLOCKED:
            self.blocked.discard(call)
            call.state = WAITING
            self.waiting.append(call)

    def packed(self, Call call):
        """It is pickled, and can be sent."""
        self.packing_count -= 1
        call.state = PACKED
        self.are_light = call.is_light = call.packed is not None and call.weighs_little()
        self.packed_calls.append(call)

    def try_later(self, Call call):
        """There is no memory for its arguments now. False: no call is left whose end could free some."""
        if not (self.packed_calls or self.packing_count > 1 or self.sent_calls or self.doomed_calls):
            return False
        self.packing_count -= 1
        self.is_starved = True
        call.state = WAITING
        self.waiting.appendleft(call)
        return True

    cpdef sent(self, Seat seat, Call call):
        """It is in the worker's ring."""
        call.state = SENT
        call.seat = seat
        call.has_begun = False
        seat.sent.append(call)
        self.sent_calls += 1

    cpdef not_sent(self, Call call):
        """It could not be put into the worker's ring."""
        self.packed_calls.appendleft(call)

    cpdef cannot_send(self, Call call):
        """It is in the caller's hands, who ends it."""
        call.state = PACKING
        self.packing_count += 1

    def take(self, Call call not None):
        """It was BLOCKED, WAITING or PACKED; now it is in the caller's hands, who ends it."""
        if call.state == BLOCKED:
            self.blocked.discard(call)
        elif call.state == WAITING:
            self.waiting.remove(call)
        else:
            self.packed_calls.remove(call)
        self.cannot_send(call)

    cpdef look_again(self):
        """The workers may have skipped withdrawn calls: their rings may have room again."""
        for seat in self.seats:
            (<Seat> seat).is_full = False

    cpdef withdrawn(self, Seat seat, Call call, bint taken_back):
        """It was taken back from the ring, or had been begun."""
        if taken_back:
            self.take_from(seat, call)
            call.state = PACKED
            self.packed_calls.appendleft(call)
        else:
            call.has_begun = True

    cdef void take_from(self, Seat seat, Call call):
        if seat.sent[0] is call:
            del seat.sent[0]
        else:
            seat.sent.remove(call)
        if call.limit:
            seat.timed = None
        call.seat = None
        self.sent_calls -= 1

    cpdef ended(self, Call call):
        """It was answered, failed or cancelled. Its blocks go before anybody finds that no call is left that could free some."""
        cdef int state = call.state
        call.release_blocks()
        call.state = ENDED
        self.is_starved = False
        if state == SENT:
            self.ends += 1
            call.seat.used = self.ends
            self.take_from(call.seat, call)
        elif state == BLOCKED:
            self.blocked.discard(call)
        elif state == WAITING:
            self.waiting.remove(call)
        elif state == PACKING:
            self.packing_count -= 1
        elif state == PACKED:
            self.packed_calls.remove(call)
        elif state == DOOMED:
            self.undoom(call)

    cpdef note(self, double nanoseconds):
        """What a call has taken."""
        self.nanoseconds = 0.5 * ((self.nanoseconds if self.nanoseconds >= 0 else nanoseconds) + nanoseconds)
        self.deep = <Py_ssize_t> min(<double> DEEPEST, max(<double> self.depth, BUSY_NANOSECONDS / (self.nanoseconds + 1.0)))

    def hurry(self):
        """One that sleeps is woken, if calls wait behind others."""
        for item in self.seats:
            self.is_hurried |= len((<Seat> item).sent) > 1

    # -- events: limits

    cpdef start_clock(self, Seat seat, Call call, int64_t now):
        """A call with a limit has been sent; times are in nanoseconds. When one has to look at it is `seat.due`."""
        seat.timed = call
        seat.due = now + call.limit

    def next_due(self):
        """When somebody has to look at a call with a limit; -1: none is under way."""
        cdef int64_t due = -1
        for item in self.seats:
            seat = <Seat> item
            if seat.timed is not None and (due < 0 or seat.due < due):
                due = seat.due
        return due

    def overdue(self, int64_t now):
        """The workers whose call has to be looked at."""
        return [item for item in self.seats if (<Seat> item).timed is not None and (<Seat> item).due <= now]

    def looked(self, Seat seat not None, int64_t begun, int64_t now):
        """The worker's call with a limit, which is not answered, began then, or has not yet (0): whether its time is up."""
        if begun:
            seat.due = begun + seat.timed.limit
        else:
            seat.due = now + max(<int64_t> LEAST_LOOK, seat.timed.limit)
        return seat.due <= now

    def doom(self, Seat seat not None, Call call not None, int verdict):
        """The worker has begun this call, is running no other, and has nothing more to begin: it is made to end."""
        self.take_from(seat, call)
        call.state = DOOMED
        call.verdict = verdict
        call.seat = seat
        seat.doomed = call
        seat.is_leaving = True
        self.doomed_calls += 1

    cdef undoom(self, Call call):
        call.seat.doomed = None
        call.seat = None
        self.doomed_calls -= 1

    def doomed(self):
        """The workers that are made to end because of a call."""
        return [item for item in self.seats if (<Seat> item).doomed is not None]

    # -- events: workers

    def started(self, Start step not None, Seat seat not None):
        """A worker is coming up: it can be sent calls, which it finds when it is ready."""
        if not step.is_done:
            step.is_done = True
            self.starting -= 1
            self.seats.append(seat)

    def not_started(self, Start step not None, *, bint can_be):
        """No worker was started; and if none can be, there are as many as there can be."""
        if not step.is_done:
            step.is_done = True
            self.starting -= 1
            if not can_be:
                self.max_workers = max(1, len(self.seats) + self.starting)

    def leaving(self, Seat seat):
        """The worker takes no more calls: those that it was sent and has not answered come back."""
        seat.is_leaving = True
        self.give_back(seat)

    def died(self, Seat seat not None, Call victim, bint was_expected=False):
        """The worker is dead. Its calls come back, but for the `victim`, which it had begun, or which it was doomed for.

        The caller ends what this returns: the victim, unless that may be tried again, or None.
        """
        cdef bint had_calls = len(seat.sent) > 0
        if self.ends != self.ends_before:
            self.fruitless = self.in_vain = 0
            self.ends_before = self.ends
        if victim is not None:
            self.fruitless = 0
            if victim.state == DOOMED:
                self.undoom(victim)
            else:
                self.take_from(seat, victim)
                victim.deaths += 1
        elif not was_expected and not seat.used and (had_calls or not seat.is_ready):
            self.fruitless += 1
        seat.is_leaving = True
        self.is_starved = False  # what it held is free
        self.give_back(seat)
        self.seats.remove(seat)
        if victim is None:
            return None
        if victim.verdict or victim.deaths > victim.retries:
            self.in_vain += victim.deaths > 1
            self.cannot_send(victim)
            victim.has_begun = True
            return victim
        victim.state = PACKED
        victim.has_begun = False
        self.packed_calls.appendleft(victim)
        return None

    def go_on_without(self):
        """No more workers can be had than are up; how many those are."""
        cdef Py_ssize_t up = 0
        for item in self.seats:
            up += (<Seat> item).is_ready and not (<Seat> item).is_leaving
        if up:
            self.fruitless = 0
            self.max_workers = up
        return up

    cdef give_back(self, Seat seat):
        for item in reversed(seat.sent):
            call = <Call> item
            call.state = PACKED
            call.seat = None
            self.packed_calls.appendleft(call)
        self.sent_calls -= len(seat.sent)
        seat.sent.clear()
        seat.timed = None

    # -- questions

    def pending(self):
        """All calls that have not ended, but those that some thread is pickling."""
        sent = [call for seat in self.seats for call in (<Seat> seat).sent]
        sent += [seat.doomed for seat in self.doomed()]
        return [*sent, *self.packed_calls, *self.waiting, *self.blocked]

    @property
    def is_starting(self):
        """Whether some worker is being started."""
        return self.starting > 0

    @property
    def is_idle(self):
        """Whether no call is left."""
        return not (self.blocked or self.waiting or self.packed_calls or self.packing_count or self.sent_calls or
                    self.doomed_calls)

    cdef Py_ssize_t count_waiting(self):
        return len(self.blocked) + len(self.waiting) + len(self.packed_calls) + self.packing_count

    @property
    def waiting_count(self):
        return self.count_waiting()

    @property
    def sent_count(self):
        return self.sent_calls + self.doomed_calls

    cdef bint wants_worker(self):
        """For one more call than there are: as in the standard library, if no worker is idle that has answered before."""
        cdef Py_ssize_t ahead = len(self.waiting) + len(self.packed_calls) + self.packing_count
        if len(self.seats) + self.starting + self.wanted >= self.max_workers:
            return False
        if self.eager:
            return True
        for item in self.seats:
            if (<Seat> item).used and not ((<Seat> item).is_leaving or (<Seat> item).sent):
                ahead -= 1
                if ahead < 0:
                    return False
        return True

    @property
    def wants_packing(self):
        """If calls wait: whether now is the time to pickle some."""
        return bool(self.is_time_to_pack())

    cdef bint is_time_to_pack(self) noexcept:
        cdef Py_ssize_t seats = 0
        if not self.are_light or len(self.seats) + self.starting < self.max_workers:
            return True
        for item in self.seats:
            seats += not (<Seat> item).is_leaving
        return 2 * (self.sent_calls + len(self.packed_calls) + self.packing_count) <= self.deep * seats

    cdef Py_ssize_t idle_count(self):
        cdef Py_ssize_t idle = self.starting
        for item in self.seats:
            idle += not ((<Seat> item).is_leaving or (<Seat> item).sent)
        return idle

    def next_step(self):
        """What to do next, or None until something happens."""
        cdef Seat seat, held
        cdef Call call
        cdef Py_ssize_t demand, depth, room
        if self.packed_calls and (seat := self.seat_for(self.packed_calls[0])) is not None:
            held = self.held_before(self.packed_calls[0], seat)
            if held is not None:
                return Withdraw(held, held.sent[len(held.sent) - 1])
            return Send(seat, self.packed_calls.popleft())
        demand = len(self.waiting) + len(self.packed_calls) + self.packing_count
        wanted = demand > 0 if self.eager else self.wanted > 0 or demand > self.idle_count()
        if wanted and len(self.seats) + self.starting < self.max_workers:
            self.starting += 1
            self.wanted = max(0, self.wanted - 1)
            return Start()
        self.wanted = 0
        if self.waiting:
            call = self.waiting[0]
            depth = self.deep if self.are_light and not call.limit else self.depth
            room = self.starting * self.depth
            for item in self.seats:
                seat = <Seat> item
                room += not seat.is_leaving if seat.timed is not None else max(0, seat.room(depth))
            if call.is_atoms and call.packed is not None:
                if not self.packing_count:  # else it would overtake
                    call.state = PACKED
                    self.packed_calls.append(self.waiting.popleft())
                    return self.next_step()
            elif not self.is_starved and room > len(self.packed_calls) + self.packing_count:
                self.waiting.popleft()
                call.state = PACKING
                self.packing_count += 1
                return Pack(call)
        if (not demand or self.is_stuck()) and (seat := self.held_up()) is not None:
            return Withdraw(seat, seat.sent[len(seat.sent) - 1])
        return None

    cdef Py_ssize_t depth_of(self, Call call) noexcept:
        return 1 if call.limit else self.deep if call.is_light else self.depth

    cdef bint is_stuck(self) noexcept:
        """Calls wait for memory alone."""
        return self.is_starved and not self.packed_calls and not self.packing_count

    cdef Seat seat_for(self, Call call):
        """The worker with the fewest calls; of several one that is awake, or else up, and has answered last: its caches are the
        warmest."""
        cdef Seat best = None, seat
        cdef int far, was_far
        cdef double wait
        cdef Py_ssize_t depth = self.depth_of(call)
        for item in self.seats:
            seat = <Seat> item
            if seat.room(depth) > 0:
                if best is None or len(seat.sent) < len(best.sent):
                    best = seat
                elif len(seat.sent) == len(best.sent):
                    far = 0 if best.sent else seat.sleeps() + (not seat.is_up())
                    was_far = 0 if best.sent else best.sleeps() + (not best.is_up())
                    if far < was_far or (far == was_far and seat.used >= best.used):
                        best = seat
        if best is not None and not best.sent and not call.limit and best.sleeps():
            seat = self.spare_seat(depth)
            if seat is not None:
                return seat
            self.is_hurried = False  # one is woken
        return best

    cdef Seat spare_seat(self, Py_ssize_t depth, Seat behind=None):
        """Where a call would wait rather than wake a worker, or have one come up; as if `behind` had one call less."""
        cdef double wait = self.longest_wait()
        cdef Py_ssize_t count
        if wait:
            for item in self.seats:
                seat = <Seat> item
                count = len(seat.sent) - (seat is behind)
                if count and seat.is_up() and depth - count > 0 and seat.room(DEEPEST) > 0 and self.nanoseconds * count < wait:
                    self.is_sparing = True
                    return seat
        return None

    cdef Seat held_before(self, Call call, Seat seat):
        """If this worker, which is to have the call, has none: the worker whose last call waits behind others, and is older.

        As far as can be told, calls begin in their order: one that is older may be what the younger one waits for.
        """
        cdef Seat held = None, other
        if seat.sent or (seat.sleeps() and self.longest_wait()):
            return None
        for item in self.seats:
            other = <Seat> item
            if (len(other.sent) > 1 and not other.is_leaving
                    and (<Call> other.sent[len(other.sent) - 1]).number < call.number
                    and not (<Call> other.sent[len(other.sent) - 1]).has_begun
                    and (held is None or is_older(other, held))):
                held = other
        return held

    cdef double longest_wait(self) noexcept:
        """Nanoseconds that a call waits behind others rather than wake a worker; 0: it does not."""
        cdef Py_ssize_t busy = 1  # this thread
        if self.is_hurried or not 0 <= self.nanoseconds < SHORT:
            return 0
        for item in self.seats:
            busy += not (<Seat> item).sleeps()
        return WORTH_A_WAKE if busy < self.cores else INFINITY

    cdef Seat held_up(self):
        """The worker whose last call is to be taken back: it waits, behind others or for its worker, which has to come up or to
        wake, while another worker has nothing to do. Of several the one whose first call is the oldest: it may take long."""
        cdef Seat held = None, behind = None, unready = None, seat
        cdef bint idle = False, asleep = False, is_asleep
        for item in self.seats:
            seat = <Seat> item
            if seat.is_leaving or (seat.sent and (<Call> seat.sent[len(seat.sent) - 1]).has_begun):
                continue
            is_asleep = seat.sleeps()
            if not seat.sent:
                if not seat.is_full:
                    asleep |= is_asleep and seat.is_up()
                    idle |= not is_asleep
                continue
            if not seat.is_up():
                unready = seat
            if len(seat.sent) > (not is_asleep) and (held is None or is_older(seat, held)):
                held = seat
            if len(seat.sent) > 1 and (behind is None or is_older(seat, behind)):
                behind = seat
        if behind is None:
            self.is_hurried = False
        if idle:
            return held
        if not asleep:
            return None
        if unready is not None:
            return unready
        if behind is None or self.spare_seat(self.depth_of(behind.sent[len(behind.sent) - 1]), behind) is not None:
            return None
        return behind


cdef bint is_older(Seat one, Seat other) noexcept:
    return (<Call> one.sent[0]).number < (<Call> other.sent[0]).number
