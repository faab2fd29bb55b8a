"""Arrays that were received and that nobody else uses are like NumPy's own: they own their memory."""

import gc
import os

import numpy as np
import pytest
import tasks

import shmexec

LARGE = 100_000


def grow(a):
    address = a.ctypes.data
    a.resize(a.size + 10, refcheck=False)
    return a.flags.owndata, address == a.ctypes.data, a


def shrink_much(a):
    a.resize(10, refcheck=False)
    return a


def temporary(arrays):
    address = arrays[0].ctypes.data
    made = arrays.pop() * 2.0 + 1.0
    return made.ctypes.data == address, made


def two_views(n):
    a = np.arange(float(n))
    return a, a[: n // 2], a


def one_of_a_pair(n):
    a = np.arange(float(n))
    return a, a.reshape(2, -1)


def test_an_argument_that_was_copied_is_owned_and_grows(executor):
    given = np.arange(float(LARGE))
    owns, _, back = executor.submit(grow, given).result()
    assert owns
    assert (back[:LARGE] == given).all()
    assert not back[LARGE:].any()
    assert (executor.submit(shrink_much, given).result() == np.arange(10.0)).all()
    assert given.size == LARGE


def test_an_argument_that_was_copied_is_used_for_temporary_results(executor):
    given = np.arange(float(LARGE))
    _, back = executor.submit(temporary, [given]).result()
    assert (back == given * 2 + 1).all()
    assert (given == np.arange(float(LARGE))).all()


def test_a_result_is_owned_grows_and_outlives_the_pool(executor):
    back = executor.submit(np.ones, LARGE).result()
    assert back.flags.owndata
    assert back.base is None
    view = back[3:]
    with pytest.raises(ValueError, match="cannot resize"):
        back.resize(3)
    del view
    back.resize(2 * LARGE, refcheck=False)
    assert back.sum() == LARGE
    executor.shutdown()
    back.resize(LARGE // 2, refcheck=False)
    assert back.sum() == LARGE // 2
    del back
    gc.collect()


@pytest.mark.parametrize("make", [two_views, one_of_a_pair])
def test_arrays_over_one_block_own_it_not(executor, make):
    back = executor.submit(make, LARGE).result()
    assert not any(a.flags.owndata for a in back)
    assert len({a.ctypes.data for a in back}) == 1
    kept = back[1]
    before = kept.copy()
    del back
    assert (kept == before).all()


def test_an_array_that_came_twice_is_one(executor):
    a, b = executor.submit(lambda: [np.ones(LARGE)] * 2).result()
    assert a is b
    assert a.flags.owndata


def test_an_array_that_is_sent_on_is_owned_by_nobody(executor):
    future = executor.submit(np.ones, LARGE)
    seen = executor.submit(lambda a: (a.flags.owndata, a.sum()), future)
    assert seen.result() == (False, LARGE)
    assert not future.result().flags.owndata
    again = executor.submit(lambda a: a.flags.owndata, future)
    assert again.result() is False


def test_an_array_that_becomes_an_argument_is_owned_no_more(executor):
    back = executor.submit(np.ones, LARGE).result()
    assert back.flags.owndata
    gate = executor.submit(lambda a: a.sum(), back[5:])
    assert not back.flags.owndata
    with pytest.raises(ValueError, match="own"):
        back.resize(3, refcheck=False)
    assert gate.result() == LARGE - 5
    assert (back == 1).all()


def test_an_array_that_has_a_name_is_owned_no_more(executor):
    back = executor.submit(np.ones, LARGE).result()
    assert shmexec.share(back) is back
    assert back.flags.owndata
    twin = shmexec.attach(shmexec.name_of(back))
    assert not back.flags.owndata

    def passed_on(array):
        return array

    del back
    assert (passed_on(shmexec.attach(shmexec.name_of(twin))) * 2 == 2).all()
    assert (twin == 1).all()


def test_a_temporary_that_a_call_reads_is_not_written(executor, gate):
    said, wait = gate("say"), gate("wait")
    found = []

    def start_and_return(array):
        found.append(executor.submit(tasks.sum_behind_gates, said, wait, array))
        said.wait_open()  # it is pickled, and unpickled
        return array

    with shmexec.shared_allocation():
        doubled = start_and_return(np.ones(LARGE)) * 2.0
    again = start_and_return(executor.submit(np.ones, LARGE).result()) * 2.0
    gate.open_all()
    assert (doubled == 2).all()
    assert (again == 2).all()
    assert [future.result() for future in found] == [LARGE, LARGE]


def test_shared_arrays_are_never_owned(executor):
    shared = shmexec.ones(LARGE)
    assert executor.submit(lambda a: (a.flags.owndata, a), shared).result()[0] is False
    assert not executor.submit(tasks.give, shared).result().flags.owndata
    with pytest.raises(ValueError, match="own"):
        shared.resize(3)
    made = executor.submit(lambda: shmexec.ones(LARGE)).result()
    assert not made.flags.owndata


def test_arrays_of_a_map_are_owned_and_those_of_its_function_are_not(executor):
    table = np.ones(LARGE)
    owned = executor.map(
        lambda a, t=table: (a.flags.owndata, t.flags.owndata), [np.ones(LARGE) for _ in range(4)], chunksize=2
    )
    # each call sees the one copy page by page; System V memory cannot be mapped so, and is copied for each call
    has_own_table = shmexec.heap_info().kind == "sysv"
    assert list(owned) == [(True, has_own_table)] * 4


def test_a_cached_array_is_not_owned_by_two(executor):
    first = executor.submit(tasks.cached, LARGE).result()
    second = executor.submit(tasks.cached, LARGE).result()
    first += 1
    assert (second == 0).all()
    assert (executor.submit(tasks.cached, LARGE).result() == 0).all()


def test_owned_arrays_in_a_forked_child_and_at_exit(executor):
    back = executor.submit(np.ones, LARGE).result()
    child = os.fork()
    if child == 0:
        right = back.sum() == LARGE
        back.resize(2 * LARGE, refcheck=False)
        right = right and back.sum() == LARGE
        del back
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert back.sum() == LARGE


def test_an_owned_array_lives_to_the_end_of_the_interpreter(script):
    ran = script("""
import sys, numpy, shmexec
with shmexec.SharedExecutor(1) as ex:
    sys.kept = ex.submit(numpy.ones, 100_000).result()
assert sys.kept.flags.owndata
""")
    assert ran.stderr == ""
