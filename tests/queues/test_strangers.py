"""Arrays by name between processes that are not of one tree, or whose arrays are private; stale names."""

import dataclasses
import multiprocessing
import os
import pickle
from multiprocessing.connection import Listener
from multiprocessing.managers import BaseManager
from multiprocessing.reduction import ForkingPickler

import numpy as np
import peers
import pytest

import shmexec
from shmexec import StaleName, _core

CLIENT = """
import sys
import numpy as np, shmexec
from multiprocessing.connection import Client
import peers
{before}
connection = Client(sys.argv[1], authkey=b"secret")
connection.send(peers.heap_inode() if shmexec._core.heap_is_open() else None)
peers.answer(connection)
"""


@pytest.fixture
def listener():
    with Listener(authkey=b"secret") as made:
        yield made


@pytest.fixture
def stranger(listener, script):
    """A process of a tree of its own at the other end of a socket; its heap, and how to ask it."""
    running = []

    def start(before=""):
        program = script.start(CLIENT.format(before=before), listener.address)
        connection = listener.accept()
        running.append((program, connection))

        def ask(function, *arguments):
            connection.send((function, arguments))
            return connection.recv()

        ask.connection = connection
        ask.program = program
        return connection.recv(), ask

    yield start
    for program, connection in running:
        if program.poll() is None:
            connection.send(None)
        connection.close()
        program.communicate()


def test_a_stranger_without_a_heap_takes_part_in_the_one_it_hears_of(stranger):
    heap, ask = stranger()
    assert heap is None
    array = shmexec.zeros(1000)
    got = ask(peers.added, array)
    got += 1
    assert (array == 2).all()
    assert ask(peers.heap_inode) == peers.heap_inode()
    made = ask(peers.made, 1000, 5)
    ask.connection.send(None)
    ask.program.wait()
    assert made.sum() == 5000  # it lies in this heap, and nothing was lost with its maker
    assert _core.locate(made) is not None


OWNER = """
from multiprocessing.connection import Listener
import numpy as np, shmexec, peers
from shmexec import _core

array = shmexec.zeros(1000)
shmexec.register_multiprocessing()
with Listener(authkey=b"secret") as listener:
    print(listener.address, flush=True)
    connection = listener.accept()
heap = connection.recv()

def ask(function, *arguments):
    connection.send((function, arguments))
    return connection.recv()

got = ask(peers.added, array)
got += 1
assert (array == 2).all()
assert ask(peers.heap_inode) == heap != peers.heap_inode()
made = ask(peers.made, 1000, 5)
assert shmexec.is_shared(made) and _core.locate(made) is None
assert ask(peers.added, made).sum() == made.sum() == 6000
connection.send(None)
print("over", flush=True)
input()
made += 1  # its heap lives on as long as this process has it
print(made.sum())
"""


def test_strangers_with_heaps_of_their_own_have_each_others_arrays(script):
    """In two programs, since a heap that was attached stays so until the process ends."""
    owner = script.start(OWNER)
    address = owner.stdout.readline().strip()
    other = script.start(CLIENT.format(before="kept = shmexec.ones(10)"), address)
    assert owner.stdout.readline() == "over\n"
    other.communicate()
    assert owner.communicate("\n")[0] == "7000\n"


def test_what_a_tree_sent_before_its_end_is_stale(script):
    """Memory ends with the last process that has it; nothing of it could be read by mistake."""
    ran = script(
        "import shmexec; from multiprocessing.reduction import ForkingPickler\n"
        "shmexec.register_multiprocessing(); print(bytes(ForkingPickler.dumps(shmexec.ones(10))).hex())"
    )
    with pytest.raises(StaleName, match="gone"):
        pickle.loads(bytes.fromhex(ran.stdout))


def test_a_stranger_finds_the_heap_though_the_sender_has_ended(stranger):
    _, ask = stranger()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, ForkingPickler.dumps(shmexec.full(1000, 3)))
        os._exit(0)
    os.waitpid(pid, 0)
    message = os.read(reading, 10_000)
    for end in reading, writing:
        os.close(end)
    if shmexec.heap_info().kind == "memfd":
        assert f"/proc/{pid}/".encode() in message
    assert ask(pickle.loads, message).sum() == 3000


def test_a_manager_of_another_tree_keeps_arrays_by_name(script):
    server = script.start(
        "import sys\nfrom multiprocessing.managers import BaseManager\nimport numpy, peers\n"
        "kept = {}\nBaseManager.register('kept', lambda: kept, exposed=['get', 'update'])\n"
        "made = BaseManager(authkey=b'secret')\nserver = made.get_server()\n"
        "print(server.address, flush=True)\nserver.serve_forever()"
    )

    class Manager(BaseManager):
        pass

    Manager.register("kept", exposed=["get", "update"])
    manager = Manager(server.stdout.readline().strip(), b"secret")
    manager.connect()
    proxy = manager.kept()
    array = shmexec.zeros(1000)
    proxy.update({"x": array})
    proxy.get("x")[0] = 5
    assert array[0] == 5
    server.kill()
    server.communicate()
    del proxy


