"""The example of docs/batch.md is run as it stands, in a shell."""

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "batch.md"
VARIES = re.compile(r"[\d.]+ (ms|s|kB|MB)|'.*'")  # times and sizes, paths


def test_the_example_of_the_page_says_what_the_page_says(tmp_path):
    text = PAGE.read_text()
    (tmp_path / "edges.py").write_text(re.search(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[1])
    lines = re.search(r"^```console\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[1].splitlines()
    commands = [line[2:] for line in lines if line.startswith("$ ")]
    folder = os.path.dirname(sys.executable)
    ran = subprocess.run(
        ["bash", "-c", "\n".join(commands)],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    said = "\n".join(line for line in lines if not line.startswith("$ "))
    assert VARIES.sub("...", ran.stdout).split() == VARIES.sub("...", said).split(), ran.stderr
    assert ran.stderr.startswith("shmexec map: photos/notes.png: cannot be read: ")
    assert ran.stderr.count("\n") == 1
