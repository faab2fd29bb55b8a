"""Arrays by name through every means that multiprocessing has, under every start method."""

import gc
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import peers
import pytest

import shmexec


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_a_queue_passes_the_same_memory_both_ways(context, start, kind):
    there, back = getattr(context, kind)(), getattr(context, kind)()
    start(peers.pass_on, there, back)
    array = shmexec.zeros((3, 4))
    for _ in range(3):
        there.put({"deep": [array]})
        got = back.get()["deep"][0]
        got += 1
    assert (array == 3).all()
    there.put(None)
    for queue in there, back:
        queue.close()
        if kind != "SimpleQueue":
            queue.join_thread()


def test_a_pipe_passes_the_same_memory_both_ways(ask):
    array = shmexec.zeros(1000)
    got = ask(peers.added, array, 2)
    got += 3
    assert (array == 5).all()
    assert shmexec.is_shared(got)


def test_what_the_other_process_makes_comes_by_name(ask):
    array = ask(peers.made, 1000, 4)
    assert shmexec.is_shared(array)
    assert ask(peers.added, array).sum() == array.sum() == 5000


def test_arguments_of_a_process_are_the_same_memory(start):
    array, other = shmexec.zeros(100), shmexec.zeros(5)
    start(peers.write, array[::2], 6).join()
    start(peers.write, other, 7).join()
    assert (array[::2] == 6).all()
    assert not array[1::2].any()
    assert (other == 7).all()


def test_a_pool_gets_and_returns_by_name(context):
    arrays = [shmexec.full(1000, n) for n in range(8)]
    with context.Pool(2) as pool:
        assert [a[0] for a in pool.map(peers.added, arrays)] == [n + 1 for n in range(8)]
        assert [a[0] for a in pool.imap(peers.added, arrays, chunksize=3)] == [n + 2 for n in range(8)]
        assert pool.apply(peers.added, (arrays[0],), {"by": 10})[0] == 12
        assert sum(a[0] for a in pool.starmap_async(peers.added, [(a, 1) for a in arrays]).get()) == sum(
            a[0] for a in arrays
        )
        pool.close()
        pool.join()
    assert [a[-1] for a in arrays] == [13, *(n + 3 for n in range(1, 8))]


def test_the_rows_of_an_array_are_one_ticket_in_each_message(context):
    table = shmexec.zeros((20_000, 4))
    with context.Pool(2) as pool:
        assert len(pool.map(peers.write_row, table)) == 20_000
        pool.close()
        pool.join()
    assert (table == 1).all()
    assert shmexec.heap_info().unclaimed == 0


def test_a_manager_keeps_the_same_memory(context):
    array = shmexec.zeros(100)
    with context.Manager() as manager:
        listed, named = manager.list([array]), manager.dict()
        named["x"] = array[10:]
        listed[0][0] = 5
        named["x"][0] = 6
        queue = manager.Queue()
        queue.put(array)
        queue.get()[1] = 7
        del listed, named, queue
    assert (array[0], array[1], array[10]) == (5, 7, 6)


def test_the_standard_librarys_executor_passes_by_name_too(context):
    array = shmexec.zeros(100_000)
    with ProcessPoolExecutor(1, context) as executor:
        got = executor.submit(peers.added, array).result()
        assert executor.submit(peers.is_shared, array, np.ones(10)).result() == [True, False]
    assert shmexec.is_shared(got)
    assert array.sum() == 100_000


def test_ordinary_arrays_go_by_value_as_ever(ask):
    array = np.zeros(100_000)
    got = ask(peers.added, array)
    assert got.sum() == 100_000
    assert not array.any()
    assert not shmexec.is_shared(got)
    assert ask(peers.is_shared, array, np.ones(3)) == [False, False]


def test_a_process_that_was_started_passes_by_name_without_having_received_any(ask):
    plain, shared = ask(peers.plain_and_shared, 50_000)
    assert not shmexec.is_shared(plain)
    assert shmexec.is_shared(shared)


def test_children_have_the_heap_of_their_parent_before_they_need_one(ask):
    assert ask(peers.heap_inode) == peers.heap_inode()


def test_nothing_is_left_of_many_messages(ask):
    before = shmexec.heap_info().blocks
    for n in range(100):
        array = shmexec.full(5000, n)
        assert ask(peers.same, array)[0] == n
    assert ask(peers.same, 1) == 1
    del array
    gc.collect()
    assert shmexec.heap_info().blocks == before
    assert shmexec.heap_info().unclaimed == 0


def test_plain_pickle_is_not_concerned():
    array = shmexec.ones(1000)
    again = pickle.loads(pickle.dumps(array))
    again[0] = 5
    assert array[0] == 1
    assert not shmexec.is_shared(again)
