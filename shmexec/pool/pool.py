"""The pool: calls in, futures out, until the last worker has ended.

Purpose: what an executor has others do; workers are started when they are needed and replaced when they die.
Guarantees: a worker's death fails the call that it was running and no other; no call is lost and none runs twice; a
    thread that calls `submit` never waits for a worker; user code (pickling, callbacks) never runs under the pool's
    lock, but for finalizers, which the collection of garbage runs wherever it likes: what they ask of the pool while
    their thread has the lock, or the fork server's, is put off, and they do not wait for one pool under another's.
Assumptions: the ledger, the seats and the rings' producer side are touched under the desk's lock only; the answer rings
    by who has the baton (native/_baton.pxi), the dead by the collector. No lock is needed for a call's own fields: one
    thread at a time has it in hand, as the ledger says.
"""

import _thread
import contextlib
import itertools
import os
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from shmexec import _core
from shmexec._core import Call, CallState, Ledger, Packed, Seat, Unread, Verdict
from shmexec.pickling import failures
from shmexec.pool import exits, fork_server, log
from shmexec.pool.answers import Answers, set_outcome
from shmexec.pool.calls import NO_LIMITS, CallLimits, MapScope, Tally
from shmexec.pool.collector import END, Collector
from shmexec.pool.crew import Crew, Worker, WorkerSettings
from shmexec.pool.endings import alike
from shmexec.pool.feeder import Feeder
from shmexec.pool.futures import CallFuture
from shmexec.pool.launcher import WorkerProcess
from shmexec.pool.limits import Cancelled, Limits
from shmexec.pool.lives import Lives
from shmexec.pool.packing import Packer
from shmexec.pool.spans import SpanMap
from shmexec.progress import Reported
from shmexec.transport.messages import DEPTH, Cost, Kind
from shmexec.transport.standard import open_standard_descriptors

_pool_numbers = itertools.count()


