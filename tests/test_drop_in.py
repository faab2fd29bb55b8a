"""In the place of the standard library's process pool: what code that was written for that one asks of it."""

import concurrent.futures
import gc
import inspect
import itertools
import logging
import logging.handlers
import multiprocessing
import os
import pickle
import queue
import threading
import weakref
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor

import faults
import pytest
import sequencer
import tasks

import shmexec
from shmexec import SharedExecutor, WorkerDied

# of 3.14's; of those without a default it is None
SIGNATURES = {
    "__init__": ("max_workers", "mp_context", "initializer", "initargs", "max_tasks_per_child"),
    "submit": ("fn", "args", "kwargs"),
    "map": ("fn", "iterables", "timeout", "chunksize", "buffersize"),
    "shutdown": ("wait", "cancel_futures"),
}
PRIVATE = (
    "_start_executor_manager_thread",
    "_adjust_process_count",
    "_launch_processes",
    "_spawn_process",
    "_force_shutdown",
    "_executor_manager_thread",
    "_call_queue",
)


def test_it_is_an_instance_of_the_standard_librarys_class(executor):
    assert isinstance(executor, concurrent.futures.ProcessPoolExecutor)
    assert isinstance(executor, concurrent.futures.Executor)


def test_nothing_is_inherited_by_accident(executor):
    for name in {*vars(ProcessPoolExecutor), *PRIVATE} - vars(SharedExecutor).keys() - vars(object).keys():
        if not name.startswith("__"):
            assert not hasattr(executor, name), name
    with pytest.raises(AttributeError, match=r"SharedArrayProcessPoolExecutor.*_spawn_process.*private"):
        executor._spawn_process()
    inherited = [name for name in dir(executor) if hasattr(executor, name)]
    owners = {name: next(c for c in SharedExecutor.__mro__ if name in vars(c)) for name in inherited if name[0] != "_"}
    assert all(owner is not ProcessPoolExecutor for owner in owners.values())


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_have_all_that_the_standard_librarys_have(name):
    ours = inspect.signature(getattr(SharedExecutor, name)).parameters
    assert [parameter for parameter in ours if parameter in SIGNATURES[name]] == list(SIGNATURES[name])
    theirs = inspect.signature(getattr(ProcessPoolExecutor, name)).parameters
    for key, parameter in theirs.items():
        assert ours[key].kind == parameter.kind
        assert (ours[key].default is parameter.empty) == (parameter.default is parameter.empty)
        assert ours[key].default == parameter.default or key == "chunksize"  # ours adapts
    new = [parameter for key, parameter in ours.items() if key not in theirs]
    assert all(parameter.kind == parameter.KEYWORD_ONLY for parameter in new)


def test_help_and_its_like_can_look_at_the_class():
    import pydoc

    assert "kernel name" in pydoc.render_doc(SharedExecutor)
    assert dict(inspect.getmembers(SharedExecutor))["submit"] is SharedExecutor.submit


def test_what_other_libraries_read_of_it_is_there(make_executor, gate):
    executor = make_executor(3)
    assert executor._max_workers == 3
    assert executor._processes == {}
    assert executor._pending_work_items == {}
    assert executor._broken is executor._shutdown_thread is False
    assert executor._mp_context.get_start_method() == "forkserver"
    say, wait = gate("say"), gate("wait")
    future = executor.submit(tasks.pass_gates, say, wait, 5)
    (number,) = executor._pending_work_items
    assert executor._pending_work_items[number].future is future
    assert [process.pid for process in executor._processes.values()] == list(executor._processes)
    wait.open()
    assert future.result() == 5
    executor.shutdown()
    assert executor._shutdown_thread is True
    assert executor._pending_work_items == {}


@pytest.mark.parametrize("name", ["fork", "forkserver", "spawn"])
def test_the_context_that_was_given_is_kept(make_executor, name):
    context = multiprocessing.get_context(name)
    assert make_executor(1, context)._mp_context is context
    assert make_executor(1, max_tasks_per_child=3)._mp_context.get_start_method() == "spawn"


def test_anything_that_tells_its_start_method_is_a_context(make_executor):
    assert make_executor(1, multiprocessing).submit(tasks.double, 4).result() == 8  # the module, or a library's own


# ---- when workers are started ----------------------------------------------------------------------------------------


def test_a_worker_that_is_idle_is_used_before_another_is_started(make_executor):
    executor = make_executor(4)
    for i in range(5):
        assert executor.submit(tasks.double, i).result() == 2 * i
    assert len(executor._processes) == 1


