"""What is seen of a pool from outside: names of processes and threads, the log, last words, figures; and debuggers."""

import ctypes
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

import pytest
import sequencer
import tasks
import ways

from shmexec import WorkerDied, _core
from shmexec.pool import last_words, log


def crash(*_):
    ctypes.memset(8, 1, 1)


def crash_in_a_crowd():
    for _ in range(3):
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    crash()


def abort():
    os.abort()


def crash_in_a_child():
    if (pid := os.fork()) == 0:
        crash()
    status = os.waitpid(pid, 0)[1]
    os.kill(os.getpid(), signal.SIGSEGV if os.WTERMSIG(status) == signal.SIGSEGV else signal.SIGKILL)


def names():
    """Of this process: for `ps`, `ps -f`, and what C code says it is; once one of its threads has named itself."""
    while not any(path.read_text() == "shmexec-owner\n" for path in Path("/proc/self/task").glob("*/comm")):
        os.sched_yield()
    comm, command = (Path("/proc/self", name).read_text() for name in ("comm", "cmdline"))
    libc = ctypes.CDLL(None)
    program = ctypes.c_char_p.in_dll(libc, "program_invocation_short_name").value
    return comm.strip(), command.rstrip("\0"), program


def test_names_log_and_last_words_under_every_start_method(make_executor, method, caplog):
    caplog.set_level(logging.INFO, "shmexec")
    executor = make_executor(1, method)
    comm, command, program = executor.submit(names).result()
    assert comm == "shmexec-0"
    assert f"shmexec: SharedExecutor-0 of process {os.getpid()}".startswith(command)
    assert len(command) >= len("shmexec: Sh")
    assert program.decode() == Path(sys.executable).name or method == "fork"
    mine = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    assert "shmexec-collect" in mine
    pid = executor.submit(os.getpid).result()
    error = executor.submit(crash).exception()
    assert (type(error), error.exitcode, error.pid) == (WorkerDied, -signal.SIGSEGV, pid)
    assert "Segmentation fault" in error.traceback
    assert f'File "{__file__}"' in error.traceback
    assert " in crash" in error.traceback
    assert "worker/loop.py" not in error.traceback
    assert str(error).endswith(error.traceback)
    assert pickle.loads(pickle.dumps(error)).traceback == error.traceback
    assert executor.submit(tasks.double, 2).result() == 4
    assert executor.stats().workers_alive == 1
    executor.shutdown()
    assert executor.stats().workers_alive == 0
    said = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "shmexec"]
    by = method or "forkserver"
    assert ("INFO", f"worker process {pid} (SharedExecutor-0) started by {by}") in said
    assert ("WARNING", str(error)) in said
    assert [level for level, text in said if text.endswith("has ended with exit code 0")] == ["INFO"]
    assert sum(text.startswith("worker process") for _, text in said) == 4


@pytest.mark.parametrize("by", ways.WAYS)
def test_last_words_come_by_every_way(executor, by):
    error = ways.WAYS[by](executor, crash)
    assert " in crash" in error.traceback


def test_the_thread_that_crashed_comes_first(executor):
    error = executor.submit(crash_in_a_crowd).exception()
    what, first, *others = error.traceback.split("\n\n")
    assert what == "Fatal Python error: Segmentation fault"
    assert first.startswith("Current thread")
    assert " in crash_in_a_crowd" in first
    assert sum(other.startswith("Thread") for other in others) == 3


def test_last_words_are_only_of_the_workers_own_crash(executor):
    assert "Aborted" in executor.submit(abort).exception().traceback
    error = executor.submit(os._exit, 3).exception()
    assert (error.traceback, "\n" in str(error)) == ("", False)
    error = executor.submit(crash_in_a_child).exception()
    assert error.exitcode == -signal.SIGSEGV
    assert "Current thread" in error.traceback
    assert error.traceback.count("Fatal Python error") == 1
    assert "in crash_in_a_child" in error.traceback
    assert "in crash\n" not in error.traceback


def test_an_initializer_that_crashes_says_where(make_executor):
    executor = make_executor(1, None, crash)
    error = executor.submit(tasks.double, 1).exception()
    assert "before they had come up" in str(error)
    assert " in crash" in str(error)


def test_last_words_are_bounded():
    long = "Fatal Python error: Aborted\n\n" + "Thread 0x1:\n  File a\n\n" * 5000 + "Current thread 0x2:\n  File b"
    said = last_words.LastWords()
    written = os.write(said.end, long.encode())
    assert written < len(long)
    with pytest.raises(BlockingIOError):  # what is over is dropped, and keeps nobody waiting
        os.write(said.end, bytes(1 << 16))
    assert len(said.take(-signal.SIGABRT, 255)) < 9000
    assert last_words.arranged(long).split("\n\n")[1] == "Current thread 0x2:\n  File b"
    other = last_words.LastWords()
    os.write(other.end, b"of a crash that was survived")
    assert other.take(-signal.SIGKILL, 255) == ""