class Pool:
    """The parent's half of an executor.

    Parameters
    ----------
    max_workers : int
    settings : WorkerSettings
    breaks : bool
        A worker's death breaks the pool, as in the standard library, instead of failing its one call.
    """

    def __init__(self, max_workers: int, settings: WorkerSettings, *, breaks: bool) -> None:
        self.max_workers = max_workers
        self.tally = Tally()
        self.breaks = breaks
        self._workers: dict[Seat, Worker] = {}
        self._closing = False
        self._is_killing = False  # the workers of a broken pool get no grace
        self._is_cancelling = False  # spans of a map that were not sent yet, too
        self._handing_over = 0  # spans that have ended and that others may follow
        self._is_ended = False
        self._closed = threading.Event()
        self._broken: BaseException | None = None
        self._broken_by: str = ""
        self._put_off: deque[Callable[[], object]] = deque()  # what finalizers have asked for
        self._owner = os.getpid()
        number = next(_pool_numbers)
        open_standard_descriptors()
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        hub = _core.Hub.create(self._event)
        self._ledger = Ledger(max_workers, DEPTH, eager=settings.method == "fork")
        self.desk = _core.Desk(hub, self._ledger, CallFuture, self, self._feed)
        self._packer = Packer(self, self.tally.copies, self.desk.learn)
        self._crew = Crew(settings, hub)
        self._limits = Limits(self.desk, self._ledger)
        self._lives = Lives(self.desk, self._ledger, self._crew, self._workers, self.tally, self)
        self._answers = Answers(self.desk, self._ledger, self._workers, self.tally, self._lives, self)
        self._collector = Collector(
            self._event,
            self.desk,
            self._answers.deal_with_backlog,
            self._lives.on_death,
            self._limits.look,
            self._on_round,
            self._on_failure,
            f"shmexec-collector-{number}",
        )
        self._feeder = Feeder(
            self.desk, self._ledger, self._packer, self._crew, self._collector, self._workers, self.tally, self
        )
        exits.pools.add(self)
        self._crew.prepare()

    # ---- for the executor ------------------------------------------------------------------------

    def submit(
        self,
        kind: Kind,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        scope: MapScope | None = None,
        limits: CallLimits = NO_LIMITS,
    ) -> CallFuture:
        """A new call. Raises RuntimeError when the pool is closed, BrokenProcessPool when it is broken."""
        future = self.desk.new_future()
        return self._submit(
            Call(
                self.desk.next_number(),
                kind,
                future,
                function,
                args,
                kwargs,
                failures.name_of(function),
                scope,
                limit=limits.nanoseconds,
                retries=limits.retries,
            )
        )

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> CallFuture:
        """As `submit`, for one call without limits."""
        return self.submit(Kind.CALL, function, args, kwargs)

    def known(self, function: Callable[..., Any]) -> _core.Known | None:
        """For `desk.submit`: a function as it is now, if calls of it may take the short way."""
        return self._packer.known(function)

    def start_map(
        self,
        function: Callable[..., Any],
        scope: MapScope,
        items: Iterable[tuple[Any, ...]],
        ahead: int | None = None,
    ) -> SpanMap:
        """Call a function on all items, as many at a time as is best; `ahead`: more will be fed.

        Raises what `submit` does.
        """
        job = SpanMap(self, function, scope, items, ahead)
        with self.stays_open():
            try:
                job.send()
            except BaseException:
                job.cancel()
                raise
        return job

    @contextlib.contextmanager
    def stays_open(self) -> Iterator[None]:
        """A map sends some of its items: not idle in between. Raises what `submit` does."""
        is_counted = False
        try:
            with self.desk.lock:
                self.check_open()
                self._handing_over += 1
                is_counted = True
            yield
        finally:
            if is_counted:
                self._handed_over()

    def submit_span(self, job: SpanMap, begin: int, items: tuple[tuple[Any, ...], ...], budget: float) -> CallFuture:
        """Some items of a map that began while the pool was open."""
        future, name = self.desk.new_future(), failures.name_of(job.function)
        return self._submit(
            Call(
                self.desk.next_number(),
                Kind.SPAN,
                future,
                job.function,
                items,
                {},
                name,
                job.scope,
                job,
                begin,
                len(items),
                budget,
            )
        )

    def _submit(self, call: Call) -> CallFuture:
        if self._is_in_a_step:
            self._later(lambda: self._submit_late(call))
            late: CallFuture = call.future
            return late
        awaited = self._packer.awaited(call.kind, call.args, call.kwargs)
        call.has_futures = bool(awaited)
        with self.desk.lock:
            if call.job is None or self._broken is not None:
                self.check_open()
            elif self._is_cancelling:
                raise CancelledError
            for other in awaited:
                if not other.done():
                    self.desk.dependents.setdefault(other, []).append(call)
                    call.missing += 1
            self.desk.adopt(call)
            self._ledger.submit(call, blocked=call.missing > 0)
        self._feed()
        future: CallFuture = call.future
        return future

    def _submit_late(self, call: Call) -> None:
        try:
            self._submit(call)
        except Exception as error:
            set_outcome(call.future, None, error)
            self._release_dependents(call.future)
            self._feed()

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        """Take no more calls; the workers end when the last is done. May be repeated."""
        if self._is_in_a_step:
            self._later(lambda: self.shutdown(wait=False, cancel_futures=cancel_futures))
            return
        # what ends may log, or need what this thread has: of another pool, if it is a finalizer that asks
        wait = wait and not log.is_telling() and not any(pool.desk.lock.is_mine() for pool in list(exits.pools))
        cancelled: list[Call] = []
        with self.desk.lock:
            self._closing = True
            self.desk.is_open = False
            if cancel_futures:
                self._is_cancelling = True
                cancelled = self._ledger.pending()
            lacks_collector = not self._feeder.is_collecting and (bool(self._workers) or not self._is_idle)
        if lacks_collector:  # it could not be started, or the first worker could not
            self._feed()
        for call in cancelled:
            call.future.cancel()
        if cancelled:
            self._feed()
        self._end_without_collector()
        if self._feeder.is_collecting:
            self._wake()
        if wait and not self._collector.is_current_thread() and not self._is_interrupting_a_step(sys._getframe()):
            while not (self._feeder.is_collecting or self._closed.wait(1.0)):
                self._feed()  # another thread starts the first worker, or cannot start the collector
            self._collector.join()

    def interrupt(self) -> None:
        """Ctrl-C: nobody wants the rest. What waits is cancelled, what runs fails, the workers clean up and end."""
        self.shutdown(wait=False, cancel_futures=True)
        self.break_off(BrokenProcessPool("the program was interrupted (Ctrl-C)"), level=log.INFO)

    def abandon(self) -> None:
        """Nobody can use this pool any more: shut it down. For finalizers: takes no lock and does not wait."""
        self._later(lambda: self.shutdown(wait=False, cancel_futures=False))

    def end_workers(self, *, kill: bool) -> None:
        """Take no more calls, end the workers now: what waits is cancelled, what runs fails. Does not wait."""
        if self._is_in_a_step:
            self._later(lambda: self.end_workers(kill=kill))
            return
        self.shutdown(wait=False, cancel_futures=True)
        self._is_killing |= kill
        name, did = ("kill_workers", "killed") if kill else ("terminate_workers", "terminated")
        processes = self.processes()
        self.break_off(BrokenProcessPool(f"the worker processes were {did} by {name}()"), level=log.INFO)
        for process in processes.values():
            if kill:
                process.kill()
            else:
                process.terminate()

    def cancel(self, future: CallFuture) -> bool:
        """Cancel a call, and kill it if it runs; False if it is over."""
        if self._is_in_a_step:
            self._later(lambda: self.cancel(future))
            return not future.done()
        self.desk.help()  # an answer that is there counts
        if future.cancel():
            return True
        call = self.desk.call_of(future)
        if call is None or not self.is_owned:
            return False
        try:
            became = self._limits.cancel(call)
            if became is Cancelled.TAKEN:
                self.finish(call)
        except BaseException:  # Ctrl-C: it may be in nobody's hands now
            self._later(lambda: self._finish_taken(call))
            raise
        self._feed()
        return became is not Cancelled.NO

    def _finish_taken(self, call: Call) -> None:
        """In the collector: `cancel` was interrupted, and may have taken the call."""
        with self.desk.lock:
            was_taken = call.verdict == Verdict.UNWANTED and call.state not in (CallState.SENT, CallState.DOOMED)
        if was_taken:
            self.finish(call)

    def processes(self) -> dict[int, WorkerProcess]:
        """The workers that are there, by pid."""
        with self.desk.lock:
            return {worker.process.pid: worker.process for worker in self._workers.values()}

    def reports(self, is_wanted: Callable[[Call], bool]) -> list[Reported]:
        """What the running ones of these calls have reported."""
        with self.desk.lock:
            wanted = [(seat.channel, call) for seat in self._ledger.seats for call in seat.sent if is_wanted(call)]
        found = [_core.read_report(channel, call.number) for channel, call in wanted]
        return [report for report in found if report is not None]

    def counts(self) -> tuple[int, int]:
        """Calls that wait, and calls that workers have."""
        with self.desk.lock:
            return self._ledger.waiting_count, self._ledger.sent_count

    def heap_bytes_in_use(self) -> int:
        """Of the whole heap, whoever uses it."""
        return _core.heap_figures()[2]

    def pending(self) -> dict[int, Call]:
        """The calls that have not ended, by number."""
        with self.desk.lock:
            return {call.number: call for call in self._ledger.pending()}

    def cancelled(self, future: CallFuture) -> None:
        """Somebody has cancelled this future: what waits for it has to learn that."""
        if self._is_in_a_step:
            self._later(lambda: self.cancelled(future))
            return
        self._release_dependents(future)
        self._feed()

    def forget_in_child(self) -> None:
        """In a process that was forked: this pool is the parent's."""
        self.desk.forget_in_child()
        self._collector.forget_in_child()  # or shutdown would wait for threads that are not here
        self._closing = True
        self._closed.set()
        self._broken = BrokenProcessPool("this pool belongs to the process that this one was forked from")
        for call in self._ledger.pending():  # who asks here must not wait for ever, nor take them from the parent
            call.future.forsake(alike(self._broken))
            if call.job is not None:
                call.job.forsake(alike(self._broken))

    @property
    def _is_in_a_step(self) -> bool:
        """Whether this thread has a lock that a step of this pool takes: it is a finalizer that asks."""
        return self.desk.lock.is_mine() or fork_server.is_held_here()

    def _is_interrupting_a_step(self, frame: types.FrameType | None) -> bool:
        """Whether this thread is in the middle of what the end waits for: then a signal handler asks, or a callback.

        By its frames: whatever were noted a signal handler might come between the step and the note.
        """
        while frame is not None:
            if frame.f_code in _STEPS:
                doing: Any = frame.f_locals.get("self")
                if doing is self or getattr(doing, "_home", None) is self:
                    return True
            frame = frame.f_back
        return False

    @property
    def _is_idle(self) -> bool:
        return self._ledger.is_idle and not self._handing_over

    @property
    def is_emptying(self) -> bool:
        """Whether it takes no more calls, and none is left. Under the lock."""
        return self._closing and self._is_idle

    @property
    def is_owned(self) -> bool:
        return self._owner == os.getpid()

    @property
    def is_closing(self) -> bool:
        """Whether it takes no more calls."""
        return self._closing or self._broken is not None

    @property
    def broken(self) -> BaseException | None:
        """Why no call can be served any more, if that is so."""
        return self._broken

    @property
    def broken_by(self) -> str:
        """Why it is of no use any more; empty if it is."""
        return self._broken_by

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    def check_open(self) -> None:
        """Raises what `submit` raises if no more calls are taken."""
        if self._broken is not None:
            error = BrokenProcessPool(self._broken_by or str(self._broken))
            error.__cause__ = self._broken.__cause__
            raise error
        if self._closing:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _later(self, action: Callable[[], object]) -> None:
        """Put off what a finalizer asks for: its thread may be anywhere, with any lock in its hands."""
        self._put_off.append(action)
        if self._feeder.is_collecting:
            self.desk.baton.ring()
        elif not self._closed.is_set():
            try:
                _thread.start_new_thread(self._do_what_was_put_off, ())  # a threading.Thread would take locks
            except RuntimeError:
                pass  # the interpreter ends, and with it everything

    def _do_what_was_put_off(self) -> None:
        while True:
            try:
                action = self._put_off.popleft()
            except IndexError:
                return
            action()

    def _feed(self) -> None:
        try:
            self._feeder.feed()
        finally:
            if self._closing:
                self._end_without_collector()

    def call_later(self, callback: Callable[[], None]) -> bool:
        """Keep users' callbacks out of the hands of the thread that collects."""
        if not self._collector.is_current_thread():
            return False
        self._collector.call(callback)
        return True

    # ---- what comes back: the collector's thread -------------------------------------------------

    def _on_round(self) -> float | None:
        """How long the collector may sleep: for ever (None), so many seconds, or it ends."""
        self._do_what_was_put_off()
        _core.answer_trim()  # who asked may be a worker that waits for memory
        with self.desk.lock:
            self._ledger.look_again()
        self._feed()
        with self.desk.lock:
            ending = self._broken is not None or self.is_emptying
            stopping = [worker for worker in self._workers.values() if ending and not worker.seat.is_leaving]
            for worker in stopping:
                worker.seat.is_leaving = worker.try_stop()
            now = time.monotonic()
            if self._broken is not None:
                self._lives.end_all(now, kill=self._is_killing)
            self._lives.end_doomed(now)
            self.desk.sender.set_alarm()
            go_on = not ending or bool(self._workers) or self._ledger.is_starting or not self._closing
        if go_on:
            waits = self._lives.ask(now), self.desk.sender.seconds_to_alarm
            return min((seconds for seconds in waits if seconds is not None), default=None)
        self._end()
        return END

    def finish(
        self, call: Call, *, packed: Packed | None = None, error: BaseException | None = None, cost: Cost | None = None
    ) -> None:
        """The call is over: its future is done (or was cancelled), its arguments go.

        If this was interrupted it may be repeated.
        """
        with self.desk.lock:
            is_again = call.state == CallState.ENDED
            if is_again and (call.job is not None or call.future.done()):
                self.desk.release_dependents(call.future)
                return
            job, was_sent = call.job, call.state == CallState.SENT or call.has_begun
            if not is_again:
                self._ledger.ended(call)
            self._handing_over += job is not None
        try:
            call.release()
            if call.verdict == Verdict.UNWANTED:
                call.future.set_cancelled()
            elif packed is not None:
                call.future.set_result(Unread(packed))
            elif error is not None and call.future.begin():
                call.future.set_exception(error)
            self._release_dependents(call.future)
        finally:  # also after Ctrl-C: a map is handed over once
            if job is not None:
                self._hand_over(call, job, packed or error or CancelledError(), cost, was_sent=was_sent)

    def _hand_over(
        self, call: Call, job: SpanMap, answer: Packed | BaseException, cost: Cost | None, *, was_sent: bool
    ) -> None:
        """A span is over; its map goes on."""
        try:
            job.done(call.begin, call.begin + call.count, cost, answer, was_sent=was_sent)
        except BaseException as error:  # Ctrl-C: what was noted of it by then nobody knows
            job.fail(call.begin, error)
            raise
        finally:
            self._handed_over()

    def _handed_over(self) -> None:
        with self.desk.lock:
            self._handing_over -= 1
            closing = self._closing
        if closing and not self._collector.is_current_thread():
            self._wake()
            self._end_without_collector()

    def _release_dependents(self, future: CallFuture) -> None:
        with self.desk.lock:
            self.desk.release_dependents(future)

    def break_off(
        self, reason: BaseException, says: str = "", victim: Call | None = None, *, level: int = log.ERROR
    ) -> None:
        """No call can be served any more: all fail, the workers end. `says` is for who submits more of them."""
        with self.desk.lock:
            if self._broken is not None:
                return
            self._broken, self._broken_by = reason, says or str(reason)
            self.desk.is_open = False
            pending = self._ledger.pending()
            for worker in self._workers.values():
                worker.seat.is_leaving = True
        log.tell(self.call_later, level, "the pool is of no use any more: %s", self._broken_by, is_known=True)
        for call in pending if victim is None else [victim, *pending]:
            self.finish(call, error=alike(reason))
        self._wake()

    def _on_failure(self, error: BaseException) -> None:
        """The collector cannot go on: nobody may wait for what will not come."""
        reason = BrokenProcessPool(f"the pool's collector failed: {type(error).__name__}: {error}")
        reason.__cause__ = error
        for process in self.processes().values():
            process.kill()
        self.break_off(reason)
        with self.desk.lock:
            self._closing = True
            self.desk.close()
            self._closed.set()

    def _wake(self) -> None:
        with self.desk.lock:
            if not self._closed.is_set():
                self.desk.baton.ring()

    def _end_without_collector(self) -> None:
        """It was never started, and is not needed any more: whoever has done the last thing ends the pool."""
        with self.desk.lock:
            is_over = self.is_emptying and not (self._workers or self._feeder.is_collecting or self._ledger.is_starting)
            is_first, self._is_ended = is_over and not self._is_ended, self._is_ended or is_over
        if is_first:
            self._end()
            self._collector.close()

    def _end(self) -> None:
        """The last step of the pool: no worker is left."""
        self._crew.close()
        with self.desk.lock:
            self._closed.set()
            self.desk.close()
        self._do_what_was_put_off()  # which fails now, and says so


_STEPS = {function.__code__ for function in (Pool._feed, Pool.start_map, SpanMap.feed)}  # the end waits for these
