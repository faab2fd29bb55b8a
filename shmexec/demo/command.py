"""`shmexec demo`: load the pictures, run both executors, print the comparison, write the contact sheet."""

import argparse
import importlib.util
import os
import sys

NEEDED = {"scipy": "SciPy", "skimage": "scikit-image", "PIL": "Pillow", "tifffile": "tifffile"}

DONE, NOT_ALL_DONE, NOT_STARTED = 0, 1, 2  # exit statuses


def run_demo(options: argparse.Namespace) -> int:
    """The exit status: DONE; NOT_ALL_DONE if a picture failed or results differ; NOT_STARTED."""
    missing = [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        return _not_started(f'the demo needs {", ".join(missing)}: pip install "shmexec[demo]"')
    folder = options.output.absolute().parent
    if not folder.is_dir():
        return _not_started(f"there is no folder {folder} to write {options.output.name} into")
    if options.output.is_dir() or not os.access(folder, os.W_OK):
        return _not_started(f"{options.output} cannot be written")
    try:
        from shmexec import SharedExecutor  # noqa: F401  (not after the first run)
    except ImportError as error:
        return _not_started(str(error))
    try:
        return _compare(options)
    except MemoryError as error:
        _say(f"not enough memory ({error}); fewer --pictures or --megapixels take less")
        return NOT_ALL_DONE


def _compare(options: argparse.Namespace) -> int:
    from shmexec.demo import report
    from shmexec.demo.pictures import NoPictures, Problem, load
    from shmexec.demo.pipeline import thumbnail
    from shmexec.demo.runs import run_with_process_pool, run_with_shared_executor, share_in_place
    from shmexec.demo.sheet import Pair, write_contact_sheet

    workers = options.workers or _cores()
    try:
        pictures, problems = load(options.input, options.megapixels, options.pictures)
    except NoPictures as error:
        return _not_started(str(error))
    for problem in problems:
        _say(f"{problem.name}: {problem.reason}")
    if not pictures:
        _say("no picture could be read")
        return NOT_ALL_DONE
    sizes = [p.pixels.shape[0] * p.pixels.shape[1] / 1e6 for p in pictures]
    _say(f"pictures: {len(pictures)}, {min(sizes):.1f} to {max(sizes):.1f} megapixels; workers: {workers}")
    originals = [thumbnail(p.pixels) for p in pictures]

    plain = run_with_process_pool(pictures, workers)
    sharing_seconds = share_in_place(pictures)
    shared = run_with_shared_executor(pictures, workers)

    pairs = []
    for original, first, second in zip(originals, plain.outcomes, shared.outcomes, strict=True):
        for run, outcome in ((plain, first), (shared, second)):
            if outcome.error is not None:
                problems.append(Problem(outcome.name, f"failed in {run.executor}: {outcome.error}"))
                _say(f"{problems[-1].name}: {problems[-1].reason}")
        summary = second.summary or first.summary
        if summary is not None:
            pairs.append(Pair(first.name, original, summary.thumbnail))
    sheet: str | None = None
    if pairs:
        try:
            write_contact_sheet(pairs, options.output)
            sheet = str(options.output)
        except OSError as error:
            problems.append(Problem(str(options.output), f"cannot be written: {error.strerror}"))
            _say(f"{problems[-1].name}: {problems[-1].reason}")
    if options.json:
        print(report.as_json(plain, shared, sharing_seconds, pictures, problems, sheet, workers))
    else:
        print(report.table(plain, shared, sharing_seconds))
        if sheet:
            print(f"\ncontact sheet: {sheet}")
    return NOT_ALL_DONE if problems or not report.results_are_equal(plain, shared) else DONE


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _say(message: str) -> None:
    print(f"shmexec demo: {message}", file=sys.stderr, flush=True)


def _not_started(message: str) -> int:
    _say(message)
    return NOT_STARTED