SCRIPT = """
import multiprocessing, sys
import numpy as np, shmexec

def work(queue, array):
    array += 1
    queue.put(shmexec.full(1000, 2))

if __name__ == "__main__":
    shmexec.register_multiprocessing()
    context = multiprocessing.get_context(sys.argv[1])
    queue, array = context.Queue(), shmexec.zeros(1000)
    process = context.Process(target=work, args=(queue, array))
    process.start()
    process.join()
    array += queue.get()
    print(array.sum(), shmexec.heap_info().blocks, shmexec.heap_info().unclaimed)
"""


@pytest.mark.parametrize("where", ["under the guard", "while it is imported"])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_script_registers_once(script, method, where):
    source = SCRIPT
    if where == "while it is imported":
        source = source.replace("    shmexec.register_multiprocessing()\n", "")
        source = source.replace("\ndef work", "\nshmexec.register_multiprocessing()\n\ndef work")
    assert script(source, method).stdout == "3000.0 1 0\n"


# ---- in a pool of ours ---------------------------------------------------------------------------


def test_a_process_forked_by_a_task_reads_and_writes_the_true_array(executor):
    array, message = shmexec.zeros(1000), None
    message = bytes(ForkingPickler.dumps(array))

    def task(message):
        pid = os.fork()
        if pid == 0:
            pickle.loads(message)[0] = 5
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert executor.submit(task, message).result() == 0
    assert array[0] == 5
    assert shmexec.heap_info().unclaimed == 0


def test_workers_pass_by_name_if_their_parent_is_registered(make_executor, method):
    executor = make_executor(1, method)

    def task():
        array = shmexec.zeros(10)
        pickle.loads(ForkingPickler.dumps(array))[0] = 5
        return array[0], "shmexec" in multiprocessing.current_process()._config

    assert executor.submit(task).result() == (5, True)


POOL = """
import pickle, sys
import numpy as np, shmexec
from shmexec import SharedExecutor

array = shmexec.attach(pickle.loads(bytes.fromhex(sys.argv[1])))

def add(a, by, deep):
    a += by
    deep["x"][0] = by
    return a

if __name__ == "__main__":
    with SharedExecutor(1) as executor:
        result = executor.submit(add, array[1:], 2, {"x": array[:1]}).result()
        stats = executor.stats()
        assert stats.bytes_copied_in == 0, stats
        assert stats.bytes_copied_out == result.nbytes and not np.shares_memory(result, array), stats
        assert sum(executor.map(np.sum, [array] * 4)) == 4 * array.sum()
        assert executor.submit(lambda: array.sum()).result() == array.sum()
        print(shmexec.explain(array).bytes_by_name, stats.copies[-1].why)
"""


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_pool_passes_arrays_of_another_tree_by_name(script):
    array = shmexec.ones(20_000)
    name = pickle.dumps(shmexec.name_of(array)).hex()
    assert script(POOL, name).stdout == "160000 it lies in the heap of another process tree\n"
    assert (array[0], array[1], array[-1]) == (2, 3, 3)


def test_ordinary_results_of_a_task_go_by_value_through_its_queues_and_asked_for_ones_by_name(executor):
    def task():
        shmexec.register_multiprocessing()
        plain, shared = np.ones(100_000), shmexec.ones(100_000)
        got = [pickle.loads(ForkingPickler.dumps(array)) for array in (plain, shared)]
        for array in got:
            array += 1
        return plain[0], shared[0]

    assert executor.submit(task).result() == (1, 2)


# ---- stale names ---------------------------------------------------------------------------------


def test_the_name_of_a_block_that_was_freed_and_used_again_is_stale():
    array = shmexec.full(1000, 1)
    name = shmexec.name_of(array)
    del array
    others = [shmexec.full(1000, 2) for _ in range(100)]
    assert name.block in [shmexec.name_of(other).block for other in others]
    with pytest.raises(StaleName):
        shmexec.attach(name)


def test_the_name_of_a_process_whose_pid_is_used_again_is_stale(tmp_path):
    """Under its path stands another file: of another kind, or of none."""
    array = shmexec.ones(10)
    name = shmexec.name_of(array)
    inode = name.segment.rpartition(":")[2]
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    opened = [os.open(fifo, os.O_RDWR), os.open("/dev/null", os.O_RDWR), 1000]
    for fd in opened:
        with pytest.raises(StaleName):
            shmexec.attach(dataclasses.replace(name, segment=f"/proc/{os.getpid()}/fd/{fd}:{int(inode) + 1}"))
    with pytest.raises(StaleName):
        shmexec.attach(dataclasses.replace(name, segment="nonsense"))
    for fd in opened[:-1]:
        os.close(fd)
    assert array[0] == 1


ATTACH = """
import pickle, sys
import shmexec
own = shmexec.ones(1)  # whoever makes a heap sweeps the names that dead processes have left
try:
    shmexec.attach(pickle.loads(bytes.fromhex(sys.argv[1])))
except shmexec.StaleName:
    print("stale")
"""


def test_a_name_given_by_a_process_that_was_killed_is_stale(script):
    program = script.start(
        "import pickle, sys, shmexec; a = shmexec.ones(9)\n"
        "print(pickle.dumps(shmexec.name_of(a)).hex(), flush=True); sys.stdin.read()"
    )
    name = program.stdout.readline().strip()
    program.kill()
    program.communicate()
    assert script(ATTACH, name).stdout == "stale\n"
