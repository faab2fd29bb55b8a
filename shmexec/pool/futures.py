"""The future of a call: its value arrives pickled and is unpickled by whoever asks for it first.

So a result that only goes on to another call is never unpickled in the parent, the collector never runs the code of
a class that a result happens to have, and one that cannot be unpickled fails its own future.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from shmexec.pickling.pickler import Packed, load, load_again


class _Unread:
    """A value as it came: bytes, and holds on the blocks that they name."""

    __slots__ = ("is_read", "is_shared", "packed")

    def __init__(self, packed: Packed) -> None:
        self.packed = packed
        self.is_read = False  # by the future itself, which thinks that it is alone
        self.is_shared = False

    def share(self) -> bool:
        """It is sent on; False: too late, an array of this process may own what it names."""
        with _deciding:
            self.is_shared = not self.is_read
        return self.is_shared

    def read(self) -> Any:
        """The value."""
        with _deciding:
            self.is_read = not self.is_shared
        return load_value(self.packed.data, load if self.is_read else load_again)


def load_value(data: bytes | memoryview, load: Callable[..., Any] = load) -> Any:
    """The value of a call, or an error that says what happened."""
    try:
        return load(data)
    except Exception as error:
        error.add_note("The call returned, but its result cannot be unpickled in this process.")
        raise


_deciding = threading.Lock()  # for as long as it takes to say so


class Home(Protocol):
    """What a future asks of the pool that it is of."""

    def call_later(self, callback: Callable[[], None]) -> bool:
        """Run this in the thread for user callbacks, if the present thread must not; False if it may."""

    def cancelled(self, future: "CallFuture") -> None:
        """Somebody has cancelled it."""


class CallFuture(Future[Any]):
    """A future of `SharedExecutor`. Futures of the same pool can be arguments of its calls."""

    def __init__(self, pool: Home) -> None:
        super().__init__()
        self.pool = pool

    def set_packed(self, packed: Packed) -> None:
        """The call has returned; its value is read later."""
        self.set_result(_Unread(packed))

    def share_packed(self) -> Packed | None:
        """The value as it came, if nobody has read it yet: to be sent on."""
        result = self._result
        return result.packed if type(result) is _Unread and result.share() else None

    def result(self, timeout: float | None = None) -> Any:
        value = super().result(timeout)
        return self._read() if type(value) is _Unread else value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        error = super().exception(timeout)
        if error is None and type(self._result) is _Unread:
            try:
                self._read()
            except BaseException:
                return self._exception
        return error

    def _read(self) -> Any:
        with self._condition:  # one reads, the others wait; re-entrant
            if type(self._result) is _Unread:
                try:
                    self._result = self._result.read()
                except Exception as error:
                    self._result, self._exception = None, error
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                self = None  # type: ignore[assignment]  # no cycle of exception, frame and future
        return self._result

    def cancel(self) -> bool:
        was_cancelled = self.cancelled()
        cancelled = super().cancel()
        if cancelled and not was_cancelled:
            self.pool.cancelled(self)
        return cancelled

    def _invoke_callbacks(self) -> None:
        if self._done_callbacks and self.pool.call_later(super()._invoke_callbacks):  # type: ignore[attr-defined,misc]
            return
        super()._invoke_callbacks()  # type: ignore[misc]
