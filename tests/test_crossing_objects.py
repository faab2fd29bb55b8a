"""What crosses, and how: everything that is not a plain array."""

import array
import gc
import os
import pickle

import numpy as np
import pytest
import tasks

import shmexec
from shmexec.pickling import stream
from shmexec.pickling.pickler import dump, load

LARGE = 300_000


class Tagged(np.ndarray):
    """A subclass with attributes of its own and no word about pickling."""

    def __array_finalize__(self, whole):
        self.tag = getattr(whole, "tag", None)


class Bare(np.ndarray):
    """A subclass that adds no attributes."""

    __slots__ = ()


class Reduced(np.ndarray):
    """A subclass that knows how it is pickled."""

    def __array_finalize__(self, whole):
        self.unit = getattr(whole, "unit", "none")

    def __reduce__(self):
        function, arguments, state = super().__reduce__()
        return function, arguments, (state, self.unit)

    def __setstate__(self, state):
        super().__setstate__(state[0])
        self.unit = state[1] + "!"


def describe(value):
    return type(value), getattr(value, "tag", None), value.flags.writeable, np.array(value, subok=False)


SOURCES = {
    "shared": lambda n: shmexec.ones((n, 2)),
    "small": lambda n: np.ones((3, 2)),
    "large": lambda n: np.ones((n, 2)),
}


