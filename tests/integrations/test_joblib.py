"""joblib's `Parallel` on our pool: what its users can rely on."""

import multiprocessing
import os
import sys
import threading
import time
from importlib import import_module

import joblib
import numpy as np
import pytest
import sequencer
import tasks
from joblib import Parallel, delayed

import shmexec
from shmexec import WorkerDied
from shmexec.integrations import joblib as backend
from shmexec.integrations.kept import KeptPools

MANY = 1000  # seconds; for tasks that never end by themselves


@pytest.fixture
def on_two(nothing_left):
    """Two workers for whatever is in the test."""
    backend.register()
    with joblib.parallel_config("shmexec", n_jobs=2):
        yield
    backend.shutdown()


@pytest.fixture
def pool(executor):
    """A pool that the test can look into, in the place of a kept one."""
    backend.register()
    with joblib.parallel_config("shmexec", executor=executor, n_jobs=2):
        yield executor


def write_and_double(array, value):
    array[0] = value
    return array * 2


def pid():
    return os.getpid()


def who_and_wait(say, wait):
    tasks.pass_gates(say, wait)
    return os.getpid()


def inner(count, name=None):
    return Parallel(n_jobs=2, backend=name)(delayed(divmod)(i, 2) for i in range(count)), os.getpid()


# ---- arrays ----------------------------------------------------------------------------------------


def test_arrays_of_all_sizes_are_writeable_and_private_and_results_are_writeable(pool):
    for size in (3, 1_000, 20_000, 300_000):
        array = np.zeros(size)
        results = Parallel()(delayed(write_and_double)(array, i) for i in range(10))
        assert [result[0] for result in results] == [2 * i for i in range(10)]
        assert not array.any()
        results[0][:] = 1
    assert shmexec.is_shared(results[0])
    del results
    assert pool.stats().bytes_copied_out < 20 * 8_000  # the small ones


def test_an_array_in_all_tasks_is_copied_once_and_none_on_its_way_back(pool):
    array = np.zeros(100_000)
    results = Parallel(pre_dispatch="all", batch_size=1)(delayed(write_and_double)(array, i) for i in range(12))
    stats = pool.stats()
    assert stats.bytes_copied_in <= 2 * array.nbytes
    assert stats.bytes_by_name_in >= 10 * array.nbytes
    assert stats.bytes_copied_out == 0
    del results


def test_what_tasks_write_into_a_shared_array_is_seen(on_two):
    array = shmexec.zeros((4, 50_000))
    Parallel()(delayed(write_and_double)(row, i) for i, row in enumerate(array))
    assert list(array[:, 0]) == [0, 1, 2, 3]


# ---- how results come, and when tasks go ------------------------------------------------------------


def test_results_come_as_a_list_or_one_by_one_in_order_or_not(on_two):
    jobs = [delayed(pow)(i, 2) for i in range(40)]
    squares = [i**2 for i in range(40)]
    assert Parallel()(jobs) == squares
    assert list(Parallel(return_as="generator")(jobs)) == squares
    assert sorted(Parallel(return_as="generator_unordered")(jobs)) == squares
    assert Parallel(batch_size=7, pre_dispatch="all")(jobs) == squares


def test_unordered_results_do_not_wait_for_a_slow_task(on_two, gate):
    slow = gate("slow")
    jobs = [delayed(slow.wait_open)(), *(delayed(abs)(-i) for i in range(1, 6))]
    results = Parallel(return_as="generator_unordered", batch_size=1)(jobs)
    assert sorted(next(results) for _ in range(5)) == [1, 2, 3, 4, 5]
    slow.open()
    assert list(results) == [None]


def test_no_more_tasks_are_taken_than_are_dispatched_before(on_two, gate):
    say, wait = gate("say"), gate("wait")
    taken = []

    def jobs():
        for i in range(8):
            taken.append(i)
            yield delayed(tasks.pass_gates)(say, wait, i)

    results = Parallel(pre_dispatch=3, batch_size=1, return_as="generator")(jobs())
    say.wait_open()
    say.wait_open()
    assert len(taken) == 3
    wait.open(100)
    assert list(results) == list(range(8))


def test_batches_grow_when_tasks_are_short(on_two):
    with Parallel() as parallel:
        parallel(delayed(abs)(i) for i in range(1000))
        assert parallel._backend.compute_batch_size() > 1
        assert parallel.n_dispatched_batches < 1000


def test_two_generators_at_a_time_in_one_context_do_not_disturb_each_other(on_two):
    first = Parallel(return_as="generator")(delayed(abs)(i) for i in range(20))
    second = Parallel(return_as="generator_unordered")(delayed(pow)(i, 2) for i in range(20))
    assert next(first) == 0
    assert sorted(second) == [i**2 for i in range(20)]
    assert list(first) == list(range(1, 20))


