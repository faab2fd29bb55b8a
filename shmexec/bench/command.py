"""`shmexec bench`: measures the peers in turn, prints the table, writes JSON and plots."""

import argparse
import json
import math
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from shmexec import _core
from shmexec.bench import report
from shmexec.bench.measuring import Case, Measured, measure
from shmexec.bench.peers import PEERS, missing
from shmexec.bench.peers.interface import Ability
from shmexec.bench.timing import FULL, Effort
from shmexec.bench.workloads import FRESH, WORKLOADS, applies, needs_of

DONE, NOT_STARTED = 0, 2  # exit statuses

_TIMES_OF_SIZE = 8  # memory that one peer may take for arrays of a size, kept ones, results and messages
# seconds: the rest of the minute is for ending the peers, and for the plots
_QUICK = {
    "sizes": (1 << 10, 1 << 17, 1 << 24),
    "rounds": 2,
    "seconds": 45.0,
    "effort": replace(FULL, seconds=0.05, part=0.5),
}
_FULL = {"sizes": tuple(1 << n for n in range(10, 31, 2)), "rounds": 5, "seconds": math.inf, "effort": FULL}


class Unusable(Exception):
    """An option that makes no sense: said before anything is measured."""


def run_bench(options: argparse.Namespace) -> int:
    """The exit status."""
    try:
        plan = _Plan(options)
    except Unusable as error:
        print(f"shmexec bench: {error}", file=sys.stderr)
        return NOT_STARTED
    found = plan.measure()
    notes = [*plan.notes, *found.notes]
    measured = report.collect(found.figures, notes, plan.peers, plan.workers)
    print(report.table(measured))
    if plan.output is not None:
        (plan.output / "bench.json").write_text(json.dumps(measured, indent=1))
        for note in report.plots(measured, plan.output):
            print(note)
    return DONE


class _Plan:
    def __init__(self, options: argparse.Namespace) -> None:
        shape: dict[str, Any] = _QUICK if options.quick else _FULL
        self.notes: list[str] = []
        self.rounds: int = options.rounds or shape["rounds"]
        self.seconds: float = options.seconds or shape["seconds"]
        self.effort: Effort = shape["effort"]
        self.workers: int = options.workers or len(os.sched_getaffinity(0))
        self.peers = _chosen("peer", options.peers, list(PEERS))
        self.workloads = _chosen("workload", options.workloads, [*WORKLOADS, *FRESH])
        self.sizes = self._possible(options.sizes or shape["sizes"])
        self.output = _writable(options.output)
        for name in list(self.peers):
            if lacking := missing(name):
                self.notes.append(f"{name}: not installed ({', '.join(lacking)})")
                self.peers.remove(name)
        if not self.peers:
            raise Unusable(f"none of these peers is installed: {'; '.join(self.notes)}")
        self._wanted = {peer: self._cases_of(peer) for peer in self.peers}
        self._note_what_does_not_apply()
        if not any(self._wanted.values()):
            raise Unusable(f"nothing is left to measure: {'; '.join(self.notes)}")
        if options.quick:
            self.notes.append("quick: calls of nothing for 50 ms, half of the data of stack, monte-carlo and windows")

    def _possible(self, sizes: list[int]) -> list[int]:
        most = _core.machine_memory() // _TIMES_OF_SIZE
        for size in sizes:
            if size > most:
                self.notes.append(f"size {report.bytes_text(size)}: skipped, the machine has too little memory")
        return [size for size in sizes if size <= most]

    def measure(self) -> Measured:
        """All figures."""
        return measure(self._wanted, self.workers, self.rounds, self.effort, self.seconds)

    def _cases_of(self, peer: str) -> list[Case]:
        return [case for name in self.workloads if applies(name, PEERS[peer]) for case in self._cases(name)]

    def _note_what_does_not_apply(self) -> None:
        for ability in Ability:
            names = [name for name in self.workloads if needs_of(name) is ability]
            peers = [name for name in self.peers if ability not in PEERS[name].abilities]
            if names and peers:
                self.notes.append(f"{', '.join(names)}: not for {', '.join(peers)} ({ability.value})")

    def _cases(self, name: str) -> list[Case]:
        if name == "memory":
            return [(name, min(16 << 20, max(self.sizes, default=1 << 20)))]
        return [(name, size) for size in (self.sizes if name in WORKLOADS and WORKLOADS[name].has_size else [0])]


def _chosen(what: str, names: list[str] | None, known: list[str]) -> list[str]:
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise Unusable(f"unknown {what} {', '.join(unknown)}; there are {', '.join(known)}")
    return list(dict.fromkeys(names or known))


def _writable(folder: Path | None) -> Path | None:
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unusable(f"the folder {folder} cannot be made: {error.strerror}") from error
    try:
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise Unusable(f"the folder {folder} cannot be written: {error.strerror}") from error
