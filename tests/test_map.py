"""`map` with the chunk size that it finds itself."""

import gc
import itertools
import os
import signal
import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest
import sequencer
import tasks

import shmexec
from shmexec.pickling.functions import is_stateless
from shmexec.pool.futures import CallFuture
from shmexec.pool.spans import SpanMap

LARGE = 100_000


@pytest.fixture(params=["few by themselves", "spans"], autouse=True)
def way(request, monkeypatch):
    """Few items are calls of their own, at which more than one of these tests would not look at spans."""
    if request.param == "spans":
        monkeypatch.setattr("shmexec.mapping._are_few", lambda pool, items: False)


def test_short_calls_travel_together_and_come_back_in_order(executor):
    assert list(executor.map(tasks.double, range(20_000))) == [2 * i for i in range(20_000)]
    assert executor.stats().calls_done < 1000
    assert list(executor.map(tasks.add, range(50), itertools.repeat(3))) == list(range(3, 53))
    assert list(executor.map(tasks.double, [])) == []
    assert list(executor.map(tasks.double, [4])) == [8]


def test_items_of_one_span_share_no_object(executor):
    table, rows = np.zeros(LARGE), [[]] * 500

    def add_to(rows, table, x):
        rows.append(x)
        table[0] += x
        return rows, float(table[0])

    got = list(executor.map(add_to, rows, [table] * 500, range(500)))
    assert got == [([x], float(x)) for x in range(500)]
    assert executor.stats().calls_done < 500


_shared_list = []


def give_the_same(x):
    return _shared_list


def test_results_of_one_span_share_no_object(executor):
    got = list(executor.map(give_the_same, range(500)))
    assert len({id(value) for value in got}) == 500


def test_a_function_with_state_begins_anew_with_each_item(executor):
    counts = [0]

    def count(x):
        counts[0] += 1
        return counts[0]

    assert list(executor.map(count, range(300))) == [1] * 300
    assert list(executor.map(lambda x, seen=[]: seen.append(x) or len(seen), range(300))) == [1] * 300


def make_function(source, **space):
    space["__name__"] = "elsewhere"
    exec(source, space)
    return space["f"]


def test_which_functions_keep_no_state():
    assert is_stateless(make_function("def f(x): return x + 1"))
    assert is_stateless(make_function("def f(x): return numpy.sum(x) + K", numpy=np, K=3))
    assert not is_stateless(make_function("def f(x): global K; K = x", K=3))
    assert not is_stateless(make_function("def f(x): K.append(x)", K=[]))
    assert not is_stateless(make_function("def f(x, y=[]): pass"))
    assert not is_stateless(make_function("def f(x, *, y=[]): pass"))
    assert not is_stateless(make_function("def g(n):\n  def h(x): return n\n  return h\nf = g(3)"))
    assert not is_stateless(print)


def fail_at(x, bad):
    if x == bad:
        raise KeyError(x)
    return x


@pytest.mark.parametrize("bad", [0, 1, 777, 1999])
def test_everything_before_the_first_failure_is_yielded(executor, bad):
    got = executor.map(fail_at, range(2000), [bad] * 2000)
    for x in range(bad):
        assert next(got) == x
    with pytest.raises(KeyError) as caught:
        next(got)
    assert caught.value.args == (bad,)
    assert "fail_at" in str(caught.value.__cause__)
    assert list(got) == []


@pytest.mark.parametrize("bad", [0, 333])
def test_an_item_that_cannot_be_pickled_fails_alone(executor, bad):
    got = executor.map(tasks.give, [*range(bad), (i for i in "ab"), *range(100)])
    for x in range(bad):
        assert next(got) == x
    with pytest.raises(TypeError, match="argument 0 of give"):
        next(got)


@pytest.mark.parametrize("bad", [0, 333])
def test_a_result_that_cannot_be_pickled_fails_alone(executor, bad):
    got = executor.map(lambda x: (i for i in "ab") if x == bad else x, range(600))
    for x in range(bad):
        assert next(got) == x
    with pytest.raises(TypeError, match="the result of"):
        next(got)


