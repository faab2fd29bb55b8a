"""Shared arrays and the processes of a tree: forks, pools that end, and what stays."""

import gc
import os
import pickle

import numpy as np
import pytest
import sequencer
import tasks

import shmexec

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def in_fork(function):
    """Run a function in a forked child, which then ends at once; its exit code."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = int(function() or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_writes_are_seen_both_ways_after_a_fork(gate):
    array = shmexec.zeros(1000)
    there, back = gate("there"), gate("back")
    pid = os.fork()
    if pid == 0:
        try:
            back.wait_open()
            array[1] = array[0] + 1
            there.open()
            back.wait_open()
        finally:
            os._exit(0)
    array[0] = 5
    back.open()
    there.wait_open()
    assert array[1] == 6
    back.open()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_forked_child_keeps_what_its_parent_drops(gate):
    before = shmexec.heap_info().blocks
    array = shmexec.full(1000, 7)
    dropped, looked = gate("dropped"), gate("looked")
    pid = os.fork()
    if pid == 0:
        dropped.wait_open()
        right = (array == 7).all() and shmexec.is_shared(array)
        looked.open()
        dropped.wait_open()
        os._exit(0 if right else 1)
    del array
    others = [shmexec.full(1000, 8) for _ in range(20)]
    dropped.open()
    looked.wait_open()
    assert shmexec.heap_info().blocks == before + 21
    dropped.open()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    del others
    assert shmexec.heap_info().blocks == before


def test_what_a_forked_child_made_is_freed_with_it():
    before = shmexec.heap_info().blocks

    def child():
        made = [shmexec.ones(n) for n in (10, 10_000, 1_000_000)]
        return 0 if all(map(shmexec.is_shared, made)) else 1

    assert in_fork(child) == 0
    assert shmexec.heap_info().blocks == before


def test_a_forked_child_that_ends_takes_nothing_of_its_parent():
    array = shmexec.full(5000, 3)

    def child():
        nonlocal array
        del array
        gc.collect()
        return 0

    assert in_fork(child) == 0
    others = [shmexec.zeros(5000) for _ in range(5)]
    assert (array == 3).all()
    del others


def test_a_name_made_in_a_child_is_attached_by_its_parent(gate, tmp_path):
    made, seen = gate("made"), gate("seen")
    pid = os.fork()
    if pid == 0:
        array = shmexec.full(100, 9)
        (tmp_path / "name").write_bytes(pickle.dumps(shmexec.name_of(array)))
        made.open()
        seen.wait_open()
        os._exit(0)
    made.wait_open()
    array = shmexec.attach(pickle.loads((tmp_path / "name").read_bytes()))
    seen.open()
    os.waitpid(pid, 0)
    shmexec.heap_info()
    assert (array == 9).all()


def test_a_name_attaches_in_a_worker(make_executor, method):
    executor = make_executor(1, method)
    array = shmexec.zeros((5, 6))
    executor.submit(tasks.fill, array, 1).result()
    seen = executor.submit(lambda name: shmexec.attach(name).__iadd__(1).sum(), shmexec.name_of(array[1:])).result()
    assert seen == 4 * 6 * 2
    assert array.sum() == 6 + 48


def test_a_name_given_by_a_worker_attaches_here(executor, gate):
    made, seen = gate("made"), gate("seen")

    def work(made, seen):
        kept = shmexec.full(50, 4.0)
        made.open()
        seen.wait_open()
        return shmexec.name_of(kept), kept

    future = executor.submit(work, made, seen)
    made.wait_open()
    seen.open()
    name, kept = future.result()
    assert shmexec.attach(name).ctypes.data == kept.ctypes.data


def test_an_array_outlives_its_pool(make_executor, method):
    executor = make_executor(1, method)
    given = shmexec.ones(100_000)
    large = executor.submit(tasks.make_shared, 200_000, 5).result()
    small = executor.submit(tasks.make_shared, 3, 6).result()
    executor.shutdown()
    del executor
    gc.collect()
    others = [shmexec.zeros(200_000) for _ in range(3)]
    assert large.sum() == 1_000_000
    assert small.tolist() == [6, 6, 6]
    large[0] = given[0] = 2
    assert large[0] == given[0] == 2
    assert not any(other.any() for other in others)


def test_dropping_a_result_frees_it_while_the_pool_lives(executor):
    executor.submit(tasks.make_shared, 10, 1).result()
    before = shmexec.heap_info().blocks
    for _ in range(20):
        executor.submit(tasks.make_shared, 100_000, 1).result()
    gc.collect()
    # what the worker has not been told of yet may still be there; the next calls tell it
    sequencer.wait_until(lambda: executor.submit(tasks.pid).result() and shmexec.heap_info().blocks <= before + 1)


def test_an_array_argument_is_freed_after_the_call(executor):
    executor.submit(tasks.pid).result()
    before = shmexec.heap_info().blocks
    array = shmexec.ones(100_000)
    assert executor.submit(np.sum, array).result() == 100_000
    assert executor.submit(np.sum, np.ones(100_000)).result() == 100_000
    del array
    gc.collect()
    assert executor.submit(tasks.pid).result()
    sequencer.wait_until(lambda: shmexec.heap_info().blocks <= before)


def test_the_processes_of_a_tree_share_one_heap(executor):
    executor.submit(tasks.pid).result()
    assert shmexec.heap_info().processes >= 2
    inode = shmexec.heap_info().kernel_name.rpartition(":")[2]
    assert executor.submit(lambda: shmexec.heap_info().kernel_name.rpartition(":")[2]).result() == inode


def test_trim_reaches_the_workers(executor):
    executor.submit(lambda: shmexec.ones(64 << 20, "u1").nbytes).result()
    warm = shmexec.heap_info().bytes_resident
    shmexec.trim()
    sequencer.wait_until(
        lambda: executor.submit(tasks.pid).result() and shmexec.heap_info().bytes_resident < warm - (32 << 20)
    )
