"""The log, `logging.getLogger("shmexec")`: what befalls the workers of this process's pools.

INFO: a worker was started, or has ended because it was told to; WARNING: one has died, or something is done without;
ERROR: a pool is of no use any more.

Some facts: handlers are the user's code, which may block or use the pool. A program that has not loaded `logging`
cannot want to see what is below WARNING. Without any handler `logging` prints on standard error what is not.
What this means for us: nothing is told under a lock, and by the thread on duty only when it is off duty. Of what an
exception tells already nothing is printed by a program that has not set up its log.
"""

import sys
from collections.abc import Callable
from typing import Any

INFO, WARNING, ERROR = 20, 30, 40  # as in logging, which need not be loaded


_told: set[str] = set()

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
            logger.log(level, says, *told)
        except Exception:
            pass  # a filter's, or a handler's that wants it so: no call is to be lost for it

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
