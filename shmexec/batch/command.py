"""`shmexec map`: what the options ask for, the loop that keeps the pool busy, the summary."""

import argparse
import json
import os
import sys
import time
import traceback
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from shmexec.batch import readers, writers
from shmexec.batch.display import Line
from shmexec.batch.errors import NotStarted, reason, shown
from shmexec.batch.functions import absolute, find_function, parse_settings
from shmexec.batch.jobs import Job, Jobs, Life, Report
from shmexec.batch.record import Record
from shmexec.batch.sources import Source, find_sources
from shmexec.batch.work import Errand, work
from shmexec.errors import TaskTimeout, WorkerDied
from shmexec.quantities import clock, decimal_size

DONE, NOT_ALL_DONE, NOT_STARTED, INTERRUPTED = 0, 1, 2, 130  # exit statuses

_NAMED = 20  # failures that the summary names


@dataclass(frozen=True)
class Plan:
    """What is to be done, and how."""

    function: str
    settings: dict[str, Any]
    format: str
    record: Record
    to_do: list[Source]
    done_before: list[Source]
    previous: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def job(self) -> dict[str, Any]:
        """What has to be the same when a batch goes on."""
        settings = {name: repr(value) for name, value in sorted(self.settings.items())}
        return {"function": self.function, "settings": settings, "format": self.format}


def run_map(options: argparse.Namespace) -> int:
    """The exit status."""
    try:
        plan = make_plan(options)
        if options.dry_run:
            return _show_plan(plan, as_json=options.json)
        from shmexec import SharedExecutor  # noqa: F401  (what keeps it from being imported is told first)

        if plan.to_do:
            plan.record.begin(
                plan.job(),
                anew=options.overwrite,
                waits=lambda: _say("waiting for the workers of a run that was killed"),
            )
    except (NotStarted, ImportError) as error:
        _say(str(error))
        return NOT_STARTED
    began = time.monotonic()
    try:
        # what the workers of a run that was killed have finished meanwhile
        late = [] if options.overwrite else [source for source in plan.to_do if plan.record.is_done(source)]
        plan.done_before.extend(late)
        jobs = Jobs((one for one in plan.to_do if one not in late), options.retries, room=2 * _workers(options))
        was_interrupted = bool(jobs.all) and _run(plan, jobs, options)
    finally:
        plan.record.close()
    _show_summary(plan, jobs, time.monotonic() - began, was_interrupted, as_json=options.json)
    if was_interrupted:
        return INTERRUPTED
    return DONE if jobs.done == len(jobs.all) else NOT_ALL_DONE


def make_plan(options: argparse.Namespace) -> Plan:
    """Look at everything before anything is written; NotStarted if something makes no sense."""
    name = absolute(options.function)
    settings = parse_settings(options.set, find_function(name))
    if os.path.lexists(options.out) and not os.path.isdir(options.out):
        raise NotStarted(f"{shown(options.out)} is not a folder")
    record = Record(options.out)
    sources = find_sources(options.files, record.out)
    kinds = {readers.ending(source.path) for source in sources} | {f".{options.format or ''}"}
    for kind in sorted(kinds):
        if (command := readers.missing_for(kind)) is not None:
            raise NotStarted(f"{kind} files need more than is installed: {command}")
    done = [] if options.overwrite else [source for source in sources if record.is_done(source)]
    known = set(done)
    to_do = [source for source in sources if source not in known]
    plan = Plan(name, settings, options.format or "", record, to_do, done)
    if record.job is not None and not options.overwrite:
        if not options.resume:
            raise NotStarted(
                f"{shown(options.out)} has results of an earlier run: --resume goes on with it, --overwrite does all "
                "anew"
            )
        _check_same(record.job, plan, options.out)
    _find_previous(plan, {os.path.realpath(source.path) for source in sources}, overwrite=options.overwrite)
    return plan


def _check_same(before: Any, plan: Plan, out: str) -> None:
    for what, value in plan.job().items():
        if before.get(what) != value:
            differs = f"{_told(before.get(what))}, not {_told(value)}"
            which = f"another {what.rstrip('s')} ({differs})"
            raise NotStarted(f"{shown(out)} has results with {which}: take another --out, or --overwrite")


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={text}" for name, text in value.items()) or "none"
    return str(value or "automatic")


def _find_previous(plan: Plan, inputs: set[str], *, overwrite: bool) -> None:
    """What is there already where results are to go: ours, or somebody else's, which is left alone."""
    formats = (plan.format,) if plan.format else writers.AUTOMATIC
    for source in plan.to_do:
        ours = plan.record.previous(source)
        found = list(ours)
        for kind in formats:
            output = f"{source.key}.{kind}"
            path = os.path.join(plan.record.out, output)
            if output in ours or not os.path.lexists(path):
                continue
            if os.path.realpath(path) in inputs:
                raise NotStarted(f"{shown(path)} is a file to be read, and would be overwritten: take another --out")
            if not overwrite:
                raise NotStarted(f"{shown(path)} is there, and is not of such a run: --overwrite replaces it")
            found.append(output)
        if found:
            plan.previous[source.key] = tuple(found)


