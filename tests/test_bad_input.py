"""What makes no sense is refused at once, with an exception that names the argument; and the pool goes on."""

import inspect
import multiprocessing
import sys
import threading
from concurrent.futures import ProcessPoolExecutor

import faults
import numpy as np
import pytest
import tasks

import shmexec
from shmexec import SharedExecutor, _core

CONSTRUCTOR = [
    ({"max_workers": 0}, ValueError, "max_workers"),
    ({"max_workers": -3}, ValueError, "max_workers"),
    ({"max_workers": 2.5}, TypeError, "max_workers"),
    ({"max_workers": "2"}, TypeError, "max_workers"),
    ({"max_workers": True}, TypeError, "max_workers"),
    ({"mp_context": "fork"}, TypeError, "mp_context"),
    ({"mp_context": 3}, TypeError, "mp_context"),
    ({"initializer": 5}, TypeError, "initializer"),
    ({"initargs": 5}, TypeError, "initargs"),
    ({"finalizer": "print"}, TypeError, "finalizer"),
    ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child"),
    ({"max_tasks_per_child": 1.0}, TypeError, "max_tasks_per_child"),
    ({"on_worker_death": "ignore"}, ValueError, "on_worker_death"),
    ({"on_worker_death": None}, ValueError, "on_worker_death"),
    ({"max_bytes": 0}, ValueError, "max_bytes"),
    ({"max_bytes": -1}, ValueError, "max_bytes"),
    ({"max_bytes": 1 << 20}, ValueError, "max_bytes must be at least"),
    ({"max_bytes": 1 << 60}, ValueError, "max_bytes must be at most"),
    ({"shared_results": "yes"}, TypeError, "shared_results"),
    ({"max_bytes": "1G"}, TypeError, "max_bytes"),
    ({"preload": "numpy"}, TypeError, "preload must be a sequence of names of modules, not 'numpy'"),
    ({"preload": [np]}, TypeError, "preload"),
    (
        {"preload": ["no_such_module.part"]},
        ModuleNotFoundError,
        "preload names a module that is not there: 'no_such_mod",
    ),
    ({"max_wrokers": 1}, TypeError, "max_wrokers"),
]


@pytest.mark.parametrize(("options", "error", "name"), CONSTRUCTOR, ids=str)
def test_constructors_name_the_argument_they_refuse(options, error, name):
    with pytest.raises(error, match=name):
        SharedExecutor(**options)


def test_a_constructor_that_refuses_changes_nothing():
    before = shmexec.heap_info().bytes_limit
    try:
        with pytest.raises(TypeError, match="mp_context"):
            SharedExecutor(2, "no context", max_bytes=1 << 20)
        assert shmexec.heap_info().bytes_limit == before
    finally:
        _core.set_limit(0)


def test_counts_may_be_numpys_integers(make_executor):
    executor = make_executor(np.int64(1), max_tasks_per_child=np.int32(100))
    assert list(executor.map(tasks.double, range(5), chunksize=np.int64(2), buffersize=np.uint8(2))) == [0, 2, 4, 6, 8]


def test_contexts_of_all_kinds_are_taken(make_executor):
    for context in multiprocessing.get_context(), multiprocessing.get_context("spawn"):
        assert make_executor(1, context).submit(tasks.double, 1).result() == 2


@pytest.mark.parametrize("thing", [None, 5, "print", [print], ()], ids=repr)
def test_what_cannot_be_called_is_refused(executor, thing):
    for method in executor.submit, executor.map:
        with pytest.raises(TypeError, match="callable"):
            method(thing, [1])
    assert executor.submit(tasks.double, 2).result() == 4


def test_submit_wants_a_function(executor):
    with pytest.raises(TypeError):
        executor.submit()
    with pytest.raises(TypeError):
        executor.submit(fn=print)


@pytest.mark.parametrize("name", ["chunksize", "buffersize"])
@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("1", TypeError), (True, TypeError)]
)
def test_map_refuses_sizes_at_once(executor, name, value, error):
    taken = []
    with pytest.raises(error, match=name):
        executor.map(tasks.double, map(taken.append, range(5)), **{name: value})
    assert taken == []
    assert list(executor.map(tasks.double, [2])) == [4]


def test_map_refuses_what_cannot_be_iterated_and_bad_timeouts_at_once(executor):
    with pytest.raises(TypeError):
        executor.map(tasks.double, 5)
    with pytest.raises(TypeError):
        executor.map(tasks.double, [5], timeout="soon")
    assert list(executor.map(tasks.double, [2])) == [4]


