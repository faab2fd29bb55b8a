"""Whole programs that start workers: without a guard, under coverage.py, with only what they need."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from shmexec.pool.launcher import METHODS

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file


def run_program(source: str, *arguments: str, how: str = "script", directory: Path, **options: Any) -> str:
    """The standard output of a program, which ends well and quietly."""
    (directory / "program.py").write_text(source)
    command, text = {
        "script": (["program.py"], None),
        "-m": (["-m", "program"], None),
        "-c": (["-c", source], None),
        "stdin": (["-"], source),
    }[how]
    done = subprocess.run(
        [sys.executable, *command, *arguments],
        input=text,
        capture_output=True,
        text=True,
        cwd=directory,
        **options,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


PROGRAM = """
import multiprocessing, os, sys
from shmexec.pool.launcher import Launcher

class Local:
    value = 1

def work(local, fds):
    import beside
    method = multiprocessing.get_start_method(allow_none=True)
    os.write(fds[0], f"{local.value + beside.value} {method}".encode())

print("main", flush=True)
reads, writes = os.pipe()
with Launcher(sys.argv[1]) as launcher:
    job = lambda fds, local=Local(): work(local, fds)
    worker = launcher.start("operator:call", job, name="w", fds=[writes])
    os.close(writes)
    print(open(reads, "rb").read().decode(), multiprocessing.get_start_method(allow_none=True))
    print(multiprocessing.active_children())
    worker.join()
    print(worker.exitcode)
"""


@pytest.mark.parametrize("how", ["script", "-m", "-c", "stdin"])
@pytest.mark.parametrize("method", METHODS)
def test_a_program_without_a_guard_sends_what_is_in_main(method: str, how: str, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("value = 41")
    output = run_program(PROGRAM, method, how=how, directory=tmp_path)
    assert output == "main\n42 None None\n[]\n0\n"


COVERED = """
import beside, sys
from shmexec.pool.launcher import Launcher
with Launcher(sys.argv[1]) as launcher:
    worker = launcher.start("operator:call", lambda fds: beside.work(), name="w")
    worker.join()
    sys.exit(worker.exitcode)
"""
BESIDE = """
def work():
    first = 1
    second = 2
    return first + second
"""
CONFIG = """
[run]
concurrency = multiprocessing, thread
patch = subprocess
parallel = true
source = .
omit = program.py
"""


@pytest.mark.parametrize("method", METHODS)
def test_coverage_measures_what_ran_in_workers(method: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(COVERED)
    (tmp_path / "beside.py").write_text(BESIDE)
    (tmp_path / ".coveragerc").write_text(CONFIG)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    for command in (["run", "program.py", method], ["combine", "-q"]):
        subprocess.run([sys.executable, "-m", "coverage", *command], cwd=tmp_path, env=environment, check=True)
    report = subprocess.run(
        [sys.executable, "-m", "coverage", "report", "--format=total"],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert report.stdout.strip() == "100"


def test_the_workers_side_is_not_imported_by_the_parents(tmp_path: Path) -> None:
    source = """
import sys
from shmexec.pool.launcher import Launcher
for method in "forkserver", "spawn":
    with Launcher(method) as launcher:
        launcher.start("operator:call", lambda fds: None, name="w").join()
print([name for name in sys.modules if name.startswith("shmexec.worker")])
"""
    assert run_program(source, directory=tmp_path) == "[]\n"
