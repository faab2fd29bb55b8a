"""How a figure is taken: the median of warm calls in a row, or the time of many at once over their number."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_FIRST = 100  # items that say how many fit

Run = Callable[[], float]  # seconds, or a ratio; warm, or it warms itself


@dataclass(frozen=True)
class Effort:
    """How much is done for one figure.

    Attributes
    ----------
    seconds : float
        That calls which take next to nothing are repeated for.
    part : float
        Of the real workloads' data.
    """

    seconds: float = 0.3
    part: float = 1.0


FULL = Effort()


def timed(call: Callable[[], Any]) -> float:
    """Seconds; the value's end is not in them."""
    begun = time.perf_counter()
    value = call()
    spent = time.perf_counter() - begun
    del value
    return spent


def warmed(run: Run) -> Run:
    """The same, once it has filled the caches."""
    run()
    return run


def median_of_warm(call: Callable[[], Any], seconds: float, least: int, most: int) -> Run:
    """Of as many calls in a row as fit into `seconds`: the pool has rested, so that one before them is not timed."""

    def run() -> float:
        timed(call)
        end = time.perf_counter() + seconds
        found: list[float] = []
        while len(found) < least or (len(found) < most and time.perf_counter() < end):
            found.append(timed(call))
        return statistics.median(found)

    return run


def per_item(each: Callable[[int], float], seconds: float, most: int) -> Run:
    """What `each` gives for so many that they take `seconds`; `each(count)` is the time of one of so many.

    If more fit than were looked at, those are looked at, too: few say little about chunks that grow with their number.
    """
    count = _FIRST
    for _ in range(2):
        looked_at, count = count, int(min(most, max(_FIRST, seconds / each(count))))
        if count <= looked_at:
            break
    return lambda: each(count)
