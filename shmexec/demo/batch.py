"""Sends each picture through the steps of the pipeline, one call for each step, through any executor."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shmexec.demo.pictures import Picture
from shmexec.demo.pipeline import STEPS, Summary, drawing
from shmexec.demo.progress import Progress
from shmexec.measure import PickledBytes

_LAST_ARRAY = STEPS.index(drawing)


@dataclass(frozen=True, eq=False)
class Outcome:
    """A finished picture: the digest of its last large array, and its summary; or the error that ended it."""

    name: str
    digest: str = ""
    summary: Summary | None = None
    error: str | None = None

    def equals(self, other: "Outcome") -> bool:
        """Both done, and to the bit the same."""
        if self.summary is None or other.summary is None:
            return False
        return (
            self.digest == other.digest
            and self.summary.ink == other.summary.ink
            and np.array_equal(self.summary.histogram, other.summary.histogram)
            and np.array_equal(self.summary.thumbnail, other.summary.thumbnail)
        )


def digest(array: NDArray[Any]) -> str:
    """Of type, shape and every byte: stands for the array, so that no run has to keep its arrays."""
    contiguous = np.ascontiguousarray(array)
    described = hashlib.blake2b(f"{array.dtype.str} {array.shape}".encode())
    described.update(contiguous.data)
    return described.hexdigest()


@dataclass
class _Chain:
    """One picture on its way: the step that is running, and the digest once there is one."""

    index: int
    name: str
    step: int = 0
    digest: str = ""


class Batch:
    """At most `in_flight` pictures are under way, one call each; only the newest array of each is kept."""

    def __init__(self, pool: Executor, in_flight: int, progress: Progress, pickled: PickledBytes | None = None) -> None:
        self._pool, self._in_flight = pool, in_flight
        self._progress, self._pickled = progress, pickled
        self._running: dict[Future[Any], _Chain] = {}
        self._outcomes: dict[int, Outcome] = {}

    def run(self, pictures: Sequence[Picture]) -> list[Outcome]:
        """An outcome for each picture, in their order. An error in one picture leaves the others alone."""
        upcoming = iter(enumerate(pictures))
        while True:
            while len(self._running) < self._in_flight and (entry := next(upcoming, None)) is not None:
                index, picture = entry
                self._submit(_Chain(index, picture.name), picture.pixels)
            if not self._running:
                break
            done, _ = wait(self._running, return_when=FIRST_COMPLETED)
            while done:
                self._collect(done.pop())
        return [self._outcomes[index] for index in range(len(pictures))]

    def _submit(self, chain: _Chain, argument: Any) -> None:
        try:
            future = self._pool.submit(STEPS[chain.step], argument)
        except Exception as error:  # a pool that has broken refuses
            self._end(chain, Outcome(chain.name, error=_described(error)))
            return
        self._running[future] = chain
        if self._pickled is not None:
            self._pickled.add_argument(argument)

    def _collect(self, future: Future[Any]) -> None:
        chain = self._running.pop(future)
        try:
            result = future.result()
        except Exception as error:
            self._end(chain, Outcome(chain.name, error=_described(error)))
            return
        if self._pickled is not None:
            self._pickled.add_result(result)
        if chain.step == _LAST_ARRAY:
            chain.digest = digest(result)
        chain.step += 1
        self._progress.advance()
        if chain.step == len(STEPS):
            self._end(chain, Outcome(chain.name, chain.digest, result))
        else:
            self._submit(chain, result)

    def _end(self, chain: _Chain, outcome: Outcome) -> None:
        self._outcomes[chain.index] = outcome
        if chain.step < len(STEPS):
            self._progress.advance(len(STEPS) - chain.step)
        self._progress.note_picture(chain.name, "failed" if outcome.error else "done")


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
