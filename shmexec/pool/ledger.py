"""What happens to a call: a state machine without I/O. Events in, the next step out.

Guarantees
    - each call that was submitted ends exactly once: answered, failed, or cancelled before it was begun
    - a call that a worker had begun is given to no other worker; one that it had not begun is never lost
    - calls begin in the order of their submission, but for those that a dead worker gives back, which go first
Assumption: the caller holds the pool's lock.

The life of a call::

    BLOCKED -> WAITING -> PACKING -> PACKED -> SENT -> ENDED
       (its arguments         ^         ^        |
        are futures)          |         '--------'  given back: withdrawn for an idle worker, or its worker died
        before it began
                              '--- in the hands of the thread that pickles it
    from BLOCKED and WAITING also -> ENDED (cancelled), from PACKING (cannot be pickled), from PACKED (cannot be sent)
    from PACKING also -> WAITING (no memory for its arguments): nothing is packed until a call has ended
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol


class CallState(Enum):
    """Where a call is."""

    BLOCKED = "blocked"
    WAITING = "waiting"
    PACKING = "packing"
    PACKED = "packed"
    SENT = "sent"
    ENDED = "ended"


class Call(Protocol):
    """What the ledger knows of a call."""

    number: int
    state: CallState


@dataclass(eq=False)
class Seat:
    """A worker, as far as calls go."""

    number: int
    depth: int
    sent: deque[Any] = field(default_factory=deque)  # of calls, in the order of its ring
    is_ready: bool = False
    is_leaving: bool = False  # takes no more calls
    is_full: bool = False  # its ring is, of calls that were withdrawn and that it has not skipped yet

    @property
    def room(self) -> int:
        return 0 if self.is_leaving or self.is_full else self.depth - len(self.sent)


@dataclass(frozen=True)
class Pack:
    """Pickle this call; then `packed` or `ended`."""

    call: Any


@dataclass(frozen=True)
class Send:
    """Put this call into this worker's ring; then `sent`."""

    seat: Seat
    call: Any


@dataclass(frozen=True)
class Withdraw:
    """Try to take this call back, which waits behind another while a worker has nothing to do; then `withdrawn`."""

    seat: Seat
    call: Any


@dataclass(frozen=True)
class Start:
    """Start a worker; then `started` or `not_started`."""


Step = Pack | Send | Withdraw | Start


