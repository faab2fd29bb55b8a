"""What crosses, and how: arrays by name with all that makes a view what it is, and plain arrays private to the call."""

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import tasks

import shmexec

LARGE = 300_000  # bytes: over every threshold


@dataclass
class Holder:
    inner: Any
    more: dict = field(default_factory=dict)


class Thing:
    def __init__(self, array):
        self.array = array


class Slotted:
    __slots__ = ("array",)

    def __init__(self, array):
        self.array = array


def cube():
    whole = shmexec.empty((6, 7, 8))
    whole[...] = np.arange(336.0).reshape(6, 7, 8)
    return whole


VIEWS = {
    "all of it": lambda a: a,
    "an offset": lambda a: a[2:, 3:],
    "a step": lambda a: a[::2, ::3, ::5],
    "negative strides": lambda a: a[::-1, :, ::-2],
    "a transpose": lambda a: a.T,
    "swapped axes": lambda a: a.swapaxes(0, 1),
    "one element": lambda a: a[3, 4, 5:6],
    "no dimension": lambda a: a[3, 4, 5, ...],
    "more dimensions": lambda a: a[:, None, ..., None],
    "a broadcast": lambda a: np.broadcast_to(a[:, :1], (3, 6, 7, 8)),
    "a sliding window": lambda a: np.lib.stride_tricks.sliding_window_view(a, (2, 3), axis=(0, 2)),
    "another type": lambda a: a.view("u2"),
    "big endian": lambda a: a.view(">f8"),
    "records": lambda a: a.view([("x", "f4"), ("y", "i4")]),
    "a field of records": lambda a: a.view([("x", "f4"), ("y", "i4")])["y"],
    "fields of records": lambda a: a.view([("x", "i2"), ("y", "i2"), ("z", "i4")])[["x", "z"]],
    "dates": lambda a: a.view("M8[ns]"),
    "complex": lambda a: a.view("c16"),
    "the real part": lambda a: a.view("c16").real,
    "the imaginary part": lambda a: a.view("c16").imag,
    "a diagonal": lambda a: np.einsum("iij->ij", a[:, :6]),
    "text": lambda a: a.view("S4"),
    "read-only": lambda a: _readonly(a[1:]),
    "read-only twice": lambda a: _readonly(_readonly(a)[::2]),
}


def _readonly(array):
    view = array[...]
    view.flags.writeable = False
    return view


def steps(shape, strides):
    """The strides that mean something."""
    return [stride for length, stride in zip(shape, strides, strict=True) if length > 1]


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_of_shared_memory_crosses_by_name_as_it_is(executor, view):
    whole = cube()
    given = VIEWS[view](whole)
    seen = executor.submit(tasks.describe, given).result()
    assert seen["type"] is np.ndarray
    assert seen["dtype"] == given.dtype
    assert seen["shape"] == given.shape
    assert steps(given.shape, seen["strides"]) == steps(given.shape, given.strides)
    assert seen["writeable"] == given.flags.writeable
    assert seen["shared"]
    np.testing.assert_array_equal(seen["values"], given)
    assert executor.stats().bytes_by_name_in == given.nbytes
    assert executor.stats().bytes_copied_in == 0


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_comes_back_by_name_as_the_same_memory(executor, view):
    given = VIEWS[view](cube())
    back = executor.submit(tasks.give, given).result()
    assert type(back) is np.ndarray
    assert (back.dtype, back.shape) == (given.dtype, given.shape)
    assert steps(back.shape, back.strides) == steps(given.shape, given.strides)
    assert back.flags.writeable == given.flags.writeable
    assert back.ctypes.data == given.ctypes.data
    assert executor.stats().bytes_by_name_out == given.nbytes
    assert executor.stats().bytes_copied_out == 0


WRITTEN = [name for name in VIEWS if name not in ("a broadcast", "a sliding window", "read-only", "read-only twice")]


def test_what_a_worker_writes_into_any_view_is_seen_here(executor):
    def write(array):
        if array.dtype.names:
            for name in array.dtype.names:
                array[name] = 1
        else:
            array[...] = np.array(1).astype(array.dtype)

    for name in WRITTEN:
        whole, expected = shmexec.zeros((6, 7, 8)), np.zeros((6, 7, 8))
        write(VIEWS[name](expected))
        executor.submit(write, VIEWS[name](whole)).result()
        assert whole.tobytes() == expected.tobytes(), name


def test_a_field_of_records_is_written_in_place(executor):
    records = shmexec.zeros(100, [("a", "i4"), ("b", "f8"), ("c", "S3")])
    executor.submit(tasks.fill, records["b"], 2.5).result()
    executor.submit(tasks.fill, records[::2]["c"], b"xyz").result()
    assert records["b"].sum() == 250
    assert not records["a"].any()
    assert records["c"].tolist() == [b"xyz", b""] * 50


