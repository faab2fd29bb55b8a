"""The model of who reads the answers: sound in all interleavings, and each fault that could be made is found."""

import subprocess
import sys
from pathlib import Path

MODEL = Path(__file__).parent.parent / "docs" / "internals" / "model" / "hub.py"


def test_no_interleaving_leaves_an_answer_unread():
    done = subprocess.run([sys.executable, str(MODEL)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("pass") == 8
