"""`shmexec demo`: what it runs, prints and writes, and what it refuses."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import shmexec
from shmexec import measure
from shmexec.__main__ import main
from shmexec.demo import batch, pipeline, report

SMALL = ["--megapixels", "0.05", "--workers", "2"]
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")


def test_both_executors_are_compared_and_a_contact_sheet_is_written(demo, tmp_path):
    ran = demo(*SMALL, "--pictures", 2, "--output", "sheet.png")
    assert ran.returncode == 0, ran.stderr
    rows = {line[:26].strip(): line[26:].split("  ") for line in ran.stdout.splitlines()}
    assert "ProcessPoolExecutor" in ran.stdout.splitlines()[0]
    assert "SharedExecutor" in ran.stdout.splitlines()[0]
    assert {"time", "copied through pickles", "by name", "peak memory (PSS)", "results"} <= rows.keys()
    assert rows["results"][0].strip() == "equal"
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 2 * 200


def test_json_holds_the_same_numbers(demo, tmp_path):
    ran = demo(*SMALL, "--pictures", 2, "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert [run["executor"] for run in told["runs"]] == ["ProcessPoolExecutor", "SharedExecutor"]
    assert told["results_equal"] is True
    assert told["problems"] == []
    assert len(told["pictures"]) == 2
    assert (tmp_path / told["contact_sheet"]).exists()


@linux
def test_the_bytes_counted_as_pickled_are_those_that_the_kernel_saw(demo):
    ran = demo("--megapixels", "0.5", "--workers", 2, "--pictures", 2, "--json")
    plain = json.loads(ran.stdout)["runs"][0]
    counted = plain["bytes_copied_in"] + plain["bytes_copied_out"]
    assert counted > 2 * 0.5e6 * 50
    assert plain["bytes_through_pipes"] == pytest.approx(counted, rel=0.05)


def test_without_proc_memory_is_not_measured(tmp_path, monkeypatch, threads, capsys):
    monkeypatch.setattr(measure, "_PROC", tmp_path / "nothing")
    assert main(["demo", *SMALL, "--pictures", "1", "--output", str(tmp_path / "sheet.png")]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("peak memory")]
    assert rows[0].count("not measured") == 2


@pytest.mark.parametrize(
    ("plain", "shared", "words"),
    [(41.2, 18.9, "2.2 times faster"), (10, 25, "2.5 times slower"), (10, 10.3, "equally fast")],
)
def test_the_times_are_compared_in_words(plain, shared, words):
    assert report.compared(plain, shared) == words


def test_different_results_are_told_and_fail(tmp_path, monkeypatch, threads, capsys):
    calls = iter(range(99))
    monkeypatch.setattr(batch, "digest", lambda array: str(next(calls)))
    assert main(["demo", *SMALL, "--pictures", "1", "--output", str(tmp_path / "sheet.png")]) == 1
    assert "DIFFERENT" in capsys.readouterr().out


def test_a_step_that_fails_ends_its_own_picture_only(tmp_path, monkeypatch, threads, capsys):
    def fail_on_dark(array):
        if array.max() == 0:
            raise ValueError("too dark")
        return pipeline.balance(array)

    monkeypatch.setattr(batch, "STEPS", (pipeline.denoise, fail_on_dark, *pipeline.STEPS[2:]))
    np.save(tmp_path / "dark.npy", np.zeros((30, 40), np.uint8))
    np.save(tmp_path / "light.npy", np.full((30, 40), 200, np.uint8))
    sheet = tmp_path / "sheet.png"
    assert main(["demo", *SMALL, "--input", str(tmp_path), "--output", str(sheet), "--json"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["results_equal"] is True
    assert "dark.npy: failed in ProcessPoolExecutor: ValueError: too dark" in said.err
    assert "light.npy: failed" not in said.err
    assert sheet.exists()


def test_a_sheet_that_cannot_be_written_is_told_before_the_work(tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path / "nowhere" / "sheet.png")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main(["demo", "--output", str(tmp_path)]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--workers", "0"],
        ["--workers", "two"],
        ["--pictures", "0"],
        ["--megapixels", "0"],
        ["--megapixels", "nan"],
    ],
)
def test_a_senseless_option_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["demo", *arguments])
    assert raised.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize("module", ["scipy", "skimage", "PIL", "tifffile"])
def test_a_missing_dependency_is_told_with_the_command_that_installs_it(module, tmp_path):
    program = f"""if True:
        import sys
        sys.modules[{module!r}] = None
        from shmexec.__main__ import main
        sys.exit(main(["demo"]))
    """
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert 'pip install "shmexec[demo]"' in ran.stderr
    assert "Traceback" not in ran.stderr


def test_memory_that_runs_out_is_told(tmp_path, monkeypatch, threads, capsys):
    def full(_):
        raise MemoryError("heap is full")

    monkeypatch.setattr(shmexec, "share", full, raising=False)
    assert main(["demo", *SMALL, "--pictures", "1", "--output", str(tmp_path / "sheet.png")]) == 1
    assert "not enough memory (heap is full)" in capsys.readouterr().err


def test_an_interruption_ends_without_a_traceback(monkeypatch, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("shmexec.demo.command.run_demo", interrupt)
    assert main(["demo"]) == 130
    assert "interrupted" in capsys.readouterr().err
