"""Workers come up and die: what that means for their calls, and for the pool. All in the collector's thread."""

import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

from shmexec import _core
from shmexec._core import Call, Ledger, Seat
from shmexec.pool import log
from shmexec.pool.calls import Tally
from shmexec.pool.crew import Crew, Worker
from shmexec.pool.endings import Endings, alike, death, outcome_of_death

_FRUITLESS = 3  # workers that die one after the other and have begun nothing: the next would, too
_IN_VAIN = 10  # calls one after the other that die in each of several attempts

# the standard library's words: programs look for them
_ABRUPT = "A child process terminated abruptly, the process pool is not usable anymore"
_ABRUPT_FOR_CALLS = "A process in the process pool was terminated abruptly while the future was running or pending"

_GRACE = 10.0  # seconds that the workers of a broken pool have for their clean-up
_LIMIT_GRACE = 5.0  # and a worker whose call has run out of time, or was cancelled
_REFUSAL_GRACE = 10.0  # and one whose initializer has failed


class LivesHome(Protocol):
    """The pool."""

    breaks: bool

    @property
    def is_emptying(self) -> bool:
        """Whether it takes no more calls and none is left; under the lock."""

    def finish(self, call: Call, *, error: BaseException | None = None) -> None:
        """The call is over."""

    def break_off(self, reason: BaseException, says: str = "", victim: Call | None = None) -> None:
        """No call can be served any more."""

    def call_later(self, callback: Callable[[], None]) -> bool:
        """Run this in the thread for user callbacks later, if the present thread must not; False if it may."""


class Lives:
    """What the workers of one pool go through."""

    def __init__(
        self,
        desk: _core.Desk,
        ledger: Ledger,
        crew: Crew,
        workers: dict[Seat, Worker],
        tally: Tally,
        home: LivesHome,
    ) -> None:
        self._desk = desk
        self._ledger = ledger
        self._crew = crew
        self._workers = workers
        self._tally = tally
        self._home = home
        self._endings = Endings()

    def came_up(self, worker: Worker) -> None:
        """The worker is ready."""
        with self._desk.lock:
            worker.seat.is_ready = True
        if _core.has_huge_pages() is False:
            log.tell_once(
                self._home.call_later, log.INFO, "the kernel gives no pages of 2 MiB: arrays lie on pages of 4 KiB"
            )

    def came_up_in_vain(self, worker: Worker, reason: BaseException) -> None:
        """Its initializer has failed: when what it logs of this is there, as the worker ends, the pool is of no use."""
        with self._desk.lock:
            self._ledger.leaving(worker.seat)
        worker.refusal = reason
        self._endings.begin(worker, time.monotonic() + _REFUSAL_GRACE, by_itself=True)

    def end_all(self, now: float, *, kill: bool) -> None:
        """The pool is broken. Under the lock."""
        for worker in self._workers.values():
            self._endings.begin(worker, now if kill else now + _GRACE)

    def end_doomed(self, now: float) -> None:
        """Those whose call has run out of time, or was cancelled. Under the lock."""
        for seat in self._ledger.doomed():
            self._endings.begin(self._workers[seat], now + _LIMIT_GRACE)

    def ask(self, now: float) -> float | None:
        """Send the signals that are due; seconds until the next are, or None."""
        return self._endings.ask(now)

    def on_death(self, worker: Worker) -> None:
        """With the baton: all its answers have been dealt with."""
        seat = worker.seat
        with self._desk.lock:
            begun = next((call for call in seat.sent if worker.channel.was_started(call.position)), None)
            was_asked_for = seat.doomed is not None
            victim = seat.doomed or begun
            expected = seat.is_leaving or self._home.is_emptying
            over = self._ledger.died(seat, victim, expected)
            self._desk.baton.unwatch(seat)
        if victim is not None and (report := _core.read_report(worker.channel, victim.number)) is not None:
            victim.future.note_report(report[-1])
        self._endings.forget(worker)
        code = self._crew.bury(worker)  # before anybody learns of it: what the worker held is there again
        with self._desk.lock:
            del self._workers[seat]
        asked_for = was_asked_for or (expected and victim is None)
        self._tally.workers_died += not asked_for
        if over is not None and (was_asked_for or not self._home.breaks):
            self._home.finish(over, error=outcome_of_death(worker, code, over))
        reason = death(worker, code, victim)
        if asked_for:
            log.tell(self._home.call_later, log.INFO, "worker process %d has ended with exit code %s", reason.pid, code)
            if worker.refusal is not None:
                self._home.break_off(worker.refusal)
            return
        log.tell(self._home.call_later, log.WARNING, "%s", reason, is_known=victim is not None)
        if self._home.breaks:
            self._home.break_off(alike(reason, f"{_ABRUPT_FOR_CALLS}: {reason}"), f"{_ABRUPT}: {reason}", victim)
        else:
            self._give_up(code, worker.last_words)

    def _give_up(self, code: int | None, last_words: str) -> None:
        """Break off if the next worker would only die like those before."""
        why = ""
        left = 0
        with self._desk.lock:
            if self._ledger.fruitless >= _FRUITLESS:
                why = f"{_FRUITLESS} worker processes in a row died before they had come up or begun a call"
                left = self._ledger.go_on_without()
            elif self._ledger.in_vain >= _IN_VAIN:
                why = f"the workers of {_IN_VAIN} calls in a row died at every attempt, and no call was answered"
        if left:
            log.tell(self._home.call_later, log.WARNING, "%s: the pool goes on with %d", why, left)
        elif why:
            where = last_words and f":\n\n{last_words}"
            self._home.break_off(BrokenProcessPool(f"{why}, the last with exit code {code}{where}"))
