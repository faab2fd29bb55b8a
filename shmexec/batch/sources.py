"""The files: which a pattern means, what their results are called, and how to tell whether one has changed."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shmexec.batch import readers
from shmexec.batch.errors import NotStarted, shown


@dataclass(frozen=True, slots=True)
class Source:
    """One file.

    `key` is the path of its result below the results' folder, without an ending; `size` and `changed` (nanoseconds)
    tell whether it is still the same; a file that cannot be looked at has -1.
    """

    path: str
    key: str
    size: int
    changed: int


def find_sources(patterns: Sequence[str], out: str) -> list[Source]:
    """Those of all patterns, each once, sorted by name; what lies in the results' folder is none.

    NotStarted if a pattern means nothing, or two files would have one result.
    """
    here = os.path.join(os.path.realpath(out), "")
    keys: dict[str, str] = {}
    for pattern in patterns:
        found = within = False
        for path, key in _matches(pattern):
            if os.path.join(os.path.realpath(os.path.dirname(path)), "").startswith(here):
                within = True
                continue
            found = True
            keys.setdefault(path, key)
        if within and not found:
            raise NotStarted(f"{pattern!r} matches only files among the results: take another --out")
        if not found:
            raise NotStarted(f"no file matches {pattern!r}")
    owners: dict[str, str] = {}
    for path, key in keys.items():
        other = owners.setdefault(key, path)
        if other != path:
            raise NotStarted(
                f"{shown(other)} and {shown(path)} would both be written as {shown(os.path.join(out, key))}: give them "
                "folders of their own by --out, or quote a pattern with ** in it, which keeps the folders"
            )
    return [Source(path, key, *_stamp(path)) for path, key in sorted(keys.items())]


def _matches(pattern: str) -> Iterator[tuple[str, str]]:
    """(absolute path, key)."""
    if os.path.lexists(pattern):
        if os.path.isdir(pattern) and not readers.is_store(pattern):
            names = sorted(os.listdir(pattern))
            paths = [os.path.join(pattern, name) for name in names if readers.is_known(name) and name[0] != "."]
            root = pattern
        else:
            paths, root = [pattern], os.path.dirname(pattern)
    else:
        paths = [path for path in glob.iglob(pattern, recursive=True) if _is_source(path)]
        root = pattern
        while glob.has_magic(root):
            root = os.path.dirname(root)
    root = os.path.abspath(root)
    for path in paths:
        path = os.path.abspath(path)
        yield path, os.path.splitext(os.path.relpath(path, root))[0]


def _is_source(path: str) -> bool:
    """A folder is none, unless it is a store; nor is what lies in a store."""
    if os.path.isdir(path):
        return readers.is_store(path)
    folder = os.path.dirname(path)
    while not folder.endswith(readers.STORE) and os.path.basename(folder):
        folder = os.path.dirname(folder)
    return not folder.endswith(readers.STORE)


def _stamp(path: str) -> tuple[int, int]:
    try:
        if not os.path.isdir(path):
            stat = os.stat(path)
            return stat.st_size, stat.st_mtime_ns
        files = [os.stat(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names]
        return sum(file.st_size for file in files), max((file.st_mtime_ns for file in files), default=0)
    except OSError:
        return -1, -1
