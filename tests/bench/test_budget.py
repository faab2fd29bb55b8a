"""The time of a quick run: who may begin, who is left out, and that it says so. The clock is turned by hand."""

import math

import pytest

from shmexec.bench import measuring
from shmexec.bench.budget import Budget
from shmexec.bench.timing import FULL


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(measuring.time, "monotonic", clock)
    return clock


def test_without_a_limit_everything_may_begin(clock):
    budget = Budget(math.inf, {"a": 2}, clock)
    budget.took("a", 1, 1e9)
    assert budget.may_begin("a", 2)
    assert budget.may_begin("a", 1)
    assert budget.patience is None


def test_all_peers_are_filled_up_to_one_level(clock):
    """40 s left and 16 spent, 56 for three: a needs 8 in all, so that b and c, who want more, have 24 each."""
    budget = Budget(56.0, dict.fromkeys("abc", 4), clock)
    for peer, seconds in ("a", 2.0), ("b", 6.0), ("c", 8.0):
        clock.now += seconds
        budget.took(peer, 1, seconds)
    assert budget.left == 40
    assert budget.level() == pytest.approx(24.0)


def test_a_peer_that_takes_more_than_the_others_leaves_them_their_share(clock):
    budget = Budget(30.0, dict.fromkeys(["slow", "fast", "faster"], 10), clock)
    ran = {"slow": 0, "fast": 0, "faster": 0}
    for cell in range(10):
        for peer, seconds in ("slow", 4.0), ("fast", 1.0), ("faster", 0.1):
            if budget.may_begin(peer, cell):
                clock.now += seconds
                budget.took(peer, cell, seconds)
                ran[peer] += 1
    assert ran == {"slow": 4, "fast": 10, "faster": 10}
    assert budget.left > 0


def test_if_all_fits_nobody_is_held_back(clock):
    budget = Budget(100.0, dict.fromkeys(["slow", "fast"], 4), clock)
    for cell in range(4):
        for peer, seconds in ("slow", 20.0), ("fast", 1.0):
            assert budget.may_begin(peer, cell)
            clock.now += seconds
            budget.took(peer, cell, seconds)


def test_a_further_run_begins_if_it_fits_by_what_it_took(clock):
    budget = Budget(10.0, {"a": 2}, clock)
    for cell, seconds in ("short", 1.0), ("long", 5.0):
        clock.now += seconds
        budget.took("a", cell, seconds)
    assert budget.may_begin("a", "short")
    assert not budget.may_begin("a", "long")


def test_an_answer_is_awaited_for_a_third_of_what_is_left(clock):
    budget = Budget(60.0, {"a": 2}, clock)
    assert budget.patience == 20
    clock.now += 59
    assert budget.patience == Budget.LEAST_PATIENCE


class Scripted:
    """A peer's process that takes what the table says."""

    seconds: dict = {}  # noqa: RUF012
    clock: Clock

    def __init__(self, name, workers):
        self.name = name
        self.is_fresh = True

    def ask(self, question, patience):
        self.is_fresh = False
        workload = question["workload"]
        seconds = self.seconds[self.name].get(workload, 1.0)
        if patience is not None and seconds > patience:
            self.clock.now += patience
            return {"error": "no answer", "ended": True}
        self.clock.now += seconds
        return {"seconds": seconds}

    def close(self):
        pass

    kill = close

    def end(self, deadline=None):
        return 3 if self.name == "forgetful" else 0


@pytest.fixture
def scripted(monkeypatch, clock):
    monkeypatch.setattr(measuring, "Child", Scripted)
    Scripted.clock = clock

    def run(seconds, limit, rounds=2, without=()):
        Scripted.seconds = seconds
        monkeypatch.setattr(measuring, "Budget", lambda *args: Budget(*args, clock))
        cases = [("startup", 0), ("round-trip", 0), ("array-in", 1024), ("stack", 0)]
        wanted = {name: [case for case in cases if (name, case[0]) not in without] for name in seconds}
        return measuring.measure(wanted, 2, rounds, FULL, limit)

    return run


def test_what_tells_most_is_measured_first():
    sized = [("array-in", 1), ("array-in", 2), ("array-in", 3), ("nested", 1), ("nested", 3)]
    short = [(name, 0) for name in ("round-trip", "cold", "wait", "as-completed", "callback", "burst", "each", "map")]
    short += [("few", 0), ("spread", 0)]
    assert measuring._most_telling_first([("stack", 0), *sized, *short]) == [
        *short,
        ("array-in", 3),
        ("nested", 3),
        ("array-in", 1),
        ("nested", 1),
        ("stack", 0),
        ("array-in", 2),
    ]


def test_what_was_left_out_is_a_line(scripted, clock):
    begun = clock.now
    found = scripted({"a": {}, "slow": {"array-in": 5.0}}, 14.0)
    assert clock.now - begun <= 14 + Budget.LEAST_PATIENCE
    assert found.figures["stack", 0, "a"][:1] == [1.0]
    assert "slow: left out for want of time: stack" in found.notes
    assert any(note.endswith("further runs were left out for want of time") for note in found.notes)


def test_without_a_limit_all_rounds_are_run(scripted):
    found = scripted({"a": {}, "b": {"stack": 1e6}}, math.inf, rounds=3)
    assert found.notes == []
    assert {key: len(values) for key, values in found.figures.items() if key[2] == "b"} == {
        ("startup", 0, "b"): 2,
        ("round-trip", 0, "b"): 3,
        ("array-in", 1024, "b"): 3,
        ("stack", 0, "b"): 3,
    }


def test_a_peer_that_does_not_start_is_a_line_and_the_others_are_measured(scripted):
    found = scripted({"never": {"startup": 1e9}, "a": {}}, 60.0)
    assert found.notes == ["never, startup: no answer; nothing else was measured"]
    assert {key[2] for key in found.figures} == {"a"}


def test_what_is_not_wanted_of_a_peer_is_neither_asked_nor_left_out(scripted):
    found = scripted({"a": {}, "b": {}}, math.inf, without=[("b", "round-trip")])
    assert found.notes == []
    assert {key[2] for key in found.figures if key[0] == "round-trip"} == {"a"}
    assert {key[2] for key in found.figures if key[0] == "stack"} == {"a", "b"}


def test_a_peer_needs_no_time_for_what_is_not_wanted_of_it(clock):
    """60 s for both: what b has still to do takes 10, what a has still to do takes 90, and 50 are its."""
    budget = Budget(60.0, {"a": 10, "b": 2}, clock)
    for peer, seconds in ("a", 9.0), ("b", 5.0):
        clock.now += seconds
        budget.took(peer, 1, seconds)
    assert budget.level() == pytest.approx(50.0)


def test_processes_that_a_peer_forgets_are_a_line(scripted):
    found = scripted({"forgetful": {}}, 60.0)
    assert found.notes == ["forgetful: 3 of its processes did not end by themselves"]
