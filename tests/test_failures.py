"""Calls that fail, at every stage of their way: that one future, with the reason; the pool goes on."""

import os
import pickle
import threading
from concurrent import futures
from typing import ClassVar

import faults
import pytest
import tasks

import shmexec


def still_works(executor):
    assert list(executor.map(tasks.double, range(8))) == list(range(0, 16, 2))


def through_submit(executor, function, *arguments):
    return executor.submit(function, *arguments).result()


def through_map(executor, function, *arguments):
    return next(executor.map(function, *([value] for value in arguments)))


def through_chunks(executor, function, *arguments):
    return next(executor.map(function, *([value] * 3 for value in arguments), chunksize=3))


@pytest.fixture(params=[through_submit, through_map, through_chunks])
def call(request):
    return request.param


def test_a_raised_exception_comes_with_its_remote_traceback(executor, call):
    with pytest.raises(faults.Boom, match="over there") as caught:
        call(executor, faults.throw, faults.Boom, "over there")
    cause = str(caught.value.__cause__)
    assert "faults.py" in cause
    assert "in throw" in cause
    assert "raise kind(" in cause
    del caught
    still_works(executor)


class ToldWhere(Exception):
    """Notes which threads of this process unpickle one."""

    threads: ClassVar[list[int]] = []

    def __reduce__(self):
        return _told_where, ()


def _told_where():
    ToldWhere.threads.append(threading.get_ident())
    return ToldWhere()


def test_an_exception_is_unpickled_once_by_who_asks_first(executor):
    ToldWhere.threads.clear()
    future = executor.submit(faults.throw, ToldWhere)
    assert futures.wait([future]).done
    assert not ToldWhere.threads
    assert "raised ToldWhere" in repr(future)
    assert future.exception() is future.exception()
    with pytest.raises(ToldWhere):
        future.result()
    assert ToldWhere.threads == [threading.get_ident()]


class Interrupts(Exception):
    """The first time that one is unpickled in this process Ctrl-C comes."""

    left = 1

    def __reduce__(self):
        return _interrupts, (os.getpid(),)


def _interrupts(pid):
    if pid != os.getpid() and Interrupts.left:
        Interrupts.left -= 1
        raise KeyboardInterrupt
    return Interrupts()


def test_ctrl_c_while_an_exception_is_unpickled_is_not_taken_for_it(executor):
    Interrupts.left = 1
    future = executor.submit(faults.throw, Interrupts)
    with pytest.raises(KeyboardInterrupt):
        future.result()
    assert isinstance(future.exception(), Interrupts)


def test_who_waits_for_a_call_that_raises_needs_no_other_thread(lonely):
    with lonely._pool._collector._duty:
        assert isinstance(lonely.submit(divmod, 1, 0).exception(), ZeroDivisionError)


def test_what_an_exception_carries_comes_along(executor):
    def fail(array):
        error = ValueError("one", array)
        error.add_note("a note")
        error.extra = {"array": array}
        raise error

    array = shmexec.ones(1000)
    error = executor.submit(fail, array).exception()
    assert error.args[0] == "one"
    assert error.__notes__ == ["a note"]
    assert error.extra["array"].ctypes.data == array.ctypes.data == error.args[1].ctypes.data
    del error, array
    group = executor.submit(faults.throw, ExceptionGroup, "many", [ValueError(1), KeyError(2)]).exception()
    assert [type(one) for one in group.exceptions] == [ValueError, KeyError]


@pytest.mark.parametrize(
    "kind", [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError, RecursionError, StopIteration]
)
def test_exceptions_that_mean_something_to_interpreters_fail_their_call(executor, kind):
    future = executor.submit(faults.throw, kind, "there")
    assert type(future.exception()) is kind
    still_works(executor)
    assert executor.stats().workers_died == 0


def test_an_argument_that_cannot_be_pickled_is_named(executor, call):
    with pytest.raises(pickle.PicklingError, match=r"add .*cannot be pickled.*no pickle of this"):
        call(executor, tasks.add, 1, faults.UnpicklableHere())
    with pytest.raises(pickle.PicklingError, match=r"argument 1 of add .*UnpicklableHere.*no pickle of this"):
        executor.submit(tasks.add, 1, faults.UnpicklableHere()).result()
    with pytest.raises(pickle.PicklingError, match="argument 'b' of add"):
        executor.submit(tasks.add, 1, b=faults.UnpicklableHere()).result()
    still_works(executor)


def test_a_function_that_cannot_be_pickled_is_named(executor):
    bad = faults.UnpicklableHere()
    with pytest.raises(pickle.PicklingError, match=r"the function .*<lambda> cannot be pickled.*no pickle of this"):
        executor.submit(lambda: bad).result()
    still_works(executor)


def test_an_argument_that_cannot_be_unpickled_fails_its_call(executor, call):
    with pytest.raises(faults.Boom, match="no unpickling of this"):
        call(executor, tasks.give, faults.UnpicklableThere())
    still_works(executor)


def test_a_function_that_cannot_be_unpickled_fails_its_call(executor):
    bad = faults.UnpicklableThere()
    with pytest.raises(faults.Boom, match="no unpickling of this"):
        executor.submit(lambda: bad).result()
    still_works(executor)


