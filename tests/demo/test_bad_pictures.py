"""Pictures that cannot be done: a clear message, and the others are still done."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from shmexec.__main__ import main

SMALL = ["--megapixels", "0.05", "--workers", "2"]


def grey(height=30, width=40, dtype=np.uint8):
    return (np.arange(height * width).reshape(height, width) % 251).astype(dtype)


def bad_files(folder):
    """Name -> a word of the reason."""
    (folder / "notes.txt").write_text("not a picture")
    (folder / "empty.png").touch()
    (folder / "garbage.npy").write_bytes(b"garbage" * 10)
    (folder / "garbage.npz").write_bytes(b"garbage" * 10)
    (folder / "garbage.tif").write_bytes(b"garbage" * 10)
    (folder / "gone.png").symlink_to(folder / "nowhere")
    np.save(folder / "line.npy", np.arange(5))
    np.save(folder / "volume.npy", np.zeros((10, 10, 10), np.uint8))
    np.save(folder / "nothing.npy", np.zeros((0, 10), np.uint8))
    np.save(folder / "objects.npy", np.array([[{}, {}]], dtype=object), allow_pickle=True)
    np.save(folder / "complex.npy", np.zeros((3, 3), complex))
    np.save(folder / "text.npy", np.array([["a", "b"]]))
    np.save(folder / "nan.npy", np.full((3, 3), np.nan))
    np.savez(folder / "lines.npz", a=np.arange(5))
    np.savez(folder / "zobjects.npz", a=np.array([[{}]], dtype=object), b=grey())
    Image.fromarray(grey(200, 300)).save(folder / "cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:200])
    np.save(folder / "short.npy", grey(200, 300))
    (folder / "short.npy").write_bytes((folder / "short.npy").read_bytes()[:1000])
    os.mkfifo(folder / "pipe.png")
    return {
        "notes.txt": "kind",
        "empty.png": "cannot",
        "garbage.npy": "magic",
        "garbage.npz": "archive",
        "garbage.tif": "TIFF",
        "gone.png": "No such file",
        "line.npy": "shape (5,)",
        "volume.npy": "shape (10, 10, 10)",
        "nothing.npy": "shape (0, 10)",
        "objects.npy": "Object arrays",
        "complex.npy": "complex128",
        "text.npy": "<U1",
        "nan.npy": "no finite value",
        "lines.npz": "two or three dimensions",
        "zobjects.npz: a": "Object arrays",
        "cut.png": "cannot be read",
        "short.npy": "cannot be read",
        "pipe.png": "regular file",
    }


def test_every_bad_file_is_named_with_its_reason_and_the_others_are_done(demo, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    reasons = bad_files(folder)
    np.save(folder / "good.npy", grey())
    (folder / "folder.png").mkdir()
    (folder / ".hidden").touch()
    ran = demo(*SMALL, "--input", folder, "--json")
    assert ran.returncode == 1
    told = json.loads(ran.stdout)
    assert [p["name"] for p in told["pictures"]] == ["good.npy", "zobjects.npz: b"]
    assert told["results_equal"] is True
    problems = {problem["name"]: problem["reason"] for problem in told["problems"]}
    assert problems.keys() == reasons.keys()
    for name, word in reasons.items():
        assert word in problems[name], (name, problems[name])
        assert f"shmexec demo: {name}: {problems[name]}" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert (tmp_path / "shmexec-demo.png").exists()


def test_a_folder_of_bad_files_only_fails(tmp_path, capsys, threads):
    (tmp_path / "a.txt").touch()
    assert main(["demo", "--input", str(tmp_path), "--output", str(tmp_path / "sheet.png")]) == 1
    assert "no picture could be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no folder"),
        (lambda path: path.touch(), "is not a folder"),
        (lambda path: path.mkdir(), "holds no files"),
    ],
)
def test_a_missing_or_empty_folder_is_told_and_nothing_starts(tmp_path, capsys, make, message, threads):
    path = tmp_path / "own"
    make(path)
    assert main(["demo", "--input", str(path), "--output", str(tmp_path / "sheet.png")]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert str(path) in said.err
    assert said.out == ""
