"""What tasks report of their progress, and who shows it."""

import io
import os
import signal
import sys
import types

import numpy as np
import pytest
import tasks

import shmexec
from shmexec import progress
from shmexec.pool.futures import CallFuture


def report_then_pass(reports, say=None, wait=None):
    for report in reports:
        shmexec.report_progress(report)
    if say is not None:
        tasks.pass_gates(say, wait)


@pytest.mark.parametrize(
    "reports", [[0.25], ["half way"], [0.1, "a", 0.5], [0.5, "b"], [np.float32(1)], [0, "ü" * 200]]
)
def test_a_future_tells_the_last_report_during_its_call_and_afterwards(executor, gate, reports):
    say, wait = gate("say"), gate("wait")
    last = "ü" * 76 if reports[-1] == "ü" * 200 else reports[-1]
    future = executor.submit(report_then_pass, reports, say, wait)
    say.wait_open()
    assert future.progress == last
    wait.open()
    future.result()
    assert future.progress == last


def test_a_call_that_reports_nothing_has_no_progress(make_executor):
    executor = make_executor(1)
    assert executor.submit(report_then_pass, [0.5]).result() is None
    for _ in range(3):
        future = executor.submit(tasks.double, 4)
        assert future.result() == 8
        assert future.progress is None
    assert CallFuture().progress is None


def report_and_end(report, how):
    shmexec.report_progress(report)
    if how == "raise":
        raise KeyError
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return np.zeros(100_000) if how == "array" else how


@pytest.mark.parametrize("how", ["atom", "array", "raise", "die"])
@pytest.mark.parametrize("options", [{}, {"max_tasks_per_child": 1}])
def test_the_last_report_stays_whatever_becomes_of_the_call(make_executor, how, options):
    future = make_executor(1, **options).submit(report_and_end, 0.75, how)
    future.exception()
    assert future.progress == 0.75


def test_outside_a_call_a_report_is_checked_and_does_nothing():
    shmexec.report_progress(0.5)
    shmexec.report_progress("here")
    for wrong in 1.5, -0.1, float("nan"):
        with pytest.raises(ValueError, match="from 0 to 1"):
            shmexec.report_progress(wrong)
    for wrong in None, [0.5], b"half":
        with pytest.raises((TypeError, ValueError), match="fraction"):
            shmexec.report_progress(wrong)


# ---- a map's progress, to a callable --------------------------------------------------------------


MAPS = [{}, {"chunksize": 1}, {"chunksize": 3}, {"ordered": False}, {"chunksize": 2, "ordered": False}]


@pytest.mark.parametrize("options", MAPS)
def test_a_callable_is_told_from_nothing_to_all(executor, options):
    told = []
    got = executor.map(tasks.double, range(100), progress=lambda *of: told.append(of), **options)
    assert told == []
    assert sorted(got) == [2 * i for i in range(100)]
    done, totals = zip(*told, strict=True)
    assert done[-1] == 100
    assert list(done) == sorted(set(done))
    assert set(totals) == {100}


@pytest.mark.parametrize(("items", "total"), [(list, 9), (iter, None)])
@pytest.mark.parametrize("chunksize", [None, 2])
def test_how_many_calls_there_will_be_is_told_if_it_can_be_known(executor, items, total, chunksize):
    told = []
    progress = lambda *of: told.append(of)  # noqa: E731
    got = executor.map(tasks.double, items(range(9)), buffersize=2, chunksize=chunksize, progress=progress)
    assert len(list(got)) == 9
    assert told[-1] == (9, total)
    assert executor.map(tasks.double, [], progress=progress, chunksize=chunksize) is not None


@pytest.mark.parametrize("options", MAPS)
def test_what_running_calls_report_counts_as_a_part_of_them(make_executor, gate, options):
    executor = make_executor(1)
    say, wait = gate("say"), gate("wait")

    def tell(done, total):
        if done == 1.5:  # the second item of the only worker
            wait.open()

    got = executor.map(report_half_and_pass, [None, (say, wait), None, None], progress=tell, **options)
    assert list(got) == [None] * 4


def report_half_and_pass(gates):
    if gates:
        shmexec.report_progress(0.5)
        tasks.pass_gates(*gates)


def test_what_the_callable_raises_ends_the_map(executor):
    def refuse(done, total):
        raise KeyError(done)

    got = executor.map(tasks.double, range(1000), progress=refuse)
    with pytest.raises(KeyError):
        next(got)
    assert list(got) == []
    assert list(executor.map(tasks.double, range(3))) == [0, 2, 4]


