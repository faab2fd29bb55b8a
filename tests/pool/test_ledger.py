"""What happens to a call, without processes: events in, the next step out."""

import numpy as np
import pytest

import shmexec
from shmexec._core import Call, CallState, Ledger, Pack, Seat, Send, Start, Withdraw
from shmexec.pickling.pickler import dump_arguments

_KIND = 1


def make_call(number):
    return Call(number, _KIND, None, len, (), {}, "len")


class Pool:
    """Plays the pool: takes the steps, keeps what a worker would have."""

    def __init__(self, workers=2, depth=2, **options):
        self.ledger = Ledger(workers, depth, **options)
        self.seats = []
        self.numbers = 0

    def submit(self, count=1):
        calls = []
        for _ in range(count):
            self.numbers += 1
            calls.append(make_call(self.numbers))
            self.ledger.submit(calls[-1])
        return calls

    def run(self, begun=()):
        """Take all steps; what they were."""
        names = []
        while (step := self.ledger.next_step()) is not None:
            names.append(type(step).__name__)
            if isinstance(step, Start):
                self.seats.append(Seat(len(self.seats)))
                self.ledger.started(step, self.seats[-1])
            elif isinstance(step, Pack):
                self.ledger.packed(step.call)
            elif isinstance(step, Send):
                self.ledger.sent(step.seat, step.call)
            elif isinstance(step, Withdraw):
                self.ledger.withdrawn(step.seat, step.call, step.call not in begun)
        return names

    def numbers_of(self):
        return [[call.number for call in seat.sent] for seat in self.seats]


def test_a_worker_is_started_for_a_call_that_finds_none_idle():
    pool = Pool()
    pool.submit()
    assert pool.run() == ["Start", "Pack", "Send"]
    (first,) = pool.seats[0].sent
    pool.ledger.ended(first)
    pool.submit()
    assert pool.run() == ["Pack", "Send"]
    pool.submit()
    assert "Start" in pool.run()
    assert len(pool.seats) == 2


def test_all_workers_are_started_at_once_if_they_are_to_be_forked():
    pool = Pool(3, eager=True)
    pool.submit()
    assert pool.run().count("Start") == 3


class Light(Pool):
    """All calls have one shared array, and take no time."""

    def __init__(self, workers, **options):
        super().__init__(workers, **options)
        self.array = shmexec.zeros(10_000)
        for _ in range(40):
            self.ledger.note(0.0)

    def run(self, begun=()):
        for call in self.ledger.pending():
            if call.packed is None:
                call.packed = dump_arguments(((self.array,), {}))
        return super().run(begun)


def test_light_calls_are_packed_and_sent_far_ahead():
    pool = Light(2)
    pool.submit(500)
    pool.run()
    assert [len(numbers) for numbers in pool.numbers_of()] == [192, 192]
    assert pool.ledger.waiting_count == 500 - 384
    assert all(call.is_light for seat in pool.seats for call in seat.sent)


def test_light_calls_are_packed_again_when_half_are_left():
    pool = Light(1)
    pool.submit(500)
    pool.run()
    (seat,) = pool.seats
    for _ in range(95):
        pool.ledger.ended(seat.sent[0])
        assert not pool.ledger.wants_packing
    pool.ledger.ended(seat.sent[0])
    assert pool.ledger.wants_packing
    pool.run()
    assert len(seat.sent) == 192


def test_calls_that_copy_are_not_packed_ahead():
    pool = Light(1)
    pool.array = np.zeros(10_000)  # plain, and copied
    pool.submit(500)
    pool.run()
    assert [len(numbers) for numbers in pool.numbers_of()] == [2]
    assert pool.ledger.wants_packing, "whenever one has ended"
    assert not any(call.is_light for call in pool.seats[0].sent)


def test_calls_are_spread_and_each_worker_is_told_of_so_many_ahead():
    pool = Pool()
    pool.submit(7)
    pool.run()
    assert sorted(number for numbers in pool.numbers_of() for number in numbers) == [1, 2, 3, 4]
    assert [len(numbers) for numbers in pool.numbers_of()] == [2, 2]
    assert pool.ledger.sent_count == 4
    assert pool.ledger.waiting_count == 3


@pytest.mark.parametrize("warm", [0, 1])
def test_the_worker_that_has_answered_last_gets_the_next_call(warm):
    pool = Pool()
    pool.submit(2)
    pool.run()
    for seat in (pool.seats[1 - warm], pool.seats[warm]):
        pool.ledger.ended(seat.sent[0])
    (call,) = pool.submit()
    assert pool.run() == ["Pack", "Send"]
    assert pool.seats[warm].sent == [call]


