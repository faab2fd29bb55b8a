"""Bad input: a message that says what to do, exit status 2, and nothing is written."""

import fcntl
import importlib.util
import os

import numpy as np
import pytest

STEPS = "steps.py:"

CASES = {
    "no function": (["steps"], "'steps' names no function: write package.module:function or file.py:function"),
    "no module": (["nowhere.to.be:found"], "there is no module nowhere"),
    "no file": (["nowhere.py:f"], "nowhere.py"),
    "a typing error": ([STEPS + "tims"], "steps.py has no tims; did you mean times or time?"),
    "no callable": ([STEPS + "HERE"], "is no function, but of type str"),
    "a broken module": (
        ["broken.py:f"],
        "broken.py cannot be imported: ZeroDivisionError: division by zero (broken.py:1",
    ),
    "unknown setting": ([STEPS + "times", "--set", "facto=2"], "times has no such parameter; it has factor, label"),
    "no setting": ([STEPS + "times", "--set", "factor"], "--set factor: write --set name=value"),
    "missing setting": ([STEPS + "killed_at_rename"], "missing a required argument: 'when'"),
    "twice": ([STEPS + "times", "--set", "factor=1", "--set", "factor=2"], "--set factor: given twice"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_makes_no_sense_is_told_before_anything_is_done(folder, run, case):
    folder.make(1)
    (folder.path / "broken.py").write_text("1 / 0")
    arguments, message = CASES[case]
    ran = run(*arguments)
    assert ran.status == 2
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert (ran.out, os.path.exists("results")) == ("", False)


@pytest.mark.parametrize(
    ("files", "out", "message"),
    [
        (["scans/*.tif"], "results", "no file matches 'scans/*.tif'"),
        (["scans", "nowhere.npy"], "results", "no file matches 'nowhere.npy'"),
        (["scans/*.npy"], "scans", "'scans/*.npy' matches only files among the results: take another --out"),
        (["scans/*.npy"], "steps.py", "steps.py is not a folder"),
        (["scans/*.npy"], "/proc/nowhere", "/proc/nowhere cannot be written: "),
        (["scans/*.npy", "other/1.npy"], "results", "would both be written as "),
        (["scans/*.npy"], "foreign", "foreign/1.npy is there, and is not of such a run: --overwrite replaces it"),
    ],
)
def test_files_and_folders_that_make_no_sense_are_told(folder, run, files, out, message):
    folder.make(1)
    for name in "other", "foreign":
        (folder.path / name).mkdir()
        np.save(folder.path / name / "1.npy", np.zeros(1))
    ran = run(STEPS + "times", files=files, out=out)
    assert ran.status == 2
    assert message in ran.err
    assert folder.log() == []
    if out == "foreign":
        assert run(STEPS + "times", "--overwrite", out=out).status == 0
        assert np.load("foreign/1.npy").shape == (2, 3)


def test_a_missing_package_names_the_command_to_type(folder, run, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("PIL", "zarr") else find(name))
    (folder.path / "scans" / "a.png").touch()
    (folder.path / "scans" / "a.zarr").touch()
    assert 'pip install "shmexec[images]"' in run(STEPS + "times", files=["scans/*.png"]).err
    assert 'pip install "shmexec[zarr]"' in run(STEPS + "times", files=["scans/*.zarr"]).err


def test_results_of_other_runs_are_not_mixed_up(folder, run):
    folder.make(1)
    assert run(STEPS + "times").status == 0
    assert "--resume goes on with it, --overwrite does all anew" in run(STEPS + "times").err
    assert "another function" in run(STEPS + "nothing", "--resume").err
    assert "another setting (none, not factor=2)" in run(STEPS + "times", "--resume", "--set", "factor=2").err
    with open("results/.shmexec-map/lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = run(STEPS + "times", "--overwrite")
    assert ran.status == 2
    assert "another shmexec map writes into " in ran.err
    assert folder.log() == [1]
    assert run(STEPS + "times", "--overwrite", "--set", "factor=3").status == 0
    assert np.load("results/1.npy")[0, 0] == 3
