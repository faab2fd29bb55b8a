"""What of an array is kept on its way through multiprocessing, and what goes by value. Both ends in this process."""

import multiprocessing
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest

import shmexec
from shmexec import StaleName


def crossed(value):
    return ForkingPickler.loads(ForkingPickler.dumps(value))


def ordinary(value):
    """As the standard library does it."""
    return pickle.loads(pickle.dumps(value, pickle.DEFAULT_PROTOCOL))


BASE = np.arange(4 * 6 * 8, dtype="i4").reshape(4, 6, 8)
VIEWS = {
    "whole": lambda a: a,
    "fortran": lambda a: a.T,
    "sliced": lambda a: a[1:3, ::2, 3:],
    "reversed": lambda a: a[::-1, :, ::-2],
    "transposed": lambda a: a.transpose(1, 2, 0),
    "one row": lambda a: a[2, 3],
    "0-d": lambda a: a[1, 2, 3, ...],
    "other type": lambda a: a.view("u1")[..., 1::3],
    "a field": lambda a: a.view([("x", "i2"), ("y", "i2")])["y"],
    "on itself": lambda a: np.lib.stride_tricks.sliding_window_view(a, 3, axis=2),
    "broadcast": lambda a: np.broadcast_to(a[0, 0], (5, 8)),
    "new axis": lambda a: a[:, None, :, None],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_view_arrives_as_it_is(view):
    array = view(shmexec.share(BASE))
    got = crossed(array)
    assert type(got) is np.ndarray
    assert (got.dtype, got.shape) == (array.dtype, array.shape)
    assert all(a == b for a, b, n in zip(got.strides, array.strides, array.shape, strict=True) if n > 1)
    assert got.ctypes.data == array.ctypes.data
    assert got.flags.writeable == array.flags.writeable
    for flag in "c_contiguous", "f_contiguous", "aligned":
        assert getattr(got.flags, flag) == getattr(array.flags, flag)


DTYPES = ["?", "i1", ">i8", "f2", ">f8", "c16", "S7", "<U3", ">U3", "M8[ns]", "m8[D]", "V5"]
STRUCTURED = [
    np.dtype([("a", "i4"), ("b", ">f8", (2, 3)), ("c", "S3")]),
    np.dtype({"names": ["x", "y"], "formats": ["u1", "f8"], "offsets": [3, 8], "itemsize": 24}),
    np.dtype([("outer", [("inner", "M8[s]")]), ("z", "c8")], align=True),
]


@pytest.mark.parametrize("dtype", [*DTYPES, *STRUCTURED], ids=str)
def test_every_dtype_of_plain_bytes_is_kept(dtype):
    array = shmexec.zeros((3, 2), dtype)
    array.view("u1").ravel()[...] = 1
    got = crossed(array)
    assert got.dtype == array.dtype
    assert got.dtype.byteorder == array.dtype.byteorder
    assert got.dtype.isalignedstruct == array.dtype.isalignedstruct
    assert got.tobytes() == array.tobytes()
    assert shmexec.is_shared(got)


def test_the_read_only_flag_is_kept_and_is_only_the_arrays():
    array = shmexec.zeros(10)
    locked = array.view()
    locked.flags.writeable = False
    got, free = crossed((locked, array))
    with pytest.raises(ValueError, match="read-only"):
        got[0] = 1
    free[0] = 1
    assert array[0] == locked[0] == got[0] == 1


def test_arrays_over_one_block_are_so_at_the_other_end():
    array = shmexec.zeros((100, 100))
    rows = list(array)
    message = ForkingPickler.dumps([array, rows, array.T])
    assert shmexec.heap_info().unclaimed == 1
    whole, again, turned = ForkingPickler.loads(message)
    again[5][7] = 3
    assert whole[5, 7] == turned[7, 5] == array[5, 7] == 3
    assert shmexec.heap_info().unclaimed == 0


def test_the_same_array_twice_is_the_same_array_twice():
    array = shmexec.zeros(10)
    first, second = crossed([array, array])
    assert first is second


def test_a_small_array_goes_by_name_as_well():
    array = shmexec.zeros(1)
    crossed(array)[0] = 5
    assert array[0] == 5


VALUES = {
    "plain": lambda: np.arange(10_000.0),
    "plain, fortran": lambda: np.ones((5, 6), order="F"),
    "plain, read-only": lambda: np.broadcast_to(np.arange(3), (4, 3)),
    "empty, shared": lambda: shmexec.zeros((0, 5)),
    "an empty view": lambda: shmexec.zeros(100)[50:50],
    "objects": lambda: np.array([1, "two", None], dtype=object),
    "objects in a structure": lambda: np.array([(1, "x")], dtype=[("n", int), ("o", object)]),
    "masked": lambda: np.ma.masked_greater(shmexec.share(np.arange(10)), 5),
    "recarray": lambda: shmexec.zeros(3, [("a", int), ("b", float)]).view(np.recarray),
    "matrix": lambda: np.asmatrix(shmexec.ones((2, 2))),
    "scalar": lambda: shmexec.ones(3)[1],
}


@pytest.mark.parametrize("make", VALUES.values(), ids=VALUES)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_what_else_there_is_goes_by_value_as_the_standard_library_does_it(make):
    value = make()
    got, expected = crossed(value), ordinary(value)
    assert type(got) is type(expected) is type(value)
    assert not shmexec.is_shared(got)
    np.testing.assert_array_equal(got, expected)
    if isinstance(value, np.ndarray):
        assert (got.dtype, got.strides, got.flags.writeable) == (
            expected.dtype,
            expected.strides,
            expected.flags.writeable,
        )
    if isinstance(value, np.ma.MaskedArray):
        assert (got.mask == value.mask).all()
    assert shmexec.heap_info().unclaimed == 0


def test_strings_of_variable_width_go_by_value():
    string = getattr(getattr(np, "dtypes", None), "StringDType", None)
    if string is None:
        pytest.skip("NumPy 1 has none")
    got = crossed(np.array(["a", "bb" * 50], dtype=string()))
    assert got.tolist() == ["a", "bb" * 50]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_that_the_default_one_can_write_passes_shared_arrays(protocol):
    array = shmexec.zeros(10)
    pickle.loads(ForkingPickler.dumps(array, protocol))[0] = 1
    assert array[0] == 1


def test_an_array_that_owns_its_block_no_longer_does_when_it_was_sent(executor):
    array = executor.submit(np.ones, 100_000).result()
    assert array.flags.owndata
    got = crossed(array)
    assert not array.flags.owndata
    sums = (array + 1) + got
    assert sums.sum() == 300_000
    got[0] = 7
    assert array[0] == 7


def test_registering_again_changes_nothing():
    before = dict(ForkingPickler._extra_reducers), dict(multiprocessing.current_process()._config)
    shmexec.register_multiprocessing()
    assert ForkingPickler._extra_reducers == before[0]
    assert multiprocessing.current_process()._config.keys() == before[1].keys()


# ---- the table of tickets ------------------------------------------------------------------------


def test_an_unread_pickle_keeps_its_array_until_it_is_given_up():
    before = shmexec.heap_info().blocks
    message = bytes(ForkingPickler.dumps(shmexec.ones(1000)))
    assert (shmexec.heap_info().blocks, shmexec.heap_info().unclaimed) == (before + 1, 1)
    shmexec.trim()
    assert shmexec.heap_info().unclaimed == 1
    shmexec.trim(unclaimed=True)
    assert (shmexec.heap_info().blocks, shmexec.heap_info().unclaimed) == (before, 0)
    with pytest.raises(StaleName, match="gone"):
        ForkingPickler.loads(message)


def test_giving_up_leaves_what_somebody_has():
    array = shmexec.ones(1000)
    message = bytes(ForkingPickler.dumps(array))
    shmexec.trim(unclaimed=True)
    got = ForkingPickler.loads(message)
    assert got.ctypes.data == array.ctypes.data


def test_a_second_reading_is_good_while_somebody_has_the_array():
    message = bytes(ForkingPickler.dumps(shmexec.ones(1000)))
    first = ForkingPickler.loads(message)
    second = ForkingPickler.loads(message)
    second[0] = 5
    assert first[0] == 5
    del first, second
    with pytest.raises(StaleName):
        ForkingPickler.loads(message)


def test_a_stale_pickle_is_not_the_array_that_came_after():
    message = bytes(ForkingPickler.dumps(shmexec.full(1000, 1)))
    ForkingPickler.loads(message)
    others = [shmexec.full(1000, 2) for _ in range(50)]
    with pytest.raises(StaleName):
        ForkingPickler.loads(message)
    assert all((other == 2).all() for other in others)


def test_beyond_the_last_ticket_arrays_go_by_value_and_the_log_says_so(caplog, monkeypatch):
    from shmexec.pickling import tickets

    monkeypatch.setattr(tickets, "_was_full", False)
    array = shmexec.share(np.arange(100.0))
    unread = [bytes(ForkingPickler.dumps(array)) for _ in range(4096)]
    whole, view = crossed([array, array[3:30:3]])
    crossed(array)
    assert not shmexec.is_shared(whole)
    whole[3] = -1
    assert view[0] == -1  # the two are over one block still
    assert array[3] == 3
    np.testing.assert_array_equal(view[1:], array[6:30:3])
    assert [record.message[:17] for record in caplog.records] == ["4096 arrays are u"]
    ForkingPickler.loads(unread.pop())
    assert shmexec.is_shared(crossed(array))
    locked = array.view()
    locked.flags.writeable = False
    ForkingPickler.dumps(array)
    assert not crossed(locked).flags.writeable
    shmexec.trim(unclaimed=True)


def test_memory_that_runs_out_tells_of_unread_pickles():
    from shmexec import _core

    message = ForkingPickler.dumps(shmexec.ones(1000))
    for needed in 1000, 1 << 60:
        assert "1 are kept for pickles that nobody has read" in _core.full_message(needed)
    ForkingPickler.loads(message)
    assert "pickles" not in _core.full_message(1000)


def test_a_mangled_ticket_gives_an_error_and_no_memory():
    from shmexec.pickling import tickets

    array = shmexec.ones(100)
    reduced = tickets._reduce_array(array)
    _, ticket = tickets._reduce_block(reduced[1][0])
    segment, identity, number, birth, entry, seq = ticket
    for wrong in [
        ("", identity + 1, number, birth, entry, seq),
        ("/proc/1/fd/0:x", identity + 1, number, birth, entry, seq),
        ("/dev/null:5", identity + 1, number, birth, entry, seq),
        (segment, identity, number + 1, birth, entry, seq),
        (segment, identity, 2**32 - 1, birth, entry, seq),
        (segment, identity, number, birth + 1, entry, seq),
    ]:
        with pytest.raises((StaleName, ValueError)):
            tickets._block(*wrong)
    for entry_of_another in 2**32 - 1, 4095:
        assert tickets._block(segment, identity, number, birth, entry_of_another, seq).number == number
    block = tickets._block(*ticket)
    for offset, shape, strides in [
        (0, (1000,), None),
        (-8, (2,), None),
        (2**40, (1,), None),
        (800, (100,), (8,)),
        (0, (2, 2), (8, 2**62)),
        (0, (5,), (2**62,)),  # to the end and round again
        (0, (2**62 + 1,), (4,)),
        (0, (3,), (-(2**63),)),
    ]:
        with pytest.raises((ValueError, OverflowError)):
            tickets._array(block, offset, "f8", shape, strides, True, False)
