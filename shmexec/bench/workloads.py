"""What is measured: a workload is set up once for a peer, run many times, and gives a figure for each run."""

from collections.abc import Callable
from dataclasses import dataclass

from shmexec.bench import calls, payloads
from shmexec.bench.peers.interface import Ability, Peer
from shmexec.bench.timing import Effort, Run


@dataclass(frozen=True)
class Workload:
    """One line of the table, or one for each size.

    Attributes
    ----------
    title : str
    has_size : bool
    prepare : callable
        Of the peer, the size in bytes (0 without) and the effort: what to run.
    needs : Ability, optional
        Of the peer; who has it not has no such line.
    """

    title: str
    has_size: bool
    prepare: Callable[[Peer, int, Effort], Run]
    needs: Ability | None = None


WORKLOADS = {
    "round-trip": Workload("call and its answer, nothing to do", False, calls.round_trip),
    "cold": Workload("a call and its answer, after 20 ms without one", False, calls.cold),
    "wait": Workload("a call, and wait for it", False, calls.waiting, Ability.FUTURES),
    "as-completed": Workload("as_completed of 8 calls, all of it", False, calls.completed, Ability.FUTURES),
    "callback": Workload("a call, until its callback has run", False, calls.callback, Ability.FUTURES),
    "burst": Workload("many calls at once, each", False, calls.burst),
    "each": Workload("map of nothing with chunks of one item, each item", False, calls.each, Ability.CHUNKS),
    "map": Workload("map of nothing, each item", False, calls.mapped),
    "few": Workload("map of nothing over 8 items, all of it", False, calls.few),
    "spread": Workload("map of tasks of 20 us: its time over that of workers never idle (1.00)", False, calls.spread),
    "array-in": Workload("array in", True, payloads.array_in),
    "array-out": Workload("array out", True, payloads.array_out),
    "in-and-out": Workload("array in, array out", True, payloads.in_and_out),
    "nested": Workload("dict with four arrays in", True, payloads.nested_in),
    "pandas": Workload("DataFrame in", True, payloads.frame_in),
    "stack": Workload("picture stack: 16 frames of 4 MiB, 3 steps", False, payloads.stack),
    "monte-carlo": Workload("Monte Carlo: 64 x 2000 walks", False, payloads.monte_carlo),
    "windows": Workload("sliding windows over 64 MiB: spectra", False, payloads.windows),
}
SHORT = ("round-trip", "cold", "wait", "as-completed", "callback", "burst", "each", "map", "few", "spread")
# of a pool that has done nothing yet, in this order
FRESH = {
    "startup": "new interpreter: import, pool, first answer",
    "memory": "peak memory of 8 arrays in and 8 out, over their size",
    "second": "a second pool of the same process: until its first answer",
    "import": "new interpreter: import of the package, over that of NumPy",
}
RATIOS = ("spread", "memory", "import")  # all else is seconds


def needs_of(workload: str) -> Ability | None:
    """What not every peer has."""
    if workload in WORKLOADS:
        return WORKLOADS[workload].needs
    return Ability.POOLS if workload == "second" else None


def applies(workload: str, peer: type[Peer]) -> bool:
    """Whether the peer has what the workload needs."""
    needs = needs_of(workload)
    return needs is None or needs in peer.abilities
