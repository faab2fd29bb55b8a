"""Limits of time, retries and cancelling, without processes: what the ledger decides."""

import pytest

from shmexec._core import Call, CallState, Ledger, Pack, Seat, Send, Start, Verdict, Withdraw

SECOND = 10**9


class Pool:
    """Plays the pool and its workers: takes the steps, keeps the time."""

    def __init__(self, workers=2, depth=2):
        self.ledger = Ledger(workers, depth)
        self.now = 1000 * SECOND
        self.numbers = 0

    def submit(self, count=1, **limits):
        calls = []
        for _ in range(count):
            self.numbers += 1
            calls.append(Call(self.numbers, 1, None, len, (), {}, "len", **limits))
            self.ledger.submit(calls[-1])
        self.run()
        return calls

    def run(self):
        while (step := self.ledger.next_step()) is not None:
            if isinstance(step, Start):
                seat = Seat(self.numbers)
                seat.is_ready = True
                self.ledger.started(step, seat)
            elif isinstance(step, Pack):
                self.ledger.packed(step.call)
            elif isinstance(step, Send):
                self.ledger.sent(step.seat, step.call)
                if step.call.limit:
                    self.ledger.start_clock(step.seat, step.call, self.now)
            elif isinstance(step, Withdraw):
                self.ledger.withdrawn(step.seat, step.call, False)

    def answer(self, call):
        self.ledger.ended(call)
        self.run()

    def die(self, seat, victim=None, *, expected=False):
        over = self.ledger.died(seat, victim, expected)
        if over is not None:
            self.ledger.ended(over)
        self.run()
        return over


@pytest.fixture
def pool():
    return Pool()


# ---- a call with a limit is alone


def test_a_call_with_a_limit_is_sent_only_to_a_worker_that_has_no_other(pool):
    pool.submit(2)
    (limited,) = pool.submit(limit=SECOND)
    assert limited.state == CallState.PACKED
    first, second = pool.ledger.seats
    pool.answer(first.sent[0])
    assert first.sent == [limited]
    assert len(second.sent) == 1


def test_nothing_is_sent_after_a_call_with_a_limit(pool):
    (limited,) = pool.submit(limit=SECOND)
    pool.submit(5)
    alone = limited.seat
    assert alone.sent == [limited]
    pool.answer(limited)
    assert len(alone.sent) == 2


def test_calls_begin_in_their_order_whether_they_have_limits_or_not():
    pool = Pool(1)
    begun = []
    calls = [pool.submit(**({"limit": SECOND} if i % 3 == 1 else {}))[0] for i in range(10)]
    while pool.ledger.seats[0].sent:
        begun.append(pool.ledger.seats[0].sent[0])
        pool.answer(begun[-1])
    assert begun == calls


# ---- the clock


def test_ten_thousand_calls_that_wait_make_one_time_to_look_at_for_each_worker(pool):
    pool.submit(10_000, limit=SECOND)
    assert pool.ledger.next_due() == pool.now + SECOND
    assert pool.ledger.overdue(pool.now + SECOND - 1) == []
    assert pool.ledger.overdue(pool.now + SECOND) == pool.ledger.seats
    assert len(pool.ledger.seats) == 2


def test_without_calls_with_limits_there_is_nothing_to_look_at(pool):
    (call,) = pool.submit(limit=SECOND)
    pool.submit(3)
    pool.answer(call)
    assert pool.ledger.next_due() == -1
    assert pool.ledger.overdue(2 * pool.now) == []


def test_the_clock_starts_when_the_call_begins(pool):
    (call,) = pool.submit(limit=SECOND)
    seat = call.seat
    begun = pool.now + SECOND // 2
    assert not pool.ledger.looked(seat, begun, pool.now + SECOND)
    assert pool.ledger.next_due() == begun + SECOND
    assert not pool.ledger.looked(seat, begun, begun + SECOND - 1)
    assert pool.ledger.looked(seat, begun, begun + SECOND)


