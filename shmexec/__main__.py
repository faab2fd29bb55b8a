"""The command line: `shmexec map`, `demo`, `bench`, `top`, `ls` and `gc`, also `python -m shmexec ...`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def _at_least(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {text}")
        return number

    return integer


def _megapixels(text: str) -> float:
    number = float(text)
    if not 0.01 <= number <= 1000:  # also refuses nan
        raise argparse.ArgumentTypeError(f"must lie between 0.01 and 1000, not {text}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="shmexec", description="A ProcessPoolExecutor that passes NumPy arrays by kernel name."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_map(commands)
    demo = commands.add_parser(
        "demo",
        help="the same picture pipeline through ProcessPoolExecutor and SharedExecutor, side by side",
        description="Runs several NumPy and SciPy steps on large photographs, once through "
        "ProcessPoolExecutor and once through SharedExecutor; prints time, bytes copied and peak memory "
        "side by side, checks that the results are equal, and writes a contact sheet. "
        "Exit status: 0; 1 if a picture could not be done or results differ; 2 if nothing could be started.",
    )
    add = demo.add_argument
    # fmt: off
    add("--input", type=Path, metavar="FOLDER",
        help="your own .npy, .npz, .png, .jpg or .tif pictures (default: photographs inside scikit-image)")
    add("--output", type=Path, metavar="FILE.png", default=Path("shmexec-demo.png"),
        help="the contact sheet (default: %(default)s)")
    add("--workers", type=_at_least(1), metavar="N",
        help="worker processes (default: one for each core)")
    add("--pictures", type=_at_least(1), metavar="N", default=6,
        help="how many pictures at most (default: %(default)s)")
    add("--megapixels", type=_megapixels, metavar="M", default=16.0,
        help="enlarge smaller pictures to at least so many million pixels (default: %(default)g)")
    add("--json", action="store_true",
        help="print the numbers as JSON instead of a table")
    # fmt: on
    _add_bench(commands)
    top = commands.add_parser(
        "top",
        help="what the pools of this user are doing, live",
        description="Shows the heaps, the workers, what they run and for how long, what waits, and what crosses, and "
        "writes nothing into the heaps. Without a terminal, as with --once.",
    )
    top.add_argument("--once", action="store_true", help="print it once, as text")
    top.add_argument("--json", action="store_true", help="print it once, as JSON")
    top.add_argument("--picture", metavar="FILE.svg", help="write it once, as a picture")
    top.add_argument("--interval", type=_seconds, default=1.0, metavar="SECONDS",
                     help="between two looks (default: %(default)g)")  # fmt: skip
    ls = commands.add_parser(
        "ls",
        help="the live heaps of this user: kind, owner, size, blocks",
        description="Lists the heaps of shared arrays of this user, of whatever process, and writes nothing into them.",
    )
    ls.add_argument("--json", action="store_true", help="print all there is to know as JSON")
    commands.add_parser(
        "gc",
        help="remove what dead processes have left",
        description="Removes the names of POSIX heaps whose owner is dead, as the next heap would. The other kinds "
        "leave nothing, but for System V segments of processes that were killed as they made one.",
    )
    return parser


def _add_map(commands: Any) -> None:
    map_ = commands.add_parser(
        "map",
        help="a function over a folder of files: .npy, .npz, pictures, zarr",
        description="Calls the function with the array of each file, on all cores, and writes what it returns. A file "
        "that fails is named at the end, with the reason, and the others are done. Exit status: 0; 1 if not all was "
        "done; 2 if nothing could be started; 130 after Ctrl-C.",
    )
    add = map_.add_argument
    # fmt: off
    add("function", metavar="FUNCTION", help="package.module:function or file.py:function")
    add("files", nargs="+", metavar="FILES",
        help="names, folders, or quoted patterns, as 'scans/**/*.npy'")
    add("--out", required=True, metavar="FOLDER", help="where the results go; is made")
    add("--format", choices=("npy", "npz", "json", "png", "jpg", "tif", "zarr"),
        help="of the results (default: what suits them: .npy, .npz for several arrays, .json for numbers)")
    add("--set", action="append", default=[], metavar="NAME=VALUE",
        help="an argument of the function, as sigma=2; may be given again")
    add("--workers", type=_at_least(1), metavar="N", help="worker processes (default: one for each core)")
    add("--timeout", type=_seconds, metavar="SECONDS", help="after which a file has failed")
    add("--retries", type=_at_least(0), default=0, metavar="N", help="how often a file that failed is tried again")
    add("--resume", action="store_true", help="go on where an earlier run has stopped")
    add("--overwrite", action="store_true", help="do all anew, and replace what is there")
    add("--dry-run", action="store_true", help="only say what would be done")
    add("--json", action="store_true", help="print the summary as JSON")
    # fmt: on


def _seconds(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"must be greater than 0, not {text}")
    return number


def _add_bench(commands: Any) -> None:
    bench = commands.add_parser(
        "bench",
        help="this package and its peers, side by side: latency, throughput, arrays, memory, real work",
        description="Measures each peer in a process tree of its own, in turn, and prints medians; with --output also "
        "JSON and plots. A peer that is not installed is a line that says so. Exit status: 0; 2 if an option makes no "
        "sense.",
    )
    add = bench.add_argument
    # fmt: off
    add("--quick", action="store_true",
        help="within a minute: few sizes, and what the time allows; what is left out is a line")
    add("--seconds", type=_seconds, metavar="S",
        help="measure for so long, shared evenly over the peers (default: until all is done; with --quick 45)")
    add("--peers", nargs="+", metavar="NAME", help="default: all that are installed")
    add("--workloads", nargs="+", metavar="NAME", help="default: all")
    add("--sizes", nargs="+", type=_at_least(1), metavar="BYTES", help="of arrays (default: 1 KiB to 1 GiB)")
    add("--rounds", type=_at_least(1), metavar="N", help="runs of each (default: 5; with --quick 2)")
    add("--workers", type=_at_least(1), metavar="N", help="default: one for each core")
    add("--output", type=Path, metavar="FOLDER", help="where JSON and plots go (default: nowhere)")
    # fmt: on


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if options.command in ("ls", "gc"):
            from shmexec import heaps

            return heaps.run_ls(options.json) if options.command == "ls" else heaps.run_gc()
        if options.command == "map":
            from shmexec.batch.command import run_map

            return run_map(options)
        if options.command == "top":
            from shmexec.top.command import run_top

            return run_top(options)
        if options.command == "bench":
            from shmexec.bench.command import run_bench

            return run_bench(options)
        from shmexec.demo.command import run_demo

        return run_demo(options)
    except KeyboardInterrupt:
        print(f"\nshmexec {options.command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