def test_arrays_in_and_out_go_by_name(executor):
    arrays = [shmexec.full(LARGE, float(i)) for i in range(40)]
    got = list(executor.map(lambda a: a * 2, arrays))
    assert [float(a[0]) for a in got] == [2.0 * i for i in range(40)]
    assert all(a.flags.owndata for a in got)
    stats = executor.stats()
    assert (stats.bytes_copied_in, stats.bytes_copied_out) == (0, 0)


def test_plain_and_other_values_may_come_mixed(executor):
    values = [1, "a", [2], None, {"k": (3,)}, 4.5, b"c", np.arange(3)] * 40
    got = list(executor.map(tasks.give, values))
    assert all(np.array_equal(a, b) if isinstance(b, np.ndarray) else a == b for a, b in zip(got, values, strict=True))


def test_futures_among_the_items_are_waited_for(executor):
    futures = [executor.submit(tasks.double, i) for i in range(30)]
    assert list(executor.map(tasks.add, futures, range(30))) == [3 * i for i in range(30)]


def gate_then_pid(say, wait, x):
    if x == 0:
        say.open()
        wait.wait_open()
    return os.getpid()


def test_a_long_call_holds_no_other_up(make_executor, gate):
    """Whatever the worker of the first item was told of besides, the other worker does it meanwhile."""
    executor = make_executor(2)
    list(executor.map(tasks.double, range(5000)))  # so short that the next map might think the same of its calls
    say, wait = gate("say"), gate("wait")
    got = executor.map(gate_then_pid, [say] * 400, [wait] * 400, range(400))
    say.wait_open()
    seen = executor.map(tasks.pid, range(100))
    assert len(list(seen)) == 100  # through the worker that is free
    wait.open(1000)
    pids = list(got)
    assert len(pids) == 400


def slow_at(x, slow):
    if x in slow:
        time.sleep(0.05)
    return x, os.getpid()


def test_a_span_that_takes_too_long_is_divided(executor, gate):
    begun, leave = gate("begun"), gate("leave")
    both = [executor.submit(tasks.pass_gates, begun, leave) for _ in range(2)]
    begun.wait_open()
    begun.wait_open()  # both workers are up
    leave.open(2)
    assert [future.result() for future in both] == [None, None]
    slow = frozenset(range(1000, 1020))  # unexpectedly
    got = list(executor.map(slow_at, range(1100), [slow] * 1100))
    assert [x for x, _ in got] == list(range(1100))
    assert len({pid for x, pid in got if x in slow}) == 2


def count_at(x, counts, _):
    counts[x] += 1
    return x


@pytest.mark.parametrize("bad", [30, 150])
def test_no_item_is_run_twice_because_one_cannot_be_pickled(executor, bad):
    counts = shmexec.zeros(400, int)
    others = [threading.Lock() if i == bad else None for i in range(400)]
    list(executor.map(count_at, range(8), [shmexec.zeros(8)] * 8, [None] * 8, chunksize=1))
    got = executor.map(count_at, range(400), [counts] * 400, others)
    assert [next(got) for _ in range(bad)] == list(range(bad))
    with pytest.raises(TypeError, match="cannot be pickled"):
        next(got)
    sequencer.wait_until(lambda: not any(executor._pool.counts()))
    assert counts.max() == 1


def test_many_items_that_cannot_be_pickled_are_one_error(executor):
    with pytest.raises(TypeError, match="cannot be pickled"):
        list(executor.map(tasks.give, [threading.Lock() for _ in range(300)]))
    assert executor.submit(tasks.give, 1).result() == 1


def die_at(x, bad):
    if x == bad:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def test_a_death_fails_the_map_and_not_the_pool(executor):
    with pytest.raises(shmexec.WorkerDied):
        list(executor.map(die_at, range(1000), [400] * 1000))
    assert list(executor.map(tasks.double, range(3))) == [0, 2, 4]


def test_all_items_run_though_nobody_iterates(make_executor, tmp_path):
    with make_executor(2) as executor:
        executor.map(lambda x: (tmp_path / str(x)).touch(), range(300))
    assert len(list(tmp_path.iterdir())) == 300