def test_a_death_between_calls_is_told(executor, caplog):
    pid = executor.submit(tasks.pid).result()
    executor._processes[pid].kill()
    sequencer.wait_until(lambda: any("was killed by signal 9" in text for text in caplog.messages))
    assert caplog.messages == [f"worker process {pid} was killed by signal 9"]


def test_small_pages_are_told_once(make_executor, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "shmexec")
    monkeypatch.setattr(_core, "has_huge_pages", lambda: False)
    monkeypatch.setattr(log, "_told", set())
    for _ in range(2):
        assert list(make_executor(2).map(tasks.double, range(9))) == list(range(0, 18, 2))
        sequencer.wait_until(lambda: any("pages of 4 KiB" in text for text in caplog.messages))
    assert sum("pages of 4 KiB" in text for text in caplog.messages) == 1


UNSET = """
import os, sys, shmexec
with shmexec.SharedExecutor(1) as ex:
    error = ex.submit(os._exit, 3).exception()
    assert isinstance(error, shmexec.WorkerDied)
    print("told", file=sys.stderr)
    assert ex.submit(abs, -1).result() == 1
    for process in ex._processes.values():
        process.kill()
    assert ex.submit(abs, -1).result() == 1
"""


def test_a_program_without_a_log_prints_what_no_exception_tells(script):
    ran = script(UNSET, check=False)
    assert ran.returncode == 0
    told, death = ran.stderr.splitlines()
    assert told == "told"
    assert death.endswith("was killed by signal 9")


class Curious(logging.Handler):
    """One that uses the pool that it is told of, and then fails."""

    def __init__(self, executor):
        super().__init__()
        self.executor, self.seen = executor, []

    def emit(self, record):
        self.seen.append(self.executor.submit(tasks.double, 4).result())
        raise ValueError("a handler that fails")


def test_a_handler_may_use_the_pool_and_fail(executor):
    logger, handler = logging.getLogger("shmexec"), Curious(executor)
    executor.submit(tasks.pid).result()
    logger.addHandler(handler)
    try:
        assert isinstance(executor.submit(crash).exception(), WorkerDied)
        assert executor.submit(tasks.double, 1).result() == 2
        sequencer.wait_until(lambda: handler.seen)
    finally:
        logger.removeHandler(handler)
    assert handler.seen == [8]


class Calls(logging.Handler):
    """Calls a function when it is told something that has these words in it, the first time."""

    def __init__(self, words, function):
        super().__init__()
        self.words, self.function, self.returned = words, function, []

    def emit(self, record):
        if self.words in record.getMessage() and not self.returned:
            self.returned.append(None)
            self.returned[0] = self.function()


@pytest.fixture
def when_told():
    """Let a handler call a function."""
    logger, handlers, level = logging.getLogger("shmexec"), [], logging.getLogger("shmexec").level

    def add(words, function):
        handlers.append(Calls(words, function))
        logger.addHandler(handlers[-1])
        logger.setLevel(logging.INFO)
        return handlers[-1].returned

    yield add
    logger.setLevel(level)
    for handler in handlers:
        logger.removeHandler(handler)


def test_a_handler_may_wait_for_the_worker_that_a_new_fork_server_starts(make_executor, when_told):
    executor = make_executor(1)
    pid = executor.submit(tasks.pid).result()
    server = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    returned = when_told("the fork server has died", lambda: executor.submit(tasks.double, 4).result())
    os.kill(server, signal.SIGKILL)
    sequencer.wait_until(lambda: sequencer.is_gone(server))
    assert isinstance(executor.submit(crash).exception(), WorkerDied)
    assert executor.submit(tasks.double, 1).result() == 2
    sequencer.wait_until(lambda: returned == [8])


def test_a_handler_may_shut_the_pool_down(make_executor, when_told):
    executor = make_executor(1)
    returned = when_told("started by", executor.shutdown)
    assert executor.submit(tasks.double, 1).result() == 2
    assert returned == [None]
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(tasks.double, 1)
    executor.shutdown()


def test_a_pool_that_is_of_no_use_any_more_is_told(make_executor, caplog):
    executor = make_executor(1, on_worker_death="break")
    assert " in crash" in executor.submit(crash).exception().traceback
    executor.shutdown()
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert "the process pool is not usable anymore" in caplog.messages[1]


DEBUGGERS = """
import multiprocessing, os, pdb
from shmexec import SharedExecutor

def by_breakpoint(): breakpoint()
def by_pdb(): pdb.set_trace()
def post_mortem():
    try:
        1 / 0
    except ZeroDivisionError:
        pdb.post_mortem()
    return "went on"

for method in None, "fork", "forkserver", "spawn":
    os.environ.pop("PYTHONBREAKPOINT", None)
    with SharedExecutor(1, method and multiprocessing.get_context(method)) as ex:
        for way in by_breakpoint, by_pdb:
            error = ex.submit(way).exception()
            assert "has no terminal" in "".join([str(error), *getattr(error, "__notes__", [])])
            assert "PYTHONBREAKPOINT" in str(error.__cause__)
        assert ex.submit(post_mortem).result() == "went on"
    os.environ["PYTHONBREAKPOINT"] = "operator.call"
    with SharedExecutor(1, method and multiprocessing.get_context(method)) as ex:
        assert "call expected" in str(ex.submit(by_breakpoint).exception()), "the user's own"
print("fine")
"""


