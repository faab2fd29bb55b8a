"""Calls and their futures: submit, map, shutdown, futures as arguments, callbacks, waiting."""

import asyncio
import gc
import itertools
import operator
import os
import signal
import threading
import time
from concurrent import futures

import faults
import numpy as np
import pytest
import sequencer
import tasks

import shmexec


@pytest.mark.parametrize("how", ["module level", "lambda", "closure", "partial", "method", "class", "builtin", "ufunc"])
def test_whatever_can_be_called_can_be_submitted(make_executor, method, how):
    import functools

    factor = 2

    def closure(x):
        return x * factor

    class Doubler:
        def __init__(self, x=0):
            self.x = x

        def double(self, x):
            return x * 2

        def __eq__(self, other):
            return self.x * 2 == other

    function = {
        "module level": tasks.double,
        "lambda": lambda x: x * 2,
        "closure": closure,
        "partial": functools.partial(operator.mul, 2),
        "method": Doubler().double,
        "class": Doubler,
        "builtin": operator.mul,
        "ufunc": np.add,
    }[how]
    executor = make_executor(2, method)
    extra = {"builtin": (2,), "ufunc": (21,)}.get(how, ())
    assert executor.submit(function, 21, *extra).result() == 42
    assert list(executor.map(function, [1, 21], *([extra * 2] if extra else [])))[1] == 42


def test_arguments_and_keywords_arrive_as_they_are(executor):
    def collect(*args, **kwargs):
        return args, kwargs

    assert executor.submit(collect).result() == ((), {})
    arguments = (1, "two", None, b"3", (4,), [5, {6: 7}], 1j, 2**100, float("inf"), ..., True)
    assert executor.submit(collect, *arguments, self=1, fn=2, timeout=3).result() == (
        arguments,
        {"self": 1, "fn": 2, "timeout": 3},
    )
    long = ["text" * 1000] * 100
    assert executor.submit(collect, long, key=long).result() == ((long,), {"key": long})


def test_map_yields_in_order_and_stops_with_the_shortest(make_executor, method):
    executor = make_executor(2, method)
    assert list(executor.map(tasks.add, range(50), range(100, 140))) == [2 * i + 100 for i in range(40)]
    assert list(executor.map(tasks.double, [])) == []
    assert list(executor.map(lambda: 1)) == []


@pytest.mark.parametrize("chunksize", [1, 2, 7, 1000, None])
@pytest.mark.parametrize("buffersize", [None, 1, 3, 1000])
def test_chunks_and_buffers_change_no_result(executor, chunksize, buffersize):
    got = executor.map(tasks.double, range(100), chunksize=chunksize, buffersize=buffersize)
    assert list(got) == list(range(0, 200, 2))


@pytest.mark.parametrize("chunksize", [1, 5])
def test_map_with_a_buffer_is_lazy_over_an_infinite_iterator(executor, chunksize):
    taken = []

    def endless():
        for i in itertools.count():
            taken.append(i)
            yield i

    got = executor.map(tasks.double, endless(), buffersize=4, chunksize=chunksize)
    assert len(taken) == 4 * chunksize
    assert [next(got) for _ in range(10)] == list(range(0, 20, 2))
    assert len(taken) <= (4 + 10 + 1) * chunksize
    got.close()


def test_map_raises_the_error_of_an_item_in_its_place(executor):
    def check(i):
        return 1 // (i - 3) if i < 5 else i

    got = executor.map(check, range(10))
    assert [next(got) for _ in range(3)] == [-1, -1, -1]
    with pytest.raises(ZeroDivisionError):
        next(got)
    with pytest.raises(StopIteration):
        next(got)
    assert executor.submit(tasks.double, 4).result() == 8


def test_map_raises_timeout_error_when_time_is_over(executor, gate):
    say, wait = gate("say"), gate("wait")
    got = executor.map(lambda i: tasks.pass_gates(say, wait, i) if i else i, range(3), timeout=0)
    with pytest.raises(TimeoutError):
        list(got)
    wait.open(2)
    assert list(executor.map(tasks.double, range(3), timeout=1000)) == [0, 2, 4]


def test_an_iterable_that_raises_does_not_stop_the_pool(executor):
    def bad():
        yield 1
        raise faults.Boom("iterable")

    with pytest.raises(faults.Boom):
        list(executor.map(tasks.double, bad()))
    with pytest.raises(faults.Boom):
        list(executor.map(tasks.double, bad(), buffersize=1))
    assert executor.submit(tasks.double, 4).result() == 8


def test_arrays_go_through_map_by_name(executor):
    rows = shmexec.zeros((40, 1000))
    for chunksize in 1, 6:
        assert list(executor.map(tasks.fill, rows, range(40), chunksize=chunksize)) == [None] * 40
        assert rows.sum() == sum(range(40)) * 1000
        rows[:] = 0
    assert executor.stats().bytes_copied_in == 0


