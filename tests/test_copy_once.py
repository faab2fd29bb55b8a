"""Calls that share plain arrays: what is copied once, what again, and when the copies go."""

import numpy as np
import pytest
import tasks

import shmexec


def write_and_sum(array, value):
    array[0] = value
    return float(array.sum())


@pytest.fixture
def calls(executor):
    return executor.options(copy_once=True)


def copied(executor):
    return executor.stats().bytes_copied_in


def test_an_array_in_many_calls_is_copied_once_and_is_each_calls_own(executor, calls):
    array = np.zeros(50_000)
    found = [future.result() for future in [calls.submit(write_and_sum, array, i) for i in range(8)]]
    assert found == list(range(8))
    assert array[0] == 0
    assert copied(executor) in (array.nbytes, 2 * array.nbytes)  # again, if the first call was over too early
    for order in (np.asfortranarray(np.ones((300, 200))), np.arange(40_001, dtype=np.int16)):
        before = copied(executor)
        assert [calls.submit(np.sum, order).result() for _ in range(4)] == [order.sum()] * 4
        assert copied(executor) - before <= 2 * order.nbytes


def test_an_array_that_has_changed_is_copied_anew(calls):
    array = np.zeros(50_000)
    for i in range(6):
        array[-1] = i  # the last elements are compared, too
        assert calls.submit(np.sum, array).result() == i
    text = np.zeros(100_003, np.uint8)
    for i in range(4):
        text[-1] = i
        assert calls.submit(np.sum, text).result() == i


@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")
def test_an_array_of_another_shape_or_type_in_the_same_place_is_another(calls):
    array = np.zeros(60_000)
    assert [calls.submit(tasks.describe, array).result()["shape"] for _ in range(3)] == [(60_000,)] * 3
    array.resize((300, 200), refcheck=False)
    assert calls.submit(tasks.describe, array).result()["shape"] == (300, 200)


def test_views_whose_elements_do_not_lie_together_are_copied_once_too(executor, calls):
    for view in (np.arange(120_000.0)[::-2], np.arange(160_000, dtype=np.int8).reshape(400, 400)[:, 10:390:2]):
        before = copied(executor)
        assert [calls.submit(np.sum, view).result() for _ in range(4)] == [view.sum()] * 4
        assert copied(executor) - before <= 2 * view.nbytes
        view[-1] += 1
        assert calls.submit(np.sum, view).result() == view.sum()


def test_the_copies_go_with_the_arrays_or_with_the_view(lonely):
    calls = lonely.options(copy_once=True)
    before = shmexec.heap_info().blocks
    array = np.ones(50_000)
    for _ in range(3):
        calls.submit(np.sum, array).result()
    assert shmexec.heap_info().blocks == before + 1
    del array
    assert shmexec.heap_info().blocks == before
    array = np.ones(50_000)
    for _ in range(3):
        calls.submit(np.sum, array).result()
    assert shmexec.heap_info().blocks == before + 1
    del calls
    assert shmexec.heap_info().blocks == before


def test_arrays_that_come_once_are_not_kept(lonely):
    calls = lonely.options(copy_once=True)
    before = shmexec.heap_info().blocks
    arrays = [np.full(50_000, i) for i in range(5)]
    assert [calls.submit(np.max, array).result() for array in arrays] == list(range(5))
    assert shmexec.heap_info().blocks == before


def test_limits_and_maps_go_with_it(executor):
    array = np.ones(50_000)
    calls = executor.options(copy_once=True, timeout=1000, retries=1)
    assert list(calls.map(np.dot, [array] * 5, [array] * 5)) == [50_000] * 5
    assert calls.submit(np.sum, array).result() == 50_000
    assert copied(executor) <= 2 * array.nbytes


def test_each_call_has_its_own_function(calls):
    array = np.arange(50_000.0)
    futures = [calls.submit(function, array) for function in (np.max, np.min, lambda a: a[7], tasks.double)]
    assert [future.result() for future in futures[:3]] == [49_999, 0, 7]
    assert futures[3].result()[2] == 4


def test_copy_once_must_be_a_truth_value(executor):
    with pytest.raises(TypeError, match="copy_once must be True or False, not int"):
        executor.options(copy_once=1)
