"""The worker's loop: take a task, run it, answer.

Purpose: everything between a worker's start and its end.
Guarantees: each task that was begun is answered, unless the process dies; whatever a call raises, `SystemExit` and
    what cannot be pickled included, becomes the answer of that call alone.
Assumptions: one thread, the main one, runs the loop. SIGTERM raises SystemExit in it, once, and the loop looks again
    after each call whether that was swallowed.
"""

import atexit
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from shmexec import _core
from shmexec._core import Packed
from shmexec.errors import SharedMemoryFull
from shmexec.pickling import failures, functions, main_module, notes
from shmexec.pickling.functions import Received
from shmexec.pickling.pickler import dump_result, load, load_all
from shmexec.pickling.spans import OutcomeWriter, load_items
from shmexec.pickling.tickets import register_multiprocessing
from shmexec.transport.launch import DeferredJob
from shmexec.transport.messages import Cost, Kind, WorkerHead, WorkerJob
from shmexec.worker import ending, outside, threads

if TYPE_CHECKING:
    from shmexec.pickling.crossings import Crossing

Answer = tuple[Packed, "tuple[Crossing, ...]"]

_NO_CALL = 0

_PATIENCE = 10.0  # seconds that a result waits for memory
_LOOK_AGAIN = 10_000_000  # nanoseconds


def run(job: DeferredJob, fds: list[int]) -> None:
    """The life of a worker: what `shmexec.worker.bootstrap` calls."""
    main_module.note_inherited()
    *heap, event, last_words = fds
    ending.run_on_without_owner(last_words)
    outside.appear(last_words)
    head: WorkerHead = job.head
    threads.limit(dict(head.variables))
    kind, number = head.heap
    _core.attach_heap(kind, heap[0] if heap else number, head.slot)
    channel = _core.Channel.open(*head.channel)
    _core.open_allocator(_core.threshold())
    if head.shared_results:
        _core.install_task_handler()
    if head.is_registered:
        register_multiprocessing()
    loop = Loop(channel, _core.Hub.open(*head.hub, event), head.max_tasks)
    ending.ring_on_term(channel.bell_address)
    load_job = job.rest.load
    del job
    if loop.initialize(load_job):
        del load_job
        loop.run()


