# Calls out: from the ledger into the rings of workers, as far as it takes no Python code.
#
# Purpose: what is packed goes to a worker as soon as one has a place for it.
# Guarantees: no user code runs under the lock, nor anything that may set off the collection of garbage.
# Assumptions: under the pool's lock but where it is said otherwise. `failed` holds what could not be sent, for who feeds.

cdef enum:
    PATIENCE = 1000000  # nanoseconds until a worker is woken for calls that wait behind others


@cython.final
cdef class Sender:
    """Who puts the calls of one pool into rings, and takes them back.

    Parameters
    ----------
    lock : Lock
    ledger : Ledger
    baton : Baton
    backlog : deque
        What is left for the collector.
    """
    cdef Lock lock
    cdef Ledger ledger
    cdef Baton baton
    cdef object backlog
    cdef list failed                  # (call, error)
    cdef uint64_t published           # of calls that wait, what who looks sees
    cdef int64_t alarm                # when the collector has to look at a call with a limit; -1: never
    cdef readonly int timer           # a descriptor, which who collects closes
    cdef bint is_timed                # it is set

    def __init__(self, Lock lock not None, Ledger ledger not None, Baton baton not None, backlog):
        self.lock, self.ledger, self.baton, self.backlog = lock, ledger, baton, backlog
        self.failed = []
        self.alarm = -1
        self.timer = sx_timer_create()
        if self.timer < 0:
            raise OSError(-self.timer, os.strerror(-self.timer))

    # ---- out

    cdef bint pump(self):
        """Under the lock: hand out what is packed. True: there is something to do in Python."""
        cdef Ledger ledger = self.ledger
        cdef Call call
        cdef Seat seat, held
        while True:
            if ledger.packed_calls:
                call = <Call> ledger.packed_calls[0]
                seat = ledger.seat_for(call)
                if seat is None:
                    self.publish()
                    return len(ledger.seats) + ledger.starting < ledger.max_workers
                held = ledger.held_before(call, seat)
                if held is not None:
                    self.withdraw(held, held.sent[len(held.sent) - 1])
                    continue
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

    cdef bint pump_and_drop(self):
        try:
            return self.pump()
        finally:
            self.keep_time()
            self.lock.drop()

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

    cdef send(self, Seat seat, Call call):
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
            self.baton.ring()
            position = -1
        except (MemoryError, ValueError) as error:
            self.ledger.cannot_send(call)
            self.failed.append((call, error))
            return
        self.baton.note_wake(seat.channel.woke)
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
                self.baton.ring()

    # ---- and back

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
                    and not self.baton.has_ended):
                self.withdraw(call.seat, call)
                rest = call.state == SENT and self.pump()  # for those that were taken back before it
        finally:
            self.keep_time()
            self.lock.drop()
        if rest:
            self.baton.ring()

    # ---- what others see

    cdef void publish(self):
        """Under the lock: for who looks, how many calls wait that no worker was told of; large numbers roughly."""
        cdef uint64_t count = self.ledger.count_waiting()
        if count != self.published and (count < 64 or count - self.published + (count >> 5) > count >> 4):
            self.published = count
            sx_board_waiting(self.baton.hub.hub, count)

    # ---- when to look again

    cdef void keep_time(self) noexcept:
        """Under the lock: calls that wait behind others, while a worker sleeps, do so for a millisecond at most."""
        if self.ledger.is_sparing and not (self.is_timed or self.baton.has_ended):
            self.is_timed = True
            sx_timer_set(self.timer, PATIENCE)
        self.ledger.is_sparing = False

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
        if self.alarm < 0 or self.baton.is_wanted:
            return None
        return max(0, self.alarm - <int64_t> sx_now()) * 1e-9
