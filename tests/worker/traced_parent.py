"""A program that starts one worker, which leaves traces of its end; run by test_ending.py. It has no
``__main__`` guard.

Usage: traced_parent.py METHOD ENDING DIRECTORY DESCRIPTOR. It writes a JSON line about itself to DESCRIPTOR.
"""

import atexit
import ctypes
import json
import logging.handlers
import os
import signal
import sys
import tempfile
import threading
import time
import types
import weakref
from multiprocessing import util
from pathlib import Path

from shmexec.pool.launcher import Launcher

method, ending, directory, answer = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])


class Thing:
    """Something that can be finalized."""


def trace(name):
    with open(directory / "traces", "a") as file:
        file.write(f"{name}\n")


def register_everything(who):
    """Whatever runs at the end of a program, each with its trace. What it returns must stay alive."""
    thing = Thing()
    atexit.register(trace, f"{who} atexit")
    weakref.finalize(thing, trace, f"{who} weakref.finalize")
    util.Finalize(None, trace, args=(f"{who} util.Finalize",), exitpriority=10)
    # mkdir(path): at exit(3) no Python code, no object of Python's
    libc = ctypes.CDLL(None)
    libc.strdup.restype = ctypes.c_void_p
    path = libc.strdup(os.fsencode(directory / f"{who} C handler"))
    libc.__cxa_atexit(libc.mkdir, ctypes.c_void_p(path), None)
    return thing


def traces():
    """What has run so far."""
    return (directory / "traces").read_text().splitlines() + [p.name for p in directory.glob("* C handler")]


def live(fds):
    """The worker's life."""
    ended = threading.Event()
    threading._register_atexit(ended.set)
    threading.Thread(target=lambda: (ended.wait(), trace("worker thread"))).start()
    module = sys.modules["of_the_worker"] = types.ModuleType("of_the_worker")
    module.kept = register_everything("worker")
    module.log = open(directory / "log", "w")  # noqa: SIM115 - stays open
    module.log.write("everything that was written")
    sys.modules["__main__"].log = open(directory / "main log", "w")  # noqa: SIM115 - stays open
    sys.modules["__main__"].log.write("everything that was written")
    records = logging.handlers.MemoryHandler(1000, target=logging.FileHandler(directory / "records"))
    logging.getLogger("worker").addHandler(records)
    logging.getLogger("worker").error("everything that was logged")
    os.write(fds[0], b"r")
    if ending == "exit":
        sys.exit(7)
    while ending != "return":
        time.sleep(0.01)  # not pause(): a signal that comes just before it would be slept through


kept = register_everything("parent")
temporary_file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - stays open
temporary_directory = tempfile.TemporaryDirectory()
unflushed = open(directory / "parent's", "w")  # noqa: SIM115 - stays open
unflushed.write("once")
ready, says_ready = os.pipe()
with Launcher(method) as launcher:
    worker = launcher.start("operator:call", live, name="traced", fds=[says_ready, answer])
    os.read(ready, 1)
    if ending == "parent killed":
        os.write(answer, b"{}")
        signal.pause()
    if ending == "terminate":
        worker.terminate()
    worker.join()
    about = {
        "exitcode": worker.exitcode,
        "temporary file": os.path.exists(temporary_file.name),
        "temporary directory": os.path.isdir(temporary_directory.name),
        "traces": traces(),
    }
    worker.close()
unflushed.close()
os.write(answer, json.dumps(about).encode())
