"""How functions get to the workers: by reference or by value, once for each worker, always as they are now."""

import functools
import importlib
import pickle
import sys

import numpy as np
import pytest
import tasks

import shmexec
from shmexec.pool import crew

PROGRAM = """
import sys
import numpy as np, shmexec
from dataclasses import dataclass

@dataclass
class Point:
    x: object
    def far(self): return self.x * factor

class MyError(Exception): pass

factor = 3
def triple(x): return x * factor
def recursive(n): return 1 if n == 0 else n * recursive(n - 1)
def raising(): raise MyError("mine")
def make_point(x): return Point(np.full(100_000, x))
"""
BODY = """
with shmexec.SharedExecutor(2, {context}) as ex:
    assert ex.submit(triple, 4).result() == 12
    assert list(ex.map(triple, range(9), chunksize=2)) == list(range(0, 27, 3))
    assert ex.submit(lambda p: p.far(), Point(5)).result() == 15
    assert ex.submit(recursive, 5).result() == 120
    point = ex.submit(make_point, 7).result()
    assert isinstance(point, Point) and point.x[-1] == 7, point
    assert ex.submit(Point.far, point).result()[0] == 21
    factor = 4
    assert ex.submit(triple, 4).result() == 16
    def triple(x): return x * 100
    assert ex.submit(triple, 4).result() == 400
    try:
        ex.submit(raising).result()
    except MyError as error:
        assert "raising" in str(error.__cause__)
    else:
        assert False
print("done", __name__)
"""
GUARDED = PROGRAM + "\nif __name__ == '__main__':" + BODY.replace("\n", "\n    ")


def fill(source, method):
    context = "None" if method is None else f"__import__('multiprocessing').get_context('{method}')"
    return source.replace("{context}", context)


@pytest.mark.parametrize("how", ["file", "stdin", "-c"])
def test_functions_of_a_script_without_guard_work(script, method, how):
    assert script(fill(PROGRAM + BODY, method), how=how).stdout == "done __main__\n"


def test_functions_of_a_script_with_guard_work(script, method):
    assert script(fill(GUARDED, method)).stdout == "done __main__\n"


def test_a_function_by_value_is_shipped_once_to_each_worker(make_executor, monkeypatch):
    shipped = []

    class Recorded(shmexec._core.Recent):
        def add(self, number, value):
            shipped.append(number)
            super().add(number, value)

    monkeypatch.setattr(crew, "shipped", lambda: Recorded(256))
    executor = make_executor(1)
    text = "x" * 5000
    function = lambda i: i + len(text)  # noqa: E731
    assert list(executor.map(function, range(30), chunksize=1)) == list(range(5000, 5030))
    assert len(shipped) == 1


def test_a_function_that_can_be_imported_is_looked_up_once_in_each_worker(make_executor, tmp_path, monkeypatch):
    (tmp_path / "counted.py").write_text(
        "looked = 0\n"
        "def real(): return looked\n"
        "real.__qualname__ = real.__name__ = 'function'\n"
        "kept = real; del real\n"
        "def __getattr__(name):\n"
        "    global looked\n"
        "    if name != 'function': raise AttributeError(name)\n"
        "    looked += 1\n"
        "    return kept\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    counted = importlib.import_module("counted")
    executor = make_executor(1)
    assert [executor.submit(counted.function).result() for _ in range(20)] == [1] * 20
    del sys.modules["counted"]


def test_a_function_defined_anew_takes_effect(executor):
    for i in range(5):
        exec(f"def f(): return {i}", space := {})
        assert executor.submit(space["f"]).result() == i
        space["f"].__defaults__ = None


def test_closures_see_what_changed_between_calls(executor):
    count, box = 0, []

    def look():
        return count, list(box)

    for i in range(4):
        count = i
        box.append(i)
        assert executor.submit(look).result() == (i, list(range(i + 1)))


def test_a_call_does_not_see_what_another_did_to_the_captured_values(make_executor):
    executor = make_executor(1)
    box = []

    def push():
        box.append(1)
        return len(box)

    assert [executor.submit(push).result() for _ in range(4)] == [1] * 4
    assert box == []


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "plain"])
def test_arrays_in_a_closure_cross_as_arguments_do(executor, shared):
    array = shmexec.zeros(100_000) if shared else np.zeros(100_000)

    def write(i):
        array[i] = 5
        return float(array.sum())

    got = [executor.submit(write, i).result() for i in range(4)]
    assert got == ([5, 10, 15, 20] if shared else [5] * 4)
    assert array.sum() == (20 if shared else 0)


