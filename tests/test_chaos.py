"""Random kills of workers while arrays are in flight: `python -m tests.chaos`, short."""

import os
import subprocess
import sys

import pytest


@pytest.mark.timeout(200)
def test_whoever_is_killed_nothing_is_wrong_lost_or_left(record_property, beside_tests):
    seconds = os.environ.get("SHMEXEC_CHAOS_SECONDS", "30")
    seed = os.environ.get("SHMEXEC_CHAOS_SEED", "1")
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--seconds", seconds, "--seed", seed],
        cwd=beside_tests,
        capture_output=True,
        text=True,
    )
    record_property("figures", done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