def test_each_call_that_finds_no_idle_worker_starts_one(make_executor):
    executor = make_executor(3)
    started = []
    for _ in range(5):  # none of these reaches a worker: the first one is not known to be idle yet
        with pytest.raises(pickle.PicklingError):
            executor.submit(tasks.give, faults.UnpicklableHere(pickle.PicklingError)).result()
        started.append(len(executor._processes))
    assert started == [1, 2, 3, 3, 3]


def test_a_call_that_waits_for_another_starts_no_worker_before_its_time(make_executor, gate):
    executor = make_executor(3)
    say, wait = gate("say"), gate("wait")
    first = executor.submit(tasks.pass_gates, say, wait, 5)
    later = [executor.submit(tasks.double, first) for _ in range(4)]
    say.wait_open()
    assert len(executor._processes) == 1
    wait.open()
    assert [future.result() for future in later] == [10] * 4


def test_fork_starts_all_workers_with_the_first_call(make_executor):
    executor = make_executor(3, "fork")
    executor.submit(tasks.double, 1)
    assert len(executor._processes) == 3


# ---- the standard library's rule for deaths --------------------------------------------------------------------------


def test_a_broken_pool_says_it_in_the_standard_librarys_words(make_executor):
    executor = make_executor(1, on_worker_death="break")
    future = executor.submit(faults.die)
    with pytest.raises(WorkerDied, match=r"terminated abruptly while the future was running or pending.*signal 9"):
        future.result()
    with pytest.raises(
        BrokenProcessPool, match=r"terminated abruptly, the process pool is not usable anymore.*signal 9"
    ):
        executor.submit(tasks.double, 1)
    assert "not usable anymore" in executor._broken


@pytest.mark.parametrize("error", [faults.Boom, SystemExit])
def test_what_cannot_be_unpickled_breaks_a_pool_that_breaks(make_executor, error):
    executor = make_executor(1, on_worker_death="break")
    with pytest.raises(
        BrokenProcessPool, match=r"call of give could not be unpickled.*no unpickling of this"
    ) as caught:
        executor.submit(tasks.give, faults.UnpicklableThere(error)).result()
    assert isinstance(caught.value.__cause__, error)
    with pytest.raises(BrokenProcessPool):
        executor.submit(tasks.double, 1)
    executor = make_executor(1, on_worker_death="break")
    future = executor.submit(faults.make, faults.UnpicklableThere, error)
    for _ in range(2):
        with pytest.raises(BrokenProcessPool, match=r"result could not be unpickled.*no unpickling of this"):
            future.result()
    with pytest.raises(BrokenProcessPool):
        executor.submit(tasks.double, 1)


def test_what_cannot_be_unpickled_fails_alone_in_other_pools(executor):
    for future in (
        executor.submit(tasks.give, faults.UnpicklableThere()),
        executor.submit(faults.make, faults.UnpicklableThere),
    ):
        with pytest.raises(faults.Boom, match="no unpickling of this"):
            future.result()
    assert executor.submit(tasks.double, 2).result() == 4


# ---- `submit` overridden ---------------------------------------------------------------------------------------------


class Counting(shmexec.SharedExecutor):
    """As programs do it that want to know of each call."""

    def submit(self, fn, /, *args, **kwargs):
        future = super().submit(fn, *args, **kwargs)
        self.submitted.append(future)
        return future


