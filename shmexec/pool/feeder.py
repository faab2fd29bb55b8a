"""Takes the ledger's next steps: calls are pickled and sent, workers started.

Some facts: pickling runs users' code, and a start of a worker takes milliseconds; a thread that lives when the process
forks may hold a lock, which is then held for ever in the child. A signal handler may raise between any two lines.
What this means for us: whoever submits, or the collector, takes the steps, one after the other, and only those without
users' code and without a wait under the lock. The collector starts after all workers that are forked.

Guarantee: a step that was taken from the ledger is carried out, or its call ends, whatever is raised in between.
"""

from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, cast

from shmexec import _core
from shmexec._core import Call, Ledger, Pack, Seat, Start
from shmexec.errors import SharedMemoryFull
from shmexec.pool import log
from shmexec.pool.calls import Tally
from shmexec.pool.collector import Collector
from shmexec.pool.crew import Crew, Worker
from shmexec.pool.endings import alike
from shmexec.pool.packing import Packer

Step = Pack | Start | tuple[Call, BaseException | None]  # the last: a call that could not be sent, and why


class FeederHome(Protocol):
    """The pool."""

    @property
    def broken(self) -> BaseException | None:
        """Why no call can be served any more, if that is so; under the lock."""

    def finish(self, call: Call, *, error: BaseException | None = None) -> None:
        """The call is over."""

    def break_off(self, reason: BaseException) -> None:
        """No call can be served any more."""

    def call_later(self, callback: Callable[[], None]) -> bool:
        """Run this in the thread for user callbacks later, if the present thread must not; False if it may."""


class Feeder:
    """Hands out the calls of one pool; in whichever thread submits or collects."""

    def __init__(
        self,
        desk: _core.Desk,
        ledger: Ledger,
        packer: Packer,
        crew: Crew,
        collector: Collector,
        workers: dict[Seat, Worker],
        tally: Tally,
        home: FeederHome,
    ) -> None:
        self.is_collecting = False  # the collector was started; under the lock
        self._is_going_on = False  # after an interrupt
        self._desk = desk
        self._ledger = ledger
        self._packer = packer
        self._crew = crew
        self._collector = collector
        self._workers = workers
        self._tally = tally
        self._home = home

    def feed(self) -> None:
        """Do what is to be done, until something else has to happen first."""
        taken: list[Step] = []  # and not carried out yet
        while True:
            try:
                if not self._take_step(taken):
                    return
                while taken:
                    self._carry_out(taken[-1])
                    taken.pop()
            except BaseException as error:  # Ctrl-C in the thread that submits: the calls in its hands end here
                had_some = bool(taken)
                is_packing = had_some and type(taken[-1]) is Pack
                while taken:
                    self._give_up(taken[-1], error)
                    taken.pop()
                if not (is_packing and self._collector.is_current_thread()):
                    if self.is_collecting:  # others' calls may wait behind those
                        self._desk.baton.ring()
                    elif had_some and not self._is_going_on:
                        self._go_on()
                    raise  # the collector gets no Ctrl-C: pickling has called sys.exit(), say

    def _go_on(self) -> None:
        """After an interrupt, and before that goes on its way."""
        self._is_going_on = True
        try:
            self.feed()
        finally:
            self._is_going_on = False

    def _take_step(self, taken: list[Step]) -> bool:
        """Whether there was one; what can be done under the lock is done, the rest is in `taken`."""
        try:
            with self._desk.lock:
                found = self._desk.sender.take_step(taken, self._home.broken is not None)
                start_collector = not found and bool(self._workers) and not self.is_collecting
                self.is_collecting |= start_collector
            if start_collector:
                self._collector.start()
        except BaseException:  # no more threads, or Ctrl-C: the next call tries again, and so does the end
            with self._desk.lock:
                self.is_collecting = self._collector.is_running
            raise
        return found

    def _carry_out(self, step: Step) -> None:
        if type(step) is Pack:
            self._pack(step.call)
        elif type(step) is Start:
            with log.put_off(self._home.call_later):
                self._start(step)
            if self.is_collecting:  # the end of the pool may wait for this
                self._desk.baton.ring()
        else:  # a call that could not be sent
            call, error = cast("tuple[Call, BaseException | None]", step)
            if error is not None or not call.future.begin():
                self._home.finish(call, error=error)

    def _give_up(self, step: Step, error: BaseException) -> None:
        if type(step) is Pack:
            self._home.finish(step.call, error=error)
        elif type(step) is Start:
            with self._desk.lock:
                self._ledger.not_started(step, can_be=True)
        else:
            self._carry_out(step)

    def _pack(self, call: Call) -> None:
        """Pickle a call, in the present thread."""
        if not call.future.begin():
            self._home.finish(call)
            return
        if _core.is_half_full() and not call.verdict:  # the rest is for the results of the calls that are under way
            with self._desk.lock:
                if self._home.broken is None and self._ledger.try_later(call):
                    return
        error = self._packer.pack(call)
        with self._desk.lock:
            broken = self._home.broken
            if call.verdict:
                error = CancelledError()
            elif isinstance(error, SharedMemoryFull) and broken is None and self._ledger.try_later(call):
                return
            if error is None:
                self._desk.packed(call)
                self._tally.note_arguments(call)
                error = broken and alike(broken)
        if error is not None:
            self._home.finish(call, error=error)

    def _start(self, step: Start) -> None:
        try:
            worker = self._crew.start(as_replacement=self.is_collecting)
        except Exception as error:
            with self._desk.lock:
                self._ledger.not_started(step, can_be=False)
                alone = not self._workers
            if alone:
                reason = BrokenProcessPool(f"no worker process could be started: {error}")
                reason.__cause__ = error
                self._home.break_off(reason)
            else:
                log.tell(self._home.call_later, log.WARNING, "no more worker processes can be started: %s", error)
            return
        try:
            self._enlist(worker, step)
        except BaseException:  # Ctrl-C: it is there all the same
            self._enlist(worker, step)
            raise
        pid, name = worker.process.pid, worker.process.name
        log.tell(self._home.call_later, log.INFO, "worker process %d (%s) started by %s", pid, name, self._crew.method)

    def _enlist(self, worker: Worker, step: Start) -> None:
        """It is one of the workers from now on; may be repeated."""
        with self._desk.lock:
            self._workers[worker.seat] = worker
            self._desk.baton.watch(worker.seat)
            self._collector.watch(worker)
            self._ledger.eager = self._crew.forks
            self._tally.workers_started += not step.is_done
            self._ledger.started(step, worker.seat)
