"""Arrays in shared memory: how they are made, recognised and named, and when they are gone."""

import gc
import os
import pickle

import numpy as np
import pytest

import shmexec
from shmexec import KernelName, NotShareable, StaleName, _core

DTYPES = (
    "?", "i1", "u8", ">f8", "<i2", "f2", "g", "c8", "G", "S5", "U7", "S", "U", "V3", "M8[ns]", "m8[D]", None,
    [("a", "i4"), ("b", "f8", (2, 3))], {"names": ["x"], "formats": ["f8"], "offsets": [5], "itemsize": 32}, "(2,3)f4",
)  # fmt: skip
SHAPES = ((), 0, 5, (3, 4), (3, 0, 2), [2, 3, 4], (1, 7, 1), np.int64(6), (np.int8(2), 3))
MAKERS = ("empty", "zeros", "ones")
LIKES = ("empty_like", "zeros_like", "ones_like")


def looks_like(ours, theirs):
    assert type(ours) is np.ndarray
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    assert ours.strides == theirs.strides or not ours.size
    assert ours.flags.c_contiguous == theirs.flags.c_contiguous
    assert ours.flags.f_contiguous == theirs.flags.f_contiguous
    assert ours.flags.writeable
    assert ours.flags.aligned
    assert shmexec.is_shared(ours) or ours.size == 0


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("make", MAKERS)
def test_makers_take_what_numpy_takes(make, shape, order):
    for dtype in DTYPES:
        if make == "ones" and np.dtype(dtype).kind in "V":
            continue
        ours = getattr(shmexec, make)(shape, dtype, order)
        theirs = getattr(np, make)(shape, dtype, order)
        looks_like(ours, theirs)
        if make != "empty":
            np.testing.assert_array_equal(ours, theirs)


def test_makers_take_a_shape_that_is_an_array():
    looks_like(shmexec.zeros(np.array([2, 3])), np.zeros(np.array([2, 3])))
    looks_like(shmexec.ones(np.array([4])), np.ones(np.array([4])))


@pytest.mark.parametrize("value", [7, 2.5, "text", np.float32(3), [1, 2, 3], np.datetime64("2020-01-01")], ids=repr)
def test_full_fills_with_a_value_whose_type_is_the_default(value):
    ours, theirs = shmexec.full((2, 3), value), np.full((2, 3), value)
    looks_like(ours, theirs)
    np.testing.assert_array_equal(ours, theirs)
    assert shmexec.full((2, 3), 2.9, "u1")[0, 0] == np.full((2, 3), 2.9, "u1")[0, 0]


@pytest.mark.parametrize("order", ["K", "A", "C", "F"])
@pytest.mark.parametrize("make", LIKES)
def test_likes_take_the_layout_that_numpy_would(make, order):
    block = np.arange(120.0).reshape(4, 5, 6)
    models = [
        block, block.T, block.transpose(1, 0, 2), block[::2], block[:, ::-1], block[:, :0], np.float32(3),
        np.broadcast_to(np.arange(3.0), (4, 3)), [[1, 2], [3, 4]], np.asfortranarray(block), block.astype(">i4").T,
    ]  # fmt: skip
    for model in models:
        for options in {}, {"dtype": "c16"}, {"shape": (7, 2)}, {"shape": ()}, {"shape": 3}:
            ours = getattr(shmexec, make)(model, order=order, **options)
            theirs = getattr(np, make)(model, order=order, **options)
            looks_like(ours, theirs)
            if make != "empty_like":
                np.testing.assert_array_equal(ours, theirs)


def test_likes_take_subok_and_return_plain_arrays():
    model = np.array([[1, 2]]).view(np.recarray)
    for make in LIKES:
        assert type(getattr(shmexec, make)(model, subok=False)) is np.ndarray
        assert type(getattr(shmexec, make)(model)) is np.ndarray
        assert getattr(shmexec, make)(model, None, "K", False).shape == (1, 2)
    assert type(shmexec.full_like(model, 5, subok=False)) is np.ndarray