def test_the_clock_of_a_call_that_has_not_begun_does_not_run(pool):
    (call,) = pool.submit(limit=SECOND)
    later = pool.now + 100 * SECOND
    assert not pool.ledger.looked(call.seat, 0, later)
    assert pool.ledger.next_due() == later + SECOND, "the earliest that its time can be up"


def test_a_short_limit_does_not_make_one_look_all_the_time_for_a_beginning(pool):
    (call,) = pool.submit(limit=1)
    assert not pool.ledger.looked(call.seat, 0, pool.now + 1)
    assert pool.ledger.next_due() >= pool.now + SECOND // 100


# ---- a worker that is made to end


def test_a_doomed_call_is_not_over_until_its_worker_is_dead(pool):
    (call,) = pool.submit(limit=SECOND)
    seat = call.seat
    pool.ledger.doom(seat, call, Verdict.OVERTIME)
    assert (call.state, seat.doomed) == (CallState.DOOMED, call)
    assert not pool.ledger.is_idle
    assert pool.ledger.sent_count == 1
    assert call in pool.ledger.pending()
    assert pool.ledger.next_due() == -1, "its time has been judged"
    assert pool.die(seat, call, expected=True) is call
    assert pool.ledger.is_idle
    assert pool.ledger.sent_count == 0


def test_a_worker_that_is_made_to_end_gets_no_more_calls():
    pool = Pool(1)
    (call,) = pool.submit(limit=SECOND)
    pool.ledger.doom(call.seat, call, Verdict.OVERTIME)
    others = pool.submit(2)
    assert [other.state for other in others] == [CallState.WAITING] * 2
    pool.die(pool.ledger.seats[0], call, expected=True)
    assert [other.state for other in others] == [CallState.SENT] * 2, "the one that replaces it"


def test_a_doomed_call_is_not_tried_again(pool):
    (call,) = pool.submit(limit=SECOND, retries=5)
    seat = call.seat
    pool.ledger.doom(seat, call, Verdict.OVERTIME)
    assert pool.die(seat, call, expected=True) is call


def test_a_doomed_call_can_end_before_its_worker_does(pool):
    """The pool breaks."""
    (call,) = pool.submit(limit=SECOND)
    seat = call.seat
    pool.ledger.doom(seat, call, Verdict.OVERTIME)
    pool.ledger.ended(call)
    assert pool.ledger.is_idle
    assert seat.doomed is None
    assert pool.die(seat, expected=True) is None


def test_a_worker_that_leaves_by_itself_does_not_give_a_doomed_call_back(pool):
    (call,) = pool.submit(limit=SECOND)
    seat = call.seat
    pool.ledger.doom(seat, call, Verdict.OVERTIME)
    pool.ledger.leaving(seat)
    assert call.state == CallState.DOOMED
    assert pool.die(seat, call, expected=True) is call


def test_a_call_with_a_limit_that_its_worker_had_not_begun_has_a_new_clock(pool):
    (call,) = pool.submit(limit=SECOND)
    left = call.seat
    pool.ledger.leaving(left)
    assert pool.ledger.next_due() == -1
    pool.now += 10 * SECOND
    pool.run()
    assert call.seat is not left
    assert pool.ledger.next_due() == pool.now + SECOND


@pytest.mark.parametrize("where", ["blocked", "waiting", "packed"])
def test_a_call_that_no_worker_has_can_be_taken(where):
    pool = Pool(1)
    pool.submit(1)
    call = Call(9, 1, None, len, (), {}, "len", limit=SECOND)
    pool.ledger.submit(call, where == "blocked")
    if where == "packed":
        pool.run()
    assert call.state == getattr(CallState, where.upper())
    pool.ledger.take(call)
    assert call.state == CallState.PACKING
    pool.ledger.ended(call)
    assert pool.ledger.waiting_count == 0


# ---- retries


def test_a_call_with_retries_goes_to_another_worker_when_its_own_has_died(pool):
    call, behind = pool.submit(2, retries=2)
    for deaths in (1, 2):
        assert pool.die(call.seat, call) is None
        assert (call.state, call.deaths) == (CallState.SENT, deaths)
    assert pool.die(call.seat, call) is call
    assert call.deaths == 3
    assert behind.state == CallState.SENT


