"""The examples in the docstrings, which the site shows, run as they stand."""

import doctest
import importlib

import numpy as np
import pytest
import tasks

import shmexec
from shmexec import SharedExecutor

ALONE = "register_multiprocessing"  # changes its process for good
CORE = [f"shmexec.{name}" for name in shmexec.__all__ if name not in ("SharedExecutor", ALONE)]


class Shown(doctest.OutputChecker):
    """An example may leave out what it prints."""

    def check_output(self, want, got, optionflags):
        return not want or super().check_output(want, got, optionflags)


def examples_of(path):
    module, _, name = path.rpartition(".")
    value = getattr(importlib.import_module(module), name)
    return [test for test in doctest.DocTestFinder(recurse=False).find(value, path) if test.examples]


def run(path, names):
    for test in examples_of(path):
        test.globs = dict(names)
        said = []
        doctest.DocTestRunner(Shown(), verbose=False, optionflags=doctest.ELLIPSIS).run(test, out=said.append)
        assert not said, "".join(said)


@pytest.mark.parametrize("path", [path for path in CORE if examples_of(path)])
def test_the_examples_of_a_docstring_run(path, executor, tmp_path):
    np.save(tmp_path / "picture.npy", np.zeros((200, 200)))
    names = {
        "np": np,
        "shmexec": shmexec,
        "SharedExecutor": SharedExecutor,
        "ex": executor,
        "f": tasks.give,
        "look_at": tasks.give,
        "sort_in_place": tasks.give,
        "arrays": [np.ones(10)],
        "table": shmexec.zeros(1000),
        "paths": [tmp_path / "picture.npy"] * 2,
    }
    run(path, names)


def test_the_example_that_changes_its_process_runs_in_one_of_its_own(script):
    source = "".join(example.source for test in examples_of(f"shmexec.{ALONE}") for example in test.examples)
    ends = "print(queue.get().shape)\nqueue.close()\nqueue.join_thread()\n"
    assert script(f"import multiprocessing\nimport shmexec\n{source}{ends}").stdout == "(1000,)\n"


def test_the_example_of_the_backend_of_joblib_runs():
    joblib = pytest.importorskip("joblib")
    pytest.importorskip("sklearn")
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV

    from shmexec.integrations.joblib import shutdown

    names = {"shmexec": shmexec, "joblib": joblib, "GridSearchCV": GridSearchCV}
    names |= {"estimator": Ridge(), "grid": {"alpha": [1.0, 2.0]}, "X": np.eye(20), "y": np.arange(20.0)}
    run("shmexec.integrations.joblib.register", names)
    shutdown()