@pytest.mark.parametrize(
    "dtype", ["?", "i1", "f2", "g", "c8", "G", ">i4", ">c16", "S7", "U3", "M8[ms]", "m8", "V5"], ids=str
)
def test_every_type_crosses_by_name_and_by_value(executor, dtype):
    one = (
        np.full(1, 3, dtype) if dtype in ("g", "G") else np.frombuffer((b"\1" if dtype == "?" else b"1") * 99, dtype, 1)
    )
    for size, way in itertools.product([1, 10, 60_000], [np.copy, shmexec.share]):
        plain = np.repeat(one, size)
        given = way(plain)
        seen = executor.submit(tasks.describe, given).result()
        assert seen["dtype"] == plain.dtype
        assert seen["values"].tobytes() == plain.tobytes()
        back = executor.submit(tasks.give, given).result()
        assert back.dtype == plain.dtype
        assert back.tobytes() == plain.tobytes()
        assert back.flags.writeable


def test_the_description_of_a_type_crosses_whole(executor):
    dtype = np.dtype(
        {"names": ["x", "y"], "formats": ["f8", "S3"], "offsets": [5, 1], "itemsize": 40, "titles": ["the x", None]}
    )
    noted = np.dtype("f8", metadata={"unit": "m"})
    aligned = np.dtype([("a", "u1"), ("b", "f8"), ("c", [("d", ">i2", (2, 3))])], align=True)
    for size in 3, 10_000:
        for given in dtype, aligned:
            for array in np.ones(size, given), shmexec.ones(size, given):
                back = executor.submit(tasks.give, array).result()
                assert back.dtype == given
                assert back.dtype.fields == given.fields
                assert back.dtype.isalignedstruct == given.isalignedstruct
        assert executor.submit(tasks.give, shmexec.ones(size, noted)).result().dtype == noted


@pytest.mark.parametrize("make", [shmexec.zeros, np.zeros], ids=["shared", "plain"])
@pytest.mark.parametrize("shape", [0, (), (3, 0), (0, 5, 2), (1,), (1, 1, 1)], ids=str)
def test_empty_and_tiny_arrays_cross(executor, make, shape):
    given = make(shape, "i8", "F")
    seen = executor.submit(tasks.describe, given).result()
    assert (seen["type"], seen["dtype"], seen["shape"]) == (np.ndarray, given.dtype, given.shape)
    assert seen["writeable"]
    back = executor.submit(tasks.give, given).result()
    assert (type(back), back.dtype, back.shape, back.flags.writeable) == (np.ndarray, given.dtype, given.shape, True)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(30, 20), (300, 200)], ids=["small", "large"])
def test_the_order_of_a_plain_array_is_kept(executor, shape, order):
    given = np.array(np.arange(float(shape[0] * shape[1])).reshape(shape), order=order)
    seen = executor.submit(tasks.describe, given).result()
    assert seen["strides"] == given.strides
    back = executor.submit(np.copy, given, "K").result()
    assert back.strides == given.strides
    np.testing.assert_array_equal(back, given)


PLAIN = {
    "writeable": lambda n: np.zeros(n),
    "read-only": lambda n: _readonly(np.zeros(n)),
    "a step": lambda n: np.zeros(2 * n)[::2],
    "reversed": lambda n: np.zeros(n)[::-1],
    "a broadcast": lambda n: np.broadcast_to(np.zeros(1), (n,)),
    "from bytes": lambda n: np.frombuffer(bytes(8 * n)),
    "a transpose": lambda n: np.zeros((2, n)).T,
}


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("size", [4, LARGE], ids=["small", "large"])
def test_a_plain_array_arrives_private_and_writeable_whatever_its_size(executor, kind, size):
    given = PLAIN[kind](size)
    writeable, there = executor.submit(tasks.write_there, given, 7).result()
    assert writeable
    assert (there == 7).all()
    assert there.shape == given.shape
    assert not given.any()


@pytest.mark.parametrize("size", [4, LARGE], ids=["small", "large"])
def test_a_result_is_writeable_whatever_its_size(executor, size):
    for make in PLAIN.values():
        back = executor.submit(make, size).result()
        assert back.flags.writeable
        back[...] = 3
        assert (back == 3).all()


def test_two_calls_with_one_plain_array_do_not_see_each_other(executor):
    given = np.zeros(LARGE)
    futures = [executor.submit(tasks.write_there, given, i) for i in range(6)]
    for i, future in enumerate(futures):
        assert (future.result()[1] == i).all()
    assert not given.any()


def test_a_plain_array_that_changes_after_submit_has_been_taken_before(executor, gate):
    say, wait = gate("say"), gate("wait")
    for size in 4, LARGE:
        given = np.zeros(size)
        future = executor.submit(tasks.pass_gates, say, wait, given)
        say.wait_open()
        given[:] = 9
        wait.open()
        assert not future.result().any()


