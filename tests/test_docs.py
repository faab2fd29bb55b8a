"""The pages of the documentation run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "\n```python\n" in path.read_text()
]


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run_in_order(page, tmp_path):
    pytest.importorskip("scipy")
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks))
    ran = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, cwd=tmp_path)
    assert ran.stderr == ""
    promised = re.findall(r"^ *print\(.*\) +# (.+)$", "\n".join(blocks), re.MULTILINE)
    printed = ran.stdout.splitlines()
    assert len(printed) >= len(promised)
    for text in promised:  # the output, and after it maybe a word about it
        assert text.startswith("about ") or any(re.match(re.escape(line) + r"($|[:;,])", text) for line in printed), (
            text
        )
