"""The workers of a pool: started, stopped, buried.

Guarantees: what a start opens is closed again if it fails; a dead worker's slot is reaped before anything else
    learns of the death, so that the memory which it held is there for the next call.
Assumptions: `bury` is called once for each worker, by the collector, when its death is certain and its answers are
    read.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from shmexec import _core
from shmexec.pickling.functions import shipped
from shmexec.pickling.main_module import track_classes
from shmexec.pickling.pickler import array_reducer
from shmexec.pickling.tickets import is_registered
from shmexec.pool import fork_server, log
from shmexec.pool.last_words import LastWords
from shmexec.pool.launcher import UNKNOWN_CODE, Launcher, WorkerProcess
from shmexec.pool.threads import variables
from shmexec.transport.launch import DeferredJob
from shmexec.transport.messages import Kind, WorkerHead, WorkerJob

_ENTRY = "shmexec.worker.loop:run"


class Worker:
    """A worker as the pool sees it."""

    def __init__(
        self, process: WorkerProcess, channel: _core.Channel, slot: int, seat: _core.Seat, said: LastWords
    ) -> None:
        self.process = process
        self.channel = channel
        self.slot = slot
        self.seat = seat
        self.said = said
        self.last_words = ""  # when it is dead
        self.refusal: BaseException | None = None  # why no worker of this pool will be of use

    def try_stop(self) -> bool:
        """Tell it to end when it has run what it was sent; False: its ring is full, of calls that were taken back."""
        try:
            return self.channel.stop(Kind.STOP)
        except _core.BadMessage:
            self.process.kill()
            return True


class WorkerSettings(NamedTuple):
    """What each worker of a pool is started with.

    `may_fork`: nobody chose the method, and the standard library's default is fork, which can pass on what no pickle
    can: its locks, above all. It is used if such things are among the `initargs`.
    """

    method: str
    initializer: Callable[..., Any] | None
    initargs: tuple[Any, ...]
    finalizer: Callable[[], Any] | None
    max_tasks: int | None
    shared_results: bool
    threads: int | None = None
    max_workers: int = 1
    may_fork: bool = False
    preload: tuple[str, ...] = fork_server.WORKERS


class Crew:
    """Starts and buries the workers of one pool."""

    def __init__(self, settings: WorkerSettings, hub: _core.Hub) -> None:
        self._settings = settings
        self._hub = hub
        self._numbers = itertools.count()
        self._kept = _core.Holds()  # what the initializer's arguments name: a replacement needs them again
        reducer = array_reducer(self._kept)
        self._launcher = Launcher(settings.method, preload=settings.preload, reducer_override=reducer)
        self._replacer = self._launcher
        if settings.method == "fork":  # never fork a replacement out of the live parent: its threads may hold locks
            self._replacer = Launcher("forkserver", preload=settings.preload, reducer_override=reducer)

    def prepare(self) -> None:
        """Begin to start what will start the workers; returns at once."""
        self._launcher.prepare()

    def start(self, *, as_replacement: bool = False) -> Worker:
        """A new worker, which comes up by itself. Raises OSError."""
        number = next(self._numbers)
        settings = self._settings
        chosen = variables(settings.threads, settings.max_workers, os.environ)
        slot = _core.reserve_slot()
        said = process = None
        try:
            said = LastWords()
            channel = _core.Channel.create(slot, self._hub)
            head = WorkerHead(
                _core.heap_address(),
                slot,
                channel.name,
                self._hub.name,
                settings.max_tasks,
                settings.shared_results,
                tuple(chosen.items()),
                is_registered(),
            )
            process = self._launch(head, f"SharedExecutor-{number}", said.end, as_replacement)
            said.hand_out()
            return Worker(process, channel, slot, _core.Seat(number, channel, shipped()), said)
        except BaseException:
            if process is not None:  # Ctrl-C
                process.kill()
                process.join()
            if said is not None:
                said.close()
            _core.reap_slot(slot)
            raise

    def _launch(self, head: WorkerHead, name: str, said: int, as_replacement: bool) -> WorkerProcess:
        settings = self._settings
        job = DeferredJob(head, WorkerJob(settings.initializer, settings.initargs, settings.finalizer))
        fds = (*_core.heap_descriptors(), self._hub.event, said)
        if as_replacement and self._replacer is not self._launcher:
            try:
                return self._replacer.start(_ENTRY, job, name=name, fds=fds, variables=dict(head.variables))
            except (RuntimeError, TypeError):
                pass  # initargs that can only be inherited, as a lock of the fork context: then it must be a fork
        launcher = self._launcher
        if launcher.method == "fork":
            track_classes()
        try:
            return launcher.start(
                _ENTRY, job, name=name, fds=fds, fork_guard=_as_worker(head.slot), variables=dict(head.variables)
            )
        except (RuntimeError, TypeError):
            if not self._turn_to_fork(launcher):
                raise
        return self._launch(head, name, said, as_replacement)

    def _turn_to_fork(self, refusing: Launcher) -> bool:
        """If that may be. Two threads may come here; the second finds it done."""
        if refusing is self._launcher and self._settings.may_fork:
            self._replacer, self._launcher = refusing, Launcher("fork")
            self._settings = self._settings._replace(method="fork", may_fork=False)
            log.tell(log.at_once, log.INFO, "workers are forked: there are initargs that can only be inherited")
        return refusing is not self._launcher

    @property
    def method(self) -> str:
        """How workers are started."""
        return self._launcher.method

    @property
    def forks(self) -> bool:
        """Whether workers are forked out of this process: then all are, before it has threads of ours."""
        return self._launcher.method == "fork"

    def bury(self, worker: Worker) -> int | None:
        """Take back all that a dead worker held; its exit code."""
        worker.process.join()
        code = worker.process.exitcode
        worker.last_words = worker.said.take(code, UNKNOWN_CODE)
        worker.process.close()
        _core.reap_slot(worker.slot)
        _core.reap_dead()  # the workers of a pool of its own, which end with it
        return code

    def close(self) -> None:
        """All workers are buried, and no more will be started."""
        self._launcher.close()
        self._replacer.close()
        self._settings = self._settings._replace(initializer=None, initargs=(), finalizer=None)  # locks and queues
        self._kept.release()


@contextlib.contextmanager
def _as_worker(slot: int) -> Iterator[None]:
    """The fork in here makes the worker that this slot is kept for."""
    parent = os.getpid()
    _core.expect_fork(slot)
    try:
        yield
    finally:
        if os.getpid() == parent:
            _core.expect_fork(0)
