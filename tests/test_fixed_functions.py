"""Functions by value that are not pickled for each call: what is replaced in them takes effect with the next call."""

import sys
import types

import cloudpickle
import numpy as np
import pytest
import tasks

from shmexec.pickling import functions

factor = 1


@pytest.fixture
def pickled(monkeypatch):
    """The functions that are pickled by value, in their order."""
    seen, dump = [], functions.dump

    def counted(function, **keywords):
        seen.append(function)
        return dump(function, **keywords)

    monkeypatch.setattr(functions, "dump", counted)
    return seen


def make_scaled(scale):
    def scaled(x):
        return scale * x

    def rescale(value):
        nonlocal scale
        scale = value

    return scaled, rescale


def by_value(function, **names):
    """The same, by value, in a namespace of its own."""
    space = {"__builtins__": __builtins__, **names}
    return types.FunctionType(function.__code__, space, "by_value", function.__defaults__), space


def test_a_function_that_refers_to_nothing_mutable_is_pickled_twice_at_most(executor, pickled):
    scaled, _ = make_scaled(3)
    assert [executor.submit(scaled, i).result() for i in range(20)] == [3 * i for i in range(20)]
    assert executor.submit(scaled, np.arange(3)).result().tolist() == [0, 3, 6]
    assert len(pickled) == 2


