"""Whose mask a worker works with (native/place.h): all interleavings of who sleeps and who wants to wake it elsewhere.

    python docs/internals/model/place.py

The sleeper says `waiting`, sleeps, or not, says that it is awake, and looks at `moved`. The waker, who has seen
`waiting`, says BUSY, looks at `waiting` once more, sets the sleeper's mask, and says MOVED. It may be killed anywhere.

Stores that are not read-modify-writes go through a store buffer of one entry, as in total store order; a fence waits
until it is empty. (The waker's fence is for machines with weaker order.) Checked: who works does so with its own mask,
unless the waker has been killed; and nobody waits for ever.

Faults: NOFENCE  none between the sleeper's store and its look; NOLOOK  the waker does not look again; NOWAIT  the
sleeper takes BUSY for an end.
"""

import sys
from typing import NamedTuple

from explore import report

FREE, BUSY, MOVED = range(3)
FAULTS = ["NOFENCE", "NOLOOK", "NOWAIT"]


class State(NamedTuple):
    """Everything. Program counters are names of the steps below."""

    waiting: int = 0
    waiting_store: int = -1  # in the sleeper's store buffer
    moved: int = FREE
    mask_is_own: bool = True
    sleeper: str = "work"
    waker: str = "out"
    killed: bool = False
    sleeps: int = 2  # how often it still does
    comes: int = 2  # how often the waker still does


def sleeps(s: State, fault: str):
    step = s.sleeper
    if s.waiting_store >= 0:
        yield s._replace(waiting=s.waiting_store, waiting_store=-1)
    if step == "work" and s.sleeps and s.waiting_store < 0:
        late = s.moved == MOVED  # what came late is put right here
        t = s._replace(moved=FREE, mask_is_own=True) if late else s
        yield t._replace(waiting_store=1, sleeper="asleep", sleeps=s.sleeps - 1)
    elif step == "asleep" and s.waiting_store < 0:  # woken, or by itself
        yield s._replace(waiting_store=0, sleeper="look")
    elif step == "look" and (fault == "NOFENCE" or s.waiting_store < 0):
        if s.moved == MOVED:
            yield s._replace(mask_is_own=True, moved=FREE, sleeper="work")
        elif s.moved == FREE or s.killed or fault == "NOWAIT":
            yield s._replace(sleeper="work")


def wakes(s: State, fault: str):
    if s.killed:
        return
    yield s._replace(killed=True)
    step = s.waker
    if step == "out" and s.comes and s.waiting:
        yield s._replace(waker="say busy", comes=s.comes - 1)
    elif step == "say busy":
        yield s._replace(moved=BUSY, waker="look") if s.moved == FREE else s._replace(waker="out")
    elif step == "look":
        yield s._replace(waker="set") if s.waiting or fault == "NOLOOK" else s._replace(moved=FREE, waker="out")
    elif step == "set":
        yield s._replace(mask_is_own=False, waker="say moved")
    elif step == "say moved":
        yield s._replace(moved=MOVED, waker="out")


def next_states(s: State, fault: str):
    yield from sleeps(s, fault)
    yield from wakes(s, fault)


def is_bad(s: State, is_end: bool) -> bool:
    """Somebody else's mask at work; or, where nothing can happen any more, one who waits."""
    return (s.sleeper == "work" and not s.mask_is_own and not s.killed) or (is_end and s.sleeper != "work")


if __name__ == "__main__":
    sys.exit(report(State(), next_states, is_bad, FAULTS))
