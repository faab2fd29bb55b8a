"""Arrays that are to arrive read-only, or as the receiver's own."""

import pickle

import numpy as np
import pytest
import tasks

import shmexec

LARGE = 200_000


def shared(shape=LARGE, order="C"):
    made = shmexec.empty(shape, order=order)
    made[...] = np.arange(made.size).reshape(made.shape)
    return made


ARRAYS = {
    "large": shared,
    "small": lambda: shared(5),
    "no axis": lambda: shared(()),
    "empty": lambda: shared((0, 3)),
    "by columns": lambda: shared((300, 400), "F"),
    "every third, backwards": lambda: shared()[::-3],
    "a window": lambda: shared((300, 400))[7:90, 11:200],
    "broadcast": lambda: np.broadcast_to(shared(400), (30, 400)),
    "read-only": lambda: frozen(shared()),
    "plain, large": lambda: np.arange(float(LARGE)),
    "plain, small": lambda: np.arange(5.0),
    "plain, window": lambda: np.arange(float(LARGE)).reshape(400, -1)[3:99, ::2],
    "objects": lambda: np.array([1, "a", None], dtype=object),
    "structured": lambda: shmexec.share(np.ones(LARGE, [("a", "i4"), ("b", "f8")])),
}


def frozen(array):
    array.flags.writeable = False
    return array


@pytest.fixture(params=ARRAYS)
def array(request):
    return ARRAYS[request.param]()


def look(array):
    return type(array), array.flags.writeable, np.array(array)


def set_to(array, value):
    array[...] = value
    return np.array(array)


def test_a_readonly_array_arrives_so_and_equal(executor, array):
    for found, at in (
        (executor.submit(look, shmexec.readonly(array)).result(), "argument"),
        (
            executor.submit(look_inside, {"a": [shmexec.readonly(array)]}).result(),
            "deeper",
        ),
    ):
        kind, writeable, values = found
        assert kind is np.ndarray, at
        assert not writeable
        assert values.dtype == array.dtype
        assert np.array_equal(values, array)


def look_inside(box):
    return look(box["a"][0])


def test_what_is_written_into_a_private_array_is_seen_by_nobody_else(executor, array):
    before = np.array(array)
    for wished in shmexec.private(array), {"a": [shmexec.private(array)]}:
        kind, writeable, values = executor.submit(look_inside if type(wished) is dict else look, wished).result()
        assert kind is np.ndarray
        assert writeable
        assert np.array_equal(values, before)
    if array.dtype.fields is None:
        assert (executor.submit(set_to, shmexec.private(array), 7).result() == 7).all()
    assert np.array_equal(array, before)
    assert array.size == 0 or np.array_equal(executor.submit(look, array).result()[2], before)


def test_neither_copies_what_is_shared(executor):
    array = shared()
    executor.submit(look, shmexec.readonly(array[::2])).result()
    executor.submit(set_to, shmexec.private(array[::2]), 3).result()
    executor.submit(len, shmexec.private(array)).result()
    stats = executor.stats()
    assert stats.bytes_copied_in == 0
    assert stats.bytes_by_name_in == 2 * array.nbytes


def take_all(plain, readonly, private, again):
    private[0] = 1
    plain[1] = 2
    return [a.flags.writeable for a in (plain, readonly, private)], plain[0], readonly[1], again is private


@pytest.mark.parametrize("is_shared", [True, False])
def test_one_array_may_arrive_in_all_ways_at_once(executor, is_shared):
    array = shared() if is_shared else np.arange(float(LARGE))
    own = shmexec.private(array)
    got = executor.submit(take_all, array, shmexec.readonly(array), own, own).result()
    assert got == ([True, False, True], 0, 2, True)
    assert array[:2].tolist() == ([0, 2] if is_shared else [0, 1])


def test_pages_of_a_private_array_are_copied_when_they_are_written(executor, gate):
    array, say, wait = shared(), gate("say"), gate("wait")
    future = executor.submit(write_first, shmexec.private(array), say, wait)
    say.wait_open()
    array[:] = -1
    wait.open()
    # of a System V segment no private mapping can be made: there it is a copy
    assert future.result() == (5, LARGE - 1 if shmexec.heap_info().kind == "sysv" else -1)


def write_first(array, say, wait):
    array[0] = 5
    tasks.pass_gates(say, wait)
    return float(array[0]), float(array[-1])


def answer(wish, array):
    return {"it": wish(array)}, array


