"""The log, `logging.getLogger("shmexec")`: what befalls the workers of this process's pools.

INFO: a worker was started, or has ended because it was told to; WARNING: one has died, or something is done without;
ERROR: a pool is of no use any more.

Some facts: handlers are the user's code, which may block or use the pool. A program that has not loaded `logging`
cannot want to see what is below WARNING. Without any handler `logging` prints on standard error what is not.
What this means for us: nothing is told under a lock, by the thread on duty only when it is off duty, and by one that
starts a worker only when it has: a handler may wait for that worker. Of what an exception tells already nothing is
printed by a program that has not set up its log.

A file has a lock of its own, which is held while it is written to. A process that is forked meanwhile, by another
thread, never gets it: it hangs when it writes there, or when it flushes it at its end. So forks wait for a line that
is being logged here; but not for ever, since a handler may be waiting for what the fork is to bring.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

INFO, WARNING, ERROR = 20, 30, 40  # as in logging, which need not be loaded


_LONGEST = 2.0  # seconds that a fork waits

_told: set[str] = set()
_logging = threading.RLock()  # held by who logs, and by who forks: a handler may fork
_forking = threading.local()


class _PutOff(threading.local):
    lines: list[Callable[[], None]] | None = None


_put_off = _PutOff()

Later = Callable[[Callable[[], None]], bool]  # takes what must not be called now, and says whether it did


def tell(later: Later, level: int, says: str, *args: object, is_known: bool = False) -> None:
    """Log this, formatted with the arguments; `is_known`: an exception tells it, too."""
    logging: Any = sys.modules.get("logging")
    if logging is None:
        if level < WARNING or is_known:
            return
        import logging
    logger = logging.getLogger("shmexec")
    if not logger.isEnabledFor(level) or (is_known and not logger.hasHandlers()):
        return

    try:  # a record may be kept for long, and an exception has frames, which have arrays
        told = [str(value) if isinstance(value, BaseException) else value for value in args]
    except Exception:
        told = [type(value).__name__ for value in args]

    def emit() -> None:
        try:
            with _logging:
                logger.log(level, says, *told)
        except Exception:
            pass  # a filter's, or a handler's that wants it so: no call is to be lost for it

    if _put_off.lines is not None:
        _put_off.lines.append(emit)
    elif not later(emit):
        emit()


def is_telling() -> bool:
    """Whether this thread is in a handler: what it waits for may have to log, too."""
    is_owned: bool = _logging._is_owned()  # type: ignore[attr-defined]  # what threading.Condition asks of a lock
    return is_owned


@contextmanager
def put_off(later: Later) -> Iterator[None]:
    """What this thread tells in here is logged at the end: till then others may be in need of what it does."""
    if _put_off.lines is not None:  # in the middle of another one's
        yield
        return
    lines = _put_off.lines = []
    try:
        yield
    finally:
        _put_off.lines = None
        for emit in lines:
            if not later(emit):
                emit()


def tell_once(later: Later, level: int, says: str) -> None:
    """Log this, unless this process has."""
    if says not in _told:
        _told.add(says)
        tell(later, level, says)


def at_once(emit: Callable[[], None]) -> bool:
    """The `later` of threads that never are on duty."""
    return False


def _before_fork() -> None:
    _forking.has_waited = _logging.acquire(timeout=_LONGEST)


def _after_fork() -> None:
    if _forking.has_waited:
        _logging.release()


def _after_fork_in_child() -> None:
    global _logging
    _logging = threading.RLock()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
