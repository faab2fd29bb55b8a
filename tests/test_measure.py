"""What the demo counts: pickled bytes, and the memory of all processes."""

import os
import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from shmexec import measure

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((1000, 1000)),
        {"a": np.ones(10, np.float32), "b": [b"x" * 1000]},
        np.zeros((100, 200))[:, ::2],
        7,
    ],
)
def test_the_pickled_size_is_that_of_the_pickle(value):
    assert measure.pickled_size(value) == pytest.approx(len(pickle.dumps(value)), abs=150)


def test_measuring_a_pickle_copies_no_array():
    array = np.zeros(10_000_000)
    tracemalloc.start()
    try:
        measure.pickled_size([array])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < array.nbytes / 100


@linux
def test_peak_memory_is_that_of_all_processes_together():
    size = 200_000_000
    hold = f"import sys; held = bytearray(b'x' * {size}); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"held\n"
        with measure.PeakMemory() as memory:
            assert child.pid in measure.process_tree(os.getpid())
        own = measure.proportional_set_size(os.getpid())
        child.stdin.close()
    assert memory.peak > size + own / 2
