"""The run: which peer is asked for what, in turn.

Without a limit of time all rounds of a workload follow each other, and its arrays are made once. With one, each round
goes through all workloads: what is left out for want of time is then a second look before it is a first one.
"""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from shmexec.bench import report
from shmexec.bench.budget import Budget
from shmexec.bench.children import GRACE, Child
from shmexec.bench.timing import Effort
from shmexec.bench.workloads import FRESH, SHORT, WORKLOADS

Case = tuple[str, int]  # workload, size
_START: Case = ("startup", 0)


@dataclass
class Measured:
    """
    Attributes
    ----------
    figures : dict
        Seconds of each run, or a ratio, by workload, size and peer.
    notes : list of str
        What failed, and what was left out.
    """

    figures: dict[tuple[str, int, str], list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure(
    wanted: dict[str, list[Case]], workers: int, rounds: int, effort: Effort, seconds: float = math.inf
) -> Measured:
    """What is wanted of each peer, as often as there are rounds, or as `seconds` allow."""
    cases = list(dict.fromkeys(case for of_peer in wanted.values() for case in of_peer))
    fresh = [case for case in cases if case[0] in FRESH]
    others = [case for case in cases if case[0] in WORKLOADS]
    budget = Budget(seconds, {peer: len(set(others).intersection(of_peer)) for peer, of_peer in wanted.items()})
    found = Measured()
    with _children(wanted, workers, found) as children:
        run = _Run(children, wanted, workers, asdict(effort), budget, found)
        run.starts(fresh)
        if math.isinf(seconds):
            for case in others:
                for _ in range(rounds):
                    run.case(case)
            for _ in range((rounds + 1) // 2 - 1):
                run.starts(fresh)
        else:
            for _ in range(rounds):
                for case in _most_telling_first(others):
                    run.case(case)
        run.note_left_out()
    return found


def _most_telling_first(cases: list[Case]) -> list[Case]:
    """Calls; the largest size and the smallest; real work, which takes longest; the sizes between.

    What is last may be left out. Real work earlier would leave whoever is slow at it out of all that is short.
    """
    sizes = sorted({size for _, size in cases if size})
    extremes = dict.fromkeys(sizes[:1], 1) | dict.fromkeys(sizes[-1:], 0)

    def rank(case: Case) -> int:
        workload, size = case
        if not size:
            return -1 if workload in SHORT else 2
        return extremes.get(size, 3)

    return sorted(cases, key=rank)


class _Run:
    def __init__(
        self,
        children: dict[str, Child],
        wanted: dict[str, list[Case]],
        workers: int,
        effort: dict[str, float],
        budget: Budget,
        found: Measured,
    ) -> None:
        self._children = children
        self._wanted = {(peer, case) for peer, cases in wanted.items() for case in cases}
        self._workers = workers
        self._effort = effort
        self._budget = budget
        self._found = found
        self._failed: set[tuple[str, str]] = set()  # peer, workload
        self._left_out: dict[str, list[Case]] = {}  # by peer
        self._further = 0  # runs left out of what was measured before
        self._said: set[Case] = set()

    def starts(self, cases: list[Case]) -> None:
        """What new pools are measured for: each peer is started anew. Each has this, while there is time at all."""
        for peer, child in self._children.items():
            if self._budget.left <= 0:
                self._leave_out(peer, cases)
                continue
            if cases and not child.is_fresh:
                child.close()
                child.end()
                self._children[peer] = Child(peer, self._workers)
            wanted = [case for case in cases if (peer, case) in self._wanted]
            for case in wanted or [_START]:
                if (peer, _START[0]) not in self._failed:
                    self._ask(peer, case, keep=bool(wanted))
        for case in cases:
            self._progress(case)

    def case(self, case: Case) -> None:
        """Once on each peer, in turn: what the machine does besides meets all."""
        for peer in self._children:
            if (peer, case) not in self._wanted:
                continue
            if (peer, case[0]) in self._failed or (peer, _START[0]) in self._failed:
                continue
            if self._budget.may_begin(peer, case):
                begun = time.monotonic()
                self._ask(peer, case)
                self._budget.took(peer, case, time.monotonic() - begun)
            else:
                self._leave_out(peer, [case])
        self._progress(case)

    def _ask(self, peer: str, case: Case, *, keep: bool = True) -> None:
        question = {"workload": case[0], "size": case[1], "effort": self._effort}
        answer = self._children[peer].ask(question, self._budget.patience)
        if "error" in answer:
            self._failed.add((peer, case[0]))
            after = "; nothing else was measured" if case == _START else ""
            self._found.notes.append(f"{peer}, {report.case_text(*case)}: {answer['error']}{after}")
        elif keep:
            self._found.figures.setdefault(_key(case, peer), []).append(answer["seconds"])
        if answer.get("ended"):
            self._children[peer].kill()
            self._children[peer] = Child(peer, self._workers)

    def _leave_out(self, peer: str, cases: list[Case]) -> None:
        for case in cases:
            if _key(case, peer) in self._found.figures:
                self._further += 1
            else:
                self._left_out.setdefault(peer, []).append(case)

    def _progress(self, case: Case) -> None:
        if case not in self._said:
            self._said.add(case)
            report.progress(*case)

    def note_left_out(self) -> None:
        """What did not fit into the time, in lines."""
        for peer, cases in self._left_out.items():
            names = dict.fromkeys(
                report.case_text(*case) for case in cases if _key(case, peer) not in self._found.figures
            )
            if names:
                self._found.notes.append(f"{peer}: left out for want of time: {', '.join(names)}")
        if self._further:
            self._found.notes.append(f"{self._further} further runs were left out for want of time")


def _key(case: Case, peer: str) -> tuple[str, int, str]:
    workload, size = case
    return workload, 0 if workload in FRESH else size, peer


@contextmanager
def _children(names: Iterable[str], workers: int, found: Measured) -> Iterator[dict[str, Child]]:
    children = {name: Child(name, workers) for name in names}
    try:
        yield children
    except BaseException:
        for child in children.values():
            child.kill()
        raise
    for child in children.values():
        child.close()
    deadline = time.monotonic() + GRACE
    for child in children.values():
        if ended := child.end(deadline):
            found.notes.append(f"{child.name}: {ended} of its processes did not end by themselves")