@pytest.fixture
def registered(monkeypatch):
    """A module whose functions are to be pickled by value."""
    module = types.ModuleType("registered_by_value")
    exec("def add(x, y=1):\n    return x + y\n", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    cloudpickle.register_pickle_by_value(module)
    yield module
    cloudpickle.unregister_pickle_by_value(module)


def test_a_module_that_is_registered_by_value_matters_to_no_other(executor, pickled, registered):
    scaled, _ = make_scaled(4)
    assert [executor.submit(scaled, i).result() for i in range(5)] == [0, 4, 8, 12, 16]
    assert len(pickled) == 2
    assert [executor.submit(registered.add, i).result() for i in range(5)] == [1, 2, 3, 4, 5]
    assert len(pickled) == 4
    registered.add.__defaults__ = (2,)
    assert executor.submit(registered.add, 0).result() == 2


def test_who_registers_a_module_later_gets_its_functions_by_value(executor, pickled):
    assert [executor.submit(tasks.give, i).result() for i in range(3)] == [0, 1, 2]
    cloudpickle.register_pickle_by_value(tasks)
    try:
        assert [executor.submit(tasks.give, i).result() for i in range(5)] == [0, 1, 2, 3, 4]
        assert len(pickled) == 2
    finally:
        cloudpickle.unregister_pickle_by_value(tasks)
    assert [executor.submit(tasks.give, i).result() for i in range(3)] == [0, 1, 2]
    assert executor._pool.known(tasks.give).is_current(tasks.give)
    assert len(pickled) == 2


def test_a_module_that_is_sent_by_value_is_something_mutable(executor, pickled, registered):
    registered.value = 1

    def value():
        return registered.value

    for i in range(3):
        registered.value = i
        assert executor.submit(value).result() == i
    assert len(pickled) == 3


def test_a_function_that_refers_to_something_mutable_is_pickled_for_each_call(executor, pickled):
    values = [1]

    def count(x):
        return x + len(values)

    for i in range(5):
        assert executor.submit(count, 0).result() == i + 1
        values.append(i)
    assert len(pickled) == 5


def test_a_cell_that_was_set_anew_takes_effect(executor):
    scaled, rescale = make_scaled(3)
    for scale in (3, 5, 3, 7):
        rescale(scale)
        assert [executor.submit(scaled, 2).result() for _ in range(4)] == [2 * scale] * 4


def test_defaults_code_and_attributes_that_were_set_take_effect(executor):
    def plus(x, y=1):
        return x + y

    def minus(x, y=1):
        return x - y

    for y in (1, 4, 1):
        plus.__defaults__ = (y,)
        assert [executor.submit(plus, 2).result() for _ in range(4)] == [2 + y] * 4
    plus.__kwdefaults__ = {}
    plus.__code__ = minus.__code__
    assert [executor.submit(plus, 2).result() for _ in range(4)] == [1] * 4

    def tagged(x):
        return getattr(tagged, "tag", None)

    for tag in ("a", "b", "a"):
        tagged.tag = tag
        assert [executor.submit(tagged, 2).result() for _ in range(3)] == [tag] * 3


def test_a_global_that_was_set_added_or_deleted_takes_effect(executor):
    def times(x):
        return x * factor

    function, space = by_value(times, factor=2)
    for value in (2, 3, 2, 1.5):
        space["factor"] = value
        assert [executor.submit(function, 4).result() for _ in range(4)] == [4 * value] * 4
    del space["factor"]
    for _ in range(4):
        assert isinstance(executor.submit(function, 4).exception(), NameError)
    space["factor"] = 5
    assert executor.submit(function, 4).result() == 20


def test_a_helper_that_was_replaced_takes_effect(executor):
    def helped(x):
        return assistant(x)  # noqa: F821

    def one(x):
        return 1

    def two(x):
        return 2

    function, space = by_value(helped, assistant=one)
    for helper, value in ((one, 1), (two, 2), (one, 1)):
        space["assistant"] = helper
        assert [executor.submit(function, 4).result() for _ in range(4)] == [value] * 4


def test_no_call_sees_what_another_left_in_its_function(lonely):
    def counter():
        count = 0

        def increase():
            nonlocal count
            count += 1
            return count

        return increase

    increase = counter()
    assert [lonely.submit(increase).result() for _ in range(6)] == [1] * 6


@pytest.fixture
def lonely(make_executor):
    return make_executor(1)


def test_generators_of_lambdas_are_not_kept(lonely, pickled):
    results = [lonely.submit(lambda x, i=i: x + i, 1).result() for i in range(600)]
    assert results == [1 + i for i in range(600)]
    assert len(pickled) == 600


def test_a_map_goes_on_with_the_function_as_it_was(lonely):
    scaled, rescale = make_scaled(3)
    results = lonely.map(scaled, range(20), chunksize=1, buffersize=2)
    seen = [next(results)]
    rescale(5)
    assert lonely.submit(scaled, 1).result() == 5
    assert lonely.submit(scaled, 1).result() == 5
    assert [*seen, *results] == [3 * i for i in range(20)]


IN_MAIN = """
import shmexec
limit = 1
def helper(): return limit
def first(): return "first", limit, helper()
def second(): return "second", limit
calls = 0
def count():
    global calls
    calls += 1
    return calls
def starts():
    global limit_of_worker
    limit_of_worker = 77
limit_of_worker = None
def of_worker(): return limit_of_worker

with shmexec.SharedExecutor(1, CONTEXT, initializer=starts) as ex:
    for _ in range(4):
        assert ex.submit(first).result() == ("first", 1, 1)
        assert ex.submit(of_worker).result() == 77
    limit = 2
    assert [ex.submit(second).result() for _ in range(4)] == [("second", 2)] * 4
    limit = 1
    for _ in range(4):
        assert ex.submit(first).result() == ("first", 1, 1)
        assert ex.submit(second).result() == ("second", 1)
    assert ex.submit(count).result() == 1 and ex.submit(count).result() == 2
    before = helper
    def helper(): return "other"
    for _ in range(4):
        assert ex.submit(first).result() == ("first", 1, "other")
    helper, other = before, helper
    for _ in range(4):
        assert ex.submit(first).result() == ("first", 1, 1)
        assert ex.submit(other).result() == "other"
    def first(x=5): return x
    assert [ex.submit(first).result() for _ in range(4)] == [5] * 4
    assert ex.submit(of_worker).result() == 77
print("done")
"""


def test_functions_of_main_see_what_they_would_if_they_were_pickled_each_time(script, method):
    context = "None" if method is None else f"__import__('multiprocessing').get_context('{method}')"
    assert script(IN_MAIN.replace("CONTEXT", context)).stdout == "done\n"
