"""Prints the two runs side by side, as a table or as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from shmexec.demo.pictures import Picture, Problem
from shmexec.demo.runs import Run

_LABEL = 26  # characters
_COLUMN = 22


def results_are_equal(first: Run, second: Run) -> bool:
    """Each picture that either run finished was finished by both, to the same bits; and there was one."""
    pairs = list(zip(first.outcomes, second.outcomes, strict=True))
    finished = [(a, b) for a, b in pairs if a.error is None or b.error is None]
    return bool(finished) and all(a.equals(b) for a, b in finished)


def table(plain: Run, shared: Run, sharing_seconds: float) -> str:
    """Lines for a reader; ProcessPoolExecutor on the left."""
    both = plain, shared
    copied = [r.bytes.copied_in + r.bytes.copied_out for r in both]
    rows = [
        ("", plain.executor, shared.executor, ""),
        ("time", _seconds(plain.seconds), _seconds(shared.seconds), compared(plain.seconds, shared.seconds)),
        ("pictures shared, once", "-", _seconds(sharing_seconds), "not in the time above"),
        ("copied through pickles", *map(size, copied), ""),
        ("  arguments", *(size(r.bytes.copied_in) for r in both), ""),
        ("  results", *(size(r.bytes.copied_out) for r in both), ""),
        ("by name", "-", size(shared.bytes.by_name_in + shared.bytes.by_name_out), ""),
        ("through the parent's pipes", *(_size_if_known(r.through_pipes) for r in both), ""),
        ("peak memory (PSS)", *(_size_if_known(r.peak_memory) for r in both), ""),
        ("results", "equal" if results_are_equal(plain, shared) else "DIFFERENT", "", ""),
    ]
    return "\n".join(
        f"{label:<{_LABEL}} {left:<{_COLUMN}}{right:<{_COLUMN}}{note}".rstrip() for label, left, right, note in rows
    )


def as_json(
    plain: Run,
    shared: Run,
    sharing_seconds: float,
    pictures: Sequence[Picture],
    problems: Sequence[Problem],
    contact_sheet: str | None,
    workers: int,
) -> str:
    """The same numbers, and more of them, for a program. Bytes and seconds; null is "not measured"."""
    return json.dumps(
        {
            "workers": workers,
            "pictures": [{"name": p.name, "shape": p.pixels.shape, "dtype": str(p.pixels.dtype)} for p in pictures],
            "runs": [
                {
                    "executor": run.executor,
                    "seconds": run.seconds,
                    "bytes_copied_in": run.bytes.copied_in,
                    "bytes_copied_out": run.bytes.copied_out,
                    "bytes_by_name_in": run.bytes.by_name_in,
                    "bytes_by_name_out": run.bytes.by_name_out,
                    "bytes_through_pipes": run.through_pipes,
                    "peak_memory_pss": run.peak_memory,
                }
                for run in (plain, shared)
            ],
            "sharing_seconds": sharing_seconds,
            "times_faster": plain.seconds / shared.seconds,
            "results_equal": results_are_equal(plain, shared),
            "problems": [asdict(problem) for problem in problems],
            "contact_sheet": contact_sheet,
        },
        indent=2,
    )


def size(count: int) -> str:
    """Decimal units, one digit after the point: 7.4 GB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


def _size_if_known(count: int | None) -> str:
    return "not measured" if count is None else size(count)


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"


def compared(plain: float, shared: float) -> str:
    """The second in terms of the first; a difference that one digit would not show is none."""
    if max(plain, shared) < 1.05 * min(plain, shared):
        return "equally fast"
    if shared < plain:
        return f"{plain / shared:.1f} times faster"
    return f"{shared / plain:.1f} times slower"