def test_share_copies_once_and_returns_what_is_shared_already():
    plain = np.arange(10.0)
    shared = shmexec.share(plain)
    assert shmexec.is_shared(shared)
    assert not shmexec.is_shared(plain)
    assert shmexec.share(shared) is shared
    view = shared[::2]
    assert shmexec.share(view) is view
    plain[0] = 99
    assert shared[0] == 0
    readonly = np.arange(3.0)
    readonly.flags.writeable = False
    assert shmexec.share(readonly).flags.writeable
    assert shmexec.share(np.asfortranarray(np.ones((3, 4)))).flags.f_contiguous
    assert type(shmexec.share(np.ma.masked_array([1, 2], [True, False]))) is np.ndarray
    assert shmexec.share([1, 2, 3]).tolist() == [1, 2, 3]
    assert shmexec.share(5).shape == ()


@pytest.mark.parametrize("dtype", ["S3", "U4", ">c16", "M8[us]", [("a", "i2"), ("b", "S3")], "G", "?"], ids=str)
def test_share_keeps_values_of_any_type(dtype):
    plain = np.zeros(50, dtype)
    plain.view("u1")[:] = 1 if dtype == "?" else 49
    np.testing.assert_array_equal(shmexec.share(plain).view("u1"), plain.view("u1"))


def test_every_view_of_a_shared_array_is_shared():
    whole = shmexec.zeros((6, 8))
    record = shmexec.zeros(4, [("a", "i4"), ("b", "f8")])
    views = [
        whole[2:], whole[::-1, ::-2], whole.T, whole[3, 5:6], whole.reshape(-1), whole.view("u1"), whole.real,
        record["b"], np.broadcast_to(whole[0], (9, 8)), np.lib.stride_tricks.sliding_window_view(whole, (2, 3)),
        whole.view(np.recarray),
        np.squeeze(whole[None]), np.asarray(memoryview(whole)), np.frombuffer(whole, "f4"), whole.diagonal(),
    ]  # fmt: skip
    assert all(map(shmexec.is_shared, views))
    del whole, record
    gc.collect()
    assert all(map(shmexec.is_shared, views))
    assert not any(map(shmexec.is_shared, [v.copy() for v in views]))


@pytest.mark.parametrize(
    "thing", [None, 3, "text", b"bytes", [1.0], np.float64(3), bytearray(99), memoryview(b"abc")], ids=repr
)
def test_what_is_no_array_is_not_shared(thing):
    assert not shmexec.is_shared(thing)
    with pytest.raises(NotShareable):
        shmexec.name_of(thing)


@pytest.mark.parametrize("make", [*MAKERS, "share"])
@pytest.mark.parametrize("dtype", [object, [("a", object), ("b", "f8")], [("a", [("b", "O", (2,))])]], ids=str)
def test_objects_are_not_shareable(make, dtype):
    with pytest.raises(NotShareable, match="Python objects"):
        shmexec.share(np.zeros(3, dtype)) if make == "share" else getattr(shmexec, make)(3, dtype)
    assert not shmexec.is_shared(np.zeros(3, dtype))
    assert issubclass(NotShareable, TypeError)


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="NumPy 2")
def test_variable_strings_are_not_shareable():
    strings = np.array(["short", "long " * 20], np.dtypes.StringDType())
    with pytest.raises(NotShareable):
        shmexec.share(strings)
    with pytest.raises(NotShareable):
        shmexec.empty(3, np.dtypes.StringDType())
    assert not shmexec.is_shared(strings)


@pytest.mark.parametrize("shape", [-1, (3, -2), 2**62, (2**40, 2**40), (2**63, 0), 2**80], ids=str)
@pytest.mark.parametrize("make", MAKERS)
def test_shapes_beyond_any_memory_are_refused(make, shape):
    with pytest.raises(ValueError):
        getattr(shmexec, make)(shape)


@pytest.mark.parametrize("bytes_wanted", [2**44, 2**55])
def test_more_than_the_heap_may_take_raises_memory_error(bytes_wanted):
    with pytest.raises(shmexec.SharedMemoryFull, match="no shared memory") as caught:
        shmexec.empty(bytes_wanted, "u1")
    assert isinstance(caught.value, MemoryError)
    assert shmexec.ones(3).sum() == 3


@pytest.mark.parametrize("shape", [2.5, "3", None, (2, "x")], ids=repr)
def test_shapes_that_are_none_are_type_errors(shape):
    with pytest.raises(TypeError):
        shmexec.empty(shape)


def test_bad_orders_are_refused():
    for order in "K", "A", "x", 3:
        with pytest.raises(ValueError, match="order"):
            shmexec.empty(3, order=order)
    with pytest.raises(ValueError, match="order"):
        shmexec.empty_like([1], order="x")


