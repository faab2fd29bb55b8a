"""`shmexec bench`: measures the peers in turn, prints the table, writes JSON and plots."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shmexec import _core
from shmexec.bench import report
from shmexec.bench.peers import PEERS, missing
from shmexec.bench.workloads import ALONE, WORKLOADS

DONE, NOT_STARTED = 0, 2  # exit statuses

_TIMES_OF_SIZE = 8  # memory that one peer may take for arrays of a size, kept ones, results and messages
_QUICK = {"sizes": (1 << 10, 1 << 17, 1 << 24), "rounds": 2}
_FULL = {"sizes": tuple(1 << n for n in range(10, 31, 2)), "rounds": 5}


class Unusable(Exception):
    """An option that makes no sense: said before anything is measured."""


def run_bench(options: argparse.Namespace) -> int:
    """The exit status."""
    try:
        plan = _Plan(options)
    except Unusable as error:
        print(f"shmexec bench: {error}", file=sys.stderr)
        return NOT_STARTED
    measured = plan.measure()
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
        self.workers: int = options.workers or len(os.sched_getaffinity(0))
        self.peers = _chosen("peer", options.peers, list(PEERS))
        self.workloads = _chosen("workload", options.workloads, [*WORKLOADS, *ALONE])
        self.sizes = self._possible(options.sizes or shape["sizes"])
        self.output = _writable(options.output)
        for name in list(self.peers):
            if lacking := missing(name):
                self.notes.append(f"{name}: not installed ({', '.join(lacking)})")
                self.peers.remove(name)
        if not self.peers:
            raise Unusable("none of these peers is installed")

    def _possible(self, sizes: list[int]) -> list[int]:
        most = _core.machine_memory() // _TIMES_OF_SIZE
        for size in sizes:
            if size > most:
                self.notes.append(f"size {report.bytes_text(size)}: skipped, the machine has too little memory")
        return [size for size in sizes if size <= most]

    def _cases(self) -> Iterator[tuple[str, int]]:
        for name in self.workloads:
            if name in WORKLOADS:
                for size in self.sizes if WORKLOADS[name].has_size else [0]:
                    yield name, size

    def measure(self) -> dict[str, Any]:
        """All figures: seconds by workload, size and peer."""
        figures: dict[tuple[str, int, str], list[float]] = {}
        failures: dict[tuple[str, str], str] = {}
        with _children(self.peers, self.workers) as children:
            for workload, size in self._cases():
                for _ in range(self.rounds):
                    for peer in self.peers:  # in turn: what the machine does besides meets all
                        if (workload, peer) not in failures:
                            answer = children[peer].ask(workload, size)
                            _note(answer, (workload, size, peer), figures, failures)
                report.progress(workload, size)
        for workload in self.workloads:
            if workload in ALONE:
                extra = [str(min(16 << 20, max(self.sizes or [1 << 20])))] if workload == "memory" else []
                for _ in range((self.rounds + 1) // 2):
                    for peer in self.peers:
                        if (workload, peer) not in failures:
                            answer = _ask_alone(peer, self.workers, workload, extra)
                            _note(answer, (workload, 0, peer), figures, failures)
                report.progress(workload, 0)
        notes = [*self.notes, *(f"{peer}, {workload}: {why}" for (workload, peer), why in failures.items())]
        return report.collect(figures, notes, self.peers, self.workers, self.rounds)


def _note(answer: dict[str, Any], key: tuple[str, int, str], figures: Any, failures: Any) -> None:
    if "error" in answer:
        failures[key[0], key[2]] = answer["error"]
    else:
        figures.setdefault(key, []).append(answer["seconds"])


def _chosen(what: str, names: list[str] | None, known: list[str]) -> list[str]:
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise Unusable(f"unknown {what} {', '.join(unknown)}; there are {', '.join(known)}")
    return list(names or known)


def _writable(folder: Path | None) -> Path | None:
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unusable(f"the folder {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise Unusable(f"the folder {folder} cannot be written")
    return folder


class _Child:
    """A peer in its process."""

    def __init__(self, name: str, workers: int) -> None:
        self._process = subprocess.Popen(
            _command(name, workers), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
        )

    def ask(self, workload: str, size: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps({"workload": workload, "size": size}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            return {"error": f"its process ended with status {self._process.wait()}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.communicate()


@contextmanager
def _children(names: list[str], workers: int) -> Iterator[dict[str, _Child]]:
    children: dict[str, _Child] = {}
    try:
        for name in names:
            children[name] = _Child(name, workers)
        yield children
    finally:
        for child in children.values():
            child.close()


def _ask_alone(name: str, workers: int, workload: str, extra: list[str]) -> dict[str, Any]:
    ran = subprocess.run(
        [*_command(name, workers), workload, *extra], capture_output=True, text=True, env=_environment(), check=False
    )
    if ran.returncode:
        return {"error": ran.stderr.strip().rpartition("\n")[2] or f"exit status {ran.returncode}"}
    answer: dict[str, Any] = json.loads(ran.stdout.strip().rpartition("\n")[2])
    return answer


def _command(name: str, workers: int) -> list[str]:
    return [sys.executable, "-m", "shmexec.bench.runner", name, str(workers)]


def _environment() -> dict[str, str]:
    """One thread for each worker's BLAS: the peers would differ in how many they start."""
    return {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} | os.environ
