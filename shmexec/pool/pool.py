"""The pool: puts the ledger's decisions into effect.

Purpose: calls in, futures out; workers are started when they are needed and replaced when they die.
Guarantees: a worker's death fails the call that it was running and no other; no call is lost and none runs twice; a
    thread that calls `submit` never waits for a worker; user code (pickling, callbacks) never runs under the pool's
    lock.
Assumptions: the ledger, the seats and the rings' producer side are touched under `_lock` only; the rings' consumer
    side and the dead by the collector only. No lock is needed for a call's own fields: one thread at a time has it
    in hand, as the ledger says.
"""

import copy
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from shmexec import _core
from shmexec.errors import SharedMemoryFull, WorkerDied
from shmexec.pickling import failures
from shmexec.pickling.pickler import Packed
from shmexec.pool.callbacks import CallbackThread
from shmexec.pool.calls import Call, MapScope, Tally
from shmexec.pool.collector import END, Collector
from shmexec.pool.crew import Crew, Worker, WorkerSettings
from shmexec.pool.futures import CallFuture
from shmexec.pool.launcher import WorkerProcess
from shmexec.pool.ledger import CallState, Ledger, Pack, Send, Start, Step, Withdraw
from shmexec.pool.packing import Packer
from shmexec.pool.spans import SpanMap
from shmexec.transport.messages import DEPTH, Cost, Kind

_START_FAILURES = 3  # workers that die one after the other before any has come up: the next would, too