def test_threads_can_use_it_at_the_same_time(on_two):
    found = {}

    def work(number):
        backend.register()
        with joblib.parallel_config("shmexec", n_jobs=2):
            found[number] = Parallel()(delayed(pow)(i, number) for i in range(10))

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [i**number for i in range(10)] for number in (1, 2, 3)}


# ---- when something goes wrong ------------------------------------------------------------------------


def test_an_error_ends_what_runs_and_what_waits_and_the_next_call_works(pool, gate):
    say, never = gate("say"), gate("never")
    jobs = [delayed(tasks.pass_gates)(say, never), delayed(fail_when)(say), *[delayed(never.wait_open)()] * 10]
    with pytest.raises(ValueError, match="that one") as caught:
        Parallel(batch_size=1, pre_dispatch="all")(jobs)
    assert "fail_when" in str(caught.value.__cause__)  # the worker's traceback
    assert Parallel()(delayed(abs)(-i) for i in range(4)) == [0, 1, 2, 3]
    stats = pool.stats()
    assert (stats.calls_waiting, stats.workers_died) == (0, 0)


def fail_when(say):
    say.wait_open()
    raise ValueError("that one")


def test_what_takes_too_long_is_ended(on_two):
    with pytest.raises(multiprocessing.TimeoutError):
        Parallel(timeout=0.05)(delayed(time.sleep)(MANY) for _ in range(3))
    with pytest.raises(multiprocessing.TimeoutError):
        list(Parallel(timeout=0.05, return_as="generator_unordered")(delayed(time.sleep)(MANY) for _ in range(3)))
    assert Parallel(timeout=MANY)(delayed(abs)(-i) for i in range(4)) == [0, 1, 2, 3]


def test_a_generator_that_is_dropped_ends_its_tasks(pool, gate):
    say, never = gate("say"), gate("never")
    results = Parallel(return_as="generator", batch_size=1)(delayed(tasks.pass_gates)(say, never) for _ in range(6))
    say.wait_open()
    with pytest.warns(UserWarning, match="cancelled"):
        del results
    assert Parallel()(delayed(abs)(-i) for i in range(4)) == [0, 1, 2, 3]


def test_a_worker_that_dies_is_named_with_its_task_and_replaced(on_two):
    with pytest.raises(WorkerDied) as caught:
        Parallel()(delayed(os._exit)(3) for _ in range(2))
    assert caught.value.exitcode == 3
    assert "a batch of joblib: _exit" in caught.value.__notes__[0]
    assert Parallel()(delayed(abs)(-i) for i in range(4)) == [0, 1, 2, 3]


def test_an_error_of_the_iterator_comes_out(on_two):
    def jobs():
        for i in range(30):
            if i == 20:
                raise LookupError("no more")
            yield delayed(abs)(i)

    with pytest.raises(LookupError, match="no more"):
        Parallel(batch_size=1)(jobs())


def test_what_cannot_be_pickled_is_an_error_and_not_a_wait(on_two):
    with pytest.raises(TypeError, match="cannot be pickled"):
        Parallel()(delayed(id)(threading.Lock()) for _ in range(5))


def test_a_pool_that_its_owner_has_shut_down_is_an_error_and_not_a_wait(pool, gate):
    say, wait = gate("say"), gate("wait")
    jobs = (delayed(tasks.pass_gates)(say, wait, i) for i in range(20))
    results = Parallel(batch_size=1, return_as="generator")(jobs)
    say.wait_open()
    pool.shutdown(wait=False)
    wait.open(100)
    with pytest.raises(RuntimeError, match="after shutdown"):
        list(results)


# ---- nesting, threads, reuse -------------------------------------------------------------------------


def test_parallel_in_a_task_takes_threads_or_a_pool_of_its_own(on_two):
    expected = [divmod(i, 2) for i in range(4)]
    for name in None, "shmexec", "threading":
        results = Parallel(batch_size=1)(delayed(inner)(4, name) for _ in range(3))
        assert [found for found, _ in results] == [expected] * 3
        assert os.getpid() not in {pid for _, pid in results}


def test_the_threads_of_libraries_can_be_limited(on_two):
    def limits():
        return os.environ["OMP_NUM_THREADS"], os.environ["NUMBA_NUM_THREADS"], threads_of_blas()

    with joblib.parallel_config("shmexec", n_jobs=2, inner_max_num_threads=3):
        for omp, numba, blas in Parallel()(delayed(limits)() for _ in range(2)):
            assert (omp, numba) == ("3", "3")
            assert blas <= {3}


def threads_of_blas():
    from threadpoolctl import threadpool_info

    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_calls_use_the_same_workers_again_unless_they_want_others(on_two):
    def workers(**how):
        return set(Parallel(batch_size=1, **how)(delayed(pid)() for _ in range(10)))

    before = workers()
    assert len(before | workers() | workers(return_as="list", verbose=0)) <= 2
    with Parallel(n_jobs=2) as parallel:
        assert {*parallel(delayed(pid)() for _ in range(4))} | before <= before | workers()
    assert not before & workers(initializer=os.getpid)
    assert len(before | workers()) <= 2


