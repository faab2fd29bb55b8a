"""Workers that have to end now: SIGTERM, a grace for their clean-up, then SIGKILL; and what is said of deaths.

Some facts: one SIGTERM may be slept through, by code that was about to block in C; the code of a call may swallow the
SystemExit that it raises; C code never looks.
What this means for us: SIGTERM is sent again and again until the worker is gone or the grace is over.
"""

import copy

from shmexec._core import Call
from shmexec.errors import WorkerDied
from shmexec.pool.crew import Worker

_ASK_AGAIN = 0.1


class Endings:
    """Which workers have been told to end, and until when they may take their time. Used by one thread at a time."""

    def __init__(self) -> None:
        self._until: dict[Worker, float] = {}

    def __contains__(self, worker: Worker) -> bool:
        return worker in self._until

    def begin(self, worker: Worker, until: float) -> None:
        """From now on it is asked to end, and killed at ``until``, or earlier if that was said before."""
        self._until[worker] = min(until, self._until.get(worker, until))

    def forget(self, worker: Worker) -> None:
        """It is dead."""
        self._until.pop(worker, None)

    def ask(self, now: float) -> float | None:
        """Send the signals that are due; seconds until the next are, or None."""
        for worker, until in self._until.items():
            if now < until:
                worker.process.terminate()
            else:
                worker.process.kill()
        return _ASK_AGAIN if self._until else None


def alike(error: BaseException, says: str | None = None) -> BaseException:
    """The same for one future: what is raised collects frames, and the pool must not keep those."""
    made = copy.copy(error)
    made.__cause__ = error.__cause__
    if says is not None:
        made.args = (says,)
    return made


def death(worker: Worker, code: int | None, call: Call | None) -> WorkerDied:
    """What a worker's death is to the call that it was running, or, without one, to the pool."""
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
    if call is None:
        return WorkerDied(f"worker process {worker.process.pid} {how}", pid=worker.process.pid, exitcode=code)
    return WorkerDied(
        f"worker process {worker.process.pid} {how} while it was running {call.name}",
        pid=worker.process.pid,
        exitcode=code,
        call=call.name,
    )
