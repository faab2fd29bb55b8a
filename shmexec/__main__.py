"""The command line: `shmexec demo`, also `python -m shmexec demo`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return number


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
    add("--workers", type=_at_least_one, metavar="N",
        help="worker processes (default: one for each core)")
    add("--pictures", type=_at_least_one, metavar="N", default=6,
        help="how many pictures at most (default: %(default)s)")
    add("--megapixels", type=_megapixels, metavar="M", default=16.0,
        help="enlarge smaller pictures to at least so many million pixels (default: %(default)g)")
    add("--json", action="store_true",
        help="print the numbers as JSON instead of a table")
    # fmt: on
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    from shmexec.demo.command import run_demo

    try:
        return run_demo(options)
    except KeyboardInterrupt:
        print("\nshmexec demo: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
