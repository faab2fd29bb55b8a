"""NumPy's allocator is the heap's while a task runs: what ordinary code returns is not copied."""

import makers
import numpy as np
import pytest
import tasks

import shmexec


def copied(executor):
    return executor.stats().bytes_copied_out


@pytest.mark.parametrize("kind", makers.MAKERS)
def test_a_result_of_ordinary_code_is_not_copied(executor, kind):
    there = executor.submit(makers.make, kind).result()
    if kind == "an address":  # the worker keeps the owner: what it goes on to use is copied
        assert copied(executor) == there.nbytes
    else:
        assert copied(executor) == 0
        assert shmexec.is_shared(there)
    here = makers.make(kind) if kind != "empty" else there
    np.testing.assert_array_equal(there, here)
    assert there.strides == here.strides or kind == "an address"


def test_a_masked_result_is_not_copied(executor):
    there = executor.submit(makers.masked).result()
    assert type(there) is np.ma.MaskedArray
    assert copied(executor) == 0
    assert there.sum() == makers.N // 2


def test_libraries_over_numpy_return_shared_memory(executor):
    pandas = pytest.importorskip("pandas")
    ndimage = pytest.importorskip("scipy.ndimage")
    frame = executor.submit(lambda: pandas.DataFrame({"a": np.arange(makers.N), "b": np.ones(makers.N)}) * 2).result()
    assert frame["a"].iloc[-1] == 2 * (makers.N - 1)
    smooth = executor.submit(lambda: ndimage.gaussian_filter(np.ones((400, 400)), 2)).result()
    assert shmexec.is_shared(smooth)
    assert copied(executor) < 10_000


def test_shared_results_can_be_turned_off(make_executor):
    executor = make_executor(1, shared_results=False)
    assert executor.submit(makers.make, "zeros").result().sum() == 0
    assert copied(executor) == 8 * makers.N


def test_shared_results_is_a_truth_value(make_executor):
    with pytest.raises(TypeError, match="shared_results"):
        make_executor(1, shared_results="no")


def test_what_a_worker_keeps_is_not_changed_by_who_receives_it(make_executor):
    executor = make_executor(1)
    first, second = (executor.submit(makers.made_in_a_cache).result() for _ in range(2))
    first[:] = 7
    assert second[0] == 0
    assert executor.submit(makers.first_of_cache).result() == 0
    assert copied(executor) == 2 * first.nbytes


def test_what_a_worker_keeps_of_its_arguments_is_not_shared_either(make_executor):
    executor = make_executor(1)
    back = executor.submit(lambda a: makers.CACHE.setdefault("array", a), np.zeros(makers.N)).result()
    back[:] = 7
    assert executor.submit(makers.first_of_cache).result() == 0


def test_a_plain_argument_that_is_returned_is_not_copied_again(executor):
    back = executor.submit(tasks.give, np.ones(makers.N)).result()
    assert copied(executor) == 0
    assert back.flags.writeable


def test_a_small_part_of_a_large_array_does_not_keep_the_rest(executor):
    part = executor.submit(makers.sparse_part).result()
    assert copied(executor) == part.nbytes
    np.testing.assert_array_equal(part, np.arange(5000.0))
    assert shmexec.heap_info().bytes_in_use < 400 * makers.N


def test_parts_that_make_up_the_whole_are_not_copied(executor):
    there = executor.submit(makers.rows).result()
    assert copied(executor) == 0
    np.testing.assert_array_equal(there, makers.rows())


def test_an_object_that_frees_its_array_as_it_is_pickled(executor):
    np.testing.assert_array_equal(executor.submit(makers.frees_what_it_returns).result(), np.arange(float(makers.N)))


@pytest.mark.parametrize("fork_method", ["default", "fork", "spawn"])
def test_a_child_of_a_worker_does_not_write_into_its_arrays(make_executor, fork_method):
    executor = make_executor(1, None if fork_method == "default" else fork_method)
    code, array = executor.submit(makers.forks_and_writes).result()
    assert code == 0
    assert not array.any()


def test_an_allocator_that_another_library_sets_costs_a_copy(make_executor):
    executor = make_executor(1)
    np.testing.assert_array_equal(executor.submit(makers.with_another_allocator).result(), np.arange(float(makers.N)))
    assert copied(executor) == 8 * makers.N


def test_a_task_goes_on_elsewhere_when_the_heap_is_full(make_executor):
    executor = make_executor(1, max_bytes=64 << 20)
    try:
        assert executor.submit(makers.fills_the_heap, 30).result() == sum(range(30))
        assert shmexec.heap_info().bytes_resident <= 64 << 20
    finally:
        shmexec._core.set_limit(0)


MANY = """
import numpy as np, shmexec

def many(count):
    arrays = [np.full(8192, i, "f8") for i in range(count)]
    return all(array[0] == array[-1] == i for i, array in enumerate(arrays))

with shmexec.SharedExecutor(1) as executor:
    assert executor.submit(many, 100_000).result()
    assert shmexec.heap_info().blocks < 100
"""


