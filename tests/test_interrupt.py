"""Ctrl-C, once, at a terminal; SIGTERM and SIGHUP to the whole process group."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios

import pytest
import sequencer

PROGRAM = """
import multiprocessing, os, sys, time
import shmexec, tasks
from sequencer import Gate

way, method, folder = sys.argv[1:]

def note(what):
    with open(os.path.join(folder, what), "a") as file:
        file.write(".")

def work(i):
    note("begun")
    say.open()
    while True:
        time.sleep(0.01)

def work_in_c(i):
    say.open()
    time.sleep(1000)

say = Gate(os.path.join(folder, "say"))
make = lambda: shmexec.SharedExecutor(
    2, None if method == "default" else multiprocessing.get_context(method), finalizer=lambda: note("cleaned up")
)

def ready(count=2):
    for _ in range(count):
        say.wait_open()
    print("ready", flush=True)

match way:
    case "map":
        with make() as ex:
            results = ex.map(work, range(9))
            ready()
            list(results)
    case "result":
        with make() as ex:
            futures = [ex.submit(work_in_c, i) for i in range(9)]
            ready()
            futures[0].result()
    case "sleeping":
        with make() as ex:
            futures = [ex.submit(work, i) for i in range(9)]
            ready()
            time.sleep(1000)
    case "leaving":
        try:
            with make() as ex:
                futures = [ex.submit(work, i) for i in range(9)]
                ready()
        except KeyboardInterrupt:
            assert not ex._processes
            raise
    case "without with":
        ex = make()
        futures = [ex.submit(work, i) for i in range(9)]
        ready()
        futures[0].result()
    case "idle":
        ex = make()
        list(ex.map(tasks.double, range(9), chunksize=1))
        ready(0)
        time.sleep(1000)
    case "caught":
        ex = make()
        list(ex.map(tasks.double, range(9), chunksize=1))
        try:
            ready(0)
            time.sleep(1000)
        except KeyboardInterrupt:
            pass
        assert ex.submit(tasks.double, 4).result() == 8
        raise KeyboardInterrupt
"""


@pytest.fixture
def terminal():
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def start(terminal, folder, *arguments):
    """A program in the foreground of a terminal of its own; what it prints comes through pipes."""
    path = folder / "program.py"
    path.write_text(PROGRAM)

    def be_in_the_foreground():
        for signum in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:  # a test run in the background ignores some
            signal.signal(signum, signal.SIG_DFL)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    program = subprocess.Popen(
        [sys.executable, path, *arguments, folder],
        stdin=terminal[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=sequencer.environment(),
        start_new_session=True,
        preexec_fn=be_in_the_foreground,
    )
    assert program.stdout.readline() == "ready\n", program.communicate()[1]
    # a Ctrl-C that comes between Python's last look for one and a wait is slept through, as in any program
    sequencer.wait_until(lambda: sequencer.state_of(program.pid) == "S")
    return program


WAYS = ["map", "result", "sleeping", "leaving", "without with", "idle", "caught"]
CASES = [(way, "default") for way in WAYS] + [("map", "fork"), ("map", "spawn"), ("idle", "spawn")]


@pytest.mark.parametrize(("way", "method"), CASES)
def test_one_ctrl_c_is_one_keyboard_interrupt_and_ends_everything(terminal, tmp_path, relatives, way, method):
    with start(terminal, tmp_path, way, method) as program:
        os.write(terminal[0], b"\x03")
        output, errors = program.communicate()
    assert program.returncode == -signal.SIGINT
    assert output == ""
    assert errors.count("Traceback") == 1, errors
    assert errors.endswith("\nKeyboardInterrupt\n"), errors
    assert "shmexec" not in errors.splitlines()[1]
    assert (tmp_path / "cleaned up").read_text().count(".") >= (1 if way in ("idle", "caught") else 2)
    if way in ("map", "sleeping", "leaving", "without with"):
        assert (tmp_path / "begun").read_text() == ".."  # what waited was not run
    assert not relatives()


@pytest.mark.parametrize("way", ["map", "idle"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_process_group_ends_everything(terminal, tmp_path, relatives, way, signum):
    with start(terminal, tmp_path, way, "default") as program:
        os.killpg(program.pid, signum)  # and SIGHUP follows: it leads the session
        output, errors = program.communicate()
    assert program.returncode == -signum
    assert (output, errors) == ("", "")
    sequencer.wait_until(lambda: not relatives())
    assert (tmp_path / "cleaned up").read_text()
