"""Forces an order on what happens in different processes, without sleeping: gates, and programs run on their own."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time


class Gate:
    """A semaphore that has a file name: tokens in a FIFO. It can be pickled, and survives whoever is killed at it.

    The process that made it keeps it; the others open it for the moment in which they need it.
    """

    def __init__(self, path):
        self._path = os.fspath(path)
        os.mkfifo(self._path)
        self._kept = os.open(self._path, os.O_RDWR)  # the tokens live as long as somebody has it open

    def __getstate__(self):
        return self._path

    def __setstate__(self, path):
        self._path = path

    def open(self, passes=1):
        """Let so many through."""
        descriptor = os.open(self._path, os.O_RDWR)
        try:
            os.write(descriptor, b"." * passes)
        finally:
            os.close(descriptor)

    def wait_open(self):
        """Go through, when somebody has opened it."""
        descriptor = os.open(self._path, os.O_RDWR)
        try:
            os.read(descriptor, 1)
        finally:
            os.close(descriptor)

    def close(self):
        os.close(self._kept)


class Killer:
    """Kills processes that have stopped themselves: they write their pid into its FIFO, then stop."""

    def __init__(self, path):
        self.path = os.fspath(path)
        os.mkfifo(self.path)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        with open(self.path, "r+b", buffering=0) as file:
            while pid := int.from_bytes(file.read(8), "little"):
                wait_until(lambda pid=pid: state_of(pid) == "T")
                os.kill(pid, signal.SIGKILL)

    def close(self):
        with open(self.path, "wb", buffering=0) as file:
            file.write(bytes(8))
        self._thread.join()


def state_of(pid):
    """Its letter in /proc: T is stopped, Z a zombie."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def is_gone(pid):
    """Whether a process has ended: reaped, or a zombie that nobody asks for."""
    try:
        return state_of(pid) in "ZX"
    except OSError:
        return True


def wait_until(condition):
    """Return when the condition holds. For what nobody signals; the test's time limit ends it."""
    while not condition():
        time.sleep(0.001)


@contextlib.contextmanager
def signal_once(handler, when):
    """In here a signal comes when `when` holds, whose handler, in the main thread, calls `handler`; once.

    It is sent again and again: one that comes just before a wait begins is slept through.
    """
    seen = threading.Event()

    def handle(*_):
        if not seen.is_set():
            seen.set()
            handler()

    def send():
        while not when():
            os.sched_yield()
        while not seen.is_set():
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.001)

    before = signal.signal(signal.SIGUSR1, handle)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)


class Script:
    """Runs programs with this interpreter, in a folder of their own."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, source, *arguments, how="file", check=True, timeout=60):
        path = os.path.join(self.folder, "program.py")
        with open(path, "w") as file:
            file.write(source)
        way = {"file": [path], "stdin": ["-"], "-c": ["-c", source]}[how]
        ran = subprocess.run(
            [sys.executable, "-W", "error", *way, *map(str, arguments)],
            cwd=self.folder,
            input=source if how == "stdin" else "",
            env=environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check:
            assert ran.returncode == 0, f"ended with {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
            assert ran.stderr == ""
        return ran

    def start(self, source, *arguments):
        """A program that runs beside the test; its output can be read line by line."""
        path = os.path.join(self.folder, "program.py")
        with open(path, "w") as file:
            file.write(source)
        return subprocess.Popen(
            [sys.executable, path, *map(str, arguments)],
            cwd=self.folder,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


def environment():
    """This process's, in which programs find what it can import."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
