"""A budget of seconds, shared over peers and workloads: whose next measurement may begin, and how long it is awaited.

Every peer may use the same. What one does not need goes to the others: the level up to which each is filled is the
one at which all together use what there is (max-min fairness). What a peer needs is judged by what it has taken.
Pure arithmetic over a clock that only grows.
"""

import math
import time
from collections.abc import Callable, Hashable, Mapping


class Budget:
    """
    Parameters
    ----------
    seconds : float
        From now on; infinity: everything may begin, nothing is timed out.
    cells : mapping
        Measurements that a peer is to do, one of each kind, by peer.
    clock : callable
        Seconds, monotonic.
    """

    PATIENCE = 3  # a single answer is awaited for a third of what is left,
    LEAST_PATIENCE = 5.0  # but for so many seconds in any case, even past the end

    def __init__(self, seconds: float, cells: Mapping[str, int], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._cells = cells
        self._spent = dict.fromkeys(cells, 0.0)
        self._done = dict.fromkeys(self._spent, 0)
        self._known: dict[tuple[str, Hashable], float] = {}

    @property
    def left(self) -> float:
        return self._end - self._clock()

    @property
    def patience(self) -> float | None:
        """Seconds until which an answer has to come; None: however long it takes."""
        left = self.left
        return None if math.isinf(left) else max(self.LEAST_PATIENCE, left / self.PATIENCE)

    def level(self) -> float:
        """Seconds that a peer may have used in all."""
        rest = self.left + sum(self._spent.values())
        needs = sorted(self._need(peer) for peer in self._spent)
        for i, need in enumerate(needs):
            share = rest / (len(needs) - i)
            if need > share:
                return share
            rest -= need
        return math.inf

    def _need(self, peer: str) -> float:
        """For one measurement of each kind, as far as is known: nothing, of a peer that has not begun."""
        to_do = max(0, self._cells[peer] - self._done[peer])
        return self._spent[peer] + to_do * self._mean(peer)

    def _mean(self, peer: str) -> float:
        return self._spent[peer] / self._done[peer] if self._done[peer] else 0.0

    def may_begin(self, peer: str, cell: Hashable) -> bool:
        """Whether the peer's next measurement still fits: again, by what it took; else by the peer's mean."""
        left = self.left
        again = self._known.get((peer, cell))
        if again is not None:  # all had their turn, or were told that they have none
            return again <= left
        expected = self._mean(peer)
        return expected < left and self._spent[peer] + expected <= self.level()

    def took(self, peer: str, cell: Hashable, seconds: float) -> None:
        """A measurement is over."""
        if (peer, cell) not in self._known:
            self._done[peer] += 1
        self._known[peer, cell] = seconds
        self._spent[peer] += seconds
