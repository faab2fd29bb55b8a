"""Arrays that take no pickle, as arguments and as results, arrive as by the other way, that of calls with limits."""

import concurrent.futures
import gc
import marshal
import sys

import numpy as np
import pytest
import tasks

import shmexec
from shmexec.pickling.pickler import load, load_again

SIZE = 1 << 16


def arguments():
    base = shmexec.share(np.arange(2.0 * SIZE).reshape(-1, 8))
    typed = [shmexec.ones(SIZE, dtype) for dtype in "?bBhHiIlLqQefdgFDG"]
    odd = [
        shmexec.ones(SIZE, dtype) for dtype in (">f8", "S3", "M8[s]", [("a", "f8")], np.dtype("f8", metadata={"a": 1}))
    ]
    frozen = shmexec.ones(SIZE)
    frozen.flags.writeable = False
    views = [base, base.T, base[::-1], base[3:, ::2], base[5, 5:6], base[2], base[:0], base[1, 1, ...], base.T[2:]]
    broadcast = np.broadcast_to(base[0], (5, 8))
    with shmexec.shared_allocation():
        plain = np.full((SIZE, 2), 4.0)
    return [
        *typed,
        *odd,
        frozen,
        *views,
        broadcast,
        plain,
        plain[1:],
        np.asfortranarray(base),
        np.ones(SIZE),
        np.ones(3),
    ]


def seen(array):
    """What both ways must agree in."""
    said = tasks.describe(array)
    values = said.pop("values")
    return {
        **said,
        "values": values.tobytes(),
        "owns": array.flags.owndata,
        "layout": (array.flags.fnc, array.flags.c_contiguous),
    }


@pytest.mark.parametrize("options", [{}, {"max_tasks_per_child": 10_000}])
def test_arguments_arrive_as_if_pickled(make_executor, options):
    executor = make_executor(1, **options)
    pickling = executor.options(timeout=1000)
    executor.submit(seen, np.ones(1)).result()
    for array in arguments():
        wanted = pickling.submit(seen, array).result()
        assert executor.submit(seen, array).result() == wanted
        assert executor.submit(seen, array=array).result() == wanted


def test_both_sides_see_what_is_written_and_every_byte_is_counted(executor):
    array = shmexec.zeros((100, 100))
    executor.submit(tasks.fill, array, 0).result()
    before = executor.stats()
    for i in range(1, 4):
        executor.submit(tasks.fill, array[::2], i).result()
        assert (array[::2] == i).all()
        assert not array[1::2].any()
    after = executor.stats()
    assert after.bytes_by_name_in - before.bytes_by_name_in == 3 * array.nbytes // 2
    assert after.bytes_copied_in == before.bytes_copied_in


def is_same(a, b):
    return a is b


def test_one_array_twice_is_one_array(executor):
    array, other = shmexec.zeros(SIZE), shmexec.zeros(SIZE)
    for _ in range(3):
        assert executor.submit(is_same, array, array).result()
        assert not executor.submit(is_same, array, other).result()


# ---- results -------------------------------------------------------------------------------------

kept = []


def keep(array):
    kept.append(array)
    return array


def first_kept():
    return kept[0]


def sum_of_kept():
    return float(kept[0].sum())


def frozen():
    array = np.ones(SIZE)
    array.flags.writeable = False
    return array


RESULTS = {
    "new": lambda: np.ones((SIZE, 2)),
    "fortran": lambda: np.ones((SIZE, 2), order="F"),
    "of no size": lambda: np.ones((0, 5)),
    "small": lambda: np.ones(5),
    "a number": lambda: np.float64(4),
    "without dimensions": lambda: np.array(5.0),
    "a view": lambda: np.ones((SIZE, 2))[1:],
    "a transpose": lambda: np.ones((SIZE, 2)).T,
    "with steps": lambda: np.ones((SIZE, 2))[::2],
    "a small part": lambda: np.ones((SIZE, 2))[:9000],
    "read-only": frozen,
    "structured": lambda: np.zeros(SIZE, [("a", "f8"), ("b", "i4")]),
    "swapped": lambda: np.ones(SIZE, ">f8"),
    "half": lambda: np.ones(SIZE, "f2"),
    "bool": lambda: np.ones(SIZE, bool),
    "long double": lambda: np.ones(SIZE, "g"),
    "times": lambda: np.zeros(SIZE, "M8[s]"),
    "objects": lambda: np.array([None] * SIZE),
    "broadcast": lambda: np.broadcast_to(np.ones(8), (SIZE, 8)),
    "masked": lambda: np.ma.masked_array(np.ones(SIZE), np.ones(SIZE, bool)),
    "shared": lambda: shmexec.ones(SIZE),
    "a view of shared": lambda: shmexec.ones((SIZE, 2))[1:, 1],
    "kept": lambda: keep(np.ones(SIZE)),
    "kept as a view": lambda: keep(np.ones(SIZE)[1:]).base,
    "kept already": first_kept,
    "exported": lambda: keep(memoryview(np.ones(SIZE))).obj,
}


def result_of(name):
    return RESULTS[name]()