def test_a_pool_that_nobody_has_used_for_some_time_ends_and_of_many_the_oldest():
    pools = KeptPools()
    first = pools.acquire({"max_workers": 1}, {})
    first.submit(pid).result()
    pools.release(first, 0.0)  # it may wait no time at all
    sequencer.wait_until(lambda: "shmexec-idle-pools" not in {thread.name for thread in threading.enumerate()})
    assert first._shutdown_thread
    made = [pools.acquire({"max_workers": 1}, {"number": i}) for i in range(3)]
    assert pools.acquire({"max_workers": 1}, {"number": 2}) is made[2]
    for executor in (*made, made[2]):
        pools.release(executor, MANY)
    assert [executor._shutdown_thread for executor in made] == [True, False, False]
    pools.shutdown()
    assert all(executor._shutdown_thread for executor in made)


def test_a_broken_pool_is_not_used_again(on_two):
    for _ in range(2):
        with pytest.raises(shmexec.WorkerDied.__mro__[1], match="initializer"):
            Parallel(initializer=divmod, initargs=(1, 0))(delayed(pid)() for _ in range(3))
    assert Parallel()(delayed(abs)(i) for i in range(3)) == [0, 1, 2]


def test_without_a_number_a_context_has_all_cores_and_parallel_alone_one(make_executor):
    backend.register()
    with joblib.parallel_config("shmexec"):
        assert joblib.effective_n_jobs(None) == joblib.effective_n_jobs(-1) == joblib.cpu_count()
        assert joblib.effective_n_jobs(5) == 5
    assert Parallel(backend="shmexec")._effective_n_jobs() == 1
    with joblib.parallel_config("shmexec", executor=make_executor(3)):
        assert [joblib.effective_n_jobs(n) for n in (None, -1, -2, 2, 8)] == [3, 3, 2, 2, 3]


# ---- bad input -----------------------------------------------------------------------------------------


def test_wrong_parameters_are_named(on_two, executor):
    with pytest.raises(ValueError, match="n_jobs == 0"):
        Parallel(n_jobs=0)([delayed(abs)(1)])
    with pytest.raises(TypeError, match="no parameter 'colour'"):
        joblib.parallel_config("shmexec", colour=1)
    with pytest.raises(TypeError, match="no parameter 'timeouts'"):
        Parallel(timeouts=1)([delayed(abs)(1)])
    with pytest.raises(TypeError, match="executor must be a SharedExecutor, not int"):
        backend.ShmexecBackend(executor=3)
    with pytest.raises(ValueError, match="initializer cannot be used with executor"):
        backend.ShmexecBackend(executor=executor, initializer=pid)
    with pytest.raises(ValueError, match="max_tasks_per_child"):
        Parallel(max_tasks_per_child=0)([delayed(abs)(1)] * 2)


def test_without_joblib_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    monkeypatch.delitem(sys.modules, "shmexec.integrations.joblib")
    with pytest.raises(ImportError, match=r"pip install 'shmexec\[joblib\]'"):
        import_module("shmexec.integrations.joblib")


# ---- scikit-learn -----------------------------------------------------------------------------------------

SCIKIT_LEARN = """
import joblib, numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.svm import SVC
from shmexec.integrations.joblib import register

register()
X, y = load_digits(return_X_y=True)
X, y = X[:500], y[:500]
found = {}
for name in "shmexec", "loky":
    with joblib.parallel_config(name, n_jobs=2):
        forest = RandomForestClassifier(12, random_state=0).fit(X, y)
        search = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [1e-3, 1e-2]}, cv=3).fit(X, y)
        scores = cross_val_score(SVC(C=10), *load_breast_cancer(return_X_y=True), cv=4)
    found[name] = (
        forest.predict_proba(X), forest.feature_importances_, search.cv_results_["mean_test_score"],
        search.best_estimator_.dual_coef_, scores,
    )
for one, other in zip(*found.values()):
    assert one.tobytes() == other.tobytes()
print(len(found["loky"]), "equal")
with joblib.parallel_config("shmexec", n_jobs=2):
    modules = joblib.Parallel()(joblib.delayed(lambda: list(__import__("sys").modules))() for _ in range(2))
print({"sklearn.ensemble", "sklearn.svm", "sklearn.linear_model"} - {*modules[0]}, "missing in a worker")
"""


def test_scikit_learn_gives_the_same_numbers_as_with_loky_and_workers_have_it_from_their_beginning(script):
    assert script(SCIKIT_LEARN).stdout == "5 equal\nset() missing in a worker\n"
