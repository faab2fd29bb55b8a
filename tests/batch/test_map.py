"""`shmexec map`: what is read, called and written; what fails; what it says."""

import json
import os
import pickle

import numpy as np
import pytest
import tifffile
from PIL import Image

from shmexec import quantities
from shmexec.batch import display, functions

STEPS = "steps.py:"


def test_each_file_is_given_to_the_function_and_its_result_is_written(folder, run):
    folder.make(1, 2, 3)
    ran = run(STEPS + "times", "--set", "factor=1.5", "--set", "label=2")
    assert ran.status == 0
    assert ran.out.startswith("3 files done, 0 failed, 0 left; ")
    assert "printed by a task" not in ran.out
    for value in 1, 2, 3:
        np.testing.assert_array_equal(np.load(f"results/{value}.npy"), np.full((2, 3), value * 1.5))
    assert sorted(os.listdir("results")) == [".shmexec-map", "1.npy", "2.npy", "3.npy"]
    assert os.listdir("results/.shmexec-map/tmp") == []


def test_every_kind_of_file_is_read_and_folders_below_are_kept(folder, run):
    pytest.importorskip("zarr")
    scans = folder.path / "scans"
    (scans / "sub").mkdir()
    np.save(scans / "sub" / "a.npy", np.zeros((2, 3), np.int16))
    np.savez(scans / "b.npz", x=np.zeros(2), y=np.zeros(3))
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(scans / "c.png")
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(scans / "d.JPG")
    tifffile.imwrite(scans / "e.tif", np.zeros((2, 6, 7), np.uint16))
    np.save("f.npy", np.ones((3, 2), np.float32))
    for _ in range(2):  # a store takes the place of another, too
        ran = run(STEPS + "times", "--format", "zarr", "--overwrite", files=["f.npy"], out="scans")
        assert ran.status == 0, ran
    ran = run(STEPS + "what", files=["scans/**"])
    assert ran.status == 0, ran
    told = {
        path.stem: json.loads(path.read_text())
        for path in (folder.path / "results").rglob("*.json")
        if path.stem != "job"
    }
    assert told == {
        "a": ["int16", 2, 3],
        "b": ["x", "y"],
        "c": ["uint8", 4, 5, 3],
        "d": ["uint8", 4, 5],
        "e": ["uint16", 2, 6, 7],
        "f": ["float32", 3, 2],
    }
    assert (folder.path / "results" / "sub" / "a.json").exists()
    ran = run(STEPS + "times", "--set", "factor=2", files=["scans/f.zarr", "scans/sub"], out="again")
    assert ran.status == 0, ran
    np.testing.assert_array_equal(np.load("again/f.npy"), np.full((3, 2), 2))


@pytest.mark.parametrize(
    ("function", "options", "name"),
    [
        ("mean", [], "7.json"),
        ("halves", [], "7.npz"),
        ("Namespace.inner", ["--format", "tif"], "7.tif"),
        ("nothing", [], None),
    ],
)
def test_the_kind_of_the_result_follows_from_what_it_is_or_is_chosen(folder, run, function, options, name):
    folder.make(7)
    assert run(STEPS + function, *options).status == 0
    assert [one for one in os.listdir("results") if one[0] != "."] == ([name] if name else [])
    if function == "mean":
        assert json.loads((folder.path / "results" / name).read_text()) == {"mean": 7, "shape": [2, 3]}
    elif function == "nothing":
        assert run(STEPS + function, "--resume").out.startswith("nothing to do, 1 done before")
        assert folder.log() == [7]


def test_what_fails_is_named_with_its_reason_and_the_rest_is_done(folder, run):
    folder.make(0, 1, 2, 4)
    scans = folder.path / "scans"
    (scans / "junk.npy").write_text("garbage, which is no array")
    np.save(scans / "objects.npy", np.array([{}]), allow_pickle=True)
    os.mkfifo(scans / "pipe.npy")
    (scans / "gone.npy").symlink_to("nowhere")
    (scans / "new\nline.txt").touch()
    ran = run(STEPS + "trouble", "--json", "--retries", "1", files=["scans/*"])
    assert ran.status == 1
    assert (ran.json["done"], ran.json["left"], ran.json["stopped"]) == (2, 0, "")
    assert sorted(one for one in os.listdir("results") if one[0] != ".") == ["0.npy", "4.npy"]
    failed = {os.path.basename(one["file"]): one for one in ran.json["failed"]}
    reasons = {name: one["reason"] for name, one in failed.items()}
    died = reasons.pop("2.npy")
    assert died.startswith("worker process ")
    assert died.endswith(" was killed by signal 9 while it worked on this file")
    assert reasons.pop("1.npy").startswith("ValueError: no such picture (steps.py:")
    assert "magic string" in reasons.pop("junk.npy")
    assert "Object arrays" in reasons.pop("objects.npy")
    assert "is not of a kind that is read: .npy, " in reasons.pop("new\nline.txt")
    assert reasons == {
        "pipe.npy": "is not a regular file",
        "gone.npy": "cannot be read: No such file or directory",
    }
    assert all(one["attempts"] == 2 for one in failed.values())
    assert folder.log() == [0, 1, 1, 2, 2, 4, 4]
    assert 'raise ValueError("no such' in failed["1.npy"]["traceback"]
    assert "shmexec map: scans/new\\nline.txt: is not" in ran.err  # as it happens, and in one line


