"""Numbers, short strings and the like arrive as they are, whichever way their call takes."""

import math
import struct
import sys

import pytest
import tasks

import shmexec
from shmexec.pickling.pickler import load

LONGEST = 2048  # of a string that is an atom
NAN = struct.unpack("<d", bytes.fromhex("efbeadde0000f8ff"))[0]  # with a payload
ATOMS = [
    *(None, True, False, 0, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63, -(2**64), 7**5000, -(7**5000)),
    *(
        0.0,
        -0.0,
        1.5,
        math.inf,
        -math.inf,
        NAN,
        5e-324,
        1.7976931348623157e308,
        0j,
        complex(-0.0, NAN),
        complex(math.inf, -1),
    ),
    *(
        "",
        "x",
        "a\0b",
        "\u00e9",
        "\u4e16\u754c",
        "\U0001f40d",
        "\ud800",
        "x" * (LONGEST - 1),
        "x" * LONGEST,
        "\u4e16" * LONGEST,
    ),
    *("x" * (LONGEST + 1), b"", b"\0", b"(", b"B", b"\x80\x05", bytes(range(256)), bytes(LONGEST), bytes(10 * LONGEST)),
    *("(", "B", sys.intern("interned"), 1 << 100_000),
]


def seen(value):
    """What tells all of them apart."""
    if isinstance(value, complex):
        return type(value), struct.pack("<dd", value.real, value.imag)
    return type(value), struct.pack("<d", value) if isinstance(value, float) else value


def one_and_seen(value):
    return value, repr(seen(value)) if not isinstance(value, int) else value.bit_length()


WAYS = {"served": {}, "last": {"max_tasks_per_child": 10_000}}


@pytest.mark.parametrize("way", WAYS)
def test_atoms_come_and_go_as_they_are(make_executor, way):
    executor = make_executor(1, **WAYS[way])
    for function in tasks.give, one_and_seen:  # the first call of each brings it along
        executor.submit(function, 0).result()
    for value in ATOMS:
        assert seen(executor.submit(tasks.give, value).result()) == seen(value)
        there, said = executor.submit(one_and_seen, value).result()
        assert seen(there) == seen(value)
        assert said == one_and_seen(value)[1]
    assert [seen(value) for value in executor.map(tasks.give, ATOMS, chunksize=1)] == [seen(value) for value in ATOMS]
    assert [seen(value) for value in executor.map(tasks.give, ATOMS)] == [seen(value) for value in ATOMS]


def test_atoms_of_a_call_with_a_limit_and_of_one_that_is_run_again(make_executor, tmp_path):
    executor = make_executor(1)
    executor.submit(tasks.die_once, str(tmp_path), 0).result()
    for name in "abc":
        path = str(tmp_path / name)
        assert executor.options(timeout=60, retries=1).submit(tasks.die_once, path, path).result() == path
        assert executor.options(retries=1).submit(tasks.die_once, path + "again", path).result() == path


@pytest.mark.parametrize("kind", [int, float, str, bytes])
def test_what_only_inherits_from_an_atom_keeps_its_type(executor, kind):
    for _ in range(3):
        there = executor.submit(type, Own[kind](b"5" if kind is bytes else 5)).result()
        assert there is Own[kind]


Own = {kind: type(f"Own_{kind.__name__}", (kind,), {"__module__": __name__}) for kind in (int, float, str, bytes)}
for own in Own.values():
    globals()[own.__name__] = own


def test_bytes_that_are_no_marshalled_atoms_are_an_error():
    assert load(b"(\x01\x00\x00\x00N") == ((None,), {})
    for wrong in b"", b"(", b"(\xff\xff\xff\x7f", b"(\x01\x00\x00\x00", b"(\x02\x00\x00\x00N", b"(\x01\x00\x00\x00?":
        with pytest.raises((ValueError, EOFError, TypeError)):
            load(wrong)


@pytest.mark.parametrize("value", ["\U0001f40d" * 2000, 10**20_000], ids=["letters of four bytes", "a long number"])
def test_long_atoms_leave_nothing_in_the_heap(make_executor, value):
    executor = make_executor(1)
    assert executor.submit(tasks.give, value).result() == value
    before = shmexec.heap_info().blocks
    for _ in range(20):
        assert executor.submit(tasks.give, value).result() == value
    executor.submit(tasks.give, 0).result()  # now the worker knows that all of them were read
    assert shmexec.heap_info().blocks <= before
