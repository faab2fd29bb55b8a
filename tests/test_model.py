"""The models that are programs: sound in all interleavings, and each fault that could be made is found."""

import subprocess
import sys
from pathlib import Path

import pytest

MODELS = Path(__file__).parent.parent / "docs" / "internals" / "model"


@pytest.mark.parametrize(("model", "runs"), [("hub.py", 8), ("place.py", 4)])
def test_no_interleaving_does_what_must_not_be(model, runs):
    done = subprocess.run([sys.executable, str(MODELS / model)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("pass") == runs