def test_a_call_that_waits_behind_another_goes_to_an_idle_worker():
    pool = Pool()
    pool.submit(4)
    pool.run()
    idle, busy = pool.seats
    for call in list(idle.sent):
        pool.ledger.ended(call)
    ahead, behind = busy.sent
    assert pool.run() == ["Withdraw", "Send"]
    assert (busy.sent, idle.sent) == ([ahead], [behind])


def test_a_call_that_was_begun_is_not_asked_for_again():
    pool = Pool()
    pool.submit(4)
    pool.run()
    idle, busy = pool.seats
    for call in list(idle.sent):
        pool.ledger.ended(call)
    behind = busy.sent[1]
    assert pool.run(begun=[behind]) == ["Withdraw"]
    assert behind.has_begun
    assert behind in busy.sent


def test_the_calls_of_a_dead_worker_come_back_first_but_for_its_victim():
    pool = Pool(1)
    pool.submit(5)
    pool.run()
    (seat,) = pool.seats
    victim, behind = seat.sent
    pool.ledger.died(seat, victim)
    assert victim.state == CallState.PACKING, "in the hands of who judges the death"
    pool.ledger.ended(victim)
    pool.seats.clear()
    pool.run()
    assert pool.numbers_of() == [[behind.number, 3]]


def test_calls_of_a_worker_that_leaves_go_to_others_in_their_order():
    pool = Pool()
    pool.submit(4)
    pool.run()
    leaving, staying = pool.seats
    expected = [call.number for call in leaving.sent]
    for call in list(staying.sent):
        pool.ledger.ended(call)
    pool.ledger.leaving(leaving)
    pool.run()
    assert [call.number for call in staying.sent] == expected


def test_a_blocked_call_waits_until_it_is_unblocked():
    pool = Pool()
    call = make_call(1)
    pool.ledger.submit(call, True)
    assert pool.run() == []
    assert not pool.ledger.is_idle
    pool.ledger.unblock(call)
    assert pool.run() == ["Start", "Pack", "Send"]


def test_without_memory_nothing_is_packed_until_a_call_has_ended():
    pool = Pool(1)
    first, second, third = pool.submit(3)
    step = pool.ledger.next_step()
    assert isinstance(step, Start)
    pool.seats.append(Seat(0))
    pool.ledger.started(step, pool.seats[0])
    pool.ledger.packed(pool.ledger.next_step().call)
    sending = pool.ledger.next_step()
    pool.ledger.sent(sending.seat, sending.call)
    step = pool.ledger.next_step()
    assert step.call is second
    assert pool.ledger.try_later(second)
    assert pool.ledger.next_step() is None
    pool.ledger.ended(first)
    assert pool.ledger.next_step().call is second
    assert not pool.ledger.try_later(second), "no call is left whose end could free some"
    pool.ledger.ended(second)
    assert pool.ledger.next_step().call is third


def test_the_memory_of_a_call_is_free_before_it_is_over():
    """Else another thread finds neither memory nor a call whose end could free some, and fails its own."""
    pool = Pool(1)
    (call,) = pool.submit()
    before = shmexec.heap_info().blocks
    call.packed = dump_arguments(((np.ones(100_000),), {}))
    assert shmexec.heap_info().blocks == before + 1
    pool.run()
    pool.ledger.ended(call)
    assert shmexec.heap_info().blocks == before


@pytest.mark.parametrize("where", ["blocked", "waiting", "packing", "packed", "sent"])
def test_a_call_can_end_wherever_it_is(where):
    pool = Pool(1)
    call = make_call(1)
    pool.ledger.submit(call, where == "blocked")
    if where in ("packing", "packed", "sent"):
        step = pool.ledger.next_step()
        pool.seats.append(Seat(0))
        pool.ledger.started(step, pool.seats[0])
        pool.ledger.next_step()
    if where in ("packed", "sent"):
        pool.ledger.packed(call)
    if where == "sent":
        step = pool.ledger.next_step()
        pool.ledger.sent(step.seat, step.call)
    assert not pool.ledger.is_idle
    pool.ledger.ended(call)
    assert pool.ledger.is_idle
    assert (pool.ledger.waiting_count, pool.ledger.sent_count) == (0, 0)


def test_a_start_that_fails_is_not_tried_again_while_others_are_there():
    pool = Pool(2)
    pool.submit(1)
    pool.run()
    pool.submit(2)
    step = pool.ledger.next_step()
    assert isinstance(step, Start)
    pool.ledger.not_started(step, can_be=False)
    assert "Start" not in pool.run()


def test_a_start_that_was_interrupted_is_tried_again_and_counts_once():
    pool = Pool(1)
    pool.submit(1)
    step = pool.ledger.next_step()
    assert isinstance(step, Start)
    pool.ledger.not_started(step, can_be=True)
    pool.ledger.not_started(step, can_be=True)
    assert pool.run() == ["Start", "Pack", "Send"]


