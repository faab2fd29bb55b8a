"""What workers send that takes Python code to deal with: the collector's part of what was read from the rings."""

from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

from shmexec import _core
from shmexec._core import Call, Ledger, Packed, Seat
from shmexec.pickling import failures
from shmexec.pool.calls import Tally
from shmexec.pool.crew import Worker
from shmexec.pool.futures import CallFuture, unreadable
from shmexec.pool.lives import Lives
from shmexec.transport.messages import Cost, Kind


class AnswersHome(Protocol):
    """What is done in the end."""

    breaks: bool

    def finish(
        self, call: Call, *, packed: Packed | None = None, error: BaseException | None = None, cost: Cost | None = None
    ) -> None:
        """The call is over."""

    def break_off(self, reason: BaseException) -> None:
        """No call can be served any more."""


class Answers:
    """Deals with the desk's backlog. All in the collector's thread."""

    def __init__(
        self,
        desk: _core.Desk,
        ledger: Ledger,
        workers: Mapping[Seat, Worker],
        tally: Tally,
        lives: Lives,
        home: AnswersHome,
    ) -> None:
        self._desk = desk
        self._ledger = ledger
        self._workers = workers
        self._tally = tally
        self._lives = lives
        self._home = home

    def deal_with_backlog(self) -> None:
        """What whoever read the rings has left to this thread."""
        backlog = self._desk.backlog
        while backlog:
            entry = backlog.popleft()
            if len(entry) == 3:
                set_outcome(*entry)
                with self._desk.lock:
                    self._desk.release_dependents(entry[0])
            elif isinstance(entry[0], CallFuture):
                entry[0]._invoke_callbacks()
            else:
                worker = self._workers.get(entry[0])
                if worker is not None and entry[1] is None:
                    worker.process.kill()  # it wrote where it should not: its death is judged like any other
                elif worker is not None:
                    self._take(worker, entry[1])
            del entry

    def _take(self, worker: Worker, message: _core.Message) -> None:
        match message.kind:
            case Kind.RESULT | Kind.FAILURE | Kind.UNREADABLE:
                self._take_outcome(worker, message)
            case Kind.ATOM if self._is_over(worker, message.call):
                pass
            case Kind.READY:
                self._lives.came_up(worker)
            case Kind.LEAVING:
                with self._desk.lock:
                    self._ledger.leaving(worker.seat)
            case Kind.UNREADY:
                error = failures.load_exception(message.second)
                reason = BrokenProcessPool(f"the initializer failed: {type(error).__name__}: {error}")
                reason.__cause__ = error
                self._lives.came_up_in_vain(worker, reason)
            case _:
                worker.process.kill()  # as above

    def _is_over(self, worker: Worker, call: int) -> bool:
        with self._desk.lock:
            return self._desk.find_call(worker.seat, call) is None

    def _take_outcome(self, worker: Worker, message: _core.Message) -> None:
        try:
            cost = Cost.unpack(message.first)
        except Exception:
            worker.process.kill()
            return
        with self._desk.lock:
            call = self._desk.find_call(worker.seat, message.call)
            if call is not None:
                self._desk.note_answer(cost.bytes_by_name, cost.bytes_copied, cost.seconds)
        if call is None:
            return
        self._tally.copies.add(cost.copies)
        if cost.report is not None:
            call.future.note_report(cost.report)
        if message.kind == Kind.RESULT:
            packed = Packed(message.second, message.holds, cost.bytes_by_name, cost.bytes_copied)
            self._home.finish(call, packed=packed, cost=cost)
        elif message.kind == Kind.UNREADABLE and self._home.breaks:
            self._home.break_off(unreadable(f"the call of {call.name}", failures.load_exception(message.second)))
        else:
            self._home.finish(call, error=failures.load_exception(message.second))


def set_outcome(future: CallFuture, value: object, error: BaseException | None) -> None:
    """Unless it has one: the pool may have been broken meanwhile."""
    if not future.done():
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
