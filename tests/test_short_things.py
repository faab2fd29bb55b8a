"""What is short takes no pickle: it arrives as by the other way (calls with limits, workers with a last call)."""

import collections
import enum
import gc
import marshal
import time

import numpy as np
import pytest
import tasks

import shmexec
from shmexec.pickling.pickler import load

KINDS = "?bBhHiIlLqQefdgFDG"
Point = collections.namedtuple("Point", "x y")


class Colour(enum.IntEnum):
    RED = 1


def read_only():
    array = np.arange(5.0)
    array.flags.writeable = False
    return array


def twice():
    array, items = np.ones(3), [1]
    return [array, array, items, (items, items)]


def itself():
    items = [1]
    items.append(items)
    return items


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


THINGS = {
    **{f"scalar {kind}": lambda kind=kind: np.dtype(kind).type(3) for kind in KINDS},
    **{f"array {kind}": lambda kind=kind: np.arange(6).astype(kind) for kind in KINDS},
    "nan": lambda: np.float64("nan"),
    "time": lambda: np.datetime64("2026-01-01"),
    "text": lambda: np.str_("text"),
    "void": lambda: np.zeros(1, [("a", "f8")])[0],
    "fortran": lambda: np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "transpose": lambda: np.arange(6.0).reshape(2, 3).T,
    "steps": lambda: np.arange(12.0).reshape(4, 3)[::2, ::-1],
    "broadcast": lambda: np.broadcast_to(np.ones(3), (2, 3)),
    "no dimensions": lambda: np.array(5.0),
    "no size": lambda: np.ones((0, 5)),
    "read-only": read_only,
    "structured": lambda: np.zeros(3, [("a", "f8"), ("b", "i4")]),
    "swapped": lambda: np.arange(3.0).astype(">f8"),
    "objects": lambda: np.array([None, 1]),
    "with metadata": lambda: np.ones(3, np.dtype("f8", metadata={"a": 1})),
    "masked": lambda: np.ma.masked_array(np.ones(3), [True, False, True]),
    "records": lambda: np.zeros(3, [("a", "f8")]).view(np.recarray),
    "kibibyte": lambda: np.ones(128),
    "two kibibytes": lambda: np.ones(256),
    "four kibibytes": lambda: np.ones(512),
    "ten kibibytes": lambda: np.ones(1280),
    "one that is shared": lambda: shmexec.ones(5),
    "a large one that is shared, inside": lambda: {"a": [shmexec.ones(1 << 16)], "b": shmexec.ones((1 << 10, 8))[:, 1]},
    "large ones inside": lambda: (np.ones(1 << 16), [np.ones(1 << 15)]),
    "tuples": lambda: (1, ("a", (2.5, None)), ()),
    "a list": lambda: [1, [2, [3, {"a": b"b"}]], []],
    "a dict": lambda: {"mean": np.float64(1.5), 3: [np.arange(3)], None: (), 2.5: {}, "b": {"c": np.int8(1)}},
    "sets": lambda: (set(), {1, "a"}, frozenset({b"x", 2.5})),
    "sets of what cannot be compared": lambda: [{complex("nan"), complex("nan"), None}, frozenset({1j, "a", 2})],
    "a set twice": lambda: [{1}] * 2,
    "an ordered dict": lambda: collections.OrderedDict(a=1),
    "a default dict": lambda: collections.defaultdict(list, a=[1]),
    "a named tuple": lambda: [Point(1, np.float64(2))],
    "an enumeration": lambda: (Colour.RED, {"a": Colour.RED}),
    "a scalar as a key": lambda: {np.int64(1): 2},
    "a tuple as a key": lambda: {(1, 2): 3, frozenset({1}): 4},
    "an ellipsis": lambda: (..., 1, b"12345678"),
    "ellipses": lambda: [..., (..., 7, (1,), False, b"12345678"), {"a": (...,)}],
    "a type": lambda: [int, np.float64],
    "twice": twice,
    "itself": itself,
    "twice as far": lambda: [np.ones(3) for _ in range(17)],
    **{f"nested {depth} deep": lambda depth=depth: nested(depth) for depth in (7, 8, 9, 100)},
    **{f"{count} numbers": lambda count=count: list(range(count)) for count in (254, 255, 256, 257, 5000)},
    **{f"{count} keys": lambda count=count: dict.fromkeys(range(count)) for count in (127, 128, 129, 300)},
    **{f"{size} letters": lambda size=size: ["x" * (size // 2), b"x" * (size // 2)] for size in (2000, 2048, 3072)},
}


def told(value, seen=None):
    """What tells all of them apart, and which of their parts are one object."""
    seen = {} if seen is None else seen
    if isinstance(value, (np.ndarray, list, dict, set)):
        if id(value) in seen:
            return "seen", seen[id(value)]
        seen[id(value)] = len(seen)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        flags = value.flags
        how = flags.writeable, flags.owndata, flags.fnc, flags.c_contiguous, shmexec.is_shared(value)
        masked = told(value.mask, seen) if isinstance(value, np.ma.MaskedArray) else None
        return type(value), value.dtype, repr(value.dtype.metadata), value.shape, how, repr(value.tolist()), masked
    if isinstance(value, dict):
        return type(value), [(told(key), told(item, seen)) for key, item in value.items()]
    if isinstance(value, (tuple, list)):
        return type(value), [told(item, seen) for item in value]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(told(item)) for item in value)
    if isinstance(value, np.generic):
        return type(value), value.dtype, repr(value)  # not the bytes: a long double has some that mean nothing
    return type(value), repr(value)


def made(name):
    return THINGS[name]()


def told_of(*args, **kwargs):
    """Long, so that it is pickled."""
    return repr(told([list(args), kwargs])) + " " * 5000


@pytest.mark.parametrize("options", [{}, {"max_tasks_per_child": 100_000}], ids=["served", "last"])
def test_arguments_arrive_as_if_pickled(make_executor, options):
    executor = make_executor(1, **options)
    pickling = executor.options(timeout=1000)
    executor.submit(told_of).result()
    for name in THINGS:
        value = made(name)
        for args, kwargs in ((value,), {}), ((), {"a": value}), ((1, value), {"a": 2, "b": [value]}):
            wanted = pickling.submit(told_of, *args, **kwargs).result()
            assert executor.submit(told_of, *args, **kwargs).result() == wanted, name


def test_results_arrive_as_if_pickled(make_executor):
    served, pickling = make_executor(1), make_executor(1, max_tasks_per_child=100_000)
    for executor in served, pickling:
        executor.submit(made, "tuples").result()
    for name in THINGS:
        for _ in range(2):
            wanted = told(pickling.submit(made, name).result())
            assert told(served.submit(made, name).result()) == wanted, name
    for figure in "bytes_by_name_out", "bytes_copied_out":
        assert vars(served.stats())[figure] == vars(pickling.stats())[figure], figure


def test_every_byte_is_counted(make_executor):
    executor = make_executor(1)
    pickling = executor.options(timeout=1000)
    shared = shmexec.ones(1000)
    executor.submit(tasks.give, 1).result()
    counted = []
    for way in executor, pickling:
        before = executor.stats()
        way.submit(tasks.give, {"a": [np.ones(3), shared]}).result()
        way.submit(tasks.give, np.ones(100)).result()
        after = executor.stats()
        counted.append([vars(after)[name] - vars(before)[name] for name in vars(after) if name.startswith("bytes_")])
    assert counted == [[8000, 8000, 824, 824]] * 2


def change(items, table, array):
    items.append(4)
    table["b"] = 1
    array[:] = 5
    return items, table, array


def test_each_call_has_its_own(executor):
    items, table, array = [1], {"a": [2]}, np.ones(3)
    for _ in range(3):
        found = executor.submit(change, items, table=table, array=array).result()
        assert told(found) == told(([1, 4], {"a": [2], "b": 1}, np.full(3, 5.0)))
    assert told((items, table, array)) == told(([1], {"a": [2]}, np.ones(3)))
    found[2][:] = 6
    found[2].resize(10)


@pytest.fixture
def busy(make_executor, gate):
    """A pool whose one worker is busy, so that calls wait; and what lets it go on."""
    executor = make_executor(1)
    say, wait = gate("say"), gate("wait")
    executor.submit(tasks.give, 0).result()
    running = executor.submit(tasks.pass_gates, say, wait)
    say.wait_open()

    def go_on():
        wait.open()
        running.result()

    return executor, go_on


def test_what_is_changed_after_submit_has_gone_as_it_was(busy):
    executor, go_on = busy
    items, array = [1], np.ones(3)
    waiting = [executor.submit(tasks.give, (items, array)) for _ in range(3)]
    items.append(2)
    array[:] = 7
    go_on()
    for future in waiting:
        assert told(future.result()) == told(([1], np.ones(3)))


def test_a_shared_array_inside_is_kept_until_it_arrives(busy):
    executor, go_on = busy
    waiting = [executor.submit(tasks.give, {"a": [shmexec.full(1000, i)]}) for i in range(20)]
    go_on()
    assert [future.result()["a"][0].sum() for future in waiting] == [1000 * i for i in range(20)]
    assert all(shmexec.is_shared(future.result()["a"][0]) for future in waiting)


def report_and_return(value):
    shmexec.report_progress(0.5)
    return value


def test_a_call_that_has_reported_returns_the_same(executor):
    for name in THINGS:
        value = made(name)
        wanted = told(executor.submit(tasks.give, value).result())
        assert told(executor.submit(report_and_return, value).result()) == wanted


def test_many_answers_that_nobody_reads_yet(make_executor):
    """The ring of answers is full: they go another way."""
    executor = make_executor(1)
    value = {"a": np.arange(100.0), "b": (np.float32(2), [1])}
    futures = [executor.submit(tasks.give, value) for _ in range(500)]
    assert {repr(told(future.result())) for future in futures} == {repr(told(value))}


class Clears:
    """Garbage that changes a list as it is collected."""

    def __init__(self, items):
        self.items, self.me = items, self

    def __del__(self):
        self.items.clear()


def cleared_while_it_is_looked_at(use):
    """The collection of garbage may come with any object that is made."""
    before = gc.get_threshold()
    gc.disable()
    try:
        items = [np.float64(i) for i in range(200)]
        Clears(items)
        gc.set_threshold(1)
        gc.enable()
        return use(items)
    finally:
        gc.enable()
        gc.set_threshold(*before)


def clears():
    return cleared_while_it_is_looked_at(lambda items: items)


def set_of_clears():
    return [{1, 2, 3}, cleared_while_it_is_looked_at(list)]


def test_what_changes_while_it_is_looked_at(executor):
    for _ in range(4):
        there = cleared_while_it_is_looked_at(lambda items: executor.submit(tasks.give, items)).result()
        assert len(there) in range(201)
        assert len(executor.submit(clears).result()) in range(201)
    assert executor.submit(tasks.give, 1).result() == 1


SELF = b"\xdb\x01\0\0\0r\0\0\0\0"  # a list that contains itself
MANY = b"(\xff\xff\xff\x7f"
ONE = b"(\x01\0\0\0"
OTHERS = [
    *(
        SELF,
        MANY,
        b"[" + MANY[1:],
        ONE + MANY,
        b"{" + MANY,
        b"[" + ONE[1:],
        b"{i\0\0\0\0",
        ONE * 100 + b"N",
        ONE * 5000 + b"N",
    ),
    *(b"", b"0", b"S", b"i\0\0", b"r\0\0\0\0", b"<\0\0\0\0", b"g1234567", marshal.dumps(compile("1", "", "eval"), 2)),
    *(b"s\xff\xff\xff\xff", b"s\x05\0\0\0abc", b"l\0\0\0\x80", b"l\xff\xff\xff\x7f"),
]


@pytest.mark.parametrize("data", OTHERS)
def test_bytes_that_nobody_has_marshalled_here_are_an_error(data):
    for tag in b"P", b"N", b"G", b"A", b"A(\x02\0\0\0(\0\0\0\0":
        with pytest.raises((ValueError, TypeError, EOFError)):
            load(tag + data)


def slowly(value):
    time.sleep(0.002)


def test_a_call_that_waits_for_a_worker_is_no_garbage(make_executor):
    """Its array would be kept until that is collected."""
    gc.collect()
    before = shmexec.heap_info().blocks
    executor, array = make_executor(4), shmexec.ones(1000)
    gc.disable()
    try:
        for _ in range(10):
            for future in [executor.submit(slowly, {"a": [array]}) for _ in range(10)]:
                future.result()
        executor.shutdown()
        del array, future
        assert shmexec.heap_info().blocks <= before + 1  # the hub
    finally:
        gc.enable()
