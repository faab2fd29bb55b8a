# Who reads the answer rings of a pool, and whom a worker wakes for what it puts there: the parent's half of hub.h.
#
# Purpose: an answer is read by the thread that waits for it if there is one, else by the collector, the pool's own thread.
# Guarantees
#   B1 one thread at a time has the baton, and it alone reads the answer rings
#   B2 whoever lays it down has the collector rung for what comes from then on; one that the collector wants is laid down soon
#   B3 the event stays open as long as some thread writes to it
# Assumptions: the GIL is held but where `nogil` says; all state here is the GIL's.

cdef enum:
    NOBODY
    LEADER
    COLLECTOR
    GLANCER  # who adds a callback, and wakes the collector itself
    SPINNER  # the collector, which only looks: a leader may take the baton from it

cdef enum:
    GLANCE = 10000  # nanoseconds, at most


@cython.final
cdef class Baton:
    """The right to read the answers of one pool.

    Parameters
    ----------
    hub : Hub
    """
    cdef Hub hub
    cdef list watched                 # of seats
    cdef sx_channel_t *channels[MOST_RINGS]  # theirs; only who has the baton takes one away
    cdef sx_crew_t crew
    cdef sx_spin_t pauses, looks, glances  # of leaders, of the collector, of who adds a callback
    cdef uint64_t looked              # times that the collector did
    cdef sx_sleepers_t sleepers       # threads of the collector
    cdef int ringing                  # threads that write to the event without the GIL
    cdef int holder
    cdef unsigned long owner          # that thread
    cdef bint is_wanted               # by the collector, which cannot be refused
    cdef bint has_ended               # nobody is to be woken any more, or this is a forked child
    cdef bint is_closed               # the event, or will be by the last who writes to it

    def __init__(self, Hub hub not None):
        self.hub = hub
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
        sx_hub_leave(hub.hub, &self.crew, hub.event)

    # ---- whose rings

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

    @property
    def has_answer(self):
        """Whether there is one that nobody has read."""
        return bool(sx_crew_has_answer(&self.crew))

    # ---- who has it

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

    cpdef void lay_down(self) noexcept:
        """Whoever has it needs it no more."""
        self.holder = NOBODY
        if not self.has_ended:
            sx_hub_leave(self.hub.hub, &self.crew, self.hub.event)
            if self.is_wanted:
                self.ring()

    cdef bint is_mine(self) noexcept:
        return self.holder != NOBODY and self.owner == PyThread_get_thread_ident()

    def try_take(self):
        """For the collector; False: a leader has it, and has been told to lay it down and ring."""
        if self.take(COLLECTOR):
            return True
        self.is_wanted = True
        self.kick()
        return False

    # ---- looking, with it

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

    cdef bint glance(self) noexcept:
        """Look for a few microseconds. Whether there is an answer."""
        return sx_hub_spin(self.hub.hub, &self.glances, &self.crew, self.hub.cores, sx_hub_turn(self.hub.hub))

    cdef bint look(self):
        """Take it for the collector, and look for a while. True: there is an answer, and the collector has the baton."""
        cdef sx_crew_t crew = self.crew
        cdef uint32_t seen
        cdef bint is_due
        if self.holder != NOBODY or not self.take(COLLECTOR):
            return False
        self.looked += 1
        mine = self.looked
        self.holder = SPINNER
        seen = sx_hub_turn(self.hub.hub)
        with nogil:
            is_due = sx_hub_spin(self.hub.hub, &self.looks, &crew, self.hub.cores, seen)
        if self.holder != SPINNER or self.looked != mine:
            return False  # taken
        self.holder = COLLECTOR
        if not is_due:
            self.lay_down()
        return is_due

    cdef void note_wake(self, int woke) noexcept:
        """What the worker that a call went to had to be woken from: its answer comes so much later."""
        if woke == SX_WOKEN:
            self.pauses.extra = self.looks.extra = SX_WAKE
        elif woke == SX_WOKEN_AFTER_PAUSE:
            self.pauses.hold = self.looks.hold = 1

    # ---- who is woken

    cdef void kick(self) noexcept:
        """The leader, unless that is this thread: its future is done, or the baton is wanted."""
        if self.owner != PyThread_get_thread_ident():
            sx_hub_kick(self.hub.hub)

    cpdef void ring(self) noexcept:
        """Wake the collector."""
        if not self.has_ended:
            sx_event_write(self.hub.event)

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

    def falls_asleep(self):
        """This thread of the collector is about to sleep for the event."""
        sx_place_falls_asleep(&self.sleepers)

    def is_awake(self):
        """It is no longer asleep."""
        sx_place_is_awake(&self.sleepers)

    @property
    def is_ringing(self):
        """Whether some thread writes to the event without the GIL."""
        return self.ringing > 0

    @property
    def leader_sleeps(self):
        """Whether some thread has the baton and has gone to sleep with it."""
        return self.holder == LEADER and sx_hub_leader_sleeps(self.hub.hub)

    # ---- its end

    def close(self):
        """No worker is left, or this is a forked child: nobody will be woken any more."""
        self.has_ended = True

    def close_event(self):
        """Close the event, or leave that to a thread that is writing to it."""
        self.is_closed = True
        if not self.ringing:
            os.close(self.hub.event)
