"""`shmexec bench`: what it refuses before it begins, and what it prints and writes."""

import importlib.util
import json
import subprocess
import sys

import pytest

from shmexec.bench import peers, report
from shmexec.bench.timing import Effort
from shmexec.bench.workloads import WORKLOADS


def bench(tmp_path, *options):
    return subprocess.run(
        [sys.executable, "-m", "shmexec", "bench", "--quick", *options], capture_output=True, text=True, cwd=tmp_path
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--peers", "shmexec", "nobody"], "unknown peer nobody; there are shmexec, "),
        (["--workloads", "nothing"], "unknown workload nothing; there are round-trip, "),
        (["--output", "/proc/nowhere"], "the folder /proc/nowhere cannot be made"),
        (["--output", "/proc/self"], "the folder /proc/self cannot be written"),
        (["--output", "/dev/null"], "the folder /dev/null cannot be made: File exists"),
        (
            ["--sizes", str(1 << 60), "--workloads", "nested"],
            "nothing is left to measure: size 1.07374e+09 GiB: skipped",
        ),
        (
            ["--peers", "mp-pool", "--workloads", "wait", "callback"],
            "nothing is left to measure: wait, callback: not for mp-pool (no concurrent.futures.Executor)",
        ),
        (["--sizes", "0"], "argument --sizes: must be at least 1, not 0"),
        (["--seconds", "-1"], "argument --seconds: must be greater than 0, not -1"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_runs(tmp_path, options, said):
    ran = bench(tmp_path, *options)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert ran.stdout == ""


def test_a_run_prints_a_table_and_writes_json(tmp_path):
    sizes = ["1024", "65536", str(1 << 50)]
    workloads = ["round-trip", "spread", "array-in", "in-and-out", "startup", "memory", "second", "import"]
    ran = bench(
        tmp_path, "--peers", "shmexec", "threads", "--workloads", *workloads, "--sizes", *sizes, "--output", "made"
    )
    assert ran.returncode == 0, ran.stderr
    measured = json.loads((tmp_path / "made" / "bench.json").read_text())
    found = {(f["workload"], f["size"], f["peer"]) for f in measured["figures"]}
    sized = {(name, size) for name in ("array-in", "in-and-out") for size in (1024, 65536)}
    alone = {(name, 0) for name in ("round-trip", "spread", "startup", "memory", "second", "import")}
    assert found == {(*case, peer) for case in sized | alone for peer in ("shmexec", "threads")}
    assert all(f["runs"] >= 1 and f["least"] <= f["median"] <= f["most"] for f in measured["figures"])
    assert measured["machine"]["cores"] >= 1
    assert "in-and-out 64 KiB" in ran.stdout
    assert "skipped" in ran.stdout
    plots = list((tmp_path / "made").glob("*.svg"))
    assert len(plots) == (2 if importlib.util.find_spec("matplotlib") else 0)


@pytest.mark.parametrize("name", ["shmexec", "shmexec-plain", "threads", "processes", "mp-pool", "by-hand"])
def test_every_peer_of_the_standard_library_gives_the_same_values(script, name):
    """In an interpreter of its own: the standard library's fork server lives as long as that."""
    ran = script(f"""
import numpy as np
from shmexec.bench import peers, tasks

if __name__ == "__main__":
    peer = peers.PEERS[{name!r}](1)
    array = np.arange(1000.0)
    kept = peer.keep(array)
    assert peer.call(tasks.look, kept) == 999
    assert np.array_equal(peer.call(tasks.double, kept), 2 * array)
    assert np.array_equal(peer.call(tasks.make, 800), np.ones(100))
    assert peer.call(tasks.look_inside, peer.keep_nested({{"arrays": [array, array]}})) == 1998
    assert list(peer.map(tasks.nothing, [1, 2, 3])) == [1, 2, 3]
    peer.burst(tasks.nothing, 20)
    del kept
    peer.close()
    print("done")
""")
    assert ran.stdout == "done\n"
    assert ran.stderr == ""


@pytest.mark.parametrize("name", ["stack", "monte-carlo", "windows", "nested", "pandas", "array-out"])
def test_every_workload_runs(name):
    pytest.importorskip("pandas")
    peer = peers.PEERS["shmexec"](2)
    try:
        assert WORKLOADS[name].prepare(peer, 1 << 16, Effort(0.01, 0.25))() > 0
    finally:
        peer.close()


SHORT = ["cold", "wait", "as-completed", "callback", "each", "few", "spread"]


@pytest.mark.parametrize("name", ["shmexec", "threads", "processes", "mp-pool", "by-hand"])
def test_short_calls_are_measured_of_every_peer_that_has_them(script, name):
    ran = script(f"""
from shmexec.bench.peers import PEERS
from shmexec.bench.timing import Effort
from shmexec.bench.workloads import WORKLOADS, applies

if __name__ == "__main__":
    peer = PEERS[{name!r}](1)
    for name in {SHORT}:
        if applies(name, type(peer)):
            assert WORKLOADS[name].prepare(peer, 0, Effort(0.001))() > (1 if name == "spread" else 0)
            print(name, flush=True)
    peer.close()
""")
    lacking = {"wait", "as-completed", "callback"} if name == "mp-pool" else set()
    assert ran.stdout.split() == [name for name in SHORT if name not in lacking]
    assert ran.stderr == ""


def test_a_workload_that_a_peer_does_not_have_is_an_empty_cell_and_a_line(tmp_path):
    ran = bench(tmp_path, "--peers", "threads", "mp-pool", "--workloads", "wait", "callback", "few", "--rounds", "1")
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    cells = {line.split("  ")[0]: line.split()[-1] for line in lines if line.startswith(("wait  ", "few  "))}
    assert cells["wait"] == "-"
    assert cells["few"] != "-"
    assert "wait, callback: not for mp-pool (no concurrent.futures.Executor)" in lines
    assert "left out" not in ran.stdout


@pytest.mark.parametrize("name", ["stack", "windows"])
def test_what_shared_memory_by_hand_is_given_it_gives_back(script, name):
    ran = script(f"""
import os
from shmexec.bench import peers
from shmexec.bench.timing import Effort
from shmexec.bench.workloads import WORKLOADS

if __name__ == "__main__":
    peer = peers.PEERS["by-hand"](1)
    seen, view = set(), peer._view
    peer._view = lambda segment, array: (seen.add(segment.name), view(segment, array))[1]
    run = WORKLOADS[{name!r}].prepare(peer, 0, Effort(0.01, 0.125))
    assert run() > 0
    assert run() > 0
    del run
    peer.close()
    assert len(seen) >= 6
    assert not seen & set(os.listdir("/dev/shm"))
    print("done")
""")
    assert ran.stdout == "done\n"
    assert ran.stderr == ""


def test_what_is_not_installed_is_named():
    absent = [name for name, peer in peers.PEERS.items() if peers.missing(name)]
    assert set(absent) <= {"joblib", "mpire", "ray", "dask", "torch"}


def test_sizes_in_words():
    assert [report.bytes_text(n) for n in (5, 1 << 10, 3 << 20, 1 << 30)] == ["5 B", "1 KiB", "3 MiB", "1 GiB"]
