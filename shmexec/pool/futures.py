"""The future of a call: its value, or what it raised, arrives pickled and is unpickled by whoever asks for it first.

So a result that only goes on to another call is never unpickled in the parent, the collector never runs the code of
a class that a result happens to have, and one that cannot be unpickled fails its own future.
"""

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, Protocol

from shmexec._core import Call, LazyFuture, Packed, Unread
from shmexec.pickling.failures import load_exception
from shmexec.pickling.pickler import load, load_again
from shmexec.progress import Reported


def load_value(data: bytes | memoryview, load: Callable[..., Any] = load) -> Any:
    """The value of a call, or an error that says what happened."""
    try:
        return load(data)
    except Exception as error:
        error.add_note("The call returned, but its result cannot be unpickled in this process.")
        raise


def unreadable(what: str, error: BaseException) -> BrokenProcessPool:
    """What breaks a pool that breaks; else the error is that of one call."""
    made = BrokenProcessPool(f"{what} could not be unpickled: {type(error).__name__}: {error}")
    made.__cause__ = error
    return made


class Home(Protocol):
    """What a future asks of the pool that it is of."""

    breaks: bool

    def break_off(self, reason: BaseException) -> None:
        """No call can be served any more. No lock of a future is held."""

    def call_later(self, callback: Callable[[], None]) -> bool:
        """Run this in the thread for user callbacks later, if the present thread must not; False if it may."""

    def reports(self, is_wanted: Callable[[Call], bool]) -> list[Reported]:
        """What the running ones of these calls have reported."""

    def cancelled(self, future: "CallFuture") -> None:
        """Somebody has cancelled it."""


class CallFuture(LazyFuture, Future[Any]):
    """A future of `SharedExecutor`. Futures of the same pool can be arguments of its calls."""

    _last_report: float | str | None = None
    # Ctrl-C while somebody reads it is not what the call has raised
    _load_exception = staticmethod(partial(load_exception, caught=(Exception, SystemExit)))

    @property
    def progress(self) -> float | str | None:
        """What the call has last said of itself by `shmexec.report_progress`: a fraction or a text, or None."""
        report = self.report
        return None if report is None else report[-1]

    @property
    def report(self) -> Reported | None:
        """That, and while it runs also the items before it, the fraction and the text."""
        running: list[Reported] = []
        if self.pool is not None and not self.done():
            running = self.pool.reports(lambda call: call.future is self)
        if running:
            return running[0]
        last = self._last_report  # looked at last: it is there before the call is over
        return None if last is None else (0, None, None, last)

    def note_report(self, report: float | str | None) -> None:
        """The last one: the call is about to be over."""
        self._last_report = report

    def __init__(self, pool: Home | None = None) -> None:
        self.pool = pool

    def share_packed(self) -> Packed | None:
        """The value as it came, if nobody has read it yet: to be sent on."""
        result = self._result
        return result.packed if type(result) is Unread and result.share() else None

    def _read(self) -> Any:
        failure: BaseException | None = None
        with self._condition:  # one reads, the others wait; re-entrant
            if type(self._result) is Unread:
                try:
                    alone = self._result.begin_read()
                    self._result = load_value(self._result.packed.data, load if alone else load_again)
                except (Exception, SystemExit) as error:
                    if self.pool is not None and self.pool.breaks:
                        failure = unreadable("a result", error)
                    elif isinstance(error, SystemExit):
                        raise
                    self._result, self._exception = None, failure or error
        if failure is not None:
            self.pool.break_off(failure)
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                self = None  # type: ignore[assignment]  # no cycle of exception, frame and future
        return self._result

    def cancel(self) -> bool:
        was_cancelled = self.cancelled()
        try:
            return super().cancel()
        finally:  # a callback may raise what ends programs
            if self.cancelled() and not was_cancelled and self.pool is not None:
                self.pool.cancelled(self)

    def _invoke_callbacks(self) -> None:
        if self._done_callbacks and self.pool is not None and self.pool.call_later(super()._invoke_callbacks):
            return
        super()._invoke_callbacks()