# ---- futures as arguments ------------------------------------------------------------------------


def test_a_future_stands_for_its_result(executor):
    first = executor.submit(tasks.make_shared, 1000, 3)
    assert executor.submit(lambda a, *, b: float(a.sum() + b.sum()), first, b=first).result() == 6000
    assert first.result().sum() == 3000
    assert executor.submit(np.sum, first).result() == 3000  # done, and read
    other = executor.submit(tasks.make_shared, 10, 1)
    futures.wait([other])
    assert executor.submit(np.sum, other).result() == 10  # done, and not read


def test_a_pending_future_is_waited_for_and_holds_no_worker(executor, gate):
    say, wait = gate("say"), gate("wait")
    slow = executor.submit(tasks.pass_gates, say, wait, 20)
    say.wait_open()
    late = [executor.submit(tasks.add, slow, i) for i in range(10)]
    assert list(executor.map(tasks.double, range(5))) == [0, 2, 4, 6, 8]
    assert not any(future.done() for future in late)
    wait.open()
    assert [future.result() for future in late] == list(range(20, 30))


def test_a_chain_of_twenty_waits_for_its_first(executor, gate):
    say, wait = gate("say"), gate("wait")
    link = executor.submit(tasks.pass_gates, say, wait, 0)
    say.wait_open()
    for _ in range(20):
        link = executor.submit(tasks.add, link, 1)
    twice = executor.submit(tasks.add, link, link)
    wait.open()
    assert twice.result() == 40


def test_a_failed_future_fails_what_depends_on_it(executor):
    failed = executor.submit(faults.throw, faults.Boom, "first")
    late = executor.submit(tasks.add, executor.submit(tasks.double, failed), 1)
    with pytest.raises(faults.Boom, match="first"):
        late.result()
    again = executor.submit(tasks.double, failed)
    assert isinstance(again.exception(), faults.Boom)
    del failed, late, again


def test_a_cancelled_future_fails_what_depends_on_it(executor, gate):
    say, wait = gate("say"), gate("wait")
    busy = [executor.submit(tasks.pass_gates, say, wait) for _ in range(2)]
    for _ in busy:
        say.wait_open()
    queue = [executor.submit(tasks.double, i) for i in range(10)]
    last = queue[-1]
    late = executor.submit(tasks.double, last)
    later = executor.submit(tasks.double, late)
    assert last.cancel()
    wait.open(2)
    for future in late, later:
        with pytest.raises(futures.CancelledError):
            future.result()
    assert queue[0].result() == 0


def test_a_value_that_goes_on_is_not_unpickled_here(executor):
    import os

    first = executor.submit(faults.make, faults.SaysWhereUnpickled)
    futures.wait([first])
    second = executor.submit(tasks.give, first)
    third = executor.submit(tasks.give, second)
    pids = third.result().pids
    assert pids[-1] == os.getpid()
    assert os.getpid() not in pids[:-1]
    assert len(pids) == 3
    assert second.result().pids == (*pids[:1], os.getpid())


def test_an_array_that_goes_on_unread_stays_where_it_is(executor):
    first = executor.submit(lambda: {"a": tasks.make_shared(100_000, 2)})
    second = executor.submit(lambda d: (d["a"].__imul__(2), d)[1], first)
    third = executor.submit(lambda d: d["a"].ctypes.data - shmexec.empty(1).ctypes.data * 0, second)
    assert third.result() > 0
    del third
    assert second.result()["a"][0] == 4
    assert first.result()["a"][0] == 4
    assert np.shares_memory(first.result()["a"], second.result()["a"])


def test_futures_of_other_pools_are_values_that_cannot_be_pickled(make_executor):
    one, other = make_executor(1), make_executor(1)
    future = other.submit(tasks.double, 1)
    with pytest.raises(TypeError, match="cannot be pickled"):
        one.submit(tasks.double, future).result()
    assert one.submit(tasks.double, 4).result() == 8


# ---- callbacks and waiting -----------------------------------------------------------------------


def test_callbacks_may_submit_and_wait_for_other_results(executor):
    results, done = [], threading.Event()

    def then(future):
        results.append(executor.submit(tasks.double, future.result()).result())
        done.set()

    executor.submit(tasks.double, 1).add_done_callback(then)
    done.wait()
    assert results == [4]


def test_callbacks_that_raise_harm_nobody(executor, caplog):
    called = []
    all_called = threading.Event()

    def fail(future):
        called.append(future)
        raise faults.Boom("callback")

    def end(future):
        called.append(future)
        all_called.set()

    future = executor.submit(tasks.double, 1)
    future.add_done_callback(fail)
    future.add_done_callback(end)
    assert future.result() == 2
    all_called.wait()
    assert called == [future, future]
    assert executor.submit(tasks.double, 2).result() == 4
    caplog.clear()