@pytest.mark.parametrize("wrong", [1, None, 0.5, ["label"]])
def test_progress_is_true_false_a_label_or_a_callable(executor, wrong):
    with pytest.raises(TypeError, match="progress must be"):
        executor.map(tasks.double, range(3), progress=wrong)


# ---- bars -----------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def open_terminal(monkeypatch):
    """Stderr is one. Called in the test: pytest sets stderr, too, after the fixtures."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    return made


def without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.autonotebook", None)


def test_nothing_is_written_where_nobody_looks(executor, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    for wanted in True, "label":
        assert list(executor.map(tasks.double, range(3), progress=wanted)) == [0, 2, 4]
    assert sys.stderr.getvalue() == ""


def test_lines_are_written_everywhere_if_the_environment_asks_for_them(executor, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setenv("SHMEXEC_PROGRESS", "always")
    monkeypatch.setattr(progress.time, "monotonic", lambda: 0.0)
    assert list(executor.map(tasks.double, range(3), progress="doubling")) == [0, 2, 4]
    assert sys.stderr.getvalue().startswith("doubling: 3/3 (100%), ")
    assert sys.stderr.getvalue().count("\n") == 1


def test_the_environment_can_silence_bars_and_has_to_make_sense(executor, monkeypatch):
    terminal = open_terminal(monkeypatch)
    monkeypatch.setenv("SHMEXEC_PROGRESS", "never")
    assert list(executor.map(tasks.double, range(3), progress=True)) == [0, 2, 4]
    assert terminal.getvalue() == ""
    monkeypatch.setenv("SHMEXEC_PROGRESS", "maybe")
    with pytest.raises(ValueError, match="SHMEXEC_PROGRESS"):
        executor.map(tasks.double, range(3), progress=True)
    assert list(executor.map(tasks.double, range(3))) == [0, 2, 4]


def test_a_terminal_gets_lines_without_tqdm(executor, monkeypatch):
    terminal = open_terminal(monkeypatch)
    without_tqdm(monkeypatch)
    monkeypatch.setattr(progress.time, "monotonic", lambda: 0.0)
    assert list(executor.map(tasks.double, range(3), progress=True)) == [0, 2, 4]
    assert terminal.getvalue().startswith("3/3 (100%), ")


def test_a_terminal_gets_a_bar_of_tqdm_with_label_and_the_text_of_tasks(make_executor, monkeypatch):
    terminal = open_terminal(monkeypatch)
    executor = make_executor(1)
    bar = progress.make_bar("copying", 2)
    assert type(bar).__name__ == "_Tqdm"
    bar.show(1.5, "page 7")
    bar.close()
    assert "copying" in terminal.getvalue()
    assert "1.5/2" in terminal.getvalue()
    assert "page 7" in terminal.getvalue()
    assert list(executor.map(tasks.double, range(3), progress="doubling")) == [0, 2, 4]
    assert "3/3" in terminal.getvalue()


def test_a_notebook_gets_a_bar_though_its_stderr_is_no_terminal(monkeypatch):
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    without_tqdm(monkeypatch)
    assert progress.make_bar(True, 3) is not None
    shell.config.clear()
    assert progress.make_bar(True, 3) is None


def test_lines_become_rarer_with_time(monkeypatch):
    terminal = open_terminal(monkeypatch)
    without_tqdm(monkeypatch)
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    bar = progress.make_bar("job", None)
    for tenth in range(36_000):
        clock[0] = tenth / 10
        bar.show(tenth, "x")
    bar.close()
    lines = terminal.getvalue().splitlines()
    assert lines[0] == "job: 10, x, 1.0 s"
    assert 80 < len(lines) < 150
    assert lines[-1] == "job: 35999, x, 3599.9 s"


def test_of_several_reports_the_bar_adds_the_fractions_and_never_goes_back(monkeypatch):
    shown = []
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    state = [3, [(0, 0.25, None, 0.25), (2, None, "late", "late")]]
    watch = progress.Watch(
        lambda: progress.make_bar(lambda *of: shown.append(of), 10), lambda: state[0], lambda: state[1]
    )
    assert watch() == pytest.approx(0.1)
    assert shown == [(5.25, 10)]
    state[:] = [4, []]
    assert watch() == pytest.approx(0.1)  # it is not time yet
    clock[0] = 0.2
    watch()
    assert shown == [(5.25, 10)]
    state[:] = [9, []]
    watch.close()
    assert shown == [(5.25, 10), (9, 10)]