def test_results_can_be_taken_when_the_pool_is_closed(make_executor):
    with make_executor(2) as executor:
        got = executor.map(tasks.double, range(3000))
    assert list(got) == [2 * i for i in range(3000)]


def test_a_map_goes_on_after_shutdown_without_wait(make_executor):
    executor = make_executor(2)
    got = executor.map(slow_at, range(200), [frozenset()] * 200)
    executor.shutdown(wait=False)
    assert [x for x, _ in got] == list(range(200))
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(tasks.double, range(3))


def test_a_shutdown_that_cancels_ends_a_map(make_executor, gate):
    executor = make_executor(1)
    say, wait = gate("say"), gate("wait")
    got = executor.map(gate_then_pid, [say] * 400, [wait] * 400, range(400))
    say.wait_open()
    executor.shutdown(wait=False, cancel_futures=True)
    gate.open_all()
    with pytest.raises(CancelledError):
        list(got)
    executor.shutdown()


def test_an_iterator_that_is_dropped_cancels_the_rest(make_executor, gate):
    executor = make_executor(1)
    say, wait = gate("say"), gate("wait")
    got = executor.map(gate_then_pid, [say] * 400, [wait] * 400, range(-1, 399))
    next(got)
    say.wait_open()
    del got
    gc.collect()
    wait.open(1000)
    executor.shutdown()
    assert executor.stats().calls_done < 20


def test_many_threads_map_at_once(executor):
    found = []

    def work(k):
        found.append(sum(executor.map(tasks.double, range(k, k + 3000))))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [2 * sum(range(k, k + 3000)) for k in range(6)]


def test_max_tasks_per_child_counts_items(make_executor):
    executor = make_executor(1, max_tasks_per_child=5)
    assert len(set(executor.map(tasks.pid, range(20)))) == 4


class Recorder:
    """A pool that answers nothing by itself."""

    max_workers = 2

    def __init__(self):
        self.sent = []

    def submit_span(self, job, begin, items, budget):
        self.sent.append((begin, len(items)))
        return CallFuture(self)


def answer(job, recorder, seconds):
    from shmexec.pickling.spans import OutcomeWriter
    from shmexec.transport.messages import Cost

    begin, count = recorder.sent.pop(0)
    writer = OutcomeWriter()
    for i in range(count):
        writer.add_plain(begin + i)
    job.done(begin, begin + count, Cost(seconds=seconds * count), writer.packed(None), was_sent=True)
    return count


@pytest.mark.parametrize(
    ("seconds", "largest", "items"),
    [(1e-6, 16_000, 200_000), (2e-5, 800, 20_000), (1e-3, 16, 20_000), (10.0, 1, 20_000)],
)
def test_spans_grow_to_what_takes_sixteen_milliseconds_and_shrink_to_the_end(seconds, largest, items):
    recorder = Recorder()
    job = SpanMap(recorder, tasks.double, None, [(i,) for i in range(items)])
    job.send()
    assert [count for _, count in recorder.sent] == [1] * 5  # two for each worker, and one more
    counts = []
    while recorder.sent:
        counts.append(answer(job, recorder, seconds))
    assert sum(counts) == items
    assert largest * 0.9 <= max(counts) <= largest
    assert counts[-1] == 1
    assert list(job.results(lambda: 0.0)) == list(range(items))


@pytest.mark.parametrize("way", ["few by themselves"], indirect=True)
def test_few_items_are_calls_of_their_own_which_the_thread_that_asks_collects(make_executor, monkeypatch):
    executor = make_executor(2)
    spans = []
    start = executor._pool.start_map

    def start_map(*args):
        spans.append(args)
        return start(*args)

    monkeypatch.setattr(executor._pool, "start_map", start_map)
    for items, are_spans in (
        (range(1), 0),
        (range(256), 0),
        (range(257), 1),
        ([np.zeros(2)] * 4, 0),
        ([np.zeros(2)] * 5, 1),
    ):
        spans.clear()
        assert len(list(executor.map(tasks.double, items))) == len(items)
        assert len(spans) == are_spans
