"""Memory that runs short: calls wait while others can free some, and fail, with words, when none can."""

import numpy as np
import pytest
import tasks

import shmexec

BOUND = 64 << 20
ARRAY = 800_000  # float64: 6.4 MB


@pytest.fixture
def small_pool(make_executor):
    shmexec.trim()
    executor = make_executor(2, max_bytes=BOUND)
    yield executor
    executor.shutdown()
    shmexec._core.set_limit(0)


def arrays(count):
    for i in range(count):
        yield np.full(ARRAY, float(i))


@pytest.mark.parametrize("buffersize", [1, 2, 8])
def test_a_pipeline_runs_through_at_constant_memory(small_pool, buffersize):
    count = 50 * BOUND // (8 * ARRAY)
    highest = 0
    for i, result in enumerate(small_pool.map(tasks.double, arrays(count), buffersize=buffersize)):
        assert result[0] == result[-1] == 2 * i
        del result
        if i % 10 == 0:
            highest = max(highest, shmexec.heap_info().bytes_resident)
    assert i == count - 1
    assert highest <= BOUND


def test_arguments_that_do_not_fit_at_once_wait_for_their_turn(small_pool):
    given = list(arrays(40))
    assert list(small_pool.map(lambda a: float(a[0]), given)) == list(map(float, range(40)))
    futures = [small_pool.submit(lambda a: float(a[-1]), array) for array in given]
    assert [future.result() for future in futures] == list(map(float, range(40)))


def test_items_that_were_pickled_twice_leave_nothing_behind(make_executor):
    """A span that does not fit, or comes back early, is pickled again: its arrays are in no more items for that."""
    shmexec.trim()
    executor = make_executor(2, max_bytes=BOUND)
    given = list(arrays(40))
    before = shmexec.heap_info().blocks
    found = executor.map(lambda a: float(a[0]), given)
    for i in range(39):
        assert next(found) == i
    assert shmexec.heap_info().blocks <= before + 4  # the channels and the hub, and the last item
    assert list(found) == [39]
    executor.shutdown()
    shmexec._core.set_limit(0)


def test_results_that_are_taken_make_room_for_others(small_pool):
    futures = [small_pool.submit(tasks.double, array) for array in arrays(6)]
    for i, future in enumerate(futures):
        assert future.result()[0] == 2 * i
    del future, futures
    assert small_pool.submit(tasks.double, np.ones(ARRAY)).result().sum() == 2 * ARRAY


def test_a_call_fails_when_no_other_can_free_memory_and_the_pool_goes_on(small_pool):
    small_pool.submit(tasks.pid).result()
    held = []
    while True:
        try:
            held.append(shmexec.empty(ARRAY))
        except shmexec.SharedMemoryFull:
            break
    with pytest.raises(shmexec.SharedMemoryFull, match="arrays and messages"):
        small_pool.submit(tasks.double, np.ones(ARRAY)).result()
    held.clear()
    assert small_pool.submit(tasks.double, np.ones(ARRAY)).result()[0] == 2


def test_mixed_sizes_do_not_fragment_the_heap():
    """Resident memory stays under 1.3 times the most that was live: hours of a pipeline, without its computing."""
    shmexec.trim()
    random = np.random.default_rng(7)
    before = shmexec.heap_info()
    live, live_bytes, most, resident = [], 0, 0, 0
    for step in range(30_000):
        size = int(np.exp(random.uniform(np.log(1 << 10), np.log(24 << 20))))
        while live and (live_bytes + size > 400 << 20 or random.random() < 0.45):
            at = int(random.integers(len(live)))
            live[at], live[-1] = live[-1], live[at]
            live_bytes -= live.pop().nbytes
        live.append(shmexec.empty(size, "u1"))
        live_bytes += size
        most = max(most, live_bytes)
        if step % 500 == 0:
            resident = max(resident, shmexec.heap_info().bytes_resident - before.bytes_resident)
    live.clear()
    shmexec.trim()
    assert most > 300 << 20
    assert resident <= 1.3 * most
