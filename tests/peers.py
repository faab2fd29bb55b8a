"""What the other processes of the tests in queues/ do: importable by name, under every start method."""

import os
import signal

import numpy as np
import sequencer

import shmexec
from shmexec import _core


def same(value):
    return value


def added(array, by=1):
    """Adds to the argument where it lies, and returns it."""
    array += by
    return array


def is_shared(*arrays):
    return [shmexec.is_shared(array) for array in arrays]


def made(n, value):
    """An array that this process has made, in shared memory."""
    return shmexec.full(n, value)


def answer(connection):
    """For each (function, arguments) that comes the function's value goes back; None ends it."""
    while (asked := connection.recv()) is not None:
        function, arguments = asked
        del asked
        connection.send(function(*arguments))
        del arguments
    connection.close()


def pass_on(source, target):
    """From one queue to another, until None comes; nothing is kept."""
    while (value := source.get()) is not None:
        target.put(value)
        del value


def put(queue, n, value, ending="exit"):
    """Sends an array that it has made, and ends."""
    queue.put(shmexec.full(n, value))
    if ending == "kill":
        if hasattr(queue, "join_thread"):  # SIGKILL would come before the feeder
            queue.close()
            queue.join_thread()
        os.kill(os.getpid(), signal.SIGKILL)


def write(array, value):
    array[...] = value


def write_row(row):
    row += 1


def wait_and_write(array, gate, value):
    gate.wait_open()
    array[...] = value


def read_later(connection, gate):
    """Receives when it is told to, and says what came."""
    gate.wait_open()
    connection.send(float(connection.recv().sum()))


def be_killed_reading(connection):
    """Killed while it unpickles: after it has taken hold, before it claims the ticket."""
    connection.recv_bytes()
    os.kill(os.getpid(), signal.SIGKILL)


def heap_inode():
    return shmexec.heap_info().kernel_name.rpartition(":")[2]


def grandchild_sends(context_name, queue, n, value):
    """The child of this process sends, and both are gone."""
    import multiprocessing

    child = multiprocessing.get_context(context_name).Process(target=put, args=(queue, n, value))
    child.start()
    child.join()


def checks(array):
    """What a receiver finds of an array: enough to compare with what was sent."""
    return array.dtype, array.shape, array.strides, array.flags.writeable, array.tolist(), shmexec.is_shared(array)


def share_base(arrays):
    """Whether all arrays lie in one block here."""
    return len({_core.block_of(array)[0].number for array in arrays}) == 1


def plain_and_shared(n):
    """What ordinary code makes, and what was asked for."""
    return np.ones(n), shmexec.ones(n)


def wait_and_save(array, gate, path):
    """Where its sum is to be found."""
    gate.wait_open()
    path.write_text(str(array.sum()))


def wait_for(path):
    sequencer.wait_until(lambda: path.exists() and path.read_text())


def keep(connection, gate):
    """Reads an array, and keeps it until it is killed."""
    array = connection.recv()
    gate.open()
    while True:
        signal.pause()
        assert array is not None


def pass_on_once(source, target):
    target.put(source.get())