@pytest.mark.parametrize("source", SOURCES)
def test_subclasses_keep_type_and_attributes(executor, source):
    plain = SOURCES[source](LARGE // 16)
    tagged = plain.view(Tagged)
    tagged.tag = {"name": "x", "more": plain[:1]}
    kind, tag, writeable, values = executor.submit(describe, tagged).result()
    assert kind is Tagged
    assert tag["name"] == "x"
    assert writeable
    np.testing.assert_array_equal(values, plain)
    back = executor.submit(tasks.give, tagged).result()
    assert type(back) is Tagged
    assert back.tag["name"] == "x"
    np.testing.assert_array_equal(back, plain)
    assert executor.submit(describe, plain.view(Bare)).result()[0] is Bare
    assert type(executor.submit(tasks.give, plain.view(Bare)).result()) is Bare
    own = plain.view(Reduced)
    own.unit = "m"
    assert executor.submit(tasks.give, own).result().unit == "m!!"
    executor.submit(tasks.fill, tagged, 5).result()
    assert (plain == (5 if source == "shared" else 1)).all()


def test_a_subclass_that_refers_to_itself_crosses(executor):
    tagged = np.ones(3).view(Tagged)
    tagged.tag = [tagged]
    back = executor.submit(tasks.give, tagged).result()
    assert type(back) is Tagged
    assert back.tag[0] is back
    back.tag = None
    gc.collect()


@pytest.mark.parametrize("source", SOURCES)
def test_masked_arrays_keep_data_mask_and_fill_value(executor, source):
    data = SOURCES[source](LARGE // 16)
    masked = np.ma.masked_array(data, data > 5, fill_value=77, copy=False)
    masked[1, 1] = np.ma.masked
    masked.harden_mask()
    for back in executor.submit(tasks.give, masked).result(), executor.submit(lambda m: m + 0, masked).result():
        assert type(back) is np.ma.MaskedArray
        np.testing.assert_array_equal(back.mask, masked.mask)
        np.testing.assert_array_equal(back.filled(), masked.filled())
        assert back.fill_value == 77
    assert executor.submit(tasks.give, masked).result().hardmask
    unmasked = executor.submit(tasks.give, np.ma.masked_array(data)).result()
    assert unmasked.mask is np.ma.nomask
    assert executor.submit(lambda m: m is np.ma.masked, np.ma.masked).result()
    assert executor.submit(tasks.give, np.ma.masked).result() is np.ma.masked


def test_masked_records_cross(executor):
    records = np.ma.masked_array([(1, 2.0), (3, 4.0)], [(0, 1), (1, 0)], [("a", "i4"), ("b", "f8")])
    back = executor.submit(tasks.give, records).result()
    assert back.tolist() == [(1, None), (None, 4.0)]
    assert executor.submit(lambda m: m["a"].sum(), records).result() == 1


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.filterwarnings("ignore:The chararray class:DeprecationWarning")
@pytest.mark.parametrize("source", SOURCES)
def test_numpys_own_subclasses_keep_their_type(executor, source):
    plain = SOURCES[source](LARGE // 16)
    matrix = np.asmatrix(plain)
    assert type(executor.submit(tasks.give, matrix).result()) is np.matrix
    assert executor.submit(lambda m: (m.T * m).shape, matrix).result() == (2, 2)
    records = plain.view([("x", "f8"), ("y", "f8")]).view(np.recarray)
    back = executor.submit(tasks.give, records).result()
    assert type(back) is np.recarray
    assert back.dtype == records.dtype
    assert back.dtype.type is records.dtype.type
    assert type(back.reshape(-1)[0]) is np.record
    assert executor.submit(lambda r: float(r.x[0, 0] + r.y[-1, 0]), records).result() == 2
    with_characters = plain.view("S8").view(np.char.chararray)
    assert type(executor.submit(tasks.give, with_characters).result()) is np.char.chararray


WHERE_IT_SAYS_IT_IS = """\
import sys
import numpy as np

assert "numpy.rec" not in sys.modules

def make(i):
    return np.zeros(3, [("a", "f8")]).view(np.recarray)

if __name__ == "__main__":
    import shmexec
    with shmexec.SharedExecutor(1) as executor:
        assert executor.submit(lambda made: type(made) is np.recarray, make(0)).result()
        sys.modules.pop("numpy.rec", None)
        for i in range(2):
            assert type(executor.submit(make, i).result()) is np.recarray
"""


def test_a_class_of_a_module_that_nobody_has_imported_goes_by_reference(script):
    script(WHERE_IT_SAYS_IT_IS)


UNASKED = """\
import importlib.util, sys
from collections import namedtuple
from pathlib import Path

Path("leaves.py").write_text("import sys\\nsys.exit(3)\\n")
Path("namedtuple_P.py").write_text("raise AssertionError\\n")
Path("plug.py").write_text("print('plug runs')\\ndef value(i): return i\\nclass Part: pass\\n")
sys.path.insert(0, "")

def load():
    spec = importlib.util.spec_from_file_location("plug", "plug.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

if __name__ == "__main__":
    import shmexec
    plug, P = load(), namedtuple("P", "x y")
    Leaves = type("Leaves", (), {"__module__": "leaves"})
    Nowhere = type("Nowhere", (), {"__module__": "sys.nowhere"})
    with shmexec.SharedExecutor(1) as executor:
        for i in range(2):
            assert executor.submit(plug.value, i).result() == i
            for kind in plug.Part, Leaves, Nowhere:
                assert executor.submit(lambda it: type(it).__name__, kind()).result() == kind.__name__
            assert executor.submit(lambda p: p.x, P(1, 2)).result() == 1
    assert "plug" not in sys.modules
"""


def test_nothing_is_imported_that_no_package_has(script):
    assert script(UNASKED).stdout == "plug runs\n"


# ---- memmap --------------------------------------------------------------------------------------


@pytest.fixture
def mapped(tmp_path):
    path = tmp_path / "file of numbers"
    np.arange(LARGE, dtype="i4").tofile(path)

    def open_it(mode, **options):
        return np.memmap(path, "i4", mode, **options)

    open_it.path = path
    yield open_it
    gc.collect()


def see_map(mapped):
    return (
        type(mapped),
        mapped.mode,
        mapped.filename,
        mapped.offset,
        mapped.flags.writeable,
        np.array(mapped, subok=False),
    )


@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_memmap_crosses_by_file(executor, mapped, mode, size):
    given = mapped(mode, shape=(size,))
    kind, there, name, offset, writeable, values = executor.submit(see_map, given).result()
    assert (kind, there, os.fspath(name), offset) == (np.memmap, mode, os.fspath(mapped.path), 0)
    assert writeable == (mode == "r+")
    np.testing.assert_array_equal(values, given)
    stats = executor.stats()
    assert stats.bytes_copied_in == stats.bytes_by_name_in == 0
    back = executor.submit(tasks.give, given[2:9:3]).result()
    assert type(back) is np.memmap
    assert back.tolist() == [2, 5, 8]
    if mode == "r+":
        executor.submit(tasks.fill, given[:5], 99).result()
        assert given[:6].tolist() == [99] * 5 + [5]


def test_views_of_a_memmap_with_an_offset_cross_by_file(executor, mapped):
    for offset in 0, 4, 4096, 40_004:
        given = mapped("r+", offset=offset, shape=(100, 50))
        for view in given, given[3:, ::2], given.T, given[::-1, ::-1], given[7], given.view("u1"), given[4:][2:].T[1:]:
            kind, _, _, _, _, values = executor.submit(see_map, view).result()
            assert kind is np.memmap
            np.testing.assert_array_equal(values, view)
    assert executor.stats().bytes_copied_in == 0


def test_a_copy_on_write_memmap_crosses_with_what_was_written(executor, mapped):
    for size in 10, LARGE:
        given = mapped("c", shape=(size,))
        given[3] = -1
        assert executor.submit(lambda m: int(m[3]), given).result() == -1
        np.testing.assert_array_equal(executor.submit(tasks.give, given).result(), given)


def test_a_memmap_of_a_deleted_file_crosses_by_value(executor, mapped):
    for size in 10, LARGE:
        np.arange(LARGE, dtype="i4").tofile(mapped.path)
        given = mapped("r+", shape=(size,))
        mapped.path.unlink()
        np.testing.assert_array_equal(executor.submit(np.asarray, given).result(), np.arange(size))


def test_a_memmap_of_a_replaced_file_keeps_its_own_bytes(executor, mapped, tmp_path):
    given = mapped("r", shape=(LARGE,))
    np.full(LARGE, 7, "i4").tofile(tmp_path / "new")
    (tmp_path / "new").rename(mapped.path)
    assert executor.submit(lambda m: int(m[5]), given).result() == 5


def test_an_array_over_a_memmap_is_a_plain_array(executor, mapped):
    given = np.asarray(mapped("r"))
    writeable, values = executor.submit(tasks.write_there, given, 5).result()
    assert writeable
    assert (values == 5).all()
    assert given[5] == 5
    assert given[6] == 6


# ---- objects, strings ----------------------------------------------------------------------------


def test_object_arrays_are_pickled_with_what_they_hold(executor):
    inner = shmexec.zeros(5)
    given = np.array([1, "two", None, {"three": inner}, [4]], object)
    back = executor.submit(lambda a: (a[3]["three"].fill(8), a)[1], given).result()
    assert back.dtype == object
    assert back[1] == "two"
    assert inner.tolist() == [8] * 5
    records = np.array([(1, [1, 2]), (2, None)], [("a", "i4"), ("b", "O")])
    assert executor.submit(tasks.give, records).result()["b"].tolist() == [[1, 2], None]


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="NumPy 2")
def test_variable_strings_are_pickled(executor):
    for kind in np.dtypes.StringDType(), np.dtypes.StringDType(na_object=None):
        for size in 1, 20_000:
            given = np.array(["a", "long text " * 9] * size, kind)
            back = executor.submit(tasks.give, given).result()
            assert back.dtype == kind
            assert (back == given).all()


# ---- buffers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, LARGE])
def test_bytes_like_values_cross(executor, size):
    data = os.urandom(size)
    for given in data, bytearray(data), array.array("B", data):
        back = executor.submit(tasks.give, given).result()
        assert type(back) is type(given)
        assert back == given
    seen = executor.submit(lambda view: (bytes(view), len(view)), memoryview(data)).result()
    assert seen == (data, size)


def test_bulk_stays_out_of_the_message():
    data = os.urandom(LARGE)
    text = "ñ" * LARGE
    parts = [
        data,
        bytearray(data),
        text,
        memoryview(data),
        array.array("d", np.arange(LARGE)),
        {"deep": [(data[1:], text[1:])]},
        [*range(LARGE)],  # many small things stay inside
        data,
    ]
    for count in range(1, len(parts) + 1):
        packed = dump(parts[:count])
        assert len(packed.data) < 2000 + (5 * LARGE if count > 6 else 0)
        back = load(packed.data)
        assert back == parts[:count]
        assert list(map(type, back)) == list(map(type, parts[:count]))
        assert back[0] is back[-1] or count < len(parts)
        del back
        packed.holds.release()


@pytest.mark.parametrize("size", [stream.BULK - 20, stream.BULK - 1, stream.BULK, stream.BULK + 1])
def test_bytes_about_as_long_as_a_frame_cross(size):
    for given in os.urandom(size), [b"x" * (size - 9), bytearray(size)], ["y" * size] * 3, [b"B" + b"\0" * size, "X"]:
        packed = dump(given)
        assert load(packed.data) == given
        packed.holds.release()


def test_bulk_among_the_parts_of_a_call(executor):
    data, text = os.urandom(LARGE), "t" * LARGE
    seen = executor.submit(lambda d, *, t: (d, len(t), data[:5]), data, t=text).result()  # bound, too
    assert seen == (data, LARGE, data[:5])
    assert executor.stats().bytes_copied_in >= 3 * LARGE
    assert list(executor.map(len, [data] * 3, chunksize=2)) == [LARGE] * 3
    with pytest.raises(ValueError) as caught:
        executor.submit(tasks.raise_it, ValueError(data)).result()
    assert caught.value.args == (data,)


@pytest.mark.parametrize("size", [10, LARGE])
def test_memoryviews_keep_format_shape_and_whether_they_are_writeable(executor, size):
    numbers = np.arange(size * 2).astype("f8").reshape(size, 2)
    columns = np.asfortranarray(numbers)
    for given in (
        memoryview(numbers),
        memoryview(numbers).toreadonly(),
        memoryview(columns),
        memoryview(numbers)[::2],
        memoryview(numbers.astype(">i4")),
        memoryview(numbers > 3),
        memoryview(bytes(size)).cast("c"),
        memoryview(np.float64(3)),
        memoryview(array.array("I", range(size))),
        memoryview(bytearray(size)),
    ):
        there = executor.submit(lambda v: (v.format, v.shape, v.readonly, v.tobytes()), given).result()
        back = executor.submit(lambda v: v, given).result()
        for form, shape, readonly, data in there, (back.format, back.shape, back.readonly, back.tobytes()):
            assert np.dtype(form) == np.dtype(given.format)
            assert (shape, readonly, data) == (given.shape, given.readonly, given.tobytes())


def test_a_memoryview_of_shared_memory_is_the_same_memory_there(executor):
    shared = shmexec.zeros(LARGE)
    executor.submit(lambda view: view.__setitem__(3, 9.0), memoryview(shared)).result()
    assert shared[3] == 9
    assert executor.stats().bytes_copied_in < 1000


@pytest.mark.parametrize("size", [10, LARGE])
def test_buffers_keep_whether_they_are_writeable(executor, size):
    for given in bytes(size), bytearray(size):
        there = executor.submit(lambda buffer: memoryview(buffer).readonly, pickle.PickleBuffer(given)).result()
        assert there == isinstance(given, bytes)
        back = executor.submit(lambda data: pickle.PickleBuffer(data), given).result()
        assert memoryview(back).readonly == isinstance(given, bytes)
        assert bytes(back) == given


@pytest.mark.parametrize("size", [10, LARGE])
def test_a_buffer_in_shared_memory_is_the_same_memory_there(executor, size):
    shared = shmexec.zeros(size, "u1")
    executor.submit(lambda buffer: memoryview(buffer).__setitem__(3, 9), pickle.PickleBuffer(shared)).result()
    assert shared[3] == 9


class WithBuffers:
    """As libraries do it: the buffers of an object go out of band."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce_ex__(self, protocol):
        return WithBuffers, tuple(map(pickle.PickleBuffer, self.parts))


def test_an_object_hands_out_many_buffers(executor):
    parts = [os.urandom(size) for size in (3, LARGE, 0, LARGE * 2, 7)]
    back = executor.submit(tasks.give, WithBuffers(*parts)).result()
    assert [bytes(part) for part in back.parts] == parts
    outlives = executor.submit(tasks.give, WithBuffers(*parts)).result().parts[1]
    executor.shutdown()
    gc.collect()
    others = [shmexec.zeros(LARGE, "u1") for _ in range(6)]
    assert bytes(outlives) == parts[1]
    del others


# ---- libraries -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [5, 60_000])
def test_data_frames_cross(executor, rows):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "i": np.arange(rows),
            "f": np.arange(rows) / 2,
            "text": [f"row {i}" for i in range(rows)],
            "kind": pandas.Categorical(["a", "b", "c", "a", "b"] * (rows // 5)),
            "when": pandas.date_range("2020-01-01", periods=rows, freq="min", tz="UTC"),
            "null": pandas.array([1, None, 3, 4, 5] * (rows // 5), "Int64"),
            "things": [(i,) for i in range(rows)],
        },
        index=pandas.Index(range(10, rows + 10), name="key"),
    )
    pandas.testing.assert_frame_equal(executor.submit(tasks.give, frame).result(), frame)
    expected = frame.assign(f=frame.f + 1)

    def change(frame):
        frame["f"] += 1
        return frame

    changed = executor.submit(change, frame).result()
    pandas.testing.assert_frame_equal(changed, expected)
    changed.loc[12, "i"] = -5
    changed.iloc[:, 1] = 0.0
    assert frame.f.iloc[2] == 1


def test_a_frame_over_shared_memory_goes_by_name(executor):
    pandas = pytest.importorskip("pandas")
    values = shmexec.ones((LARGE, 3))
    frame = pandas.DataFrame(values, columns=list("abc"), copy=False)
    assert executor.submit(lambda frame: float(frame.sum().sum()), frame).result() == LARGE * 3
    stats = executor.stats()
    assert stats.bytes_by_name_in >= values.nbytes
    assert stats.bytes_copied_in < 1000


def test_arrow_tables_cross(executor):
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"n": np.arange(LARGE), "s": [str(i) for i in range(LARGE)], "v": [[1, 2]] * LARGE})
    back = executor.submit(tasks.give, table).result()
    assert back.equals(table)
    assert executor.submit(lambda t: t.column("n").to_numpy().sum(), table).result() == sum(range(LARGE))
    assert executor.stats().bytes_copied_in >= table.nbytes


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "dia", "bsr", "lil", "dok"])
def test_sparse_matrices_cross(executor, layout):
    sparse = pytest.importorskip("scipy.sparse")
    for size in 20, 3000 if layout in ("csr", "csc", "coo") else 40:
        given = sparse.random_array((size, size), density=0.02, random_state=1, format=layout)
        back = executor.submit(tasks.give, given).result()
        assert type(back) is type(given)
        assert abs(back - given).sum() == 0
    assert executor.submit(lambda m: (m @ m.T).sum(), given).result() == pytest.approx((given @ given.T).sum())