_GRACE = 10.0  # seconds that the workers of a broken pool have for their clean-up
_ASK_AGAIN = 0.1

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
        self._settings = settings
        self._breaks = breaks
        self._lock = threading.Lock()
        self._ledger = Ledger(max_workers, DEPTH, eager=settings.method == "fork")
        self._packer = Packer(self, self.tally.copies)
        self._numbers = itertools.count(1)
        self._workers: dict[Any, Worker] = {}  # by seat
        self._calls: dict[int, Call] = {}  # sent, by number
        self._dependents: dict[CallFuture, list[Call]] = {}
        self._start_failures = 0
        self._closing = False
        self._is_cancelling = False  # spans of a map that were not sent yet, too
        self._handing_over = 0  # spans that have ended and that others may follow
        self._closed = threading.Event()
        self._broken: BaseException | None = None
        self._broken_by: str = ""
        self._patience = _GRACE
        self._owner = os.getpid()
        number = next(_pool_numbers)
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._hub = _core.Hub.create(self._event)
        self._crew = Crew(settings, self._hub)
        self._callbacks = CallbackThread(f"shmexec-callbacks-{number}")
        self._collector = Collector(
            self._hub,
            self._on_answer,
            self._on_death,
            self._on_round,
            self._on_failure,
            f"shmexec-collector-{number}",
        )
        self._collecting = False
        self._crew.prepare()

    # ---- for the executor ------------------------------------------------------------------------

    def submit(
        self,
        kind: Kind,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        scope: MapScope | None = None,
    ) -> CallFuture:
        """A new call. Raises RuntimeError when the pool is closed, BrokenProcessPool when it is broken."""
        future = CallFuture(self)
        name = failures.name_of(function)
        return self._submit(Call(next(self._numbers), kind, future, function, args, kwargs, name, scope))

    def start_map(self, function: Callable[..., Any], scope: MapScope, items: list[tuple[Any, ...]]) -> SpanMap:
        """Call a function on all items, as many at a time as is best. Raises what `submit` does."""
        with self._lock:
            self._check_open()
        job = SpanMap(self, function, scope, items)
        job.begin()
        return job

    def submit_span(self, job: SpanMap, begin: int, items: tuple[tuple[Any, ...], ...], budget: float) -> CallFuture:
        """Some items of a map that began while the pool was open."""
        future, name = CallFuture(self), failures.name_of(job.function)
        return self._submit(
            Call(
                next(self._numbers),
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
        awaited = self._packer.awaited(call.kind, call.args, call.kwargs)
        call.has_futures = bool(awaited)
        with self._lock:
            if call.job is None or self._broken is not None:
                self._check_open()
            elif self._is_cancelling:
                raise CancelledError
            for other in awaited:
                if not other.done():
                    self._dependents.setdefault(other, []).append(call)
                    call.missing += 1
            self._ledger.submit(call, blocked=call.missing > 0)
        self._feed()
        return call.future

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        """Take no more calls; the workers end when the last is done. May be repeated."""
        cancelled: list[Call] = []
        with self._lock:
            first, self._closing = not self._closing, True
            if cancel_futures:
                self._is_cancelling = True
                cancelled = [
                    call for call in self._ledger.pending() if call.state in (CallState.WAITING, CallState.BLOCKED)
                ]
            collecting = self._collecting
            idle_end = first and not collecting and self._is_idle and not self._workers
        for call in cancelled:
            call.future.cancel()
        if cancelled:
            self._feed()
        if idle_end:
            self._collector.close()
            self._end()
        elif collecting and not self._closed.is_set():
            self._wake()
        if wait and not self._collector.is_current_thread():
            if collecting:
                self._collector.join()
            self._callbacks.close()

    def processes(self) -> dict[int, WorkerProcess]:
        """The workers that are there, by pid."""
        with self._lock:
            return {worker.process.pid: worker.process for worker in self._workers.values()}

    def counts(self) -> tuple[int, int]:
        """Calls that wait, and calls that workers have."""
        with self._lock:
            return self._ledger.waiting_count, self._ledger.sent_count

    def cancelled(self, future: CallFuture) -> None:
        """Somebody has cancelled this future: what waits for it has to learn that."""
        self._release_dependents(future)
        self._feed()

    def forget_in_child(self) -> None:
        """In a process that was forked: this pool is the parent's."""
        self._lock = threading.Lock()  # whoever held it is not here
        self._closing = True
        self._closed.set()
        self._broken = BrokenProcessPool("this pool belongs to the process that this one was forked from")

    @property
    def _is_idle(self) -> bool:
        return self._ledger.is_idle and not self._handing_over

    @property
    def is_owned(self) -> bool:
        return self._owner == os.getpid()

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    def _check_open(self) -> None:
        if self._broken is not None:
            error = BrokenProcessPool(self._broken_by or str(self._broken))
            error.__cause__ = self._broken.__cause__
            raise error
        if self._closing:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def call_later(self, callback: Callable[[], None]) -> bool:
        """Keep users' callbacks out of the collector's thread."""
        if not self._collector.is_current_thread():
            return False
        self._callbacks.put(callback)
        return True

    # ---- steps -----------------------------------------------------------------------------------

    def _feed(self) -> None:
        """Do what is to be done, until something else has to happen first."""
        step: Step | None = None
        try:
            while (step := self._take_step()) is not None:
                if type(step) is Pack:
                    self._pack(step.call)
                elif type(step) is Start:
                    self._start()
        except BaseException as error:  # Ctrl-C in the thread that submits: the call in its hands ends here
            if type(step) is Pack:
                self._finish(step.call, error=error)
            raise

    def _take_step(self) -> Step | None:
        """The next step, which is done already if it can be done under the lock."""
        failed: tuple[Call, BaseException] | None = None
        with self._lock:
            step = self._ledger.next_step() if self._broken is None else None
            if type(step) is Send:
                failed = self._send(step)
            elif type(step) is Withdraw:
                worker = self._workers[step.seat]
                taken_back = worker.channel.withdraw(step.call.position)
                self._ledger.withdrawn(step.seat, step.call, taken_back=taken_back)
                if taken_back and step.call.ships_function:
                    worker.shipped.withdrawn(step.call.function_number)
            start_collector = step is None and bool(self._workers) and not self._collecting
            self._collecting |= start_collector
        if start_collector:  # under fork, after all workers: a thread that lives at a fork may hold a lock
            self._collector.start()
        if failed is not None:
            self._finish(failed[0], error=failed[1])
        return step

    def _pack(self, call: Call) -> None:
        """Pickle a call, in the present thread."""
        if not call.future.running() and not call.future.set_running_or_notify_cancel():  # running: tried before
            self._finish(call)
            return
        if _core.is_half_full():  # the rest is for the results of the calls that are under way
            with self._lock:
                if self._broken is None and self._ledger.try_later(call):
                    return
        error = self._packer.pack(call)
        with self._lock:
            if isinstance(error, SharedMemoryFull) and self._broken is None and self._ledger.try_later(call):
                return
            if error is None:
                self._ledger.packed(call)
                self.tally.note_arguments(call)
                error = self._broken and _alike(self._broken)
        if error is not None:
            self._finish(call, error=error)

    def _send(self, step: Send) -> tuple[Call, BaseException] | None:
        """Under the lock: put a packed call into a worker's ring."""
        call, worker = step.call, self._workers[step.seat]
        assert call.packed is not None
        assert call.function_packed is not None
        shipped = worker.shipped.part_to_ship(call.function_number, bytes(call.function_packed.data))
        if call.function_number == 0:
            call.packed.holds.add_all(call.function_packed.holds)
        try:
            position = worker.channel.send(
                call.kind, call.number, call.function_number, call.packed.holds, shipped, bytes(call.packed.data)
            )
        except (MemoryError, ValueError) as error:
            self._ledger.not_sent(call)
            return call, error
        except _core.BadMessage:  # a stray write: its death is judged like any other
            worker.process.kill()
            step.seat.is_leaving = True
            position = None
        if position is None:
            step.seat.is_full = True
            self._ledger.not_sent(call)
            return None
        worker.shipped.shipped(call.function_number)
        call.ships_function = bool(shipped)
        call.position = position
        self._calls[call.number] = call
        self._ledger.sent(step.seat, call)
        return None

    def _start(self) -> None:
        try:
            worker = self._crew.start(as_replacement=self._collecting)
        except BaseException as error:
            with self._lock:
                self._ledger.not_started()
                alone = not self._workers
            if not isinstance(error, Exception):  # Ctrl-C: not the machine's fault
                raise
            if alone:
                reason = BrokenProcessPool(f"no worker process could be started: {error}")
                reason.__cause__ = error
                self._break(reason)
            return
        with self._lock:
            self.tally.workers_started += 1
            self._workers[worker.seat] = worker
            self._ledger.started(worker.seat)
            self._collector.watch(worker)

    # ---- what comes back: the collector's thread -------------------------------------------------

    def _on_answer(self, worker: Worker, message: _core.Message) -> None:
        match message.kind:
            case Kind.RESULT | Kind.FAILURE:
                call = self._calls.pop(message.call, None)
                if call is None:
                    return
                cost = Cost.unpack(message.first)
                self.tally.note_answer(cost)
                if message.kind == Kind.RESULT:
                    packed = Packed(message.second, message.holds, cost.bytes_by_name, cost.bytes_copied)
                    self._finish(call, packed=packed, cost=cost)
                else:
                    self._finish(call, error=failures.load_exception(message.second))
            case Kind.READY:
                self._start_failures = 0
                with self._lock:
                    worker.seat.is_ready = True
            case Kind.LEAVING:
                with self._lock:
                    for call in self._ledger.leaving(worker.seat):
                        self._calls.pop(call.number, None)
            case Kind.UNREADY:
                with self._lock:
                    worker.seat.is_leaving = True
                error = failures.load_exception(message.second)
                reason = BrokenProcessPool(f"the initializer failed: {type(error).__name__}: {error}")
                reason.__cause__ = error
                self._break(reason)

    def _on_death(self, worker: Worker) -> None:
        with self._lock:
            sent = list(worker.seat.sent)
            victim = next((call for call in sent if worker.channel.was_started(call.position)), None)
            expected = worker.seat.is_leaving or (self._closing and self._is_idle)
            self._ledger.died(worker.seat, victim)
            for call in sent:
                self._calls.pop(call.number, None)
        code = self._crew.bury(worker)  # before anybody learns of it: what the worker held is there again
        with self._lock:
            del self._workers[worker.seat]
        if victim is not None or not expected:
            self.tally.workers_died += 1
        if victim is not None:
            self._finish(victim, error=_death(worker, code, victim))
        if expected and victim is None:
            return
        if self._breaks:
            self._break(_death(worker, code, victim))
        elif not worker.seat.is_ready:
            self._start_failures += 1
            if self._start_failures >= _START_FAILURES:
                self._break(
                    BrokenProcessPool(
                        f"{_START_FAILURES} worker processes in a row died before they had come up, "
                        f"the last with exit code {code}"
                    )
                )

    def _on_round(self) -> float | None:
        """How long the collector may sleep: for ever (None), so many seconds, or it ends."""
        _core.answer_trim()  # who asked may be a worker that waits for memory
        with self._lock:
            self._ledger.look_again()
        self._feed()
        with self._lock:
            ending = self._broken is not None or (self._closing and self._is_idle)
            stopping = [worker for worker in self._workers.values() if ending and not worker.seat.is_leaving]
            for worker in stopping:
                worker.seat.is_leaving = True
                worker.stop()
            if self._broken is not None and self._workers:
                return self._end_workers()
            go_on = not ending or bool(self._workers) or not self._closing
        if go_on:
            return None
        self._end()
        return END

    def _end_workers(self) -> float:
        """Of a broken pool. Not by one SIGTERM: a call that is about to block in C may sleep through it."""
        self._patience -= _ASK_AGAIN
        for worker in self._workers.values():
            if self._patience > 0:
                worker.process.terminate()
            else:
                worker.process.kill()
        return _ASK_AGAIN

    def _finish(
        self, call: Call, *, packed: Packed | None = None, error: BaseException | None = None, cost: Cost | None = None
    ) -> None:
        """The call is over: its future is done (or was cancelled), its arguments go."""
        with self._lock:
            if call.state is CallState.ENDED:
                return
            job, was_sent = call.job, call.state is CallState.SENT
            self._ledger.ended(call)
            self._handing_over += job is not None
        call.release()
        if packed is not None:
            call.future.set_packed(packed)
        elif error is not None and (call.future.running() or call.future.set_running_or_notify_cancel()):
            call.future.set_exception(error)
        self._release_dependents(call.future)
        if job is not None:
            self._hand_over(call, job, packed or error or CancelledError(), cost, was_sent=was_sent)

    def _hand_over(
        self, call: Call, job: SpanMap, answer: Packed | BaseException, cost: Cost | None, *, was_sent: bool
    ) -> None:
        """A span is over; its map goes on."""
        try:
            job.done(call.begin, call.begin + call.count, cost, answer, was_sent=was_sent)
        finally:
            with self._lock:
                self._handing_over -= 1
                closing = self._closing
            if closing and not self._collector.is_current_thread():
                self._wake()

    def _release_dependents(self, future: CallFuture) -> None:
        with self._lock:
            for call in self._dependents.pop(future, ()):
                call.missing -= 1
                if call.missing == 0:
                    self._ledger.unblock(call)

    def _break(self, reason: BaseException) -> None:
        """No call can be served any more: all fail, the workers end."""
        with self._lock:
            if self._broken is not None:
                return
            self._broken, self._broken_by = reason, str(reason)
            pending = self._ledger.pending()
            for worker in self._workers.values():
                worker.seat.is_leaving = True
        for call in pending:
            self._calls.pop(call.number, None)
            self._finish(call, error=_alike(reason))
        self._wake()

    def _on_failure(self, error: BaseException) -> None:
        """The collector cannot go on: nobody may wait for what will not come."""
        reason = BrokenProcessPool(f"the pool's collector failed: {type(error).__name__}: {error}")
        reason.__cause__ = error
        for process in self.processes().values():
            process.kill()
        self._break(reason)
        with self._lock:
            self._closing = True
            self._closed.set()

    def _wake(self) -> None:
        with self._lock:
            if not self._closed.is_set():
                self._collector.wake()

    def _end(self) -> None:
        """The last step of the pool: no worker is left."""
        self._crew.close()
        self._callbacks.close(wait=False)  # nobody may ever call shutdown
        with self._lock:
            self._closed.set()
            os.close(self._event)


def _alike(error: BaseException) -> BaseException:
    """The same for one future: what is raised collects frames, and the pool must not keep those."""
    made = copy.copy(error)
    made.__cause__ = error.__cause__
    return made


def _death(worker: Worker, code: int | None, call: Call | None) -> WorkerDied:
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
    if call is None:
        return WorkerDied(f"worker process {worker.process.pid} {how}", pid=worker.process.pid, exitcode=code)
    return WorkerDied(
        f"worker process {worker.process.pid} {how} while it was running {call.name}",
        pid=worker.process.pid,
        exitcode=code,
        call=call.name,
    )
