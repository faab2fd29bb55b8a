"""mypy infers what `submit` and `map` return, and finds wrong calls; so does pyright, where that is installed."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILE = Path("tests", "typed", "calls.py")
CHECKERS = {
    "mypy": [sys.executable, "-m", "mypy", "--no-error-summary", str(FILE)],
    "pyright": ["pyright", "--pythonpath", sys.executable, str(FILE)],
}


@pytest.mark.parametrize("checker", ["mypy", *filter(shutil.which, ["pyright"])])
def test_a_type_checker_finds_what_is_wrong_and_nothing_else(checker):
    ran = subprocess.run(CHECKERS[checker], cwd=ROOT, capture_output=True, text=True)
    found = {int(line) for line in re.findall(r"calls\.py:(\d+)(?::\d+)?:? (?:- )?error", ran.stdout)}
    lines = (ROOT / FILE).read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# WRONG")}
    assert found == wrong, ran.stdout + ran.stderr
