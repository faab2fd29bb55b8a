"""`shmexec ls` and `shmexec gc`: the heaps of this user, and what dead ones have left.

Purpose: to see who has shared memory, and to give back what nobody has.
Guarantees: heaps are only looked at: nothing is written into them, and no process takes part in one.
Assumptions: figures of a heap that is in use are of no one moment.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from shmexec import _core
from shmexec.errors import StaleName
from shmexec.quantities import binary_size

_WITHOUT_OWNER = "all who had a part in it are dead: shmexec gc removes it, if it does not go by itself"


@dataclass(frozen=True)
class Listed:
    """One heap, or what looks like one; bytes throughout."""

    kind: str
    name: str
    pid: int = 0
    command: str = ""
    processes: list[int] = field(default_factory=list)
    bytes_in_use: int = 0
    bytes_resident: int = 0
    bytes_limit: int = 0
    bytes_virtual: int = 0
    blocks: int = 0
    problem: str = ""


def live_heaps() -> Iterator[Listed]:
    """Each heap of this user once, and each segment that looks like one and cannot be read."""
    names: dict[tuple[str, str], list[str]] = {}  # of one segment: each process that has it may have one
    for kind, name in sorted(_core.segment_names()):
        names.setdefault((kind, name.rpartition(":")[2]), []).append(name)
    for (kind, _), those in names.items():
        found, name, problem = _first_that_can_be_read(those)
        if found is None:
            if problem:
                yield Listed(kind, name, problem=problem)
            continue
        _, creator, pids, in_use, resident, limit, virtual, blocks = found
        alive = creator in pids
        owner = creator if alive or not pids else pids[0]
        yield Listed(
            kind,
            next((one for one in those if one.startswith(f"/proc/{owner}/")), name),
            owner,
            _core.process_command(owner) or "",
            pids,
            in_use,
            resident,
            limit,
            virtual,
            blocks,
            ""
            if pids
            else "its owner is dead: shmexec gc removes it"
            if kind == "posix"
            else "nobody takes part in it",
        )


def _first_that_can_be_read(
    names: list[str],
) -> tuple[tuple[int, int, list[int], int, int, int, int, int] | None, str, str]:
    """Of the names of one segment: what is found under it, the name, or why it cannot be read; "": it is gone."""
    name = ""
    for name in names:
        try:
            return _core.look_at_segment(name), name, ""
        except (StaleName, OSError, MemoryError) as error:
            if " is gone: " not in str(error):
                return None, name, str(error).replace(name, "it")
    return None, name, ""


def run_ls(as_json: bool) -> int:
    """Print them."""
    heaps = list(live_heaps())
    if as_json:
        json.dump([asdict(heap) for heap in heaps], sys.stdout, indent=1)
        print()
        return 0
    if not heaps:
        print("no heaps")
        return 0
    row = "{:<6} {:>8} {:>5} {:>9} {:>9} {:>9} {:>8}  {}"
    print(row.format("KIND", "PID", "PROCS", "IN USE", "RESIDENT", "LIMIT", "BLOCKS", "COMMAND"))
    for heap in heaps:
        figures = heap.bytes_in_use, heap.bytes_resident, heap.bytes_limit
        command = " ".join(heap.command.split())[:60]
        said = f"[{heap.name}: {heap.problem}]" if heap.problem else ""
        sizes = [binary_size(n) for n in figures]
        print(
            row.format(heap.kind, heap.pid or "-", len(heap.processes), *sizes, heap.blocks, command or said).rstrip()
        )
        if command and said:
            print(f"       {said}")
    return 0


def run_gc() -> int:
    """Remove what dead owners have left, and say what it was."""
    removed = _core.sweep_segments()
    for kind, name in removed:
        print(f"removed {kind} {name}")
    if not removed:
        print("nothing to remove")
    return 0