@pytest.mark.parametrize("size", [None, 1, 3])
@pytest.mark.parametrize("where", ["subclass", "instance"])
def test_map_goes_through_a_submit_that_was_overridden(executor, where, size):
    if where == "subclass":
        pool = Counting(2)
        pool.submitted = submitted = []
    else:
        pool, submitted = executor, []

        def submit(*args):
            submitted.append(type(executor).submit(executor, *args))
            return submitted[-1]

        pool.submit = submit
    try:
        found = list(pool.map(tasks.add, range(7), itertools.repeat(1), chunksize=size))
        lazily = list(pool.map(tasks.add, range(7), itertools.repeat(1), chunksize=size, buffersize=2))
    finally:
        if where == "subclass":
            pool.shutdown()
        else:
            del pool.submit
    assert found == lazily == list(range(1, 8))
    assert len(submitted) == 2 * -(-7 // (size or 1))
    assert all(future.done() for future in submitted)


# ---- initializers ----------------------------------------------------------------------------------------------------


def log_and_fail(messages):
    logger = logging.getLogger("concurrent.futures")
    logger.addHandler(logging.handlers.QueueHandler(messages))
    logger.propagate = False
    raise ValueError("no licence")


@pytest.mark.parametrize("name", ["fork", "forkserver", "spawn"])
def test_what_an_initializer_raises_is_logged_before_anybody_learns_of_it(make_executor, name):
    context = multiprocessing.get_context(name)
    messages = context.Queue()
    executor = make_executor(1, context, log_and_fail, (messages,))
    with pytest.raises(BrokenProcessPool, match="no licence"):
        executor.submit(tasks.double, 1).result()
    texts = []
    while True:
        try:
            texts.append(messages.get_nowait().getMessage())
        except queue.Empty:
            break
    messages.close()
    messages.join_thread()
    assert any("Exception in initializer" in text and "ValueError: no licence" in text for text in texts)


_kept = None


def keep(thing):
    global _kept
    _kept = thing


def use_kept():
    with _kept.get_lock() if hasattr(_kept, "get_lock") else _kept:
        return os.getppid()


_first = multiprocessing.Value("d")  # the memory that the standard library gets for the first it keeps for all
DEFAULT = multiprocessing.get_all_start_methods()[0]
KINDS = [multiprocessing.Lock, multiprocessing.BoundedSemaphore, lambda: multiprocessing.Value("d")]
if DEFAULT == "fork":
    KINDS.append(threading.Lock)  # which nothing but a fork can pass on


@pytest.mark.parametrize("kind", KINDS)
def test_locks_of_the_default_context_are_passed_on_by_a_pool_that_was_given_none(make_executor, kind):
    executor = make_executor(2, None, keep, (kind(),))
    parent = executor.submit(use_kept).result()
    assert {executor.submit(use_kept).result() for _ in range(4)} == {parent}
    assert (parent == os.getpid()) == (DEFAULT == "fork")
    assert len(executor._processes) == (2 if DEFAULT == "fork" else 1)
    error = executor.submit(faults.die).exception()  # and replaced by a fork, too
    assert isinstance(error, WorkerDied)
    assert executor.submit(use_kept).result() == parent


class Named:
    """Something that can be pickled and whose end can be seen."""


def test_a_pool_that_is_shut_down_has_let_go_of_its_initargs(make_executor):
    thing = Named()
    executor = make_executor(1, None, tasks.give, (thing,))
    assert executor.submit(tasks.double, 1).result() == 2
    gone = weakref.ref(thing)
    del thing
    gc.disable()  # a semaphore has to go at once, or the resource tracker calls it leaked
    try:
        executor.shutdown()
        assert gone() is None
    finally:
        gc.enable()


# ---- what goes by reference ------------------------------------------------------------------------------------------


def test_class_methods_see_the_module_that_they_are_in(make_executor):
    executor = make_executor(1)
    step = tasks.Stepper.step
    assert [executor.submit(step).result() for _ in range(3)] == [("Stepper", 1), ("Stepper", 2), ("Stepper", 3)]
    stepper = tasks.BorrowingStepper()
    assert [executor.submit(stepper.step).result() for _ in range(3)] == [4, 5, 6]


RAISING = """
import multiprocessing, sys, traceback
from shmexec import SharedExecutor

def fail():
    raise ValueError("over there")  # a comment

with SharedExecutor(1, multiprocessing.get_context(sys.argv[1])) as ex:
    for function in fail, lambda: [][1]:  # another
        print("".join(traceback.format_exception(ex.submit(function).exception())))
"""


@pytest.mark.parametrize("name", ["fork", "forkserver", "spawn"])
def test_remote_tracebacks_show_the_lines_of_a_script(script, name):
    shown = script(RAISING, name).stdout
    assert 'raise ValueError("over there")  # a comment' in shown
    assert "lambda: [][1]:  # another" in shown
    assert os.path.join(script.folder, "program.py") in shown


def test_remote_tracebacks_are_the_standard_librarys(executor):
    error = executor.submit(faults.throw, faults.Boom).exception()
    assert type(error.__cause__) is concurrent.futures.process._RemoteTraceback
    assert "raise kind(" in error.__cause__.tb


def test_a_thread_that_cannot_be_started_is_no_hang(make_executor, monkeypatch):
    """As at the end of an interpreter."""
    executor = make_executor(1)

    def refuse(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr("threading.Thread.start", refuse)
    with pytest.raises(RuntimeError, match="can't create new thread"):
        executor.submit(tasks.double, 1)
    monkeypatch.undo()
    assert shmexec.is_shared(executor.submit(shmexec.zeros, 3).result())
    sequencer.wait_until(lambda: not executor._pending_work_items)
