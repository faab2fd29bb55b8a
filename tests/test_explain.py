"""What is said of copies, before they are made and after."""

import functools
import time
from itertools import repeat
from types import SimpleNamespace

import numpy as np
import pytest
import tasks

import shmexec
from shmexec.pickling.notes import FirstCopies
from shmexec.pickling.pickler import dump_arguments, load
from shmexec.pickling.repeated import repeated_in

LARGE = 100_000


def parts_of(obj):
    return {part.where: part.how for part in shmexec.explain(obj).parts}


def test_explain_tells_names_copies_and_the_rest():
    shared, plain = shmexec.zeros(LARGE), np.zeros(LARGE, "f4")
    said = shmexec.explain({"s": shared, "p": [plain], "rest": "x" * 1000})
    assert said.bytes_by_name == shared.nbytes
    assert said.bytes_copied == plain.nbytes
    assert 1000 < said.bytes_pickled < 2000
    by_name, copied = said.parts
    assert (by_name.where, by_name.how, by_name.why) == ("obj['s']", "by name", "")
    assert (copied.where, copied.how, copied.bytes) == ("obj['p'][0]", "copied", plain.nbytes)
    assert copied.what == f"ndarray of float32, shape ({LARGE},)"
    assert "shmexec.share" in copied.why
    text = str(said)
    assert text.startswith(f"{shared.nbytes:,} bytes by name, {plain.nbytes:,} copied, ")
    assert "obj['p'][0] (ndarray of float32" in text


def test_explain_copies_nothing():
    shared = shmexec.zeros(LARGE)
    before = shmexec.heap_info().blocks
    shmexec.explain([shared, np.zeros(LARGE), bytes(LARGE), bytearray(LARGE), {"view": memoryview(bytes(LARGE))}])
    assert shmexec.heap_info().blocks == before


def test_explain_finds_what_a_function_binds():
    shared, plain = shmexec.zeros(LARGE), np.zeros(LARGE)

    def closed(x):
        return plain + shared + x

    assert parts_of(closed) == {"obj.plain": "copied", "obj.shared": "by name"}
    assert parts_of(functools.partial(tasks.add, plain, b=shared)) == {
        "obj.args[0]": "copied",
        "obj.keywords['b']": "by name",
    }


def test_explain_knows_buffers_strings_and_objects():
    class Holder:
        def __init__(self):
            self.table = shmexec.zeros(LARGE)
            self.mask = np.ma.masked_array(np.zeros(LARGE))

    data, text = bytes(LARGE), "é" * LARGE
    said = shmexec.explain((data, text, Holder(), np.zeros(3)))
    found = {part.where: part for part in said.parts}
    assert found["obj[0]"].how == "copied"
    assert "strings" in found["obj[0]"].why
    assert found["obj[2].table"].how == "by name"
    assert any("obj[2].mask" in where for where in found)
    assert "smaller than" in found["obj[3]"].why
    assert said.bytes_copied >= LARGE * (1 + 2 + 8)


def test_explain_of_a_frame_and_of_what_cannot_be_pickled():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": np.zeros(LARGE), "b": np.zeros(LARGE)})
    said = shmexec.explain([frame])
    assert said.bytes_copied >= 16 * LARGE
    assert all("obj[0]" in part.where for part in said.parts)
    with pytest.raises(TypeError, match="cannot pickle 'generator'"):
        shmexec.explain([(x for x in "ab")])


def half_kept(n):
    return {"cached": tasks.cached(n), "fresh": np.ones(n)}


def small_part(n):
    return np.ones(n * 100)[:n]


def test_stats_tell_which_were_copied_and_why(executor):
    shared, plain = shmexec.zeros(LARGE), np.zeros(LARGE)
    for _ in range(3):
        executor.submit(tasks.add, shared, b=plain).result()
    executor.submit(half_kept, LARGE).result()
    executor.submit(small_part, LARGE).result()
    list(executor.map(tasks.give, [bytes(LARGE)], chunksize=2))
    copies = executor.stats().copies
    found = {(copy.function, copy.where): copy.why for copy in copies}
    assert len(found) == len(copies)
    names = {(function.rpartition(".")[2], where): why for (function, where), why in found.items()}
    assert "shmexec.share" in names.pop(("add", "argument 'b'"))
    assert "keeps" in names.pop(("half_kept", "result['cached']"))
    assert "small part" in names.pop(("small_part", "result"))
    assert "bytes" in names.pop(("give", "argument 0"))
    assert "bytes" in names.pop(("give", "result"))
    assert not names


