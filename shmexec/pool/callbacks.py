"""The thread in which users' callbacks run: they may block, submit, raise, or ask for other results, and hold nobody
up but each other.
"""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

_LOGGER = logging.getLogger("concurrent.futures")


class CallbackThread:
    """A thread that is started with the first callback, and ends with `close`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, callback: Callable[[], None]) -> None:
        """Run this after those that were put before. Called by one thread."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads: better late and here than never
                _run_one(callback)
                return
            self._thread = thread
        self._work.put(callback)

    def close(self, *, wait: bool = True) -> None:
        """No more will come; returns when all have run, unless one of them is asking or nobody wants to wait."""
        if self._thread is not None:
            self._work.put(None)
            if wait and self._thread is not threading.current_thread():
                self._thread.join()

    def _run(self) -> None:
        while (callback := self._work.get()) is not None:
            _run_one(callback)
            del callback


def _run_one(callback: Callable[[], None]) -> None:
    try:
        callback()  # concurrent.futures logs what a callback raises, but for SystemExit and its like
    except BaseException:
        _LOGGER.exception("exception calling callback")