class Ledger:
    """Which calls there are, and which worker has which.

    Parameters
    ----------
    max_workers : int
    depth : int
        Calls that a worker is told of at a time: the one that it runs, and those that wait.
    eager : bool
        Start all workers with the first call, not each when it is needed.
    """

    def __init__(self, max_workers: int, depth: int, *, eager: bool = False) -> None:
        self._eager = eager
        self.seats: list[Seat] = []
        self._max_workers = max_workers
        self._depth = depth
        self._blocked: set[Any] = set()
        self._waiting: deque[Any] = deque()
        self._packed: deque[Any] = deque()
        self._packing = 0
        self._is_starved = False  # no memory for arguments, until some call ends
        self._starting = 0
        self._begun: set[Any] = set()  # sent calls that cannot be taken back

    # -- events: calls

    def submit(self, call: Any, *, blocked: bool = False) -> None:
        """A new call; blocked: its arguments are not there yet."""
        call.state = CallState.BLOCKED if blocked else CallState.WAITING
        if blocked:
            self._blocked.add(call)
        else:
            self._waiting.append(call)

    def unblock(self, call: Any) -> None:
        """Its arguments are there."""
        if call.state is CallState.BLOCKED:
            self._blocked.discard(call)
            call.state = CallState.WAITING
            self._waiting.append(call)

    def packed(self, call: Any) -> None:
        """It is pickled, and can be sent."""
        self._packing -= 1
        call.state = CallState.PACKED
        self._packed.append(call)

    def try_later(self, call: Any) -> bool:
        """There is no memory for its arguments now. False: no call is left whose end could free some."""
        if not (self._packed or self._packing > 1 or any(seat.sent for seat in self.seats)):
            return False
        self._packing -= 1
        self._is_starved = True
        call.state = CallState.WAITING
        self._waiting.appendleft(call)
        return True

    def sent(self, seat: Seat, call: Any) -> None:
        """It is in the worker's ring."""
        call.state = CallState.SENT
        seat.sent.append(call)

    def not_sent(self, call: Any) -> None:
        """It could not be put into the worker's ring."""
        self._packed.appendleft(call)

    def look_again(self) -> None:
        """The workers may have skipped withdrawn calls: their rings may have room again."""
        for seat in self.seats:
            seat.is_full = False

    def withdrawn(self, seat: Seat, call: Any, *, taken_back: bool) -> None:
        """It was taken back from the ring, or had been begun."""
        if taken_back:
            seat.sent.remove(call)
            call.state = CallState.PACKED
            self._packed.appendleft(call)
        else:
            self._begun.add(call)

    def ended(self, call: Any) -> None:
        """It was answered, failed or cancelled."""
        state, call.state = call.state, CallState.ENDED
        self._is_starved = False
        match state:
            case CallState.BLOCKED:
                self._blocked.discard(call)
            case CallState.WAITING:
                self._waiting.remove(call)
            case CallState.PACKING:
                self._packing -= 1
            case CallState.PACKED:
                self._packed.remove(call)
            case CallState.SENT:
                for seat in self.seats:
                    if call in seat.sent:
                        seat.sent.remove(call)
                self._begun.discard(call)

    # -- events: workers

    def started(self, seat: Seat) -> None:
        """A worker is coming up: it can be sent calls, which it finds when it is ready."""
        self._starting -= 1
        self.seats.append(seat)

    def not_started(self) -> None:
        """No worker could be started: there are as many as there can be."""
        self._starting -= 1
        self._max_workers = max(1, len(self.seats) + self._starting)

    def leaving(self, seat: Seat) -> list[Any]:
        """The worker takes no more calls: those that it was sent and has not answered come back."""
        seat.is_leaving = True
        return self._give_back(seat)

    def died(self, seat: Seat, victim: Any | None) -> None:
        """The worker is dead. Its calls come back, but for the `victim`, which it had begun; the caller ends that."""
        if victim is not None:
            seat.sent.remove(victim)
        seat.is_leaving = True
        self._give_back(seat)
        self.seats.remove(seat)

    def _give_back(self, seat: Seat) -> list[Any]:
        returned = list(seat.sent)
        seat.sent.clear()
        for call in reversed(returned):
            call.state = CallState.PACKED
            self._begun.discard(call)
            self._packed.appendleft(call)
        return returned

    # -- questions

    def pending(self) -> list[Any]:
        """All calls that have not ended, but those that some thread is pickling."""
        sent = [call for seat in self.seats for call in seat.sent]
        return [*sent, *self._packed, *self._waiting, *self._blocked]

    @property
    def is_idle(self) -> bool:
        """Whether no call is left."""
        return not (self._blocked or self._waiting or self._packed or self._packing) and not any(
            seat.sent for seat in self.seats
        )

    @property
    def waiting_count(self) -> int:
        return len(self._blocked) + len(self._waiting) + len(self._packed) + self._packing

    @property
    def sent_count(self) -> int:
        return sum(len(seat.sent) for seat in self.seats)

    def next_step(self) -> Step | None:
        """What to do next, or None until something happens."""
        if self._packed and (seat := self._emptiest()) is not None:
            return Send(seat, self._packed.popleft())
        working = [seat for seat in self.seats if not seat.is_leaving]
        demand = len(self._waiting) + len(self._packed) + self._packing
        idle = sum(not seat.sent for seat in working) + self._starting
        wanted = demand > 0 if self._eager else demand > idle
        if wanted and len(self.seats) + self._starting < self._max_workers:
            self._starting += 1
            return Start()
        room = sum(seat.room for seat in working) + self._starting * self._depth
        if self._waiting and not self._is_starved and room > len(self._packed) + self._packing:
            call = self._waiting.popleft()
            call.state = CallState.PACKING
            self._packing += 1
            return Pack(call)
        if not demand and any(not seat.sent for seat in working):
            return self._hold_up(working)
        return None

    def _emptiest(self) -> Seat | None:
        """The worker with the fewest calls; of several the one that came up last: its caches are the warmest."""
        best: Seat | None = None
        for seat in reversed(self.seats):
            if seat.room > 0 and (best is None or len(seat.sent) < len(best.sent)):
                best = seat
        return best

    def _hold_up(self, working: list[Seat]) -> Withdraw | None:
        """A call that waits behind another while somebody is idle."""
        for seat in working:
            if len(seat.sent) > 1 and seat.sent[-1] not in self._begun:
                return Withdraw(seat, seat.sent[-1])
        return None