def test_a_call_with_wrong_arguments_fails_alone(executor):
    with pytest.raises(TypeError, match="double"):
        executor.submit(tasks.double).result()
    with pytest.raises(TypeError, match="nonsense"):
        executor.submit(tasks.double, 1, nonsense=2).result()
    assert executor.submit(tasks.double, 2).result() == 4


def test_a_closed_pool_says_so(make_executor):
    executor = make_executor(1)
    assert executor.submit(tasks.double, 2).result() == 4
    executor.shutdown()
    for method in executor.submit, executor.map:
        with pytest.raises(RuntimeError, match="after shutdown"):
            method(tasks.double, [1])
    assert executor.stats().calls_done == 1
    with pytest.raises(RuntimeError):
        executor.__enter__().submit(tasks.double, 1)


# ---- beside the standard library -------------------------------------------------------------------------------------

# (arguments, options) of the constructor
REFUSED = [
    ((0,), {}),
    ((-1,), {}),
    (("2",), {}),
    ((2.0,), {}),
    (([],), {}),
    ((1, None, 5), {}),
    ((1, None, "print"), {}),
    ((1, None, None, (), 5), {}),
    ((), {"max_wrokers": 1}),
    ((), {"max_tasks_per_child": 0}),
    ((), {"max_tasks_per_child": -1}),
    ((), {"max_tasks_per_child": 1.5}),
    ((), {"max_tasks_per_child": "1"}),
    ((1, multiprocessing.get_context("fork")), {"max_tasks_per_child": 1}),
]


def refusal(call, *arguments, **options):
    """What it raises."""
    try:
        call(*arguments, **options)
    except BaseException as error:
        return error.with_traceback(None)
    return None


def assert_alike(ours, theirs, name=""):
    assert ours is not None, f"{name}: not refused"
    assert isinstance(ours, type(theirs)), f"{name}: {ours!r} is not like {theirs!r}"
    named = str(theirs).startswith(("max_workers", "max_tasks_per_child", "initializer", "chunksize", "buffersize"))
    if named or isinstance(
        theirs, RuntimeError
    ):  # words that were chosen, not what Python says of something that went wrong
        assert str(ours).startswith(str(theirs).rstrip(".")), f"{str(ours)!r} does not begin as {str(theirs)!r}"


@pytest.mark.parametrize(("arguments", "options"), REFUSED, ids=str)
def test_constructors_refuse_what_the_standard_librarys_refuses_with_its_exception(arguments, options):
    theirs = refusal(ProcessPoolExecutor, *arguments, **options)
    assert_alike(refusal(SharedExecutor, *arguments, **options), theirs)


def test_the_one_refusal_with_another_type():
    """Of what is no context: there it is an accident of the code, that something has no `get_start_method`."""
    assert type(refusal(ProcessPoolExecutor, 1, "fork")) is AttributeError
    assert type(refusal(SharedExecutor, 1, "fork")) is TypeError