def test_what_takes_too_long_is_named(folder, run):
    folder.make(3)
    ran = run(STEPS + "trouble", "--json", "--timeout", "0.4", "--retries", "1")
    assert (ran.status, ran.json["done"], ran.json["left"]) == (1, 0, 0)
    (failed,) = ran.json["failed"]
    assert failed["reason"] == "it ran for longer than 0.4 seconds"
    assert failed["attempts"] == 2


def test_a_result_that_cannot_be_written_says_what_to_return(folder, run):
    folder.make(1)
    ran = run(STEPS + "thing")
    assert ran.status == 1
    assert "its result, of type object, cannot be written as .json: return an array, a dict of arrays" in ran.out
    assert "the same command with --resume" in ran.out


def test_a_full_disk_ends_the_batch_and_resuming_does_the_rest(folder, run):
    folder.make(*range(9))
    ran = run(STEPS + "on_full_disk", "--json")
    assert ran.status == 1
    assert ran.json["stopped"].endswith("cannot be written: No space left")
    assert (ran.json["done"], ran.json["failed"], ran.json["left"]) == (0, [], 9)
    assert os.listdir("results/.shmexec-map/tmp") == []
    (folder.path / "room").touch()
    assert run(STEPS + "on_full_disk", "--resume").status == 0


def test_a_dry_run_tells_what_would_be_done_and_writes_nothing(folder, run):
    folder.make(1, 2)
    ran = run(STEPS + "times", "--dry-run")
    assert ran.status == 0
    assert ran.out.splitlines()[:2] == ["scans/1.npy -> results/1.*", "scans/2.npy -> results/2.*"]
    assert not os.path.exists("results")
    assert folder.log() == []
    run(STEPS + "times", files=["scans/1.npy"])
    ran = run(STEPS + "times", "--dry-run", "--resume", "--json")
    assert [file["state"] for file in ran.json["files"]] == ["done", "to do"]


def test_memory_is_that_of_a_few_files_however_many_there_are(folder, run):
    size = 32 << 20
    header = folder.path / "header.npy"
    np.save(header, np.zeros(0, np.uint8))
    for i in range(24):
        with open(folder.path / "scans" / f"{i}.npy", "wb") as file:  # sparse: no disk is needed
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (size,)})
            file.truncate(file.tell() + size)
    import shmexec

    shmexec.trim()
    before = shmexec.heap_info().bytes_resident
    assert run(STEPS + "resident").status == 0
    assert len(folder.log()) == 24
    assert max(folder.log()) - before < 6 * size
    shmexec.trim()


def test_the_bar_tells_rate_and_remaining_time(folder, run, monkeypatch):
    assert display.bar_text(25, 100, 250, 1000, 5.0, 2) == (
        "25/100 [#####---------------] 5 files/s, 50 bytes/s, 15.0 s left, 2 failed"
    )
    assert display.bar_text(0, 0, 0, 0, 0.0) == "0/0 [--------------------]"
    assert quantities.clock(3723) == "1:02:03"
    folder.make(1, 2)
    monkeypatch.setenv("SHMEXEC_PROGRESS", "always")
    ran = run(STEPS + "times")
    assert "/2 [" in ran.err
    assert " files/s, " in ran.err
    assert " left" in ran.err


def test_settings_have_the_types_that_python_gives_them():
    def function(array, *, name: str = "", **others):
        pass

    given = ["a=2", "b=2.5", "c=true", "d=None", "e=(3, 3)", "f=reflect", "name=007", "g='2'", "h=a=b"]
    assert functions.parse_settings(given, function) == {
        "a": 2,
        "b": 2.5,
        "c": True,
        "d": None,
        "e": (3, 3),
        "f": "reflect",
        "name": "007",
        "g": "2",
        "h": "a=b",
    }
    assert functions.parse_settings([], np.negative) == {}


def test_the_other_commands_do_not_load_it():
    import subprocess
    import sys

    code = "import sys, shmexec.__main__ as m; m.main(['ls']); print(*(n for n in sys.modules if 'shmexec.batch' in n))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


def test_an_errand_is_small(folder, run):
    from shmexec.batch.work import Errand

    errand = Errand("/out", "run", "f.py:f", {"sigma": 2}, "", "/in/a.npy", "a", 1, 2, ())
    assert len(pickle.dumps(errand)) < 400