def test_a_full_ring_is_left_alone_until_somebody_looks_again():
    pool = Pool(1)
    pool.submit(2)
    step = pool.ledger.next_step()
    pool.seats.append(Seat(0))
    pool.ledger.started(step, pool.seats[0])
    while isinstance(step := pool.ledger.next_step(), Pack):
        pool.ledger.packed(step.call)
    step.seat.is_full = True
    pool.ledger.not_sent(step.call)
    assert not isinstance(pool.ledger.next_step(), Send)
    pool.ledger.look_again()
    assert pool.ledger.next_step().call is step.call


# ---- workers that sleep ---------------------------------------------------------------------------


class Sleeper(Seat):
    is_asleep = False

    def sleeps(self):
        return self.is_asleep


def short_calls_on(*asleep, depth=2, more=0):
    """Calls take a microsecond; so many workers, of which the first has answered last, and there can be more."""
    pool = Pool(len(asleep) + more, depth=depth)
    for number in range(len(asleep)):
        pool.submit()
        start = pool.ledger.next_step()
        assert isinstance(start, Start)
        pool.seats.append(Sleeper(number))
        pool.ledger.started(start, pool.seats[-1])
    pool.run()
    for seat in reversed(pool.seats):
        pool.ledger.ended(seat.sent[0])
        pool.ledger.note(1000.0)
    for seat, is_asleep in zip(pool.seats, asleep, strict=True):
        seat.is_asleep = is_asleep
    return pool


def test_a_short_call_waits_behind_another_rather_than_wake_a_worker():
    pool = short_calls_on(False, True)
    pool.submit(2)
    assert pool.run() == ["Pack", "Send", "Pack", "Send"]
    assert [len(seat.sent) for seat in pool.seats] == [2, 0]


def test_a_worker_that_is_awake_gets_it():
    pool = short_calls_on(False, False)
    pool.submit(2)
    pool.run()
    assert [len(seat.sent) for seat in pool.seats] == [1, 1]


def test_a_call_that_would_take_long_wakes_a_worker():
    pool = short_calls_on(False, True)
    for _ in range(20):
        pool.ledger.note(20_000.0)
    pool.submit(2)
    pool.run()
    assert [len(seat.sent) for seat in pool.seats] == [1, 1]


@pytest.mark.parametrize(("cores", "behind"), [(3, 10), (2, 19)])
def test_a_call_that_would_wait_for_long_wakes_a_worker_if_there_is_a_core_for_it(cores, behind):
    pool = short_calls_on(False, True, depth=100)
    pool.ledger.cores = cores
    for _ in range(20):
        pool.ledger.note(5001.0)
    pool.submit(19)
    while not pool.seats[1].sent and (step := pool.ledger.next_step()) is not None:
        if isinstance(step, Pack):
            pool.ledger.packed(step.call)
        else:
            pool.ledger.sent(step.seat, step.call)
    assert len(pool.seats[0].sent) == behind


def test_when_nobody_knows_how_long_calls_take_a_worker_is_woken():
    pool = Pool()
    pool.submit(2)
    while (step := pool.ledger.next_step()) is not None:
        if isinstance(step, Start):
            pool.seats.append(Sleeper(len(pool.seats)))
            pool.ledger.started(step, pool.seats[-1])
            pool.seats[-1].is_asleep = len(pool.seats) == 2
        elif isinstance(step, Pack):
            pool.ledger.packed(step.call)
        else:
            pool.ledger.sent(step.seat, step.call)
    assert [len(seat.sent) for seat in pool.seats] == [1, 1]


def test_calls_that_have_waited_for_too_long_wake_a_worker():
    pool = short_calls_on(False, True)
    pool.submit(2)
    pool.run()
    assert pool.run() == []
    pool.ledger.hurry()
    assert pool.run() == ["Withdraw", "Send"]
    assert [len(seat.sent) for seat in pool.seats] == [1, 1]
    assert pool.run() == []


def test_a_call_of_a_worker_that_is_not_awake_yet_goes_to_one_that_is_idle():
    pool = short_calls_on(True, True)
    pool.submit()
    pool.run()
    assert [len(seat.sent) for seat in pool.seats] == [1, 0]
    pool.seats[1].is_asleep = False
    assert pool.run() == ["Withdraw", "Send"]
    assert [len(seat.sent) for seat in pool.seats] == [0, 1]
    pool.seats[0].is_asleep = False
    assert pool.run() == [], "it runs it"


def test_when_all_sleep_one_is_woken_and_if_it_does_not_come_another():
    pool = short_calls_on(True, True)
    pool.submit(2)
    pool.run()
    assert [len(seat.sent) for seat in pool.seats] == [2, 0]
    assert pool.run() == [], "its wake is under way"
    pool.ledger.hurry()
    assert pool.run() == ["Withdraw", "Send"]
    assert [len(seat.sent) for seat in pool.seats] == [1, 1]
    pool.ledger.hurry()
    assert pool.run() == [], "no call goes back and forth"


