"""Starting workers: what they find, from where they may be started, what can go wrong."""

import errno
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing import context, shared_memory
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from shmexec.pool import spawning
from shmexec.pool.launcher import Launcher, WorkerProcess

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file


Ask = Callable[..., Any]
Waiting = Callable[[Launcher], AbstractContextManager[WorkerProcess]]
ExitCode = Callable[[Launcher, Callable[[list[int]], object]], int | None]


# ---- what the worker finds ----


def test_a_worker_knows_itself_and_its_parent(launcher: Launcher, ask: Ask) -> None:
    def look() -> object:
        me, parent = multiprocessing.current_process(), multiprocessing.parent_process()
        assert parent is not None
        assert parent.is_alive()
        return me.name, me.daemon, me._identity, parent.name, parent.pid, multiprocessing.active_children()

    first, second = ask(launcher, look), ask(launcher, look)
    assert first[:2] == ("asked", False)
    assert first[2] != second[2]
    assert first[3:] == (multiprocessing.current_process().name, os.getpid(), [])


def test_descriptors_arrive_in_order_and_are_closed_in_programs(launcher: Launcher) -> None:
    pipes = [os.pipe() for _ in range(150)]  # more than one message holds
    ends = [end for pipe in pipes for end in pipe]
    wanted = [os.fstat(end).st_ino for end in ends]

    def look(fds: list[int]) -> None:
        found = [os.fstat(fd).st_ino for fd in fds]
        assert found == wanted
        assert not any(map(os.get_inheritable, fds))

    worker = launcher.start("operator:call", look, name="w", fds=ends)
    for end in ends:
        os.close(end)
    worker.join()
    assert worker.exitcode == 0
    worker.close()


def test_locks_queues_and_connections_of_the_context_may_be_in_a_job(launcher: Launcher) -> None:
    ours_is = multiprocessing.get_context("fork" if launcher.method == "fork" else "spawn")
    lock, queue, (ours, theirs) = ours_is.Lock(), ours_is.SimpleQueue(), ours_is.Pipe()

    def use(fds: list[int]) -> None:
        with lock:
            queue.put("queue")
            theirs.send("connection")

    with lock:
        worker = launcher.start("operator:call", use, name="w")
    assert (queue.get(), ours.recv()) == ("queue", "connection")
    worker.join()
    worker.close()
    ours.close()
    theirs.close()
    queue.close()


def test_a_long_job_arrives(launcher: Launcher, ask: Ask) -> None:
    data = os.urandom(10_000_000)
    assert ask(launcher, lambda: hash(data) is not None and len(data)) == len(data)


def test_environment_and_directory_are_those_of_the_start(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ask: Ask
) -> None:
    monkeypatch.setenv("SHMEXEC_TEST_GONE", "1")
    launcher.prepare()
    monkeypatch.delenv("SHMEXEC_TEST_GONE")
    monkeypatch.setenv("SHMEXEC_TEST", "here")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "beside.py").write_text("value = 42")

    def look() -> object:
        import beside  # type: ignore[import-not-found]

        return os.environ["SHMEXEC_TEST"], "SHMEXEC_TEST_GONE" in os.environ, os.getcwd(), beside.value

    assert ask(launcher, look) == ("here", False, str(tmp_path), 42)


def test_a_parents_shared_memory_survives_a_worker_that_used_it(launcher: Launcher, ask: Ask) -> None:
    memory = shared_memory.SharedMemory(create=True, size=10)
    name = memory.name

    def use() -> None:
        theirs = shared_memory.SharedMemory(name)
        theirs.buf[0] = 7
        theirs.close()

    ask(launcher, use)
    again = shared_memory.SharedMemory(name)
    assert again.buf[0] == 7
    again.close()
    memory.close()
    memory.unlink()


def test_a_worker_may_have_children_and_terminate_them(launcher: Launcher, ask: Ask) -> None:
    def have() -> object:
        child = multiprocessing.get_context("fork").Process(target=signal.pause)
        child.start()
        child.terminate()
        child.join()
        return child.exitcode

    assert ask(launcher, have) == -signal.SIGTERM


def test_a_worker_may_start_workers(launcher: Launcher, ask: Ask) -> None:
    method = launcher.method

    def nest() -> object:
        with Launcher(method) as inner:
            return ask(inner, os.getppid), os.getpid()

    parent, worker = ask(launcher, nest)
    assert (parent == worker) == (method != "forkserver")