@pytest.mark.parametrize("wish", [shmexec.readonly, shmexec.private])
def test_results_can_be_wished_for_as_well(executor, wish):
    array = shared()
    got, same = executor.submit(answer, wish, array).result()
    assert type(got["it"]) is np.ndarray
    assert got["it"].flags.writeable is (wish is shmexec.private)
    assert np.array_equal(got["it"], array)
    same[0] = 4
    assert array[0] == 4
    if wish is shmexec.private:
        got["it"][0] = 9
        assert array[0] == 4
    made = executor.submit(lambda: wish(np.ones(LARGE))).result()
    assert made.flags.writeable is (wish is shmexec.private)
    assert made.sum() == LARGE


def add_in_place(array, x):
    array += x
    return float(array[3])


@pytest.mark.parametrize("options", [{}, {"chunksize": 4}])
@pytest.mark.parametrize("is_shared", [True, False])
def test_each_call_of_a_map_has_its_own(executor, is_shared, options):
    array = shared() if is_shared else np.arange(float(LARGE))
    got = executor.map(add_in_place, [shmexec.private(array)] * 12, range(12), **options)
    # the items of a chunk are one message, in which the same wish is the same array
    earlier = [sum(range(x // 4 * 4, x)) if options else 0 for x in range(12)]
    assert list(got) == [3.0 + x + before for x, before in zip(range(12), earlier, strict=True)]
    assert array[3] == 3


def test_a_function_may_have_bound_them(executor):
    own, seen, array = shmexec.private(shared()), shmexec.readonly(shared()), shared()

    def work(x):
        own[0] += x
        return float(own[0]), seen.flags.writeable

    assert [executor.submit(work, 2).result() for _ in range(3)] == [(2.0, False)] * 3
    assert list(executor.map(work, [1, 2, 3])) == [(1.0, False), (2.0, False), (3.0, False)]
    assert own.array[0] == array[0] == 0


class Matrix(np.ndarray):
    pass


@pytest.mark.parametrize("make", [lambda a: a.view(Matrix), lambda a: np.ma.masked_array(a, a < 3)])
def test_subclasses_stay_what_they_are(executor, make):
    array = make(shared())
    kind, writeable, values = executor.submit(look, shmexec.readonly(array)).result()
    assert (kind, writeable) == (type(array), False)
    assert np.array_equal(values, np.asarray(array))
    executor.submit(set_to, shmexec.private(array), 8).result()
    assert np.asarray(array)[5] == 5


@pytest.mark.parametrize("is_shared", [True, False])
def test_elsewhere_they_are_arrays(is_shared):
    array = shared(9) if is_shared else np.arange(9.0)
    seen, own = pickle.loads(pickle.dumps((shmexec.readonly(array), shmexec.private(array))))
    assert (type(seen), seen.flags.writeable) == (np.ndarray, False)
    assert (type(own), own.flags.writeable) == (np.ndarray, True)
    assert seen.sum() == own.sum() == np.sum(shmexec.readonly(array)) == np.sum(shmexec.private(array)) == 36
    here, mine = np.asarray(shmexec.readonly(array)), np.asarray(shmexec.private(array))
    assert np.shares_memory(here, array)
    assert not here.flags.writeable
    assert not np.shares_memory(mine, array)
    assert np.asarray(shmexec.readonly(array), dtype="f4").dtype == "f4"
    assert "readonly(array(" in repr(shmexec.readonly(array))
    assert shmexec.private(array).array is array


@pytest.mark.parametrize("wrong", [None, [1.0], 3, b"bytes"])
def test_only_arrays_can_be_wished_for(wrong):
    for wish in shmexec.readonly, shmexec.private:
        with pytest.raises(TypeError, match="takes a NumPy array"):
            wish(wrong)


def test_explain_knows_them():
    array = shared()
    found = shmexec.explain([shmexec.readonly(array), shmexec.private(array)])
    assert found.bytes_by_name == 2 * array.nbytes
    assert found.bytes_copied == 0


def test_an_initializer_may_be_given_them(make_executor):
    array = shared(9)
    executor = make_executor(1, None, keep, (shmexec.readonly(array), shmexec.private(array)))
    assert executor.submit(use_kept).result() == ([False, True], 36.0)
    assert array[0] == 0


def keep(*arrays):
    tasks.kept = arrays
    arrays[1][0] = 36 - arrays[1][1:].sum()


def use_kept():
    return [a.flags.writeable for a in tasks.kept], float(tasks.kept[1].sum())
