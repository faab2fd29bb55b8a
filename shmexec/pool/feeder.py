"""Takes the ledger's next steps: calls are pickled and sent, workers started.

Some facts: pickling runs users' code, and a start of a worker takes milliseconds; a thread that lives when the process
forks may hold a lock, which is then held for ever in the child.
What this means for us: whoever submits, or the collector, takes the steps, one after the other, and only those without
users' code and without a wait under the lock. The collector starts after all workers that are forked.

Guarantee: a step that was taken from the ledger is carried out, or its call ends, whatever is raised in between.
"""

from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

from shmexec import _core
from shmexec._core import Call, Ledger, Pack, Seat, Send, Start, Withdraw
from shmexec.errors import SharedMemoryFull
from shmexec.pool import log
from shmexec.pool.calls import Tally
from shmexec.pool.collector import Collector
from shmexec.pool.crew import Crew, Worker
from shmexec.pool.endings import alike
from shmexec.pool.packing import Packer


class _Failed:
    """Some calls could not be sent; now look again."""


Step = Pack | Send | Withdraw | Start | _Failed


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
        while (step := self._take_step()) is not None:
            try:
                if type(step) is Pack:
                    self._pack(step.call)
                elif type(step) is Start:
                    self._start()
            except BaseException as error:  # Ctrl-C in the thread that submits: the call in its hands ends here
                if type(step) is Pack:
                    self._home.finish(step.call, error=error)
                    if self._collector.is_current_thread():
                        continue  # which gets no Ctrl-C: pickling has called sys.exit(), say
                raise

    def _take_step(self) -> Step | None:
        """The next step, which is done already if it can be done under the lock."""
        with self._desk.lock:
            failed = self._desk.failed[:]
            self._desk.failed.clear()
            step = None if failed or self._home.broken is not None else self._ledger.next_step()
            if type(step) is Send:
                self._desk.send(step.seat, step.call)
            elif type(step) is Withdraw:
                self._desk.withdraw(step.seat, step.call)
            if step is None:
                self._desk.publish()
            start_collector = step is None and not failed and bool(self._workers) and not self.is_collecting
            self.is_collecting |= start_collector
        if start_collector:
            self._start_collector()
        for call, error in failed:
            if error is not None or not call.future.begin():
                self._home.finish(call, error=error)
        return _Failed() if failed else step

    def _start_collector(self) -> None:
        try:
            self._collector.start()
        except BaseException:  # no more threads: the next call tries again, and so does the end
            with self._desk.lock:
                self.is_collecting = False
            raise

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

    def _start(self) -> None:
        with log.put_off(self._home.call_later):
            self._start_one()

    def _start_one(self) -> None:
        try:
            worker = self._crew.start(as_replacement=self.is_collecting)
        except BaseException as error:
            with self._desk.lock:
                self._ledger.not_started()
                alone = not self._workers
            if not isinstance(error, Exception):  # Ctrl-C: not the machine's fault
                raise
            if alone:
                reason = BrokenProcessPool(f"no worker process could be started: {error}")
                reason.__cause__ = error
                self._home.break_off(reason)
            else:
                log.tell(self._home.call_later, log.WARNING, "no more worker processes can be started: %s", error)
            return
        with self._desk.lock:
            self._tally.workers_started += 1
            self._workers[worker.seat] = worker
            self._ledger.started(worker.seat)
            self._ledger.eager = self._crew.forks
            self._desk.watch(worker.seat)
            self._collector.watch(worker)
        pid, name = worker.process.pid, worker.process.name
        log.tell(self._home.call_later, log.INFO, "worker process %d (%s) started by %s", pid, name, self._crew.method)
