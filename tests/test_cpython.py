"""CPython's own tests of the process pool pass on our class, each with one start method; where there are such tests."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent


def _are_there():
    try:
        return find_spec("test.test_concurrent_futures.test_process_pool") is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False


if _are_there():

    def test_cpythons_tests_of_the_process_pool_pass(beside_tests):
        paths = [*filter(None, sys.path), str(ROOT)]  # the same package as here
        done = subprocess.run(
            [sys.executable, "-m", "tests.cpython", "--short"],
            cwd=beside_tests,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
