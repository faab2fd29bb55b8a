"""One look at all heaps of this user, and what two looks tell.

Purpose: heaps, pools, workers and their calls, from what lies in shared memory anyway, or is published there at no cost
    (native/board.h).
Guarantees: nothing is written, nobody waits for who looks or is woken.
Assumptions: figures of what is in use are of no one moment.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from shmexec import _core
from shmexec.errors import StaleName
from shmexec.heaps import Listed, live_heaps


@dataclass(frozen=True)
class Worker:
    """One worker process.

    `state` is 'starting', 'idle' or 'running'; `function` is what it runs, `seconds` for how long; `ahead` counts the
    calls that it was told of and has not begun.
    """

    pid: int
    state: str
    function: str
    seconds: float
    ahead: int


@dataclass(frozen=True)
class Pool:
    """The workers of one executor.

    `waiting` calls have no worker yet, and there have been such for `waiting_seconds`. (Of 64 and more the number may
    be off by a few per cent.)
    """

    pid: int
    workers: tuple[Worker, ...]
    waiting: int
    waiting_seconds: float

    @property
    def running(self) -> int:
        return sum(worker.state == "running" for worker in self.workers)

    @property
    def ahead(self) -> int:
        return sum(worker.ahead for worker in self.workers)


@dataclass(frozen=True)
class Heap:
    """One heap; bytes, and bytes a second.

    `live` bytes are those of arrays; `warm` ones have memory and are free for the next; `free` ones are what is left of
    the limit.
    """

    name: str
    kind: str
    pid: int
    command: str
    processes: int
    blocks: int
    live: int
    warm: int
    free: int
    by_name: float
    copied: float
    pools: tuple[Pool, ...]


@dataclass(frozen=True)
class Look:
    """All heaps at one time (seconds of a clock that only grows), and how many bytes each process has sent so far."""

    time: float
    heaps: tuple[Heap, ...]
    traffic: dict[tuple[str, int], tuple[int, int]]


def look() -> Look:
    """The heaps as they are now; rates are 0."""
    traffic: dict[tuple[str, int], tuple[int, int]] = {}
    heaps = []
    for listed in live_heaps():
        if listed.problem:
            continue
        try:
            workers, counted = _core.look_at_pools(listed.name)
        except (StaleName, OSError, MemoryError):
            continue  # it has gone meanwhile
        traffic.update({(listed.name, pid): (by_name, copied) for pid, by_name, copied in counted})
        heaps.append(_heap(listed, _pools(workers)))
    return Look(time.monotonic(), tuple(heaps), traffic)


def with_rates(before: Look, after: Look) -> tuple[Heap, ...]:
    """The heaps of the second look, with what has crossed since the first. What a new process has sent counts, too."""
    seconds = max(after.time - before.time, 1e-9)
    found = []
    for heap in after.heaps:
        by_name = copied = 0
        for (name, pid), now in after.traffic.items():
            if name == heap.name:
                then = before.traffic.get((name, pid), (0, 0))
                by_name += max(0, now[0] - then[0])
                copied += max(0, now[1] - then[1])
        found.append(replace(heap, by_name=by_name / seconds, copied=copied / seconds))
    return tuple(found)


def _heap(listed: Listed, pools: tuple[Pool, ...]) -> Heap:
    live, resident = listed.bytes_in_use, listed.bytes_resident
    return Heap(
        listed.name,
        listed.kind,
        listed.pid,
        " ".join(listed.command.split()),
        len(listed.processes),
        listed.blocks,
        live,
        max(0, resident - live),
        max(0, listed.bytes_limit - resident),
        0.0,
        0.0,
        pools,
    )


def _pools(found: Iterable[tuple[int, int, int, bool, float | None, str, int, int, float]]) -> tuple[Pool, ...]:
    pools: dict[int, Pool] = {}
    for pid, parent, number, sleeps, seconds, function, ahead, waiting, since in found:
        state = "starting" if not pid else "running" if seconds is not None and not sleeps else "idle"
        if state != "running":
            function, seconds = "", 0.0
        worker = Worker(pid, state, function, seconds or 0.0, ahead)
        pool = pools.get(number) or Pool(parent, (), waiting, since)
        pools[number] = replace(pool, workers=(*pool.workers, worker))
    return tuple(pools.values())