def test_arrays_are_found_at_any_depth(executor):
    array = shmexec.zeros(LARGE // 8)
    rows = [array[i : i + 10] for i in range(8)]
    deep = {
        "a": [rows[0], (rows[1], {"b": Holder(rows[2], {"c": Thing(rows[3])})})],
        ("k", 1): Slotted(rows[4]),
        "set": frozenset([1]),
    }
    deep["more"] = [[[[[[Holder(Holder(Thing([rows[5]])))]]]]]]

    def write(deep, *, extra):
        deep["a"][0][:] += 1
        deep["a"][1][0][:] += 2
        deep["a"][1][1]["b"].inner[:] += 3
        deep["a"][1][1]["b"].more["c"].array[:] += 4
        deep["k", 1].array[:] += 5
        deep["more"][0][0][0][0][0][0].inner.inner.array[0][:] += 6
        extra["x"][:] += 7
        return deep

    back = executor.submit(write, deep, extra={"x": rows[6]}).result()
    assert array.sum() == 10 * (1 + 2 + 3 + 4 + 5 + 6 + 7)
    assert back["a"][1][1]["b"].more["c"].array.ctypes.data == rows[3].ctypes.data
    assert back["k", 1].array.ctypes.data == rows[4].ctypes.data
    assert executor.stats().bytes_copied_in == executor.stats().bytes_copied_out == 0


@pytest.mark.parametrize("make", [shmexec.zeros, np.zeros], ids=["shared", "plain"])
@pytest.mark.parametrize("size", [4, LARGE], ids=["small", "large"])
def test_an_array_that_stands_twice_is_one_there(executor, make, size):
    array = make(size)

    def check(first, second, *, third):
        first[0] = 5
        return first is second and first is third[0]

    assert executor.submit(check, array, array, third=[array]).result()
    one, two = executor.submit(lambda n: [np.zeros(n)] * 2, size).result()
    assert one is two


def test_views_of_one_shared_array_share_it_there(executor):
    array = shmexec.zeros(100)
    assert executor.submit(lambda a, b: np.shares_memory(a, b), array[:60], array[40:]).result()


def test_a_result_made_with_shmexec_comes_by_name_and_writeable(executor):
    for size in 1, 100, LARGE:
        before = executor.stats()
        back = executor.submit(tasks.make_shared, size, 7, "i4").result()
        after = executor.stats()
        assert shmexec.is_shared(back)
        assert after.bytes_by_name_out - before.bytes_by_name_out == 4 * size
        assert after.bytes_copied_out == before.bytes_copied_out
        assert back.flags.writeable
        assert (back == 7).all()
        back[:] = 8
        assert executor.submit(np.sum, back).result() == 8 * size


def test_a_view_of_what_the_worker_made_comes_by_name(executor):
    def make():
        whole = shmexec.empty((100, 100))
        whole[...] = np.arange(100)
        return {"rows": whole[::2], "columns": whole.T[3], "last": whole[-1, -1:]}

    back = executor.submit(make).result()
    assert back["rows"].strides == (1600, 8)
    assert (back["columns"] == 3).all()
    assert back["last"] == 99
    assert np.shares_memory(back["rows"], back["columns"])
    assert executor.stats().bytes_copied_out == 0


def test_a_plain_result_is_copied_at_most_once_and_then_shared(executor):
    back = executor.submit(np.full, LARGE, 3.0).result()
    assert shmexec.is_shared(back)
    stats = executor.stats()
    assert stats.bytes_by_name_out + stats.bytes_copied_out == back.nbytes
    executor.submit(tasks.fill, back, 4).result()
    assert (back == 4).all()


def test_an_array_that_one_worker_made_goes_to_another_by_name(make_executor, gate):
    executor = make_executor(2)
    say, wait = gate("say"), gate("wait")
    busy = executor.submit(lambda say, wait: (tasks.pass_gates(say, wait), tasks.pid()), say, wait)
    say.wait_open()
    array, maker = executor.submit(lambda: (tasks.make_shared(1000, 1), tasks.pid())).result()
    hold_maker, free_maker = gate("hold"), gate("free")
    held = executor.submit(tasks.pass_gates, hold_maker, free_maker)
    hold_maker.wait_open()
    wait.open()
    other = busy.result()[1]
    assert other != maker
    assert executor.submit(lambda a: (a.__iadd__(1), tasks.pid())[1], array).result() == other
    free_maker.open()
    held.result()
    assert (array == 2).all()


def test_threshold_is_no_border_for_values(executor):
    from shmexec._core import threshold

    edge = threshold()
    for size in edge - 1, edge, edge + 1, 4095, 4096, 4097:
        given = np.arange(size, dtype="u1")
        np.testing.assert_array_equal(executor.submit(tasks.give, given).result(), given)
        assert executor.submit(tasks.give, given.tobytes()).result() == given.tobytes()


def test_arrays_cross_under_every_start_method(make_executor, method):
    executor = make_executor(2, method)
    shared, plain = shmexec.zeros(1000), np.zeros(1000)
    large = np.ones(LARGE)
    executor.submit(tasks.fill, shared, 1).result()
    executor.submit(tasks.fill, plain, 1).result()
    assert shared.all()
    assert not plain.any()
    assert executor.submit(tasks.double, large).result().sum() == 2 * LARGE
    assert executor.submit(lambda: np.arange(LARGE)).result().sum() == sum(range(LARGE))