def test_a_result_that_cannot_be_pickled_is_named(executor, call):
    with pytest.raises(pickle.PicklingError, match=r"the result of make .*no pickle of this"):
        call(executor, faults.make, faults.UnpicklableHere)
    still_works(executor)


def test_a_result_that_cannot_be_unpickled_fails_its_call(executor, call):
    with pytest.raises(faults.Boom, match="no unpickling of this") as caught:
        call(executor, faults.make, faults.UnpicklableThere)
    assert "cannot be unpickled in this process" in "".join(caught.value.__notes__)
    del caught
    future = executor.submit(faults.make, faults.UnpicklableThere)
    for _ in range(2):
        assert isinstance(future.exception(), faults.Boom)
        with pytest.raises(faults.Boom):
            future.result()
    still_works(executor)


@pytest.mark.parametrize("kind", [faults.NonsenseReduce, lambda: (i for i in range(3)), threading.Lock])
def test_what_no_pickler_takes_fails_its_call_either_way(executor, kind):
    with pytest.raises((pickle.PicklingError, TypeError), match="cannot be pickled"):
        executor.submit(tasks.give, kind()).result()
    with pytest.raises((pickle.PicklingError, TypeError), match="cannot be pickled"):
        executor.submit(faults.make, kind).result()
    still_works(executor)


def test_something_that_contains_itself_too_deeply_fails_its_call(executor):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises((pickle.PicklingError, RecursionError)):
        executor.submit(tasks.give, deep).result()

    def make():
        deep = []
        for _ in range(100_000):
            deep = [deep]
        return deep

    with pytest.raises((pickle.PicklingError, RecursionError)):
        executor.submit(make).result()
    still_works(executor)


@pytest.mark.parametrize(
    "make",
    [
        lambda: faults.BadInit("first", "second"),
        lambda: faults.HoldsLock("first"),
        lambda: faults.RaisesFrom("first", pickling=faults.Boom),
        lambda: faults.RaisesFrom("first", unpickling=faults.Boom),
        lambda: faults.RaisesFrom("first", pickling=MemoryError),
        lambda: faults.RaisesFrom("first", pickling=RecursionError),
        lambda: faults.RaisesFrom("first", pickling=SystemExit),
        lambda: faults.RaisesFrom("first", unpickling=SystemExit),
        lambda: faults.RaisesFrom("first", pickling=KeyboardInterrupt),
    ],
)
def test_an_exception_that_cannot_cross_says_what_it_was(executor, make):
    def fail():
        raise make()

    error = executor.submit(fail).exception()
    assert isinstance(error, pickle.PicklingError)
    assert "first" in str(error)
    assert type(make()).__name__ in str(error)
    assert "in fail" in str(error.__cause__)
    still_works(executor)
    assert executor.stats().workers_died == 0


def test_an_exception_whose_unpickling_wants_to_end_the_program_does_so_as_a_values_does(executor):
    """It cannot be told from a Ctrl-C that comes in between."""
    future = executor.submit(faults.throw, faults.RaisesFrom, "first", unpickling=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        future.exception()
    still_works(executor)


def test_an_exception_that_turns_into_something_else_is_reported(executor):
    class Odd(Exception):
        def __reduce__(self):
            return int, ("5",)

    error = executor.submit(faults.throw, Odd, "odd").exception()
    assert isinstance(error, BaseException)
    assert "odd" in str(error)
    still_works(executor)


def test_an_exception_without_words_fails_its_call(executor):
    assert isinstance(executor.submit(faults.throw, faults.MuteError).exception(), faults.MuteError)
    for stage in [
        (tasks.give, faults.UnpicklableHere(faults.MuteError)),
        (faults.make, faults.UnpicklableHere, faults.MuteError),
    ]:
        with pytest.raises(Exception, match="cannot be pickled"):
            executor.submit(*stage).result()
        still_works(executor)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_pickling_code_that_wants_to_leave_fails_its_call(executor, error):
    with pytest.raises(error):
        executor.submit(tasks.give, faults.UnpicklableHere(error)).result()
    with pytest.raises(error):
        executor.submit(tasks.give, faults.UnpicklableThere(error)).result()
    with pytest.raises(error):
        executor.submit(faults.make, faults.UnpicklableHere, error).result()
    with pytest.raises(error):
        executor.submit(faults.make, faults.UnpicklableThere, error).result()
    still_works(executor)
    assert executor.stats().workers_died == 0


def test_one_bad_item_fails_its_chunk_and_no_other(executor):
    values = [1, 2, 3, faults.UnpicklableThere(), 5, 6, 7, 8]
    got = executor.map(lambda value: value, values, chunksize=2)
    assert [next(got), next(got)] == [1, 2]
    with pytest.raises(faults.Boom):
        next(got)
    still_works(executor)


def test_a_failed_call_keeps_no_memory(executor):
    executor.submit(tasks.pid).result()
    before = shmexec.heap_info().blocks

    def fail(array):
        local = array[::2] + shmexec.ones(50_000)
        raise ValueError(len(local))

    for _ in range(10):
        error = executor.submit(fail, shmexec.ones(100_000)).exception()
        assert error.args == (50_000,)
        assert executor.submit(tasks.add, shmexec.ones(100_000), faults.UnpicklableHere()).exception()
    del error
    executor.submit(tasks.pid).result()
    assert shmexec.heap_info().blocks <= before + 2
