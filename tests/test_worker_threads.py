"""Threads of BLAS and OpenMP in workers."""

import os

import numpy as np
import pytest

import shmexec
from shmexec import _core
from shmexec.pool.threads import VARIABLES, variables

threadpoolctl = pytest.importorskip("threadpoolctl")


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def multiply(n=500):
    """How many threads NumPy's BLAS may take for a product, and how many this process has after one."""
    before = len(os.listdir("/proc/self/task"))
    a = np.ones((n, n))
    assert (a @ a)[0, 0] == n
    limits = {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}
    return limits, len(os.listdir("/proc/self/task")) - before + 1


def multiply_by_scipy():
    from scipy import linalg

    a = np.eye(300)
    linalg.lu_factor(a)
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize("wanted", [1, 3])
def test_a_product_takes_as_many_threads_as_the_pool_was_told(make_executor, method, wanted):
    executor = make_executor(1, method, worker_threads=wanted)
    limits, threads = executor.submit(multiply).result()
    assert limits == {wanted}
    assert threads <= wanted
    # SciPy's BLAS is another, which is loaded only now; by itself it takes no more than there are cores
    assert max(executor.submit(multiply_by_scipy).result()) == wanted


def test_a_worker_of_the_fork_server_has_no_thread_of_blas_to_begin_with(make_executor):
    executor = make_executor(1, worker_threads=1)
    executor.submit(multiply).result()
    assert executor.submit(count_tasks).result() <= 2  # itself, and who watches its parent


def count_tasks():
    return len(os.listdir("/proc/self/task"))


def test_the_cores_are_shared_among_the_workers():
    cores = _core.usable_cores()
    assert 1 <= cores <= len(os.sched_getaffinity(0))
    assert set(variables(None, 1, {}).values()) == {str(cores)}
    assert set(variables(None, 2 * cores, {}).values()) == {"1"}
    assert set(variables(None, 1, {})) == set(VARIABLES)


def test_what_the_user_has_set_wins():
    assert variables(None, 1, {"OMP_NUM_THREADS": "7"}) == {}
    assert set(variables(None, 1, {"MKL_NUM_THREADS": "7"})) == set(VARIABLES) - {"MKL_NUM_THREADS"}
    assert variables(5, 1, {"OMP_NUM_THREADS": "7"}) == dict.fromkeys(VARIABLES, "5")


SAID = [("OMP_NUM_THREADS", "3"), ("OPENBLAS_NUM_THREADS", "3"), ("OMP_NUM_THREADS", "3,2")]


@pytest.mark.parametrize(("name", "value"), SAID)
def test_workers_have_what_the_environment_says(make_executor, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    limits, _ = make_executor(2).submit(multiply).result()
    assert limits == {3}
    assert make_executor(1, worker_threads=1).submit(multiply).result()[0] == {1}


def test_by_default_all_workers_together_have_one_thread_a_core(make_executor):
    executor = make_executor(2)
    assert executor.submit(multiply).result()[0] == {max(1, _core.usable_cores() // 2)}
    assert executor.submit(os.getenv, "OMP_NUM_THREADS").result() == str(max(1, _core.usable_cores() // 2))


def test_the_parent_keeps_its_threads_and_its_environment(make_executor):
    before = {pool["filepath"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
    make_executor(1, worker_threads=1).submit(multiply).result()
    assert {pool["filepath"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()} == before
    assert not any(name in os.environ for name in VARIABLES)


@pytest.mark.parametrize(("wrong", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)])
def test_worker_threads_is_an_integer_above_zero(wrong, error):
    with pytest.raises(error, match="worker_threads"):
        shmexec.SharedExecutor(1, worker_threads=wrong)