def test_the_heap_tells_what_crossed_in_all(executor):
    before = shmexec.heap_info()
    executor.submit(tasks.add, shmexec.zeros(LARGE), np.zeros(LARGE)).result()
    after = shmexec.heap_info()
    assert after.bytes_by_name - before.bytes_by_name == 2 * 8 * LARGE  # an argument, and the result
    assert after.bytes_copied - before.bytes_copied == 8 * LARGE


def test_only_the_first_few_copies_are_kept():
    first = FirstCopies()
    for i in range(FirstCopies.CALLS + 5):
        notes = first.notes()
        if i >= FirstCopies.MOST:
            assert notes is None
            continue
        part = np.zeros(i)
        notes.add(part, part.nbytes, "copied", "why")
        assert len(first.add(notes.crossings("f", [(f"argument {i}", part)]))) == 1
    assert len(first.all()) == FirstCopies.MOST
    idle = FirstCopies()
    assert sum(idle.notes() is not None for _ in range(2 * FirstCopies.CALLS)) == FirstCopies.CALLS


# ---- an array in many items of a map -------------------------------------------------------------


def use(table, x):
    table[0] += x
    return float(table[0]), table.sum()


@pytest.mark.parametrize("chunksize", [1, 3])
@pytest.mark.parametrize("make", [lambda t, n: [t] * n, lambda t, n: (t,) * n, repeat], ids=["list", "tuple", "repeat"])
def test_an_array_in_many_items_is_copied_once(executor, make, chunksize):
    table = np.zeros(LARGE)
    tables = make(table, 12) if make is not repeat else repeat(table)
    found = list(executor.map(use, tables, range(12), chunksize=chunksize))
    if chunksize == 1:  # a chunk is one message, in which one object is one object
        assert found == [(float(x), float(x)) for x in range(12)]
    assert executor.stats().bytes_copied_in == table.nbytes
    assert not table.any()


def use_pair_when(gate, pair):
    while not gate[0]:
        time.sleep(0.001)
    return use(*pair)


def test_an_array_deep_in_many_items_is_copied_twice_at_most(executor):
    table, gate = np.zeros(LARGE), shmexec.zeros(1)
    found = executor.map(functools.partial(use_pair_when, gate), [(table, x) for x in range(12)])
    gate[0] = 1  # the first items are packed by now: no two threads have packed one at the same time
    assert list(found) == [(float(x), float(x)) for x in range(12)]
    assert executor.stats().bytes_copied_in == 2 * table.nbytes


def test_of_copies_that_two_threads_make_at_the_same_time_one_stays(monkeypatch):
    table, repeated, found = np.ones(LARGE), repeated_in([[()]]), []
    blocks = shmexec.heap_info().blocks

    def pack(item):
        found.append(dump_arguments((table,), repeated=repeated, item=item))

    def copy_while_another_thread_does(to, array):
        monkeypatch.undo()
        pack(2)
        np.copyto(to, array)

    pack(0)
    monkeypatch.setattr(
        "shmexec.pickling.arrays.np", SimpleNamespace(**{**vars(np), "copyto": copy_while_another_thread_does})
    )
    pack(1)
    pack(3)
    assert [packed.bytes_copied for packed in found] == [table.nbytes] * 3 + [0]
    assert shmexec.heap_info().blocks == blocks + 2  # that of item 0 alone, and one for all others
    assert sum(load(packed.data)[0].sum() for packed in found) == 4 * LARGE


def test_an_array_that_is_filled_again_is_copied_again(executor):
    buffer = np.zeros(LARGE)

    def fill():
        for x in range(6):
            buffer[:] = x
            yield buffer

    assert list(executor.map(np.max, fill(), buffersize=1)) == [0, 1, 2, 3, 4, 5]


def test_other_arrays_of_the_same_map_are_copied_for_themselves(executor):
    table = np.zeros(LARGE)
    frames = [np.full(LARGE, float(i)) for i in range(6)]
    assert list(executor.map(lambda t, f: float(f[0] + t[0]), [table] * 6, frames)) == [0, 1, 2, 3, 4, 5]
    assert executor.stats().bytes_copied_in == 7 * table.nbytes
