"""How a figure is taken: how many calls, which of them are timed. The clock is turned by hand."""

import pytest

from shmexec.bench import timing


@pytest.fixture
def clock(monkeypatch):
    """A list whose last number is the time."""
    clock = [100.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[-1])
    return clock


def taking(clock, seconds):
    """A call that takes what is next of the list, the last for ever; and how many were made."""
    made = []

    def call():
        clock.append(clock[-1] + seconds[min(len(made), len(seconds) - 1)])
        made.append(clock[-1])

    return call, made


def test_the_first_call_is_not_timed(clock):
    call, made = taking(clock, [9.0, 1.0])
    assert timing.median_of_warm(call, 3.0, 1, 100)() == pytest.approx(1.0)
    assert len(made) == 1 + 3


def test_a_call_that_takes_longer_than_there_is_time_is_timed_once(clock):
    call, made = taking(clock, [5.0])
    assert timing.median_of_warm(call, 0.1, 1, 100)() == pytest.approx(5.0)
    assert len(made) == 2


def test_there_are_at_least_and_at_most_so_many_calls(clock):
    call, made = taking(clock, [1.0])
    timing.median_of_warm(call, 0.0, 10, 100)()
    assert len(made) == 1 + 10
    timing.median_of_warm(call, 1e6, 10, 100)()
    assert len(made) == 1 + 10 + 1 + 100


def test_the_number_of_items_is_found_by_two_looks():
    asked = []

    def each(count):
        asked.append(count)
        return 1e-3 if count <= 100 else 1e-5  # chunks of many items

    run = timing.per_item(each, 1.0, 20_000)
    assert asked == [100, 1000]
    assert run() == 1e-5
    assert asked[-1] == 20_000


def test_of_who_is_slow_a_hundred_items_are_looked_at_once():
    asked = []
    run = timing.per_item(lambda count: asked.append(count) or 0.1, 0.05, 20_000)
    assert asked == [100]
    run()
    assert asked == [100, 100]
