"""`shmexec map` against a plain loop over the same files: read, call, write.

python -m benchmarks.batch [--files N] [--workers N] [--folder FOLDER]

Arrays of 2 to 8 MB; a function that computes for some 30 ms, and one that does next to nothing. The loop is `np.load`,
the function, `np.save`; once more with what `shmexec map` does besides, so that a result is whole whatever happens to
the machine: `fsync`, and a rename. All read from the page cache. Each way is a program of its own; in turn, medians.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS = 3


def compute(a: Any) -> Any:
    """Some 30 ms for 5 MB, on one core."""
    for _ in range(3):
        a = np.sqrt(np.exp(np.sin(a)) + np.cos(a) ** 2)
    return a


def negate(a: Any) -> Any:
    return -a


def loop(name: str, source: Path, out: Path, *, durable: bool) -> None:
    """What somebody would write who has no such command."""
    function = globals()[name]
    out.mkdir()
    for path in sorted(source.glob("*.npy")):
        value = function(np.load(path))
        if not durable:
            np.save(out / path.name, value)
            continue
        with open(out / "unfinished", "wb") as file:
            np.save(file, value)
            file.flush()
            os.fsync(file.fileno())
        os.rename(out / "unfinished", out / path.name)


def timed(command: list[str], out: Path) -> float:
    shutil.rmtree(out, ignore_errors=True)
    os.sync()  # what one way has left to be written is not the next one's
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description="shmexec map against a plain loop.")
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, help="where the files go (default: the temporary folder)")
    parser.add_argument("--loop", nargs=4, metavar=("FUNCTION", "SOURCE", "OUT", "HOW"), help="run one loop here")
    options = parser.parse_args()
    if options.loop:
        name, source, out, how = options.loop
        loop(name, Path(source), Path(out), durable=how == "durable")
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source, out = Path(folder) / "source", Path(folder) / "out"
        source.mkdir()
        random = np.random.default_rng(0)
        for i in range(options.files):
            np.save(source / f"{i:04}.npy", random.random(random.integers(250_000, 1_000_000)))
        print(f"{options.files} files, {sum(path.stat().st_size for path in source.iterdir()) / 1e6:.0f} MB, "
              f"{options.workers} workers; medians of {ROUNDS}, in turn")  # fmt: skip
        for name in "compute", "negate":
            ways = commands(name, source, out, options.workers)
            times: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(ROUNDS):
                for way, command in ways.items():
                    times[way].append(timed(command, out))
            medians = {way: statistics.median(found) for way, found in times.items()}
            for way, median in medians.items():
                speed = medians["plain loop"] / median
                print(f"{name:8} {way:22} {median:7.2f} s  {speed:5.2f} times as fast as the plain loop", flush=True)


def commands(name: str, source: Path, out: Path, workers: int) -> dict[str, list[str]]:
    looped: Callable[[str], list[str]] = lambda how: [  # noqa: E731
        sys.executable, __file__, "--loop", name, str(source), str(out), how
    ]  # fmt: skip
    return {
        "plain loop": looped("plain"),
        "loop, fsync and rename": looped("durable"),
        "shmexec map": [
            sys.executable, "-m", "shmexec", "map", f"{__file__}:{name}", f"{source}/*.npy", "--out", str(out),
            "--workers", str(workers),
        ],
    }  # fmt: skip


if __name__ == "__main__":
    main()
