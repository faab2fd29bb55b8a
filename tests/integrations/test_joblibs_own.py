"""joblib's own tests of its backends pass with ours in the place of loky: some of each kind."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_joblibs_tests_of_its_backends_pass(beside_tests):
    paths = [*filter(None, sys.path), str(ROOT)]  # the same package as here
    done = subprocess.run(
        [sys.executable, "-m", "tests.joblib_backend", "--short"],
        cwd=beside_tests,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
