"""Workers that have to end now: SIGTERM, a grace for their clean-up, then SIGKILL; and what is said of deaths.

Some facts: one SIGTERM may be slept through, by code that was about to block in C; the code of a call may swallow the
SystemExit that it raises; C code never looks.
What this means for us: SIGTERM is sent ten times a second until the worker is gone or the grace is over.
"""

import copy

from shmexec._core import Call, Verdict
from shmexec.errors import TaskTimeout, WorkerDied
from shmexec.pool.crew import Worker

_ASK_AGAIN = 0.1


class Endings:
    """Which workers have been told to end, and until when they may take their time. Used by one thread at a time."""

    def __init__(self) -> None:
        self._until: dict[Worker, float] = {}
        self._ending: set[Worker] = set()  # by themselves
        self._next_ask = 0.0

    def begin(self, worker: Worker, until: float, *, by_itself: bool = False) -> None:
        """From now on it is asked to end, and killed at ``until``, or at an earlier time that was said before.

        by_itself: it is about to end, and need not be asked.
        """
        if by_itself:
            self._ending.add(worker)
        else:
            self._ending.discard(worker)
        before = self._until.get(worker)
        if before is None or until < before:
            self._until[worker] = until
            self._next_ask = 0.0

    def forget(self, worker: Worker) -> None:
        """It is dead."""
        self._until.pop(worker, None)
        self._ending.discard(worker)

    def ask(self, now: float) -> float | None:
        """Send the signals that are due; seconds until the next are, or None."""
        if not self._until:
            return None
        if now >= self._next_ask:
            self._next_ask = now + _ASK_AGAIN
            for worker, until in self._until.items():
                if now >= until:
                    worker.process.kill()
                elif worker not in self._ending:
                    worker.process.terminate()
        return self._next_ask - now


def alike(error: BaseException, says: str | None = None) -> BaseException:
    """The same for one future: what is raised collects frames, and the pool must not keep those."""
    made = copy.copy(error)
    made.__cause__ = error.__cause__
    if says is not None:
        made.args = (says,)
    return made


def outcome_of_death(worker: Worker, code: int | None, call: Call) -> BaseException:
    """What a worker's death is to the call that it was running, or that it was made to end for."""
    if call.verdict == Verdict.OVERTIME:
        seconds = call.limit * 1e-9
        return TaskTimeout(
            f"{call.name} ran for longer than {seconds:g} seconds; worker process {worker.process.pid} was ended"
        )
    return death(worker, code, call)


def death(worker: Worker, code: int | None, call: Call | None) -> WorkerDied:
    """What a worker's death is to the call that it was running, or, without one, to the pool."""
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
    where = worker.last_words and f":\n\n{worker.last_words}"
    if call is None:
        return WorkerDied(
            f"worker process {worker.process.pid} {how}{where}",
            pid=worker.process.pid,
            exitcode=code,
            traceback=worker.last_words,
        )
    again = f" (attempt {call.deaths})" if call.deaths > 1 else ""
    return WorkerDied(
        f"worker process {worker.process.pid} {how} while it was running {call.name}{again}{where}",
        pid=worker.process.pid,
        exitcode=code,
        call=call.name,
        traceback=worker.last_words,
    )