def test_one_that_does_not_come_does_not_hide_a_call_that_waits_behind_another():
    pool = short_calls_on(True, False, True)
    for _ in range(20):
        pool.ledger.note(20_000.0)
    pool.submit(2)
    pool.run()
    for _ in range(20):
        pool.ledger.note(1000.0)
    pool.seats[0].is_full = True
    pool.submit()
    pool.run()
    pool.seats[0].is_full = False
    assert [len(seat.sent) for seat in pool.seats] == [1, 2, 0]
    assert pool.run() == []
    pool.ledger.hurry()
    assert pool.run() == ["Withdraw", "Send"]
    assert [len(seat.sent) for seat in pool.seats] == [1, 1, 1]


def test_an_answer_does_not_call_the_hurry_off():
    pool = short_calls_on(False, True)
    pool.submit(2)
    pool.run()
    pool.ledger.hurry()
    pool.ledger.note(1000.0)
    assert pool.run() == ["Withdraw", "Send"]


class Late(Sleeper):
    """A worker that is not up yet, or not as far as the parent knows."""

    come_up = False

    def is_up(self):
        return self.come_up

    def sleeps(self):
        return self.is_asleep or not self.come_up


@pytest.mark.parametrize("is_asleep", [False, True])
def test_a_call_of_a_worker_that_is_not_up_goes_to_one_that_has_nothing_to_do(is_asleep):
    pool = short_calls_on(False, more=1)
    pool.ledger.note(20_000_000.0)
    pool.submit(2)
    while (step := pool.ledger.next_step()) is not None:
        if isinstance(step, Start):
            pool.seats.append(Late(1))
            pool.ledger.started(step, pool.seats[1])
        elif isinstance(step, Pack):
            pool.ledger.packed(step.call)
        else:
            pool.ledger.sent(step.seat, step.call)
    assert [len(seat.sent) for seat in pool.seats] == [1, 1]
    pool.ledger.ended(pool.seats[0].sent[0])
    pool.seats[0].is_asleep = is_asleep
    assert pool.run() == ["Withdraw", "Send"]
    assert [len(seat.sent) for seat in pool.seats] == [1, 0]
    pool.submit()
    pool.run()
    assert [len(seat.sent) for seat in pool.seats] == [1, 1]
    assert pool.run() == [], "the other is busy"


def test_calls_that_wait_for_memory_do_not_hide_one_that_waits_behind_another():
    pool = Pool()
    pool.submit(3)
    pool.run()
    one, other = sorted(pool.seats, key=lambda seat: len(seat.sent))
    pool.submit()
    pool.ledger.ended(one.sent[0])
    step = pool.ledger.next_step()
    assert isinstance(step, Pack)
    assert pool.ledger.try_later(step.call)
    assert isinstance(step := pool.ledger.next_step(), Withdraw)
    assert step.seat is other


def test_a_worker_whose_ring_is_full_of_what_was_taken_back_gets_no_more():
    pool = Pool()
    pool.submit(3)
    pool.run()
    one, _ = sorted(pool.seats, key=lambda seat: len(seat.sent))
    pool.ledger.ended(one.sent[0])
    one.is_full = True
    assert pool.run() == []
    pool.ledger.look_again()
    assert pool.run() == ["Withdraw", "Send"]


def test_a_call_that_waits_behind_another_begins_before_a_later_one():
    """The later one may wait for it."""
    pool = Pool()
    pool.submit()
    pool.run()
    pool.submit(3)
    steps = []
    while (step := pool.ledger.next_step()) is not None:
        if isinstance(step, Pack):
            pool.ledger.packed(step.call)
        elif isinstance(step, Send):
            pool.ledger.sent(
                pool.seats[0] if not steps else step.seat, step.call
            )  # the first, before the second worker
        elif isinstance(step, Withdraw):
            pool.ledger.withdrawn(step.seat, step.call, True)
        elif isinstance(step, Start):
            pool.seats.append(Seat(len(pool.seats)))
            pool.ledger.started(step, pool.seats[-1])
        steps.append(type(step).__name__)
    assert [calls[0] for calls in pool.numbers_of()] == [1, 2]


def test_with_more_cores_no_call_goes_back_and_forth_either():
    pool = short_calls_on(False, True, depth=100)
    pool.ledger.cores = 8
    for _ in range(20):
        pool.ledger.note(9000.0)
    for _ in range(12):
        pool.submit()
        assert "Withdraw" not in pool.run()
    assert [len(seat.sent) for seat in pool.seats] == [6, 6]