def test_results_arrive_as_if_pickled(make_executor):
    """Who may run a limited number of calls pickles all its results."""
    served, pickling = make_executor(1), make_executor(1, max_tasks_per_child=10_000)
    for name in RESULTS:
        assert told(served.submit(result_of, name).result()) == told(pickling.submit(result_of, name).result()), name
        assert told(served.submit(result_of, name).result()) == told(pickling.submit(result_of, name).result()), name
    assert vars(served.stats())["bytes_by_name_out"] == vars(pickling.stats())["bytes_by_name_out"]
    assert vars(served.stats())["bytes_copied_out"] == vars(pickling.stats())["bytes_copied_out"]


def told(value):
    return seen(value) if type(value) is np.ndarray and value.dtype != object else (type(value), repr(value))


def test_what_a_worker_keeps_does_not_change_with_the_result(make_executor):
    executor = make_executor(1)
    for name in "kept", "kept already", "kept already":
        result = executor.submit(result_of, name).result()
        result[:] = 7
        assert executor.submit(sum_of_kept).result() == SIZE


def test_a_result_is_its_receivers_own(executor):
    result = executor.submit(np.ones, 2 * SIZE).result()
    result = executor.submit(np.ones, 2 * SIZE).result()
    assert shmexec.is_shared(result)
    assert result.flags.owndata
    result.resize(SIZE)
    assert result.sum() == SIZE


def test_no_code_of_python_runs_when_a_result_is_read(executor):
    """A signal handler might raise there, and its exception would be the future's."""
    called = []

    def look(frame, event, argument):
        if event == "call":
            called.append(frame.f_code)

    for made in (np.ones, SIZE), (tasks.give, shmexec.ones(5)), (tasks.give, {"a": [shmexec.ones(5), np.float64(2)]}):
        for _ in range(3):
            future = executor.submit(*made)
            concurrent.futures.wait([future])
            called.clear()
            gc.disable()  # a collection would run others' finalizers
            sys.setprofile(look)
            try:
                future.result()
            finally:
                sys.setprofile(None)
                gc.enable()
        assert not called


def test_an_unread_result_goes_on_to_another_call(executor):
    for _ in range(3):
        made = executor.submit(np.ones, SIZE)
        sums = [executor.submit(np.sum, made) for _ in range(3)]
        assert [each.result() for each in sums] == [SIZE] * 3
        assert made.result().sum() == SIZE


def test_an_argument_comes_back_as_the_same_memory(executor):
    array = shmexec.zeros(SIZE)
    executor.submit(tasks.give, array).result()
    back = executor.submit(tasks.give, array[1:]).result()
    back[:] = 5
    assert array.sum() == 5 * (SIZE - 1)


def die_once(path, array):
    tasks.die_once(path)
    array += 1
    return array


def test_a_call_that_is_run_again_finds_its_array(make_executor, tmp_path):
    executor, array = make_executor(1), shmexec.zeros(SIZE)
    executor.submit(die_once, str(tmp_path), array).result()
    found = executor.options(retries=1).submit(die_once, str(tmp_path / "a"), array).result()
    assert (found == 2).all()
    with pytest.raises(shmexec.WorkerDied):
        executor.submit(die_once, str(tmp_path / "b"), array).result()
    assert (executor.submit(die_once, str(tmp_path / "b"), array).result() == 3).all()


def test_calls_that_are_cancelled_let_go_of_their_arrays(make_executor, gate):
    """That nothing is left is looked at after each test."""
    executor = make_executor(1)
    say, wait = gate("say"), gate("wait")
    executor.submit(tasks.give, shmexec.zeros(SIZE)).result()
    running = executor.submit(tasks.pass_gates, say, wait)
    say.wait_open()
    waiting = [executor.submit(tasks.give, shmexec.zeros(SIZE)) for _ in range(50)]
    executor.shutdown(wait=False, cancel_futures=True)
    wait.open()
    assert running.result() is None
    assert sum(each.cancelled() for each in waiting) >= 49


@pytest.mark.parametrize("tag", [b"A", b"N", b"G", b"P"])
def test_bytes_that_name_no_array_are_an_error(tag):
    array = shmexec.ones(10)
    block, birth, _ = shmexec._core.locate(array)
    number = array.dtype.num
    odd = [
        (...,),
        (..., 1, 2),
        (..., 17, b"12345678"),
        (..., number, b"1234"),
        (..., number, (1,), False, b"1234"),
        (..., number, [1], False, b"12345678"),
        (..., number, (1 << 60,), False, b""),
        (..., 1 << 40, (), False, b""),
        (..., block, birth, 0, 17, (10,), None, 1),
        (..., block, birth + 1, 0, number, (10,), None, 1),
        (..., block, birth, -8, number, (10,), None, 1),
        (..., block, birth, 0, number, (1 << 60,), None, 1),
    ]
    wrong = {
        b"A": [5, (1,), ((), 5), ([], None), (odd[1], None), ((), {"a": odd[0]}), *(((each,), {}) for each in odd)],
        b"P": [*odd, [odd[1]], {1: odd[1]}, (1, (odd[1],))],
        b"N": [(1,), odd[-1], odd[-2], odd[-3], odd[0], 5],
        b"G": [
            (1,),
            (block, birth, 17, (10,), False),
            (block, birth, number, (1 << 50,), False),
            (block, 0, number, (1,), False),
        ],
    }[tag]
    for content in wrong:
        for read in load, load_again:
            with pytest.raises((ValueError, TypeError, OverflowError, shmexec.StaleName)):
                read(tag + marshal.dumps(content, 2))
