"""What a worker says as it crashes: the traceback that faulthandler writes, on SIGSEGV and its like, into a pipe.

Guarantees: it never blocks the worker, which writes no more than the pipe holds (64 KiB); nobody waits for the end of
    file, since what the worker has forked may have the pipe open; descriptors are closed, also if nobody asks.
Assumptions: `take` is called once, when the worker is dead.

Rejected: a file (who would remove it?); the shared heap, where a handler could write without bound.
"""

import os
import signal
import weakref

_FATAL = {-signum for signum in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT)}
_BOUND = 1 << 16  # of what is read
_KEPT = 8000  # characters of what is told
_OURS = f'{os.sep}{os.path.join("shmexec", "worker", "loop.py")}"'  # the first of the frames that every call has


class LastWords:
    """A pipe; `end` is for the worker."""

    def __init__(self) -> None:
        self._begin, self.end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._close_begin = weakref.finalize(self, os.close, self._begin)
        self._close_end = weakref.finalize(self, os.close, self.end)
        self._close_begin.atexit = self._close_end.atexit = False

    def hand_out(self) -> None:
        """The worker has its end."""
        self._close_end()

    def close(self) -> None:
        self._close_begin()
        self._close_end()

    def take(self, code: int | None, unknown: int) -> str:
        """What the worker, which ended with this code, has said of it; nothing, if it did not crash."""
        try:
            said = os.read(self._begin, _BOUND)
        except BlockingIOError:
            said = b""
        self.close()
        return arranged(said.decode(errors="replace")) if code in _FATAL or code == unknown else ""


def arranged(said: str) -> str:
    """The same with the thread that crashed before the others, without our own frames below it, and not too long."""
    what, *parts = said.strip().split("\n\n")
    parts.sort(key=lambda part: not part.startswith("Current thread"))  # which keeps the order of the others
    text = "\n\n".join([what, *map(_without_ours, parts)])
    return text if len(text) <= _KEPT else f"{text[:_KEPT].rpartition(chr(10))[0]}\n..."


def _without_ours(part: str) -> str:
    title, *frames = part.split("\n")
    ours = next((i for i, frame in enumerate(frames) if _OURS in frame), 0)
    return "\n".join([title, *frames[: ours or None]])
