"""Coverage of lines that ran in workers, as users of pytest-cov measure it."""

import json
import subprocess
import sys

import pytest

CONFIGURATION = """
[run]
concurrency = multiprocessing, thread
patch = subprocess{fork}
parallel = true
"""

WORK = """
def in_worker(x):
    y = x + 1
    return y

def never(x):
    return x
"""

TESTS = """
import multiprocessing
from shmexec import SharedExecutor
import work

def test_it():
    context = None if "{method}" == "default" else multiprocessing.get_context("{method}")
    with SharedExecutor(1, context) as ex:
        assert ex.submit(work.in_worker, 1).result() == 2
"""


@pytest.mark.parametrize("method", ["default", "fork", "forkserver", "spawn"])
def test_pytest_cov_measures_lines_that_ran_in_workers(method, tmp_path):
    (tmp_path / ".coveragerc").write_text(CONFIGURATION.format(fork=", fork" if method == "fork" else ""))
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "test_work.py").write_text(TESTS.format(method=method))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--cov=work", "--cov-report=json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = json.loads((tmp_path / "coverage.json").read_text())["files"]["work.py"]["executed_lines"]
    assert {3, 4} <= set(lines), "the lines of in_worker"
    assert 7 not in lines