def test_a_block_is_free_when_the_last_view_is_gone():
    before = shmexec.heap_info().blocks
    whole = shmexec.ones((1000, 100))
    views = [whole[::2], whole.T[3:], whole.reshape(-1)[5:6], memoryview(whole)]
    del whole
    while views:
        assert shmexec.heap_info().blocks == before + 1
        views.pop()
    assert shmexec.heap_info().blocks == before


@pytest.mark.parametrize("size", [1, 600, 5000, 100_000, 3 << 20])
def test_zeros_are_zero_on_recycled_memory(size):
    for _ in range(8):
        dirty = [shmexec.full(size, 0xFF, "u1") for _ in range(3)]
        assert all(part.all() for part in dirty)
        del dirty
        assert not shmexec.zeros(size, "u1").any()
        assert not shmexec.zeros((size, 2), "u1", "F").any()
        assert not shmexec.zeros_like(np.ones(size, "u1")).any()


def test_arrays_do_not_overlap():
    arrays = [shmexec.full(size, i, "u1") for i, size in enumerate([1, 3, 64, 500, 4096, 70_000, 2 << 20] * 8)]
    for i, array in enumerate(arrays):
        assert (array == i).all()
    assert _core.check_heap(True) is None


def test_heap_info_counts_blocks_and_bytes():
    before = shmexec.heap_info()
    held = shmexec.ones(1 << 20, "u1")
    during = shmexec.heap_info()
    assert during.blocks == before.blocks + 1
    assert during.holders == before.holders + 1
    assert during.bytes_in_use - before.bytes_in_use >= held.nbytes
    assert during.bytes_in_use <= during.bytes_resident <= during.bytes_limit
    assert during.kind == (os.environ.get("SHMEXEC_SEGMENT") or "memfd")
    assert during.kernel_name in str(shmexec.name_of(held))
    assert during.processes == 1
    del held
    after = shmexec.heap_info()
    assert (after.blocks, after.holders, after.bytes_in_use) == (before.blocks, before.holders, before.bytes_in_use)


def test_trim_gives_free_pages_back_and_leaves_arrays_alone():
    kept = shmexec.full(100_000, 7, "u1")
    dropped = shmexec.ones(64 << 20, "u1")
    size = dropped.nbytes
    del dropped
    warm = shmexec.heap_info().bytes_resident
    shmexec.trim()
    assert shmexec.heap_info().bytes_resident <= warm - size // 2
    assert (kept == 7).all()
    assert not shmexec.zeros(64 << 20, "u1").any()
    shmexec.trim()
    shmexec.trim()


# ---- names ---------------------------------------------------------------------------------------


def test_a_name_attaches_to_the_same_memory():
    whole = shmexec.zeros((6, 8), ">i4")
    for view in whole, whole[1:, ::-2], whole.T, whole[2, 3:4], whole.view("u1"), np.broadcast_to(whole[0], (3, 8)):
        again = shmexec.attach(shmexec.name_of(view))
        assert type(again) is np.ndarray
        assert (again.dtype, again.shape, again.strides) == (view.dtype, view.shape, view.strides)
        assert again.flags.writeable == view.flags.writeable
        assert again.ctypes.data == view.ctypes.data
    shmexec.attach(shmexec.name_of(whole))[5, 7] = 42
    assert whole[5, 7] == 42


def test_a_name_keeps_nothing_alive_and_goes_stale():
    before = shmexec.heap_info().blocks
    name = shmexec.name_of(shmexec.ones(1000))
    assert shmexec.heap_info().blocks == before
    with pytest.raises(StaleName):
        shmexec.attach(name)
    for _ in range(50):  # the block lives again: still not this name's
        other = shmexec.ones(1000)
        with pytest.raises(StaleName):
            shmexec.attach(name)
        del other
    assert issubclass(StaleName, LookupError)


def test_an_attached_array_keeps_the_memory():
    array = shmexec.ones(1000)
    again = shmexec.attach(shmexec.name_of(array))
    del array
    assert again.sum() == 1000