def test_a_call_that_is_tried_again_goes_first():
    pool = Pool(1)
    calls = pool.submit(5, retries=1)
    pool.die(pool.ledger.seats[0], calls[0])
    assert pool.ledger.seats[0].sent == calls[:2]


def test_a_call_with_a_limit_has_a_new_clock_when_it_is_tried_again(pool):
    (call,) = pool.submit(limit=SECOND, retries=1)
    pool.now += SECOND // 2
    assert pool.die(call.seat, call) is None
    assert pool.ledger.next_due() == pool.now + SECOND


def test_without_retries_a_death_is_the_end(pool):
    (call,) = pool.submit()
    assert pool.die(call.seat, call) is call


# ---- workers that die again and again


def test_workers_that_die_before_they_are_up_count(pool):
    pool.submit()
    for expected in (1, 2, 3):
        seat = pool.ledger.seats[0]
        seat.is_ready = False
        pool.die(seat)
        assert pool.ledger.fruitless == expected


def test_workers_that_come_up_and_die_before_they_begin_what_they_have_count(pool):
    pool.submit()
    for expected in (1, 2, 3):
        pool.die(pool.ledger.seats[0])
        assert pool.ledger.fruitless == expected


def test_workers_that_die_with_nothing_to_do_do_not_count(pool):
    for _ in range(5):
        (call,) = pool.submit()
        seat = call.seat
        pool.answer(call)
        pool.die(seat)
        assert pool.ledger.fruitless == 0


@pytest.mark.parametrize("progress", ["answer", "victim"])
def test_a_call_that_was_begun_ends_a_row_of_fruitless_deaths(pool, progress):
    calls = pool.submit(3)
    pool.die(calls[0].seat)
    pool.die(calls[0].seat)
    assert pool.ledger.fruitless == 2
    if progress == "answer":
        pool.answer(calls[0])
        pool.die(calls[1].seat)
        assert pool.ledger.fruitless == 1
    else:
        pool.die(calls[0].seat, calls[0])
        assert pool.ledger.fruitless == 0


def test_workers_that_have_answered_something_do_not_count():
    pool = Pool(3)
    for call in pool.submit(3):
        pool.answer(call)
    pool.submit(3)
    for seat in list(pool.ledger.seats):
        pool.die(seat)  # between two calls
    assert pool.ledger.fruitless == 0


def test_a_worker_that_was_asked_to_end_does_not_count(pool):
    pool.submit()
    pool.die(pool.ledger.seats[0], expected=True)
    assert pool.ledger.fruitless == 0


def test_the_pool_goes_on_with_the_workers_that_are_up():
    pool = Pool(3)
    pool.submit(3)
    for _ in range(3):
        dying = pool.ledger.seats[-1]
        dying.is_ready = False
        pool.die(dying)
    assert pool.ledger.fruitless == 3
    for seat in pool.ledger.seats[2:]:
        seat.is_ready = False
    assert pool.ledger.go_on_without()
    pool.die(pool.ledger.seats[-1], expected=True)
    pool.submit(10)
    assert len(pool.ledger.seats) == 2


def test_without_a_worker_that_is_up_the_pool_cannot_go_on(pool):
    pool.submit()
    pool.ledger.seats[0].is_ready = False
    assert not pool.ledger.go_on_without()


def test_calls_that_die_at_every_attempt_count_until_one_is_answered():
    pool = Pool(1)
    for expected in (1, 2, 3):
        (call,) = pool.submit(retries=2)
        while pool.die(call.seat, call) is None:
            pass
        assert pool.ledger.in_vain == expected
    (call,) = pool.submit()
    pool.answer(call)
    (call,) = pool.submit(retries=1)
    while pool.die(call.seat, call) is None:
        pass
    assert pool.ledger.in_vain == 1


def test_calls_without_retries_that_die_do_not_count():
    """Each is reported by its future; nobody goes on."""
    pool = Pool(1)
    for _ in range(50):
        (call,) = pool.submit()
        pool.die(call.seat, call)
    assert (pool.ledger.in_vain, pool.ledger.fruitless) == (0, 0)
