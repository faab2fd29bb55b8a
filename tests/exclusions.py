"""Tests of others that make no sense here, and why: a table beside the runner, a name and its reason in each line."""

from pathlib import Path


def read(path: Path) -> dict[str, str]:
    """The reasons, by name."""
    table = {}
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, reason = line.partition(" ")
            table[name] = reason.strip()
    return table