# ---- where it may be started from ----


def test_a_daemonic_process_may_start_workers(launcher: Launcher, ask: Ask) -> None:
    launcher.close()
    method = launcher.method
    reads, writes = os.pipe()

    def daemon() -> None:
        with Launcher(method) as inner:
            os.write(writes, str(ask(inner, lambda: multiprocessing.current_process().daemon)).encode())

    process = multiprocessing.get_context("fork").Process(target=daemon, daemon=True)
    process.start()
    os.close(writes)
    with open(reads, "rb") as file:
        assert file.read() == b"False"
    process.join()
    assert process.exitcode == 0
    process.close()


def test_a_worker_outlives_the_thread_that_started_it(launcher: Launcher, waiting_worker: Waiting) -> None:
    opened: list[WorkerProcess] = []
    waiting = waiting_worker(launcher)
    thread = threading.Thread(target=lambda: opened.append(waiting.__enter__()))
    thread.start()
    thread.join()
    try:
        opened[0].join(0.05)
        assert opened[0].is_alive()
    finally:
        waiting.__exit__(None, None, None)
    assert opened[0].exitcode == 0


def test_forking_beside_threads_is_no_warning(exitcode_of: ExitCode) -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        with Launcher("fork") as launcher, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            assert exitcode_of(launcher, lambda fds: None) == 0
            assert warned == []
    finally:
        over.set()
        thread.join()


def test_a_guard_is_entered_around_fork_alone_and_left_on_both_sides(launcher: Launcher, ask: Ask) -> None:
    steps: list[tuple[str, bool]] = []
    parent = os.getpid()

    @contextmanager
    def guard() -> Iterator[None]:
        steps.append(("enter", os.getpid() == parent))
        yield
        steps.append(("leave", os.getpid() == parent))

    in_worker = ask(launcher, lambda: steps, fork_guard=guard() if launcher.method == "fork" else None)
    if launcher.method == "fork":
        assert in_worker == [("enter", True), ("leave", False)]
        assert steps == [("enter", True), ("leave", True)]
    else:
        assert steps == []


# ---- what can go wrong ----


def test_a_job_that_cannot_be_pickled_starts_nothing() -> None:
    for method in "forkserver", "spawn":
        with Launcher(method) as launcher, pytest.raises(TypeError, match="pickle"):
            launcher.start("operator:call", threading.Lock(), name="w")


def test_a_lock_of_the_wrong_context_is_refused(forkserver: Launcher) -> None:
    lock = multiprocessing.get_context("fork").Lock()
    with pytest.raises(RuntimeError, match="context"):
        forkserver.start("operator:call", lock, name="w")


def test_an_entry_that_does_not_exist_ends_the_worker(launcher: Launcher, capfd: pytest.CaptureFixture[str]) -> None:
    worker = launcher.start("operator:nothing", None, name="w")
    worker.join()
    assert worker.exitcode == 1
    worker.close()
    assert "nothing" in capfd.readouterr().err


def test_a_kernel_without_process_descriptors_is_named(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(pid: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", missing)
    with pytest.raises(OSError, match="Linux 5"):
        launcher.start("operator:call", print, name="w")


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="fork, forkserver, spawn"):
        Launcher("vfork")


def test_a_closed_launcher_starts_nothing(launcher: Launcher) -> None:
    launcher.close()
    launcher.close()
    with pytest.raises(ValueError, match="closed"):
        launcher.start("operator:call", print, name="w")


def test_the_given_reducer_is_asked_first(ask: Ask) -> None:
    class Special:
        pass

    def reduce(thing: object) -> object:
        return (str, ("reduced",)) if type(thing) is Special else NotImplemented

    special = Special()
    for method in "forkserver", "spawn":
        with Launcher(method, reducer_override=reduce) as launcher:
            assert ask(launcher, lambda: special) == "reduced"


def test_preparing_leaves_the_default_start_method_open() -> None:
    default: Any = context._default_context
    before = default._actual_context
    default._actual_context = None
    try:
        assert "start_method" not in spawning.preparation_data("w")
        assert default._actual_context is None
    finally:
        default._actual_context = before
