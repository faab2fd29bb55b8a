"""What has to hold, and what was found.

For each call that was sent
    - it returned: the value has the digest that was expected, and the board says that it was run once, to its end
    - it failed with WorkerDied: that worker was doomed; no other call failed for it; it had begun the call, and nobody
      else had. If nobody had, the worker could die anywhere (of a timer, or from outside), or has died while it
      unpickled that very call. Or a future among its arguments failed so
    - it was cancelled: we did that, or cancelled a future among its arguments; nobody had begun it
    - whatever became of it, or if nobody asked: it was begun once at most
"""

import re
import threading
from concurrent.futures import CancelledError
from dataclasses import dataclass, fields

from shmexec import TaskTimeout, WorkerDied
from tests.chaos import things

_PID = re.compile(r"worker process (\d+)")


@dataclass(eq=False)
class Sent:
    """A call that was sent.

    Attributes
    ----------
    call : int
        Its place on the board.
    want : int or None
        The digest of what it returns; None: whatever.
    needs : tuple of Sent
        Whose futures are among its arguments.
    """

    call: int
    future: object
    want: int | None
    what: str
    needs: tuple = ()
    attempts: int = 1
    may_end: tuple = ()  # exceptions by which it may end once it runs: its time is up, it is cancelled
    cancelled: bool = False
    error: BaseException | None = None
    is_over: bool = False


@dataclass
class Figures:
    """What is counted, over all seasons.

    Attributes
    ----------
    kills, parents : int
        Workers that died, and parents of pools that were killed.
    failed : int
        Calls that a worker's death has cost.
    lost : int
        Calls that failed so although their worker was not killed, or has cost another call.
    left : int
        Processes and descriptors.
    bytes : int
        Of memory of the kernel's.
    """

    rounds: int = 0
    calls: int = 0
    kills: int = 0
    parents: int = 0
    failed: int = 0
    wrong: int = 0
    lost: int = 0
    hangs: int = 0
    blocks: int = 0
    left: int = 0
    bytes: int = 0

    def add(self, other):
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def is_good(self):
        return not (self.wrong or self.lost or self.hangs or self.blocks or self.bytes or self.left)


class Checker:
    """Of one season: one executor and one board. May be used by several threads."""

    def __init__(self, board, figures, say):
        self.board = board
        self.figures = figures
        self.progress = 0  # whoever watches for hangs looks at it
        self._say = say
        self._lock = threading.Lock()
        self._calls = 0
        self._charged = {}  # pid: the call that it cost
        self._unexplained = {}  # pid: the code that it ended with
        self._sent = []

    def next_call(self):
        """A place on the board, or None: it is full."""
        with self._lock:
            if self._calls >= len(self.board.begun):
                return None
            self._calls += 1
            return self._calls - 1

    def sent(self, one):
        with self._lock:
            self._sent.append(one)
            self.figures.calls += 1
        return one

    def settle(self, one, *, timeout=None):
        """Wait for a call, and look at what it gives."""
        if one.is_over:
            return
        try:
            value = one.future.result(timeout)
        except (Exception, CancelledError) as error:
            if isinstance(error, TimeoutError) and timeout is not None and not one.future.done():
                return
            self.failed(one, error)
        else:
            self.returned(one, value)

    def returned(self, one, value):
        self._over(one)
        found = things.digest(value[0] if isinstance(value, tuple) else value)
        if one.want is not None and found != one.want:
            self.wrong(f"{one.what} {one.call} returned another value than it should: {value!r:.300}")
        begun, ended = self.board.begun[one.call], self.board.ended[one.call]
        if not 1 <= begun <= one.attempts or not ended:
            self.wrong(f"{one.what} {one.call} returned, begun {begun} times, ended {ended} times")

    def failed(self, one, error):
        self._over(one)
        one.error = error
        for need in one.needs:
            self.settle(need)
            if need.error is not None and (
                getattr(need.error, "pid", 0) == getattr(error, "pid", 0) or isinstance(error, CancelledError)
            ):
                return
        if isinstance(error, one.may_end):
            if isinstance(error, TaskTimeout):  # which may have come before the call could say that it would be ended
                with self._lock:
                    self._unexplained.pop(int(_PID.search(str(error))[1]), None)
            return
        if isinstance(error, WorkerDied):
            self.charge(one, error)
        elif isinstance(error, CancelledError) and one.cancelled:
            if self.board.begun[one.call]:
                self.wrong(f"{one.what} {one.call} was begun, and cancelled")
        else:
            self.wrong(f"{one.what} {one.call} failed with {error!r}")

    def ended(self, pid, code):
        """A worker has ended."""
        if not code:
            return
        self.figures.kills += 1
        if not self.board.doomed[pid]:
            with self._lock:
                self._unexplained[pid] = code  # before the future of its call is done

    def charge(self, one, error):
        """This call failed because that worker died."""
        by = int(self.board.by[one.call])
        with self._lock:
            self.figures.failed += 1
            other = self._charged.setdefault(error.pid, one.call)
        if not self.board.doomed[error.pid]:
            self.lost(f"{one.what} {one.call} failed with {error!r}, whom nobody killed")
        elif other != one.call:
            self.lost(f"worker {error.pid} cost two calls: {other} and {one.what} {one.call}")
        elif by not in (0, error.pid) and one.attempts == 1:
            self.lost(f"{one.what} {one.call} failed with {error!r}, but {by} had begun it")
        elif not by and not self.board.anywhere[error.pid] and self.board.burnt[error.pid] != one.call + 1:
            self.lost(f"{one.what} {one.call} failed with {error!r}, who died in another call")

    def charge_any(self, orders, one, error):
        """The same for a map, of which nobody says which of its calls that was."""
        by = {int(self.board.by[order.call]) for order in orders}
        open_ = {int(self.board.by[order.call]) for order in orders if not self.board.ended[order.call]}
        self._over(one)
        with self._lock:
            self.figures.failed += 1
            other = self._charged.setdefault(error.pid, one.call)
        if not self.board.doomed[error.pid]:
            self.lost(f"{one.what} failed with {error!r}, whom nobody killed")
        elif other != one.call:
            self.lost(f"worker {error.pid} cost two calls: {other} and {one.what} {one.call}")
        elif not by & {0, error.pid}:
            self.lost(f"{one.what} failed with {error!r}, but {by} had begun its calls")
        elif not self.board.anywhere[error.pid] and error.pid not in open_:
            self.lost(f"{one.what} failed with {error!r}, who died in none of its calls")

    def finish(self):
        """At the end of the season, when no worker is left."""
        for pid, code in self._unexplained.items():
            self.wrong(f"worker {pid} ended with {code}, and nobody had killed it")
        with self._lock:
            for one in self._sent:
                if self.board.begun[one.call] > one.attempts:
                    self._say(f"{one.what} {one.call} was begun {self.board.begun[one.call]} times")
                    self.figures.wrong += 1
            self._sent.clear()

    def wrong(self, text):
        with self._lock:
            self.figures.wrong += 1
            self._say(text)

    def lost(self, text):
        with self._lock:
            self.figures.lost += 1
            self._say(text)

    def _over(self, one):
        one.is_over = True
        one.future = None
        with self._lock:
            self.progress += 1
