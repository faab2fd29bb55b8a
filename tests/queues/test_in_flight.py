"""Between sending and reading: the sender drops the array, ends, is killed; the reader is killed, or never reads."""

import gc
import itertools
import signal

import numpy as np
import peers
import pytest

import shmexec
from shmexec import StaleName


def blocks():
    gc.collect()
    return shmexec.heap_info().blocks


def closed(queue):
    queue.close()
    if hasattr(queue, "join_thread"):
        queue.join_thread()


def test_an_array_that_its_sender_drops_arrives(context):
    before = blocks()
    receiving, sending = context.Pipe(duplex=False)
    for n in range(20):
        sending.send(shmexec.full(10_000, n))
    others = [shmexec.full(10_000, -1) for _ in range(20)]  # where they would be, were they gone
    for n in range(20):
        array = receiving.recv()
        assert (array == n).all()
    del array, others
    assert blocks() == before


@pytest.mark.parametrize("ending", ["exit", "kill"])
@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue"])
def test_an_array_arrives_although_its_sender_has_ended(context, start, kind, ending):
    before = blocks()
    queue = getattr(context, kind)()
    sender = start(peers.put, queue, 10_000, 6, ending)
    sender.join()
    assert sender.exitcode == (0 if ending == "exit" else -signal.SIGKILL)
    shmexec.heap_info()  # takes back what the dead one held
    others = [shmexec.full(10_000, -1) for _ in range(10)]
    array = queue.get()
    assert (array == 6).all()
    assert shmexec.is_shared(array)
    array += 1
    del others, array
    closed(queue)
    assert (blocks(), shmexec.heap_info().unclaimed) == (before, 0)


def test_an_array_arrives_although_its_sender_and_its_senders_parent_have_ended(context, start):
    queue = context.SimpleQueue()
    start(peers.grandchild_sends, context.get_start_method(), queue, 10_000, 7).join()
    shmexec.heap_info()
    assert (queue.get() == 7).all()
    queue.close()


def test_an_argument_of_a_process_arrives_although_its_parent_drops_it(start, gate, tmp_path):
    begin = gate("begin")
    start(peers.wait_and_save, shmexec.full(10_000, 8), begin, tmp_path / "sum")
    gc.collect()
    others = [shmexec.full(10_000, -1) for _ in range(10)]
    begin.open()
    del others
    peers.wait_for(tmp_path / "sum")
    assert (tmp_path / "sum").read_text() == "80000"


def test_results_of_a_pool_outlive_its_processes(context):
    with context.Pool(1) as pool:
        arrays = pool.starmap(peers.made, [(10_000, n) for n in range(5)])
        pool.terminate()
        pool.join()
    others = [shmexec.full(10_000, -1) for _ in range(10)]
    assert [array.sum() for array in arrays] == [n * 10_000 for n in range(5)]
    assert all(map(shmexec.is_shared, arrays))
    del others


def test_of_two_readers_of_one_pickle_both_have_the_array_while_one_holds_it(context, start, gate):
    begin = gate("begin")
    first, second = context.Pipe(), context.Pipe()
    for one in first, second:
        start(peers.read_later, one[1], begin)
    message = bytes(context.reducer.ForkingPickler.dumps(shmexec.ones(1000)))
    for one in first, second:
        one[0].send_bytes(message)
    kept = context.reducer.ForkingPickler.loads(message)
    begin.open(2)
    assert [one[0].recv() for one in (first, second)] == [1000, 1000]
    del kept
    for end in *first, *second:
        end.close()
    with pytest.raises(StaleName):
        context.reducer.ForkingPickler.loads(message)


def test_what_a_killed_reader_has_not_read_can_be_given_up(context, start):
    before = blocks()
    receiving, sending = context.Pipe(duplex=False)
    sending.send(shmexec.ones(1000))
    reader = start(peers.be_killed_reading, receiving)
    reader.join()
    assert (blocks(), shmexec.heap_info().unclaimed) == (before + 1, 1)
    shmexec.trim(unclaimed=True)
    assert (blocks(), shmexec.heap_info().unclaimed) == (before, 0)
    receiving.close()
    sending.close()


def test_what_a_killed_reader_holds_comes_back(context, start, gate):
    before = blocks()
    read = gate("read")
    receiving, sending = context.Pipe(duplex=False)
    reader = start(peers.keep, receiving, read)
    sending.send(shmexec.ones(1000))
    read.wait_open()
    assert (blocks(), shmexec.heap_info().unclaimed) == (before + 1, 0)
    reader.kill()
    reader.join()
    assert blocks() == before
    receiving.close()
    sending.close()


def test_the_dead_make_room_before_memory_is_refused(context, start, gate):
    """Nobody asks for heap_info() in between."""
    done = gate("done")
    receiving, sending = context.Pipe(duplex=False)
    shmexec.trim()
    resident = shmexec.heap_info().bytes_resident
    from shmexec import _core

    _core.set_limit(resident + (64 << 20))
    try:
        for _ in range(4):
            reader = start(peers.keep, receiving, done)
            sending.send(shmexec.ones(40 << 20, "u1"))
            done.wait_open()
            reader.kill()
            reader.join()
    finally:
        _core.set_limit(0)
        receiving.close()
        sending.close()


def test_a_chain_of_processes_passes_an_array_on_and_keeps_none(context, start):
    before = blocks()
    queues = [context.SimpleQueue() for _ in range(4)]
    for source, target in itertools.pairwise(queues):
        start(peers.pass_on_once, source, target)
    queues[0].put(shmexec.full(10_000, 3))
    gc.collect()
    array = queues[-1].get()
    assert (array == 3).all()
    for queue in queues:
        queue.close()
    del array
    assert (blocks(), shmexec.heap_info().unclaimed) == (before, 0)


def test_a_pickle_that_fails_half_way_leaves_what_can_be_given_up(context):
    before = blocks()
    receiving, sending = context.Pipe(duplex=False)
    with pytest.raises(Exception, match="pickle"):
        sending.send([shmexec.ones(1000), lambda: 0])
    assert shmexec.heap_info().unclaimed == 1
    shmexec.trim(unclaimed=True)
    assert blocks() == before
    receiving.close()
    sending.close()


def test_many_arrays_of_a_queue_that_nobody_reads_stay_and_can_be_given_up(context):
    before = blocks()
    queue = context.SimpleQueue()
    for _ in range(30):
        queue.put(shmexec.ones(10))
    queue.close()
    assert shmexec.heap_info().unclaimed == 30
    shmexec.trim(unclaimed=True)
    assert (blocks(), shmexec.heap_info().unclaimed) == (before, 0)


def test_arrays_under_way_and_ordinary_ones_are_not_mixed_up(context, start):
    there, back = context.Queue(), context.Queue()
    start(peers.pass_on, there, back)
    random = np.random.default_rng(1)
    kept = []
    for n in range(60):
        there.put((n, shmexec.full(int(random.integers(1, 40_000)), n), np.full(5, n)))
        if random.random() < 0.5:
            kept.append(shmexec.zeros(int(random.integers(1, 40_000))))
        if random.random() < 0.3:
            kept.clear()
    for _ in range(60):
        n, shared, plain = back.get()
        assert (shared == n).all()
        assert (plain == n).all()
    there.put(None)
    closed(there)
    closed(back)
