"""Who reads the answers (native/hub.h): all interleavings of a leader, the collector, two workers, a death.

    python docs/internals/model/hub.py

A leader and followers as usual, but for three things: nobody promotes a follower (the collector, which runs no user
code, takes over), workers see the baton's state in one word of three values, and the collector can ask a leader for
the baton.

Stores that are not read-modify-writes go through a store buffer of one entry for each thread, as in total store
order; a fence waits until it is empty; a dead process's buffer reaches memory before its death is seen. The GIL is
held from a thread's waking to its sleeping. Checked: where nothing can happen any more, every published answer is
read, every death is judged, and the leader does not sleep.

Faults: NOFENCE_WORKER, NOFENCE_PARENT  no fence before the look; NOLOOK_LEAVE, NOLOOK_SLEEP  no look at the rings
after the store; NOKICK  the collector waits for the baton without a kick; NOEVENT  leave swaps the word and writes
nothing; BLINDSLEEP  `turn` is read after the look at everything else.
"""

import sys
from typing import Any, NamedTuple

from explore import report

AWAKE, COLLECTOR, LEADER = range(3)
FAULTS = ["NOFENCE_WORKER", "NOFENCE_PARENT", "NOLOOK_LEAVE", "NOLOOK_SLEEP", "NOKICK", "NOEVENT", "BLINDSLEEP"]
RECORDS = (1, 1)


class State(NamedTuple):
    """Everything. Parent's program counters are names of the steps below."""

    word: int = COLLECTOR
    word_store: int = -1  # in the parent's store buffer
    turn: int = 0
    event: int = 0
    heads: tuple[int, int] = (0, 0)
    head_stores: tuple[int, int] = (0, 0)
    tails: tuple[int, int] = (0, 0)
    worker: tuple[str, str] = ("publish", "publish")
    made: tuple[int, int] = (0, 0)
    saw: tuple[int, int] = (0, 0)
    killed: tuple[int, int] = (0, 0)
    judged: tuple[int, int] = (0, 0)
    gil: str = ""
    holder: str = ""
    wanted: int = 0
    leader: str = "out"
    seen: int = 0
    collector: str = "epoll"
    then: str = ""  # what follows the collector's leave
    comes: int = 2  # how often the leader still comes


def at(pair: tuple[Any, Any], i: int, value: Any) -> tuple[Any, Any]:
    """The pair with another i-th part."""
    return (value, pair[1]) if i == 0 else (pair[0], value)


def has_answer(s: State) -> bool:
    return s.heads != s.tails


def is_over(s: State) -> bool:
    """The leader's future: the first answer of the first worker, or that one's death."""
    return s.tails[0] > 0 or bool(s.judged[0])


def swap(s: State, value: int) -> State | None:
    """A read-modify-write of the word by the parent: waits for its buffer."""
    return None if s.word_store >= 0 else s._replace(word=value)


def workers(s: State, fault: str):
    for i in (0, 1):
        if s.head_stores[i]:
            yield s._replace(heads=at(s.heads, i, s.heads[i] + 1), head_stores=at(s.head_stores, i, 0))
        if s.killed[i]:
            continue
        if sum(s.killed) == 0:
            yield s._replace(killed=at(s.killed, i, 1))
        step = s.worker[i]
        if step == "publish" and s.made[i] < RECORDS[i] and not s.head_stores[i]:
            yield s._replace(
                head_stores=at(s.head_stores, i, 1), made=at(s.made, i, s.made[i] + 1), worker=at(s.worker, i, "look")
            )
        elif step == "look" and (fault == "NOFENCE_WORKER" or not s.head_stores[i]):
            yield s._replace(saw=at(s.saw, i, s.word), worker=at(s.worker, i, "swap" if s.word != AWAKE else "publish"))
        elif step == "swap" and not s.head_stores[i]:
            if s.word == s.saw[i]:
                yield s._replace(word=AWAKE, worker=at(s.worker, i, "wake"))
            else:
                yield s._replace(worker=at(s.worker, i, "publish"))
        elif step == "wake":
            t = s._replace(worker=at(s.worker, i, "publish"))
            yield t._replace(event=1) if s.saw[i] == COLLECTOR else t._replace(turn=s.turn + 1)


