"""mypy infers what `submit` and `map` return, and finds wrong calls; so does pyright, where there is node for it."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILE = Path("tests", "typed", "calls.py")
CHECKERS = {
    "mypy": [sys.executable, "-m", "mypy", "--no-error-summary", str(FILE)],
    "pyright": [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(FILE)],
}


HAS_PYRIGHT = find_spec("pyright") is not None and shutil.which("node") is not None  # else it would fetch one


@pytest.mark.parametrize("checker", ["mypy", *(["pyright"] if HAS_PYRIGHT else [])])
def test_a_type_checker_finds_what_is_wrong_and_nothing_else(checker):
    ran = subprocess.run(CHECKERS[checker], cwd=ROOT, capture_output=True, text=True)
    found = {int(line) for line in re.findall(r"calls\.py:(\d+)(?::\d+)?:? (?:- )?error", ran.stdout)}
    lines = (ROOT / FILE).read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# WRONG")}
    assert found == wrong, ran.stdout + ran.stderr
