"""What runs when a pool's workers end: everything that sys.exit would run, however the end comes."""

import os
import select
import signal
import subprocess
import sys

import pytest

SCRIPT = """
import atexit, multiprocessing, os, signal, sys, threading, time, weakref
from multiprocessing import util
from pathlib import Path
import shmexec
from shmexec import SharedExecutor

folder, method, end = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
context = None if method == "default" else multiprocessing.get_context(method)

def note(what):
    with open(folder / "trace", "a") as file:
        file.write(f"{what}\\n")

def parents_handler():
    if os.getpid() != parent:
        note("the parent's handler in a worker")
parent = os.getpid()
atexit.register(parents_handler)

class Kept: pass

def prepare():
    global unflushed, kept, later
    atexit.register(note, "atexit")
    kept = Kept()
    weakref.finalize(kept, note, "weakref.finalize")
    util.Finalize(None, note, ("util.Finalize",), exitpriority=1)
    unflushed = open(folder / "unflushed", "w")
    unflushed.write("complete")
    asked = threading.Event()
    threading.Thread(target=lambda: (asked.wait(), note("thread"))).start()
    util.Finalize(None, asked.set, exitpriority=0)
    later = threading.Timer(0.05, asked.set)
    later.start()
    return os.getpid()

def finalizer(): note("finalizer")

def stay(begun):
    begun[0] = 1
    while True: time.sleep(0.001)

if True:  # no guard
    ex = SharedExecutor(1, context, finalizer=finalizer)
    pid = ex.submit(prepare).result()
    print(pid, flush=True)
    if end == "shutdown":
        ex.shutdown()
    elif end == "term":
        begun = shmexec.zeros(1)
        future = ex.submit(stay, begun)
        while not begun[0]: time.sleep(0.001)
        os.kill(pid, signal.SIGTERM)
        print(future.exception().exitcode, flush=True)
        ex.shutdown()
    elif end == "kill":
        sys.stdin.read()
    # "exit": the interpreter ends with the pool open
"""


@pytest.mark.parametrize("end", ["shutdown", "exit", "term", "kill"])
@pytest.mark.parametrize("method", ["default", "fork", "forkserver", "spawn"])
def test_workers_run_everything_that_sys_exit_would_run(method, end, tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    command = [sys.executable, path, tmp_path, method, end]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        gone = os.pidfd_open(worker)
        if end == "kill":  # the parent of the workers, by force
            parent.kill()
        rest = parent.stdout.read()  # ends with the last process that has it
    select.select([gone], [], [])  # files are closed a little earlier
    os.close(gone)
    assert parent.returncode == (-signal.SIGKILL if end == "kill" else 0)
    assert rest == ("143\n" if end == "term" else "")
    trace = (tmp_path / "trace").read_text().splitlines()
    assert sorted(trace) == ["atexit", "finalizer", "thread", "util.Finalize", "weakref.finalize"]
    assert (tmp_path / "unflushed").read_text() == "complete"