def test_a_closure_releases_its_array_after_the_call(executor):
    executor.submit(tasks.pid).result()
    before = shmexec.heap_info().blocks

    def closure_over(array):
        return lambda: float(array.sum())

    assert executor.submit(closure_over(shmexec.ones(1000))).result() == 1000
    executor.submit(tasks.pid).result()
    assert shmexec.heap_info().blocks <= before + 1


def test_more_functions_than_any_table_holds(make_executor):
    executor = make_executor(2)
    functions = [eval(f"lambda x: x + {i}") for i in range(700)]
    for _ in range(2):
        made = [executor.submit(function, 1) for function in functions]
        assert [future.result() for future in made] == list(range(1, 701))


def test_a_function_that_came_with_a_long_message_which_was_taken_back_is_there_later(make_executor, gate):
    """The message is spilled, and withdrawn for an idle worker; its worker then gets the same function again."""
    executor = make_executor(2)
    long = list(range(20_000))
    for round_number in range(4):
        function = eval(f"lambda values: (len(values), {round_number})")
        say, wait = gate(f"say{round_number}"), gate(f"wait{round_number}")
        gates = [gate(f"{name}{round_number}") for name in "ab"]
        busy = [executor.submit(tasks.pass_gates, say, one) for one in gates]
        say.wait_open()
        say.wait_open()
        behind = [executor.submit(function, long) for _ in range(2)]  # one behind each
        gates[round_number % 2].open()
        assert [future.result() for future in behind] == [(20_000, round_number)] * 2
        gates[1 - round_number % 2].open()
        for future in busy:
            future.result()
        again = [executor.submit(function, [1]) for _ in range(20)]
        assert [future.result() for future in again] == [(1, round_number)] * 20
        del say, wait


def test_a_module_that_cannot_be_imported_there_fails_its_call(executor, monkeypatch):
    import types

    module = types.ModuleType("only_here")
    exec("def f(): return 1", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(ModuleNotFoundError, match="only_here"):
        executor.submit(module.f).result()
    assert executor.submit(tasks.double, 4).result() == 8


# ---- the function of a map -------------------------------------------------------------------------


def test_a_map_copies_what_its_function_binds_once(executor):
    table = np.arange(1_000_000.0)
    got = list(executor.map(functools.partial(tasks.add_first, table), range(20)))
    assert got == list(range(20))
    assert executor.stats().bytes_copied_in == table.nbytes


@pytest.mark.parametrize("chunksize", [1, 3])
def test_calls_of_a_map_do_not_see_each_others_writes(executor, chunksize):
    array, shared = np.zeros(100_000), shmexec.zeros(100_000)

    def write(i):
        array[i] = 5
        shared[i] = 1
        return float(array.sum())

    got = list(executor.map(write, range(12), chunksize=chunksize))
    assert got == [5 + 5 * (i % chunksize) for i in range(12)]  # a chunk is one call
    assert array.sum() == 0
    assert shared.sum() == 12


def test_a_map_pickles_its_function_once(executor):
    counted = Counted()
    assert list(executor.map(counted, range(30))) == list(range(30))
    assert counted.times == 1


class Counted:
    def __init__(self):
        self.times = 0

    def __getstate__(self):
        self.times += 1
        return {}

    def __call__(self, x):
        return x


def test_buffers_that_a_map_binds_are_each_calls_own(executor):
    data = pickle.PickleBuffer(bytearray(200_000))
    bound = executor.map(functools.partial(tasks.write_buffer, data), range(1, 7))
    assert list(bound) == list(range(1, 7))


def test_the_arrays_that_a_map_binds_go_with_its_last_call(executor):
    list(executor.map(tasks.double, range(4)))
    before = shmexec.heap_info().blocks
    list(executor.map(functools.partial(tasks.add_first, np.ones(100_000)), range(4)))
    executor.submit(tasks.pid).result()
    assert shmexec.heap_info().blocks <= before + 1
