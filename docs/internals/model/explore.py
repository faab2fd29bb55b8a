"""All states that a model can come to, for it as it is and with each of its faults.

A model is a start, a function that gives the states that may follow one, and one that says whether a state is bad. A
state has a field `killed`: that somebody may yet be killed is not something to wait for.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

Follow = Callable[[Any, str], Iterable[Any]]
IsBad = Callable[[Any, bool], bool]  # the state, and whether nothing can happen any more


def explore(start: Any, following: Follow, is_bad: IsBad, fault: str = "") -> tuple[int, Any]:
    """How many states there are, and one that is bad, or None."""
    known, waiting = {start}, [start]
    while waiting:
        s = waiting.pop()
        found = list(following(s, fault))
        if is_bad(s, not any(t.killed == s.killed for t in found)):
            return len(known), s
        for t in found:
            if t not in known:
                known.add(t)
                waiting.append(t)
    return len(known), None


def report(start: Any, following: Follow, is_bad: IsBad, faults: Sequence[str]) -> int:
    """Print a line for each; 1 if the model is not sound, or a fault is not found."""
    surprises = 0
    for fault in ["", *faults]:
        states, bad = explore(start, following, is_bad, fault)
        is_surprise = (bad is None) == bool(fault)
        surprises += is_surprise
        print("FAIL" if is_surprise else "pass", f"{fault or 'sound':16} {states:8} states", bad or "")
    return min(surprises, 1)
