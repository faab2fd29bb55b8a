"""A folder of files, functions of a user, and the command line in this process."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from shmexec.__main__ import main

STEPS = '''
import errno, os, signal, time
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))

def note(what):
    with open(os.path.join(HERE, "log"), "a") as file:
        file.write(f"{what}\\n")

def times(array, factor=1, label: str = ""):
    print("printed by a task")
    note(int(array.flat[0]))
    return array * factor

def mean(array):
    return {"mean": array.mean(), "shape": array.shape}

def what(value):
    return sorted(value) if isinstance(value, dict) else [str(value.dtype), *value.shape]

def halves(array):
    return {"low": array[:1], "high": array[1:]}

def nothing(array):
    note(int(array.flat[0]))

def thing(array):
    return object()

def trouble(array):
    """0: well; 1: raises; 2: dies; 3: takes too long; 4: fails at first."""
    case = int(array.flat[0])
    note(case)
    if case == 1:
        raise ValueError("no such\\npicture")
    if case == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    while case == 3:
        time.sleep(0.01)
    if case == 4 and not os.path.exists(os.path.join(HERE, "tried")):
        open(os.path.join(HERE, "tried"), "w").close()
        raise OSError("the network is away")
    return array

def killed_at_rename(array, when):
    """The first time, just before or just after its result gets its name."""
    note(int(array.flat[0]))
    rename = os.rename
    def killing(*names):
        if when == "after":
            rename(*names)
        os.kill(os.getpid(), signal.SIGKILL)
    if not os.path.exists(os.path.join(HERE, "killed")):
        open(os.path.join(HERE, "killed"), "w").close()
        os.rename = killing
    return array

def at_gate(array):
    """Notes that it has begun; those of 2 and more wait for a gate."""
    from sequencer import Gate
    case = int(array.flat[0])
    if case >= 2:
        say, wait = Gate.__new__(Gate), Gate.__new__(Gate)
        say.__setstate__(os.path.join(HERE, "gate-say"))
        wait.__setstate__(os.path.join(HERE, "gate-wait"))
        if str(os.getpid()) in orphans():
            signal.pause()  # it was begun by a worker that does not know yet that its parent is dead: SIGTERM comes
        say.open()
        wait.wait_open()
    note(case)
    return array

def orphans():
    path = os.path.join(HERE, "orphans")
    return open(path).read().split() if os.path.exists(path) else []

def on_full_disk(array):
    if not os.path.exists(os.path.join(HERE, "room")):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left")
        os.fsync = full
    return array

def resident(array):
    import shmexec
    note(shmexec.heap_info().bytes_resident)

class Namespace:
    @staticmethod
    def inner(array):
        return array
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The present folder, with steps.py in it, and what makes .npy files."""
    (tmp_path / "steps.py").write_text(STEPS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)
    (tmp_path / "scans").mkdir()

    def make(*values):
        for value in values:
            np.save(tmp_path / "scans" / f"{value}.npy", np.full((2, 3), value))

    yield SimpleNamespace(path=tmp_path, make=make, log=lambda: log(tmp_path))
    for name in set(sys.modules) - modules:
        if name.startswith("steps"):
            del sys.modules[name]


def log(path):
    return sorted(map(int, (path / "log").read_text().split())) if (path / "log").exists() else []


@pytest.fixture
def run(folder, capsys):
    """Runs `shmexec map FUNCTION 'scans/*.npy' --out results ...`."""

    def run(function, *options, files=("scans/*.npy",), out="results"):
        status = main(["map", function, *map(str, files), "--out", str(out), "--workers", "2", *options])
        said = capsys.readouterr()
        told = json.loads(said.out) if "--json" in options and status != 2 else None
        return SimpleNamespace(status=status, out=said.out, err=said.err, json=told)

    return run