def leave(s: State, me: str, step: str, fault: str):
    """The steps of laying the baton down, shared by both; ends with step `left`."""
    put = lambda t, name: t._replace(**{me: name})  # noqa: E731
    if step == "leave" and s.word_store < 0:
        yield put(s._replace(holder="", word_store=COLLECTOR), "leave look")
    elif step == "leave look" and (fault == "NOFENCE_PARENT" or s.word_store < 0):
        look = fault != "NOLOOK_LEAVE" and has_answer(s)
        yield put(s, "leave swap" if look else "left")
    elif step == "leave swap" and (t := swap(s, AWAKE)) is not None:
        rings = s.word == COLLECTOR and fault != "NOEVENT"
        yield put(t._replace(event=1 if rings else s.event), "left")


def leads(s: State, fault: str):
    step = s.leader
    if step == "out" and s.comes and not s.gil and not is_over(s):
        yield s._replace(gil="leader", leader="take", comes=s.comes - 1)
    if step == "asleep" and s.turn != s.seen and not s.gil:
        yield s._replace(gil="leader", leader="woken")
    if s.gil != "leader":
        return
    if step == "take":
        if s.holder or s.wanted:
            yield s._replace(gil="", leader="out")  # a follower: others finish its future
        elif (t := swap(s, AWAKE)) is not None:
            yield t._replace(holder="leader", leader="read turn")
    elif step == "read turn":
        yield s._replace(seen=s.turn, leader="collect")
    elif step == "collect":
        yield s._replace(tails=s.heads, leader="decide")
    elif step == "decide":
        if is_over(s) or s.wanted:
            yield s._replace(leader="leave")
        else:
            yield s._replace(leader="say")
            yield s._replace(leader="leave")  # its time is over, or a signal handler raises
    elif step == "say" and s.word_store < 0:
        yield s._replace(word_store=LEADER, leader="look")
    elif step == "look" and (fault == "NOFENCE_PARENT" or s.word_store < 0):
        due = (fault != "NOLOOK_SLEEP" and has_answer(s)) or (s.turn != s.seen and fault != "BLINDSLEEP")
        t = s._replace(seen=s.turn) if fault == "BLINDSLEEP" else s
        yield t._replace(leader="woken") if due else t._replace(leader="asleep", gil="")
    elif step == "woken" and (t := swap(s, AWAKE)) is not None:
        yield t._replace(leader="read turn")
    elif step.startswith("leave"):
        yield from leave(s, "leader", step, fault)
    elif step == "left":
        yield s._replace(gil="", leader="out", event=1 if s.wanted else s.event)


def collects(s: State, fault: str):
    step = s.collector
    dead = [i for i in (0, 1) if s.killed[i] and not s.head_stores[i] and not s.judged[i]]
    if step == "epoll" and not s.gil and (s.event or (dead and not s.wanted)):
        yield s._replace(gil="collector", collector="round", event=0)
    if s.gil != "collector":
        return
    if step == "round":
        if not s.holder and (t := swap(s, AWAKE)) is not None:
            yield t._replace(holder="collector", collector="collect", then="deaths", wanted=0)
        elif s.holder:
            yield s._replace(collector="deaths")
    elif step == "collect":
        yield s._replace(tails=s.heads, collector="judge" if s.then == "rest" else "leave")
    elif step == "deaths":
        if not dead:
            yield s._replace(collector="rest")
        elif not s.holder and (t := swap(s, AWAKE)) is not None:
            yield t._replace(holder="collector", collector="collect", then="rest", wanted=0)
        elif s.holder:
            kicked = s.turn if fault == "NOKICK" else s.turn + 1
            yield s._replace(wanted=1, turn=kicked, collector="rest")
    elif step == "judge":
        judged = (s.judged[0] or int(0 in dead), s.judged[1] or int(1 in dead))
        yield s._replace(judged=judged, collector="leave")
    elif step.startswith("leave"):
        yield from leave(s, "collector", step, fault)
    elif step == "left":
        yield s._replace(collector=s.then)
    elif step == "rest":
        yield s._replace(gil="", collector="epoll")


def next_states(s: State, fault: str):
    if s.word_store >= 0:
        yield s._replace(word=s.word_store, word_store=-1)
    yield from workers(s, fault)
    yield from leads(s, fault)
    yield from collects(s, fault)


def is_bad(s: State, is_end: bool) -> bool:
    """Where nothing can happen any more."""
    unjudged = any(killed and not judged for killed, judged in zip(s.killed, s.judged, strict=True))
    return is_end and (has_answer(s) or unjudged or s.leader == "asleep" or bool(s.gil))


if __name__ == "__main__":
    sys.exit(report(State(), next_states, is_bad, FAULTS))
