"""The pages of the documentation run as they stand; commands: test_commands.py."""

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

PRINTED = ("argument 0 of", "800,000 bytes by name")  # how blocks begin that show what an example has printed


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run_in_order(page, tmp_path):
    pytest.importorskip("scipy")
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks))
    ran = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    promised = re.findall(r"^ *print\(.*\) +# (.+)$", "\n".join(blocks), re.MULTILINE)
    printed = ran.stdout.splitlines()
    assert len(printed) >= len(promised)
    lines = iter(printed)
    for text in promised:  # the output, and after it maybe a word about it
        assert text.startswith("about ") or any(re.match(re.escape(line) + r"($|[:;,])", text) for line in lines), (
            text,
            printed,
        )

    for block in re.findall(r"^```text\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE):
        if block.startswith(PRINTED):
            for line in filter(None, block.splitlines()):
                pattern = re.escape(line).replace(re.escape("..."), ".*")
                pattern = re.sub(r"\d+\\ pickled", r"\\d+ pickled", pattern)  # by the version of NumPy
                assert re.search(f"^{pattern}$", ran.stdout, re.MULTILINE), line


PROGRAMS = [(page, n) for page in PAGES for n in range((ROOT / page).read_text().count("\n```py\n"))]


@pytest.mark.parametrize(("page", "n"), PROGRAMS)
def test_a_program_that_needs_a_guard_runs_by_itself(page, n, tmp_path):
    """A block of `py`. What stands before the first of them on the page belongs to each."""
    pytest.importorskip("scipy")
    text = (ROOT / page).read_text()
    before = re.findall(r"^```python\n(.*?)^```$", text.partition("\n```py\n")[0], re.DOTALL | re.MULTILINE)
    block = re.findall(r"^```py\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[n]
    assert "__main__" in block
    script = tmp_path / "program.py"
    script.write_text("\n".join([*before, block]))
    forks = "ignore:This process:DeprecationWarning"  # is the standard library's own way, before 3.14
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-W", forks, script], capture_output=True, text=True, cwd=tmp_path
    )
    assert (ran.returncode, ran.stderr) == (0, "")