def test_a_name_is_small_printable_picklable_and_hashable():
    array = shmexec.ones((20, 30))
    name = shmexec.name_of(array[3:, ::2])
    assert pickle.loads(pickle.dumps(name)) == name
    assert len(pickle.dumps(name)) < 500
    assert shmexec.heap_info().kernel_name in repr(name)
    assert "\n" not in str(name)
    assert {name: 1}[shmexec.name_of(array[3:, ::2])] == 1
    assert name != shmexec.name_of(array)
    with pytest.raises(AttributeError):
        name.block = 3


def test_plain_arrays_have_no_name():
    for plain in np.ones(3), np.zeros((0,)), np.array([None]), np.ones(1_000_000):
        with pytest.raises(NotShareable, match="share"):
            shmexec.name_of(plain)


def test_attach_takes_only_names():
    for thing in None, "name", 3, ("a", 1), b"":
        with pytest.raises(TypeError, match="name_of"):
            shmexec.attach(thing)


@pytest.mark.parametrize(
    "changes",
    [
        {"segment": "nonsense"}, {"segment": ""}, {"segment": "/proc/1/mem:5"}, {"segment": "/proc/999999999/fd/3:77"},
        {"block": 2**32 - 1}, {"block": 12345}, {"birth": 0}, {"birth": 2**64 - 1}, {"offset": -8}, {"offset": 1 << 40},
        {"shape": (1 << 40,)}, {"strides": (1 << 40,)}, {"strides": (-8,)}, {"strides": (2**62,), "shape": (5,)},
        {"shape": (-5,)}, {"shape": (2**62,), "strides": (8,)}, {"dtype": np.dtype(object)}, {"strides": (8, 8)},
        {"dtype": np.dtype([("a", "O")])}, {"block": -1}, {"block": "x"}, {"strides": ()}, {"dtype": "f8"},
        {"offset": 2**63 - 8},
    ],
    ids=str,
)  # fmt: skip
def test_a_name_that_somebody_made_up_raises_and_nothing_worse(changes, script):
    ran = script(
        """
import dataclasses, pickle, sys
import shmexec, numpy as np
array = shmexec.ones(1000)
name = dataclasses.replace(shmexec.name_of(array), **pickle.loads(bytes.fromhex(sys.argv[1])))
try:
    got = shmexec.attach(name)
except (LookupError, ValueError, TypeError, OverflowError, PermissionError) as error:
    print("refused", type(error).__name__)
else:
    print(repr(got.flat[0]), repr(got.flat[-1]))
""",
        pickle.dumps(changes).hex(),
    )
    assert ran.stdout.startswith("refused") or "1.0 1.0" in ran.stdout.replace("np.float64(1.0)", "1.0")


UNRELATED = """
import pickle, sys
import numpy as np, shmexec
name = pickle.loads(bytes.fromhex(sys.argv[1]))
try:
    array = shmexec.attach(name)
except shmexec.StaleName as error:
    print("stale")
else:
    print(array.dtype, array.shape, array.sum(), array.flags.writeable, shmexec.is_shared(array))
    if array.flags.writeable:
        array[...] = 5
    assert shmexec.name_of(array).block == name.block
"""


def test_an_unrelated_process_attaches_by_name_alone(script):
    array = shmexec.ones((30, 40), "i4")
    ran = script(UNRELATED, pickle.dumps(shmexec.name_of(array[::2, 1:])).hex())
    assert ran.stdout.split("\n")[0] == "int32 (15, 39) 585 True True"
    assert array.sum() == 15 * 39 * 5 + 30 * 40 - 15 * 39
    array.flags.writeable = False
    assert "False True" in script(UNRELATED, pickle.dumps(shmexec.name_of(array)).hex()).stdout


def test_an_unrelated_process_finds_a_name_stale(script):
    name = shmexec.name_of(shmexec.ones(3))
    assert script(UNRELATED, pickle.dumps(name).hex()).stdout == "stale\n"


def test_a_name_of_a_process_that_has_ended_is_stale(script):
    ran = script("import pickle, shmexec; a = shmexec.ones(9); print(pickle.dumps(shmexec.name_of(a)).hex())")
    name = pickle.loads(bytes.fromhex(ran.stdout))
    assert isinstance(name, KernelName)
    with pytest.raises(StaleName):
        shmexec.attach(name)


def test_a_plain_pickle_of_a_shared_array_is_by_value():
    array = shmexec.ones(1000)
    again = pickle.loads(pickle.dumps(array))
    assert not shmexec.is_shared(again)
    np.testing.assert_array_equal(again, array)