def _run(plan: Plan, jobs: Jobs, options: argparse.Namespace) -> bool:
    """Do all of them; whether it was interrupted. No worker is left when this returns."""
    from shmexec import SharedExecutor

    line = Line(len(jobs.all), sum(max(0, job.source.size) for job in jobs.all))
    running: dict[Future[Report], Job] = {}
    try:
        with SharedExecutor(options.workers) as executor:
            limited = executor.options(timeout=options.timeout)
            while True:
                while (job := jobs.take()) is not None:
                    try:
                        running[limited.submit(work, _errand(plan, job.source))] = job
                    except BrokenProcessPool as error:
                        _end(plan, jobs, job, _report_of(error), line)
                if not running:
                    return False
                for future in wait(running, line.pause, FIRST_COMPLETED).done:
                    _end(plan, jobs, running[future], _outcome(future), line)
                    del running[future]
                line.show(jobs.done + jobs.failed, jobs.bytes_done, jobs.failed)
    except KeyboardInterrupt:
        jobs.stop("interrupted")
        plan.record.look()
        for future, job in running.items():
            if job.life is not Life.RUNNING:
                continue
            if future.done() and not future.cancelled() and future.exception() is None:
                jobs.end(job, future.result())
            elif plan.record.is_done(job.source):
                jobs.end(job, Report(plan.record.previous(job.source)))
            else:
                jobs.give_back(job)
        return True
    finally:
        line.clear()


def _errand(plan: Plan, source: Source) -> Errand:
    previous = plan.previous.get(source.key, ())
    return Errand(
        plan.record.out,
        plan.record.run,
        plan.function,
        plan.settings,
        plan.format,
        source.path,
        source.key,
        source.size,
        source.changed,
        previous,
    )


def _outcome(future: Future[Report]) -> Report:
    error = future.exception()
    return future.result() if error is None else _report_of(error)


def _report_of(error: BaseException) -> Report:
    if isinstance(error, TaskTimeout):
        return Report(error=str(error).partition(";")[0].replace("work ran", "it ran"))
    if isinstance(error, WorkerDied) and error.call:
        return Report(error=str(error).replace(f"while it was running {error.call}", "while it worked on this file"))
    text = "".join(traceback.format_exception(error))
    return Report(error=reason(error), traceback=text, ends_all=isinstance(error, BrokenProcessPool))


def _end(plan: Plan, jobs: Jobs, job: Job, report: Report, line: Line) -> None:
    if report.error and not report.traceback:  # killed, maybe when all was done but the answer
        plan.record.look()
        if plan.record.is_done(job.source):
            report = Report(plan.record.previous(job.source))
    jobs.end(job, report)
    if job.life is Life.FAILED:
        line.say(f"shmexec map: {shown(os.path.relpath(job.source.path))}: {report.error}")


def _workers(options: argparse.Namespace) -> int:
    return options.workers or len(os.sched_getaffinity(0))


# ---- what is told ----------------------------------------------------------------------------------


def _show_plan(plan: Plan, *, as_json: bool) -> int:
    ending = plan.format or "*"
    rows = [(source, "to do") for source in plan.to_do] + [(source, "done") for source in plan.done_before]
    files = [
        {"file": source.path, "result": os.path.join(plan.record.out, f"{source.key}.{ending}"), "state": state}
        for source, state in sorted(rows, key=lambda row: row[0].key)
    ]
    if as_json:
        print(json.dumps({**plan.job(), "files": files}, indent=1))
        return DONE
    for file in files:
        if file["state"] == "to do":
            print(f"{shown(os.path.relpath(file['file']))} -> {shown(os.path.relpath(file['result']))}")
    total = decimal_size(sum(max(0, source.size) for source in plan.to_do))
    print(f"{_files(len(plan.to_do))} to do, {total}; {len(plan.done_before)} done already")
    return DONE


def _show_summary(plan: Plan, jobs: Jobs, seconds: float, was_interrupted: bool, *, as_json: bool) -> None:
    done, failed = jobs.with_life(Life.DONE), jobs.with_life(Life.FAILED)
    left = len(jobs.all) - len(done) - len(failed)
    read = sum(max(0, job.source.size) for job in done)
    written = sum(job.report.bytes_written for job in done)
    stopped = "interrupted" if was_interrupted else jobs.stopped
    if as_json:
        told = {
            **plan.job(),
            "out": plan.record.out,
            "done": len(done),
            "done_before": len(plan.done_before),
            "left": left,
            "stopped": stopped,
            "seconds": round(seconds, 3),
            "bytes_read": read,
            "bytes_written": written,
            "failed": [
                {
                    "file": job.source.path,
                    "reason": job.report.error,
                    "attempts": job.attempts,
                    "traceback": job.report.traceback,
                }
                for job in failed
            ],
        }
        print(json.dumps(told, indent=1))
        return
    before = f", {len(plan.done_before)} done before" if plan.done_before else ""
    if done or failed or left:
        print(
            f"{_files(len(done))} done{before}, {len(failed)} failed, {left} left; "
            f"{decimal_size(read)} read, {decimal_size(written)} written in {clock(seconds)}"
        )
    else:
        print(f"nothing to do{before}")
    for job in failed[:_NAMED]:
        times = f" ({job.attempts} attempts)" if job.attempts > 1 else ""
        print(f"  {shown(os.path.relpath(job.source.path))}: {job.report.error}{times}")
    if len(failed) > _NAMED:
        print(f"  and {len(failed) - _NAMED} more: --json names all")
    if stopped:
        print(f"stopped: {stopped}")
    if failed or left:
        print("the same command with --resume does what is missing")


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"


def _say(text: str) -> None:
    print(f"shmexec map: {text}", file=sys.stderr, flush=True)