CALLS = {
    "nothing to submit": lambda ex: ex.submit(),
    "the function by keyword": lambda ex: ex.submit(fn=print),
    "submit of what is no function": lambda ex: ex.submit(5).result(),
    "submit of None": lambda ex: ex.submit(None, 1).result(),
    "wrong arguments": lambda ex: ex.submit(tasks.double).result(),
    "a wrong keyword": lambda ex: ex.submit(tasks.double, x=1, y=2).result(),
    "an argument that no pickle takes": lambda ex: ex.submit(tasks.give, threading.Lock()).result(),
    "a generator": lambda ex: ex.submit(tasks.give, (i for i in range(3))).result(),
    "nothing to map": lambda ex: ex.map(),
    "map of what is no function": lambda ex: list(ex.map(5, [1])),
    "a number to map on": lambda ex: list(ex.map(tasks.double, 5)),
    "None to map on": lambda ex: list(ex.map(tasks.double, [1], None)),
    "map with too many iterables": lambda ex: list(ex.map(tasks.double, [1], [2])),
    "a map with a wrong keyword": lambda ex: ex.map(tasks.double, [1], chunk=1),
    "a map with a timeout of words": lambda ex: list(ex.map(tasks.double, [1], timeout="soon")),
    "chunks of 0": lambda ex: ex.map(tasks.double, [1], chunksize=0),
    "chunks of -1": lambda ex: ex.map(tasks.double, [1], chunksize=-1),
    "chunks of a word": lambda ex: ex.map(tasks.double, [1], chunksize="1"),
    "what raises": lambda ex: ex.submit(divmod, 1, 0).result(),
    "an iterator that raises": lambda ex: list(ex.map(tasks.double, (1 // i for i in (1, 0)))),
    "shutdown with too much": lambda ex: ex.shutdown(True, True),
}
if sys.version_info >= (3, 12):  # before, what the standard library makes of it is an accident
    CALLS["chunks of 1.5"] = lambda ex: list(ex.map(tasks.double, [1, 2, 3], chunksize=1.5))
if "buffersize" in inspect.signature(ProcessPoolExecutor.map).parameters:  # 3.14
    CALLS |= {
        "a buffer of 0": lambda ex: ex.map(tasks.double, [1], buffersize=0),
        "a buffer of words": lambda ex: ex.map(tasks.double, [1], buffersize="1"),
        "a buffer of 1.5": lambda ex: ex.map(tasks.double, [1], buffersize=1.5),
    }
WAITS = {  # for a call that does not end before its gate is opened
    "a timeout of words": lambda ex, wait: ex.submit(wait).result(timeout="soon"),
    "exception() with words": lambda ex, wait: ex.submit(wait).exception(timeout="soon"),
    "a call that takes too long": lambda ex, wait: ex.submit(wait).result(timeout=0),
    "a map that takes too long": lambda ex, wait: list(ex.map(tasks.call, [wait], timeout=0)),
}
CLOSED = {
    "submit after shutdown": lambda ex: ex.submit(tasks.double, 1),
    "map after shutdown": lambda ex: ex.map(tasks.double, [1]),
    "with, after shutdown": lambda ex: ex.__enter__().submit(tasks.double, 1),
}


def test_calls_are_refused_as_by_the_standard_librarys_pool(make_executor, gate):
    ours = make_executor(1)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as theirs:
        for name, call in CALLS.items():
            assert_alike(refusal(call, ours), refusal(call, theirs), name)
        for number, (name, call) in enumerate(WAITS.items()):
            wait = gate(number)  # its own: a token that a slow worker left would let the next call through
            assert_alike(refusal(call, ours, wait.wait_open), refusal(call, theirs, wait.wait_open), name)
            wait.open(2)
    ours.shutdown()
    for name, call in CLOSED.items():
        assert_alike(refusal(call, ours), refusal(call, theirs), name)


# ---- what comes later ------------------------------------------------------------------------------------------------


def test_initargs_that_cannot_be_pickled_break_the_pool_and_say_why(make_executor):
    executor = make_executor(1, None, tasks.give, (faults.UnpicklableHere(),))
    with pytest.raises(Exception, match="no pickle of this"):
        executor.submit(tasks.double, 1).result()
    with pytest.raises(Exception, match="no pickle of this"):
        executor.submit(tasks.double, 1).result()


def test_initargs_that_cannot_be_unpickled_break_the_pool_and_say_why(make_executor):
    executor = make_executor(1, None, tasks.give, (faults.UnpicklableThere(),))
    with pytest.raises(Exception, match="no unpickling of this"):
        executor.submit(tasks.double, 1).result()


def test_a_second_worker_that_cannot_be_started_leaves_the_first(make_executor, gate):
    executor = make_executor(2, None, tasks.give, (faults.PickledSoOften(1),))
    say, wait = gate("say"), gate("wait")
    busy = executor.submit(tasks.pass_gates, say, wait, 5)
    say.wait_open()
    queued = [executor.submit(tasks.double, i) for i in range(4)]
    wait.open()
    assert busy.result() == 5
    assert [future.result() for future in queued] == [0, 2, 4, 6]


def test_more_workers_than_a_heap_has_places_for_is_no_error_until_they_are_needed(make_executor):
    executor = make_executor(100_000)
    assert executor.submit(tasks.double, 2).result() == 4
    assert list(executor.map(tasks.double, range(3))) == [0, 2, 4]


def test_an_array_that_is_too_large_to_cross_fails_its_call(executor):
    giant = np.broadcast_to(np.zeros(1), (1 << 45,))
    with pytest.raises(shmexec.SharedMemoryFull):
        executor.submit(np.shape, giant).result()
    with pytest.raises(shmexec.SharedMemoryFull):
        executor.submit(lambda: np.broadcast_to(np.zeros(1), (1 << 45,))).result()
    assert executor.submit(tasks.double, 2).result() == 4