class Loop:
    """One worker's side of its channel."""

    def __init__(self, channel: _core.Channel, hub: _core.Hub, max_tasks: int | None) -> None:
        self._channel = channel
        self._hub = hub
        self._functions = Received()
        self._left = max_tasks
        self._copies = notes.FirstCopies()

    def initialize(self, load_job: Callable[[], object]) -> bool:
        """Run the pool's initializer; False if it failed, which the parent is told."""
        try:
            job = load_job()
            assert isinstance(job, WorkerJob)
            if job.initializer is not None:
                job.initializer(*job.initargs)
        except BaseException as error:
            ending.raise_if_ending(error)
            import logging  # with it a worker comes up 2 ms later

            logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
            self._answer(Kind.UNREADY, _NO_CALL, b"", failures.pack_exception(error))
            return False
        if job.finalizer is not None:
            atexit.register(job.finalizer)  # not `finally`: from there on SIGTERM does not interrupt
        self._answer(Kind.READY, _NO_CALL, b"", _nothing())
        return True

    def run(self) -> None:
        """Run tasks until the parent says stop, or the last that this worker may run is done."""
        is_loaded = False
        while True:
            ending.raise_if_ending()
            if not is_loaded and not self._channel.has_task:  # or after the first call, which so is answered sooner
                is_loaded = _try_to_load_all()
            if self._left is None:  # until something comes that takes more than calling a function
                _core.serve_calls(
                    self._channel,
                    self._hub,
                    self._functions,
                    ending.raise_if_ending,
                    self._pack_served,
                    self._answer_served,
                    self._fail,
                )
            message = self._channel.next_task()
            if message is None:
                _core.answer_trim()  # who asked while this worker was busy did not ring; who asks now does
                self._channel.wait_task()
            elif message.withdrawn:
                self._functions.withdrawn(message.function)
                self._hub.ring_collector()  # no answer will tell the parent that the ring has room again
            elif message.kind == Kind.STOP:
                return
            else:
                self._run_task(message)
                del message  # or the wait would keep its blocks
                is_loaded = is_loaded or _try_to_load_all()
                if self._left is not None:
                    self._left -= 1
                    if self._left <= 0:
                        self._answer(Kind.LEAVING, _NO_CALL, b"", _nothing())
                        return

    def _run_task(self, message: _core.Message) -> None:
        begun = time.perf_counter()
        _core.running.begin(self._channel, message.call, message.function)
        try:
            answer = self._call(message)
        except BaseException as error:
            self._fail(message.call, error, time.perf_counter() - begun)
        else:
            self._answer_served(message.call, answer, time.perf_counter() - begun)

    def _fail(self, call: int, error: BaseException, seconds: float) -> None:
        """A call has raised."""
        ending.raise_if_ending(error)
        kind = Kind.FAILURE
        if isinstance(error, failures.Unreadable) and error.__cause__ is not None:
            kind, error = Kind.UNREADABLE, error.__cause__
        outside.explain_quit(error)
        packed = failures.pack_exception(error)
        _forget_frames(error)
        cost = Cost(packed.bytes_by_name, packed.bytes_copied, seconds, report=_core.running.end())
        self._answer(kind, call, cost.pack(), packed)

    def _pack_served(self, box: list[Any], function: Callable[..., Any]) -> Answer:
        return self._pack_value(box, failures.name_of(function), is_chunk=False)

    def _answer_served(self, call: int, answer: Answer, seconds: float) -> None:
        packed, copies = answer
        cost = Cost(packed.bytes_by_name, packed.bytes_copied, seconds, copies, _core.running.end())
        self._answer(Kind.RESULT, call, cost.pack(), packed)

    def _call(self, message: _core.Message) -> Answer:
        """Everything of a task that its author's code takes part in. The arguments are gone when this returns."""
        _core.task_allocation(True)
        try:
            return self._run(message)
        finally:
            _core.task_allocation(False)

    def _run(self, message: _core.Message) -> Answer:
        self._functions.note(message.function, message.first)
        try:
            function = self._functions.resolve(message.function, message.first)
            loaded: Any = load(message.second) if message.kind != Kind.SPAN else None
        except BaseException as error:
            raise failures.Unreadable from error
        name = failures.name_of(function)
        if message.first:  # it was shipped along
            self._channel.name_function(message.function, name)
        if message.kind == Kind.SPAN:
            return self._run_span(message, function, name)
        value: Any
        if message.kind == Kind.CHUNK:
            loaded.reverse()
            value = []
            while loaded:  # an item's arguments go before the next item is run
                _core.running.item = len(value)
                value.append(function(*loaded.pop()))
        else:
            args, kwargs = loaded
            del loaded
            value = function(*args, **kwargs)
            del args, kwargs
        del function
        box = [value]
        del value
        return self._pack_value(box, name, is_chunk=message.kind == Kind.CHUNK)

    def _run_span(self, message: _core.Message, function: Callable[..., Any], name: str) -> Answer:
        """As many items as the budget is enough for. Each finds the function as if it were alone."""
        begun = time.monotonic()
        budget, items = load_items(message.second)
        until = begun + budget
        is_shared = self._functions.is_cached(message.function) or functions.is_stateless(function)
        outcome, copies, running = OutcomeWriter(), list["Crossing"](), _core.running
        failure: Packed | None = None

        def keep(box: list[Any]) -> None:
            packed, copied = self._pack_value(box, name, is_chunk=False)
            outcome.add(packed)
            copies.extend(copied)

        try:
            at = 0
            if is_shared and isinstance(items, tuple):  # without Python code of ours, while atoms come back
                box: list[Any] = []
                at = _core.run_plain(function, items, int(until * 1e9), outcome.plain, box)
                is_over = not box
                if box:
                    keep(box)
                    is_over = time.monotonic() > until
                items = () if is_over else items[at:]
            for running.item, item in enumerate(items, at):
                if function is None:
                    function = self._functions.resolve(message.function, message.first)
                value = function(*item)
                del item
                if not is_shared:
                    function = None  # type: ignore[assignment]
                if not outcome.add_plain(value):
                    box = [value]
                    del value
                    keep(box)
                if time.monotonic() > until:
                    break
        except BaseException as error:
            ending.raise_if_ending(error)
            failure = failures.pack_exception(error)
            _forget_frames(error)
        return outcome.packed(failure), tuple(copies)

    def _pack_value(self, box: list[Any], name: str, *, is_chunk: bool) -> Answer:
        """The value in this box, which has the only reference to it that the worker itself has."""
        what = f"the result of {name} (of type {type(box[0]).__name__})"
        try:
            answer = self._dump(box[0], name, is_chunk)
            box.clear()
            # what this process goes on to use, a cache, say, must not change when the receiver writes to its result
            kept = _core.kept_plain(answer[0].holds)
            if kept:
                answer = self._dump(load(answer[0].data), name, is_chunk, dict.fromkeys(kept, notes.KEPT))
        except MemoryError:
            raise
        except Exception as error:
            raise failures.explain(error, what) from error
        return answer

    def _dump(self, value: Any, name: str, is_chunk: bool, copying: Mapping[int, str] | None = None) -> Answer:
        """The result. While there is no memory for it, others may be about to free some."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                packed, noted = dump_result(value, copying=copying or {}, noted=self._copies.notes)
            except SharedMemoryFull as error:
                if time.monotonic() > until or error.bytes_needed > _core.heap_figures()[4]:
                    raise
            else:
                roots = [("result", item) for item in value] if is_chunk else [("result", value)]
                return packed, () if noted is None else self._copies.add(noted.crossings(name, roots))
            self._hub.ring()  # the parent gives free pages of its own back, as the attempt has asked of all
            self._channel.wait_task(_LOOK_AGAIN)
            ending.raise_if_ending()

    def _answer(self, kind: Kind, call: int, first: bytes, packed: Packed) -> None:
        while not self._channel.answer(kind, call, packed.holds, first, bytes(packed.data)):
            self._channel.wait_task(1_000_000)  # the parent has not read two answers yet: there is nothing to hurry for
            ending.raise_if_ending()
        self._hub.ring()


def _try_to_load_all() -> bool:
    """A call may have made it impossible; who dumps then says so."""
    try:
        load_all()
    except Exception as error:
        ending.raise_if_ending(error)
    return True


def _nothing() -> Packed:
    return Packed(b"", _core.Holds())


def _forget_frames(error: BaseException | None) -> None:
    """Drop the frames that an exception's traceback keeps, and with them the call's arrays."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
