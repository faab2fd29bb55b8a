"""Which file is worked on next, which again, and what has become of each: a state machine without I/O.

    WAITING -> RUNNING -> DONE
       ^          |-----> FAILED    it has no attempts left, or trying again is of no use
       '----------'                 retries
    WAITING, RUNNING -> LEFT        the batch was stopped

Invariant: waiting + running + done + failed + left == all, and running <= room.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from shmexec.batch.sources import Source


class Life(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one attempt: the files written, or why there are none.

    `ends_all`: it will be so with every other file, too.
    """

    outputs: tuple[str, ...] = ()
    bytes_written: int = 0
    error: str = ""
    traceback: str = ""
    ends_all: bool = False


@dataclass(eq=False, slots=True)
class Job:
    """One file."""

    source: Source
    life: Life = Life.WAITING
    attempts: int = 0
    report: Report = field(default_factory=Report)


class Jobs:
    """All files that are to be done.

    Parameters
    ----------
    sources : iterable of Source
    retries : int
        So often each is tried again.
    room : int
        So many run at a time, or wait in the pool.
    """

    def __init__(self, sources: Iterable[Source], retries: int, room: int) -> None:
        self.all = [Job(source) for source in sources]
        self.stopped = ""  # why
        self._retries, self._room = retries, room
        self._waiting = deque(self.all)
        self._running = 0
        self.done = self.failed = self.bytes_done = 0

    def take(self) -> Job | None:
        """The next that may begin now."""
        if self._running >= self._room or not self._waiting or self.stopped:
            return None
        job = self._waiting.popleft()
        job.life = Life.RUNNING
        job.attempts += 1
        self._running += 1
        return job

    def end(self, job: Job, report: Report) -> None:
        """An attempt is over."""
        assert job.life is Life.RUNNING
        self._running -= 1
        job.report = report
        if not report.error:
            job.life = Life.DONE
            self.done += 1
        elif report.ends_all:
            job.life = Life.LEFT
            self.stop(report.error)
        elif job.attempts <= self._retries and not self.stopped:
            job.life = Life.WAITING
            self._waiting.append(job)  # last: what it was that failed may be over by then
            return
        else:
            job.life = Life.FAILED
            self.failed += 1
        if job.life is not Life.LEFT:
            self.bytes_done += max(0, job.source.size)

    def give_back(self, job: Job) -> None:
        """It was never begun, or nobody knows how it ended: it is left."""
        assert job.life is Life.RUNNING
        self._running -= 1
        job.life = Life.LEFT

    def stop(self, why: str) -> None:
        """Begin no more."""
        self.stopped = self.stopped or why
        while self._waiting:
            self._waiting.popleft().life = Life.LEFT

    def with_life(self, life: Life) -> list[Job]:
        return [job for job in self.all if job.life is life]

    @property
    def running(self) -> int:
        return self._running