def test_a_callback_that_leaves_its_thread_does_not_silence_the_others(executor, gate, caplog):
    say, wait = gate("say"), gate("wait")
    called = threading.Event()

    def leave(future):
        raise SystemExit

    first = executor.submit(tasks.pass_gates, say, wait)
    say.wait_open()
    first.add_done_callback(leave)
    second = executor.submit(tasks.pass_gates, say, wait)
    say.wait_open()
    second.add_done_callback(lambda future: called.set())
    wait.open(2)
    futures.wait([first, second])
    called.wait()
    sequencer.wait_until(lambda: caplog.records)  # in either order; it keeps the frames of what was raised
    caplog.clear()


def test_a_callback_may_shut_the_pool_down(make_executor):
    executor = make_executor(2)
    done = threading.Event()

    def end(future):
        executor.shutdown(wait=True)
        done.set()

    executor.submit(tasks.double, 1).add_done_callback(end)
    done.wait()
    with pytest.raises(RuntimeError):
        executor.submit(tasks.double, 1)


def test_wait_and_as_completed_see_every_future(executor):
    made = [executor.submit(tasks.double, i) for i in range(30)]
    made += [executor.submit(faults.throw, faults.Boom, str(i)) for i in range(5)]
    assert futures.wait(made) == (set(made), set())
    assert set(futures.as_completed(made)) == set(made)
    assert sum(future.exception() is not None for future in made) == 5
    made.clear()


def test_the_first_that_is_done_is_seen_first(executor, gate):
    say, wait = gate("say"), gate("wait")
    slow = executor.submit(tasks.pass_gates, say, wait)
    say.wait_open()
    quick = executor.submit(tasks.double, 1)
    done, pending = futures.wait([slow, quick], return_when=futures.FIRST_COMPLETED)
    assert (done, pending) == ({quick}, {slow})
    with pytest.raises(TimeoutError):
        slow.result(timeout=0)
    wait.open()
    assert next(futures.as_completed([slow])) is slow


def test_asyncio_waits_for_calls(executor):
    async def work():
        loop = asyncio.get_running_loop()
        many = [loop.run_in_executor(executor, tasks.double, i) for i in range(20)]
        one = asyncio.wrap_future(executor.submit(tasks.make_shared, 1000, 2))
        bad = asyncio.wrap_future(executor.submit(faults.throw, faults.Boom, "there"))
        worse = asyncio.wrap_future(executor.submit(faults.make, faults.UnpicklableThere))
        assert await asyncio.gather(*many) == list(range(0, 40, 2))
        assert (await one).sum() == 2000
        for future in bad, worse:
            with pytest.raises(faults.Boom):
                await future

    asyncio.run(work())
    gc.collect()


def test_many_threads_submit_at_once(executor):
    failures = []

    def submit_many(start):
        try:
            made = [executor.submit(lambda i, big: i + len(big), i, [0] * 3000) for i in range(start, start + 40)]
            assert [future.result() for future in made] == [i + 3000 for i in range(start, start + 40)]
            assert next(executor.map(tasks.double, range(start, start + 40), chunksize=3)) == 2 * start
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=submit_many, args=(1000 * i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_call_that_waits_behind_one_that_takes_long_unexpectedly_wakes_a_worker(make_executor, gate):
    """Calls have been short; this one waits for the next, which would have been too little to wake a worker for."""
    executor = make_executor(2)
    entered, opened, free = gate("entered"), gate("opened"), gate("free")
    free.open(1000)
    for _ in range(5):
        assert list(executor.map(abs, range(-100, 0), chunksize=1))
        while not all(seat.sleeps() for seat in executor._pool.desk.ledger.seats):
            time.sleep(0.001)
        first = executor.submit(tasks.pass_gates, entered, opened, "first")
        others = [executor.submit(tasks.pass_gates, opened, free, i) for i in range(2)]
        opened.wait_open()  # nobody asks for a result
        assert first.result() == "first"
        assert [other.result() for other in others] == [0, 1]


def test_calls_that_wait_behind_one_whose_worker_does_not_wake_go_to_another(make_executor):
    """The machine is busy, or the worker was stopped: the others do not wait for it, nor for the call that it has."""
    executor = make_executor(2)
    ledger = executor._pool.desk.ledger
    assert list(executor.map(abs, range(-100, 0), chunksize=1))
    sequencer.wait_until(lambda: sum(seat.is_ready and seat.sleeps() for seat in ledger.seats) == 2)
    for pid in executor._processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        calls = [executor.submit(abs, -i) for i in range(2)]
        sequencer.wait_until(lambda: all(seat.sent for seat in ledger.seats))
    finally:
        for pid in executor._processes:
            os.kill(pid, signal.SIGCONT)
    assert [call.result() for call in calls] == [0, 1]