def test_a_hundred_thousand_arrays(script):
    """Of 64 KiB each; in a heap of their own, for its tables stay as large as they were."""
    script(MANY)


def test_zeros_are_zero_on_pages_that_were_used(executor):
    assert executor.submit(makers.zeros_on_used_pages).result()


def test_arrays_begin_at_multiples_of_64_bytes(executor):
    assert executor.submit(makers.alignment).result() == 0


def test_nothing_of_a_task_stays_behind(make_executor):
    executor = make_executor(1)
    executor.submit(tasks.pid).result()
    before = shmexec.heap_info().blocks
    for kind in makers.MAKERS:
        if kind != "an address":
            executor.submit(makers.make, kind).result()
    executor.submit(tasks.pid).result()
    assert shmexec.heap_info().blocks <= before


# ---- in the parent -------------------------------------------------------------------------------


def test_inside_shared_allocation_ordinary_code_makes_shared_arrays(executor):
    with shmexec.shared_allocation():
        stack = np.stack([np.ones(makers.N)] * 2)
        grown = np.fromiter(range(makers.N), float)
    after = np.ones(makers.N)
    assert shmexec.is_shared(stack)
    assert shmexec.is_shared(grown)
    assert not shmexec.is_shared(after)
    executor.submit(tasks.fill, stack, 3).result()
    assert (stack == 3).all()
    assert executor.stats().bytes_copied_in == 0


def test_shared_allocation_can_be_nested_and_used_again():
    scope = shmexec.shared_allocation()
    with scope:
        with scope, shmexec.shared_allocation():
            assert shmexec.is_shared(np.ones(makers.N))
        assert shmexec.is_shared(np.ones(makers.N))
    assert not shmexec.is_shared(np.ones(makers.N))
    with scope:
        assert shmexec.is_shared(np.ones(makers.N))


def test_shared_allocation_is_of_its_own_thread():
    with shmexec.shared_allocation():
        assert not shmexec.is_shared(makers.by_thread())


def test_the_handler_that_was_set_before_is_back():
    from shmexec import _core

    before = _core.set_handler(_core.asked_handler())
    try:
        with pytest.raises(KeyError), shmexec.shared_allocation():
            raise KeyError
        assert shmexec.is_shared(np.ones(makers.N))
    finally:
        _core.set_handler(before)
    assert not shmexec.is_shared(np.ones(makers.N))


def test_shared_allocation_says_when_the_heap_is_full():
    shmexec._core.set_limit(32 << 20)
    try:
        with pytest.raises(shmexec.SharedMemoryFull, match="max_bytes"), shmexec.shared_allocation():
            np.ones(100 << 20, "u1")
        with pytest.raises(KeyError), shmexec.shared_allocation():
            raise KeyError
    finally:
        shmexec._core.set_limit(0)


def test_arrays_of_shared_allocation_are_resized_where_they_are_alone():
    with shmexec.shared_allocation():
        array = np.arange(float(makers.N))
        array.resize(makers.N - 1000, refcheck=False)
        number, birth, _ = shmexec._core.locate(array)
        twin = np.frombuffer(shmexec._core.hold(number, birth))  # as another process does
        array.resize(4 * makers.N, refcheck=False)
        array[:] = -1
    assert twin[-1] == makers.N - 1001  # what others hold stays as it is
    array.resize(10, refcheck=False)
    assert (array == -1).all()


def test_arrays_of_shared_allocation_outlive_everything(script):
    ran = script("""
import atexit, numpy as np, shmexec
with shmexec.shared_allocation():
    kept = np.ones(100_000)
    cycle = [np.ones(100_000)]
    cycle.append(cycle)
atexit.register(lambda: print(kept.sum()))
""")
    assert ran.stdout == "100000.0\n"


NUMPY_TESTS = """
import sys, threading, numpy as np, pytest
from shmexec import _core

_core.heap_address()
_core.open_allocator(int(sys.argv[1]))
assert _core.install_task_handler()
_core.task_allocation(True)
probe = np.ones(100_000)
assert _core.locate(probe) is not None
core = np._core if hasattr(np, "_core") else np.core
folder = core.__path__[0] + "/tests/"
files = [folder + name for name in sys.argv[2:]]
code = pytest.main(["-q", "-p", "no:cacheprovider", "-W", "ignore", "-m", "not slow", "--pyargs", *files])
assert _core.check_heap(False) is None
sys.exit(int(code))
"""


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [1, 32 << 10])
@pytest.mark.parametrize("file", ["multiarray", "umath", "item_selection", "numeric", "mem_overlap"])
def test_numpys_own_tests_pass_on_the_heap(script, threshold, file):
    ran = script(NUMPY_TESTS, threshold, f"test_{file}.py", check=False, timeout=110)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
