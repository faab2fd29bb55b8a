"""Two ways to run the demo: as a user does, and with threads in place of both executors."""

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

import shmexec

needed = ("scipy", "skimage", "tifffile", "PIL")
collect_ignore_glob = [] if all(importlib.util.find_spec(name) for name in needed) else ["test_*.py"]


@pytest.fixture
def demo(tmp_path):
    """Runs the command line in `tmp_path`."""

    def run(*arguments):
        command = [sys.executable, "-m", "shmexec", "demo", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)

    return run


@pytest.fixture
def threads(monkeypatch):
    """Both executors replaced by threads: for tests of what surrounds them."""

    from shmexec.demo import runs

    class Threads(ThreadPoolExecutor):
        def stats(self):
            return SimpleNamespace(bytes_copied_in=0, bytes_copied_out=0, bytes_by_name_in=0, bytes_by_name_out=0)

    monkeypatch.setattr(runs, "ProcessPoolExecutor", Threads)
    monkeypatch.setattr(shmexec, "SharedExecutor", Threads, raising=False)
    monkeypatch.setattr(shmexec, "share", np.copy, raising=False)
