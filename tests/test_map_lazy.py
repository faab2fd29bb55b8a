"""`map` that takes its items as it goes (`buffersize`), that yields results as they come, and that is left half way."""

import gc
import itertools
from concurrent.futures import CancelledError

import numpy as np
import pytest
import tasks
from sequencer import wait_until

import shmexec
from shmexec.pickling.spans import OutcomeWriter
from shmexec.pool.futures import CallFuture
from shmexec.pool.spans import SpanMap
from shmexec.transport.messages import Cost

LARGE = 100_000


class Source:
    """Numbers without an end, and how many were taken."""

    def __init__(self):
        self.taken = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.taken += 1
        return self.taken - 1


@pytest.mark.parametrize("chunksize", [None, 1])
def test_a_buffer_is_filled_at_once_and_one_is_taken_for_each_result(executor, chunksize):
    source = Source()
    got = executor.map(tasks.double, source, buffersize=5, chunksize=chunksize)
    assert source.taken == 5
    for i in range(40):
        assert next(got) == 2 * i
        assert source.taken == 5 + i + 1
    got.close()


def test_with_a_chunksize_the_buffer_counts_chunks(executor):
    source = Source()
    got = executor.map(tasks.double, source, buffersize=5, chunksize=3)
    assert source.taken == 15
    for i in range(40):
        assert next(got) == 2 * i
        assert source.taken == 15 + 3 * (i // 3 + 1)
    got.close()


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("ordered", [True, False])
def test_all_of_a_finite_iterable_comes_whatever_the_buffer(executor, size, ordered):
    count = 3000 if size > 1 else 100
    got = list(executor.map(tasks.double, iter(range(count)), buffersize=size, ordered=ordered))
    assert (got if ordered else sorted(got)) == [2 * i for i in range(count)]


def test_short_calls_of_a_lazy_map_travel_together(executor):
    got = executor.map(tasks.double, itertools.count(), buffersize=5000)
    assert list(itertools.islice(got, 30_000)) == [2 * i for i in range(30_000)]
    got.close()
    assert executor.stats().calls_done < 3000


@pytest.mark.parametrize("options", [{}, {"chunksize": 1}, {"buffersize": 6}, {"chunksize": 1, "buffersize": 3}])
def test_unordered_results_do_not_wait_for_the_first(executor, gate, options):
    say, wait = gate("say"), gate("wait")
    items = [(say, wait)] + [None] * 40
    got = executor.map(hold_up, items, range(41), ordered=False, **options)
    others = [next(got) for _ in range(40)]
    wait.open()
    assert sorted(others) == list(range(1, 41))
    assert list(got) == [0]


def hold_up(gates, x):
    if gates is not None:
        tasks.pass_gates(*gates)
    return x


def test_unordered_chunks_come_whole(executor, gate):
    say, wait = gate("say"), gate("wait")
    got = executor.map(hold_up, [(say, wait)] + [None] * 11, range(12), chunksize=3, ordered=False)
    others = [next(got) for _ in range(9)]
    wait.open()
    assert sorted(others) == list(range(3, 12))
    assert list(got) == [0, 1, 2]


def hold_up_or_fail(gates, x):
    if x == 1:
        raise KeyError(x)
    return hold_up(gates, x)


@pytest.mark.parametrize("chunksize", [None, 1])
def test_the_first_exception_that_comes_is_raised_of_an_unordered_map(executor, gate, chunksize):
    say, wait = gate("say"), gate("wait")
    got = executor.map(hold_up_or_fail, [(say, wait), None], range(2), ordered=False, chunksize=chunksize)
    with pytest.raises(KeyError):
        next(got)
    wait.open()
    assert list(got) == []


@pytest.mark.parametrize("options", [{}, {"ordered": False, "chunksize": 1}])
def test_the_time_limit_holds_for_each_kind_of_map(executor, gate, options):
    say, wait = gate("say"), gate("wait")
    got = executor.map(hold_up, [(say, wait)], [0], buffersize=2, timeout=0, **options)
    with pytest.raises(TimeoutError):
        next(got)
    wait.open()


@pytest.mark.parametrize("chunksize", [None, 1])
def test_an_exception_of_the_iterator_comes_where_the_item_is_taken(executor, chunksize):
    def three():
        yield from range(3)
        raise KeyError("no more")

    got = executor.map(tasks.double, three(), buffersize=2, chunksize=chunksize)
    assert next(got) == 0
    with pytest.raises(KeyError):
        next(got)
    assert list(got) == []
    with pytest.raises(KeyError):
        executor.map(tasks.double, three(), chunksize=chunksize)


@pytest.mark.parametrize("chunksize", [None, 1])
def test_a_lazy_map_takes_nothing_after_shutdown_and_what_it_took_has_run(make_executor, tmp_path, chunksize):
    source = Source()
    with make_executor(2) as executor:
        got = executor.map(lambda x: (tmp_path / str(x)).touch(), source, buffersize=50, chunksize=chunksize)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == list(range(50))
    with pytest.raises(RuntimeError, match="after shutdown"):
        next(got)


def test_a_lazy_map_keeps_its_executor():
    got = shmexec.SharedExecutor(1).map(tasks.double, itertools.count(), buffersize=3)
    gc.collect()
    assert list(itertools.islice(got, 20)) == [2 * i for i in range(20)]
    got.close()
    del got
    gc.collect()
    wait_until(lambda: not any(thread.name.startswith("shmexec") for thread in __import__("threading").enumerate()))


def ones(x):
    return np.ones(LARGE) * x


def leave(iterator):
    try:
        for _ in iterator:
            raise KeyError
    except KeyError:
        pass


LEFT = [
    ("closed", True, {}),
    ("dropped", True, {"buffersize": 9}),
    ("left", True, {"chunksize": 3}),
    ("closed", False, {"chunksize": 1}),
    ("dropped", False, {}),
    ("left", False, {"buffersize": 9}),
]


@pytest.mark.parametrize(("way", "ordered", "options"), LEFT)
def test_a_map_that_is_left_half_way_frees_what_it_held(executor, gate, way, ordered, options):
    say, wait = gate("say"), gate("wait")
    both = [executor.submit(tasks.pass_gates, say, wait) for _ in range(2)]
    say.wait_open()
    say.wait_open()  # both workers are up, and have their channels
    wait.open(2)
    assert [future.result() for future in both] == [None, None]
    del both, say, wait
    gc.collect()
    before = shmexec.heap_info().blocks
    got = executor.map(ones, [*range(1, 20)], ordered=ordered, **options)
    taken = [next(got), next(got)]
    if way == "closed":
        got.close()
    elif way == "dropped":
        del got
    else:
        leave(got)
    got = None
    assert all(float(a[0]) > 0 for a in taken)
    taken.clear()
    gc.collect()
    wait_until(lambda: shmexec.heap_info().blocks <= before)


@pytest.mark.parametrize(
    ("ordered", "options"),
    [(True, {}), (False, {"chunksize": 1}), (True, {"chunksize": 4}), (False, {"buffersize": 99})],
)
def test_a_map_that_is_left_half_way_cancels_what_has_not_begun(make_executor, gate, tmp_path, ordered, options):
    executor = make_executor(1)
    say, wait = gate("say"), gate("wait")

    def work(x):
        (tmp_path / str(x)).touch()
        if x == 4:  # the first three spans have one item each
            tasks.pass_gates(say, wait)
        return x

    got = executor.map(work, range(200), ordered=ordered, **options)
    next(got)
    say.wait_open()
    got.close()
    wait.open(1000)
    executor.shutdown()
    assert sum(1 for path in tmp_path.iterdir() if path.name.isdigit()) < 40


# ---- the decisions, without processes -----------------------------------------------------------


class Recorder:
    """A pool that answers nothing by itself."""

    def __init__(self, workers=2, refuses_at=None):
        self.max_workers = workers
        self.sent = []
        self.count = 0
        self.refuses_at = refuses_at

    def check_open(self):
        pass

    def stays_open(self):
        import contextlib

        return contextlib.nullcontext()

    def submit_span(self, job, begin, items, budget):
        self.count += 1
        if self.count == self.refuses_at:
            raise CancelledError
        self.sent.append((begin, items))
        return CallFuture(self)

    def cancelled(self, future):
        pass

    def answer(self, job, which=0, seconds=0.0, items=None):
        """The values are the items."""
        begin, sent = self.sent.pop(which)
        writer = OutcomeWriter()
        for (value,) in sent[:items]:
            writer.add_plain(value)
        cost = Cost(seconds=seconds * len(sent[:items]))
        job.done(begin, begin + len(sent), cost, writer.packed(None), was_sent=True)


def lazy(recorder, ahead):
    source = ((i,) for i in itertools.count())
    job = SpanMap(recorder, tasks.double, None, itertools.islice(source, ahead), ahead)
    job.send()
    return job, job.results(lambda: 0.0, more=source)


def sizes(recorder):
    return [len(items) for _, items in recorder.sent]


def test_spans_of_a_lazy_map_grow_to_a_share_of_the_buffer():
    recorder = Recorder()
    job, _ = lazy(recorder, 100)
    assert sizes(recorder) == [1] * 5
    while recorder.sent:
        recorder.answer(job)
        assert max(sizes(recorder), default=0) <= 20
    assert job.finished == 100


def test_items_of_a_lazy_map_gather_while_all_workers_have_something_to_do():
    recorder = Recorder()
    job, got = lazy(recorder, 100)
    while recorder.sent:
        recorder.answer(job)
    seen = []
    for i in range(60):
        seen.append(next(got))
        if i == 1:
            assert sizes(recorder) == [1, 1]  # two workers had nothing to do
    assert seen == list(range(60))
    assert sizes(recorder) == [1, 1, 20, 20]
    recorder.answer(job)
    assert sizes(recorder) == [1, 20, 20]
    recorder.answer(job)
    recorder.answer(job)
    assert sizes(recorder) == [20, 18]  # all there is, as a worker is free
    got.close()


def test_long_calls_of_a_lazy_map_go_alone():
    recorder = Recorder()
    job, got = lazy(recorder, 100)
    for i in range(50):
        recorder.answer(job, seconds=1.0)
        assert next(got) == i
        assert sizes(recorder) == [1] * 5
    got.close()


def test_the_end_of_the_source_sends_what_had_gathered():
    recorder = Recorder(workers=1)
    source = ((i,) for i in range(43))
    job = SpanMap(recorder, tasks.double, None, itertools.islice(source, 30), 30)
    job.send()
    while recorder.sent:
        recorder.answer(job)
    got = job.results(lambda: 0.0, more=source)
    for i in range(12):
        assert next(got) == i
    assert sum(sizes(recorder)) == 11  # of 12 that were taken one has to gather
    for i in range(12, 30):
        assert next(got) == i
    assert sizes(recorder) == [1, 10, 1]  # and one more
    while recorder.sent:
        recorder.answer(job)
    assert list(got) == list(range(30, 43))


def test_what_came_back_and_cannot_be_sent_again_ends_the_map():
    recorder = Recorder(workers=1, refuses_at=8)
    job = SpanMap(recorder, tasks.double, None, [(i,) for i in range(100)])
    job.send()
    while recorder.count < 6:
        recorder.answer(job)
    begin, sent = recorder.sent[0]
    assert len(sent) > 2
    recorder.answer(job, items=1)  # its rest goes out again ...
    got = job.results(lambda: 0.0)
    recorder.answer(job, which=[b for b, _ in recorder.sent].index(begin + 1), items=1)  # ... and again, in vain
    while recorder.sent:
        recorder.answer(job)
    with pytest.raises(CancelledError):
        list(got)


@pytest.mark.parametrize("ordered", [True, False])
def test_answers_after_the_end_are_not_kept(ordered):
    recorder = Recorder()
    job = SpanMap(recorder, tasks.double, None, [(i,) for i in range(20)])
    job.send()
    got = job.results(lambda: 0.0, ordered=ordered)
    recorder.answer(job, which=0 if ordered else 2)
    assert next(got) == (0 if ordered else 2)
    got.close()
    while recorder.sent:
        recorder.answer(job)
    assert list(got) == []
    assert not job._answers
    assert not job._fresh


def test_what_is_under_way_when_the_pool_closes_can_be_taken_if_there_is_no_more(make_executor):
    with make_executor(2) as executor:
        got = executor.map(tasks.double, range(20), buffersize=20)
    assert list(got) == list(range(0, 40, 2))
    with make_executor(2) as executor:
        got = executor.map(tasks.double, range(30), buffersize=20)
    with pytest.raises(RuntimeError, match="after shutdown"):
        list(got)
