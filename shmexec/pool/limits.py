"""Calls that are ended from outside: because their time is up, or because somebody cancels them while they run.

Purpose: the worker of such a call is made to end, and nobody else's call with it.
Guarantees
    L1 the answer or the verdict, never both: whichever the ledger is told of first
    L2 a worker that is made to end was running the call that it is doomed for, or had just answered it; it begins no
       other
    L3 the future is done when the worker is dead: from then on nothing of the call runs, and what it held is free
Assumptions: `look` is called by the collector, with the baton, when all answers that are there have been read and dealt
    with; `cancel` by any thread.

Why L2 holds. A call with a limit is sent to a worker that has no other, and none is sent after it (the ledger). Any
other call may have some behind it: they are withdrawn first. If one of them cannot be withdrawn, the worker has begun
it, so the call in question is over, and its answer is on the way.

What may come between::

    the call answers                          the verdict was    then
    before the answers are read               not given          the answer counts, however late it was
    between the reading and the verdict       given after it     the answer is dropped; a worker that runs nothing ends
    between the verdict and SIGTERM           given              the same
    never, and ignores SIGTERM                given              SIGKILL, when the grace is over
    its worker dies by itself, before         not given          the call fails with WorkerDied, or is tried again
    its worker dies by itself, after          given              as if SIGTERM had done it
    its worker has not begun it               not given          `look` finds that out; its clock has not started
    max_tasks_per_child is reached with it    either             the worker leaves by itself; no other call is lost
    the pool breaks                           either             it fails with the pool's reason

Rejected: to let the collector poll the calls that run; to let workers time themselves (SIGALRM belongs to the user, and
C code does not look); to give up the future while its worker goes on (it may write into arrays that the user has back).
"""

import time
from enum import Enum

from shmexec._core import Call, CallState, Desk, Ledger, Verdict


class Cancelled(Enum):
    """What became of a call that somebody wants to cancel."""

    NO = 0  # it is over
    LATER = 1  # it will be, by whoever has it in hand, or by its worker's death
    TAKEN = 2  # it is in the caller's hands, who ends it


class Limits:
    """Judges the calls of one pool."""

    def __init__(self, desk: Desk, ledger: Ledger) -> None:
        self._desk = desk
        self._ledger = ledger

    def look(self) -> None:
        """Doom the workers whose call has run for longer than it may."""
        if not self._desk.sender.is_due:
            return
        with self._desk.lock:
            now = time.monotonic_ns()
            for seat in self._ledger.overdue(now):
                call = seat.timed
                assert call is not None
                if self._ledger.looked(seat, seat.channel.begun_at(call.position), now):
                    self._ledger.doom(seat, call, Verdict.OVERTIME)
            self._desk.sender.set_alarm()

    def cancel(self, call: Call) -> Cancelled:
        """End a call whose future is running, as far as users can see."""
        with self._desk.lock:
            match call.state:
                case CallState.ENDED:
                    return Cancelled.NO
                case CallState.DOOMED:
                    return Cancelled.LATER if call.verdict == Verdict.UNWANTED else Cancelled.NO
                case CallState.PACKING:
                    call.verdict = Verdict.UNWANTED
                    return Cancelled.LATER
                case CallState.SENT:
                    return self._interrupt(call)
            return self._take(call)

    def _interrupt(self, call: Call) -> Cancelled:
        seat = call.seat
        assert seat is not None
        self._desk.sender.withdraw(seat, call)
        if call.state != CallState.SENT:
            return self._take(call)
        behind = seat.sent[seat.sent.index(call) + 1 :]
        for other in reversed(behind):
            self._desk.sender.withdraw(seat, other)
            if other.state == CallState.SENT:
                return Cancelled.NO
        self._ledger.doom(seat, call, Verdict.UNWANTED)
        self._desk.baton.ring()
        return Cancelled.LATER

    def _take(self, call: Call) -> Cancelled:
        call.verdict = Verdict.UNWANTED
        self._ledger.take(call)
        return Cancelled.TAKEN
