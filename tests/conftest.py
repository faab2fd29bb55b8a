"""What holds for every test: it leaves no child process and no open descriptor behind."""

import gc
import os
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import pytest


def children() -> set[int]:
    """The pids of this process's children, zombies included."""
    return {
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    }


def descriptors() -> dict[str, str]:
    """What is open in this process."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            pass  # the one that lists them
    return found


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    resource_tracker.ensure_running()  # it stays for the life of this process
    gc.collect()
    children_before, open_before = children(), descriptors()
    yield
    gc.collect()
    assert children() == children_before
    assert descriptors() == open_before