def test_a_debugger_in_a_worker_is_a_clear_error(script):
    assert script(DEBUGGERS).stdout.endswith("fine\n")


def test_the_fork_server_has_a_name(executor):
    pid = executor.submit(tasks.pid).result()
    server = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    assert Path(f"/proc/{server}/comm").read_text().strip() == "shmexec-server"
    command = Path(f"/proc/{server}/cmdline").read_text()
    assert command.rstrip("\0") == f"shmexec: fork server of process {os.getpid()}"


NAMED = """
import os
from pathlib import Path
from shmexec import _core
_core.name_thread("x" * 99)
_core.name_command("y" * 9999)
print(Path("/proc/self/comm").read_text(), Path("/proc/self/cmdline").read_text().strip(chr(0)), os.environ["HOME"])
"""


def test_names_that_are_too_long_are_cut(script):
    comm, command, home = script(NAMED).stdout.split()
    assert comm == "x" * 15
    assert set(command) == {"y"}
    assert home == os.environ["HOME"]


def wait_as_main(begun, gate):
    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER: Yama is to let anybody look
    reader = threading.Thread(target=wait_as_reader, args=(begun, gate), name="reader")
    reader.start()
    begun.open()
    gate.wait_open()
    reader.join()


def wait_as_reader(begun, gate):
    begun.open()
    gate.wait_open()


# Does what py-spy does first, in a process that is related to the worker as py-spy is; prints why it cannot.
LOOK = """
import ctypes, os, sys

class Span(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]

def check(result, what):
    if result < 0:
        sys.exit(print(f"{what}: {os.strerror(ctypes.get_errno())}"))

pid, there = map(int, sys.argv[1:])
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
check(libc.ptrace(0x4206, pid, None, None), "ptrace(PTRACE_SEIZE)")  # until this process ends
byte = ctypes.create_string_buffer(1)
spans = Span(ctypes.addressof(byte), 1), Span(there, 1)
libc.process_vm_readv.restype = ctypes.c_ssize_t
check(libc.process_vm_readv(pid, ctypes.byref(spans[0]), 1, ctypes.byref(spans[1]), 1, 0), "process_vm_readv")
"""


def test_py_spy_sees_what_runs_and_threads_by_name(lonely, gate, script):
    begun, done = gate("begun"), gate("done")
    pid = lonely.submit(tasks.pid).result()
    future = lonely.submit(wait_as_main, begun, done)
    for _ in range(2):
        begun.wait_open()
    address = int(Path(f"/proc/{pid}/maps").read_text().partition("-")[0], 16)
    if refused := script(LOOK, pid, address).stdout:
        pytest.skip(f"the kernel lets no process look into this one: {refused}")
    command = [Path(sysconfig.get_path("scripts"), "py-spy"), "dump", "--json", "--pid", str(pid)]
    dump = subprocess.run(command, capture_output=True, text=True)
    assert dump.returncode == 0, dump.stderr
    frames = {one["thread_name"]: [frame["name"] for frame in one["frames"]] for one in json.loads(dump.stdout)}
    assert "wait_as_main" in frames["MainThread"]
    assert "wait_as_reader" in frames["reader"]
    done.open(2)
    future.result()


class Slow(logging.Handler):
    """Writes to a pipe, whose reader takes its time."""

    def __init__(self, descriptor, order):
        super().__init__()
        self.descriptor, self.order = descriptor, order

    def emit(self, record):
        os.write(self.descriptor, bytes(1 << 20))
        self.order.append("written")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_waits_for_a_line_that_is_being_logged(monkeypatch):
    """Else the child would have a file whose lock is held by a thread that it has not."""
    monkeypatch.setattr(log, "_LONGEST", 60.0)
    order = []

    def fork():
        if (pid := os.fork()) == 0:
            os._exit(0)
        order.append("forked")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    ours, theirs = os.pipe()
    handler = Slow(theirs, order)
    logging.getLogger("shmexec").addHandler(handler)
    try:
        writer = threading.Thread(target=log.tell, args=(log.at_once, log.WARNING, "slowly"))
        writer.start()
        left = (1 << 20) - len(os.read(ours, 1))  # it is at it
        forker = threading.Thread(target=fork)
        forker.start()
        sequencer.wait_until(lambda: state_of_thread(forker) == "S")
        while left:
            left -= len(os.read(ours, left))
        writer.join()
        forker.join()
    finally:
        logging.getLogger("shmexec").removeHandler(handler)
        os.close(ours)
        os.close(theirs)
    assert order == ["written", "forked"]


def state_of_thread(thread):
    return Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(")")[2].split()[0]
