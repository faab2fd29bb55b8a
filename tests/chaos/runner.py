"""Seasons: one executor each, some threads that use it, one that kills its workers; then everything is looked over."""

import faulthandler
import gc
import os
import random
import signal
import sys
import threading
import time

import numpy as np

import shmexec
from shmexec import _core
from tests.chaos import work
from tests.chaos.actions import Actor
from tests.chaos.checker import Checker, Figures

PATIENCE = 60.0  # seconds without any call's end: a hang
SEASON = 6.0


class Killer(threading.Thread):
    """Kills workers from outside, at random moments; and those that have stopped themselves."""

    def __init__(self, executor, board, seed, pause):
        super().__init__(name="killer", daemon=True)
        self._pool = executor._pool
        self._board = board
        self._random = random.Random(seed)
        self._pause = pause
        self._killed = set()  # pids that are not buried yet
        self._over = threading.Event()

    def stop(self):
        self._over.set()
        self.join()

    def run(self):
        due = time.monotonic()
        while not self._over.wait(0.005):
            workers = list(self._pool._workers.values())
            for worker in workers:
                if self._board.stopped[worker.process.pid]:
                    worker.process.kill()
            if time.monotonic() >= due:
                due = time.monotonic() + self._random.expovariate(1 / self._pause)
                self._kill_one(workers)

    def _kill_one(self, workers):
        self._killed &= {worker.process.pid for worker in workers}
        # three that die in a row and have begun nothing break the pool, as they should
        if not workers or self._killed or self._pool._ledger.fruitless:
            return
        worker = self._random.choice(workers)
        pid = worker.process.pid
        self._killed.add(pid)
        self._board.anywhere[pid] = 1
        self._board.doomed[pid] = 1
        try:
            if self._random.random() < 0.2:
                signal.pidfd_send_signal(worker.process.sentinel, signal.SIGSTOP)
                time.sleep(self._random.random() * 0.02)
            worker.process.kill()
        except (ValueError, ProcessLookupError):
            pass  # it has been buried


def note_deaths(executor, checker):
    """Let the checker know how each worker ended."""
    crew = executor._pool._crew
    bury = crew.bury

    def bury_and_note(worker):
        code = bury(worker)
        checker.ended(worker.process.pid, code)
        return code

    crew.bury = bury_and_note


class Watchdog(threading.Thread):
    """If no call ends for a long time: says where everybody stands, and ends the process."""

    def __init__(self, say):
        super().__init__(name="watchdog", daemon=True)
        self.checker = None
        self.executor = None
        self._say = say
        self.start()

    def run(self):
        seen, since = None, time.monotonic()
        while True:
            time.sleep(0.5)
            now = (id(self.checker), self.checker and self.checker.progress)
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                self._report()

    def _report(self):
        self._say(f"HANG: no call has ended for {PATIENCE:.0f} seconds")
        faulthandler.dump_traceback(file=sys.stderr)
        pool = self.executor and self.executor._pool
        if pool is not None:
            self._say(f"counts {pool.counts()}, workers {pool.processes()}, broken {pool._broken!r}")
            self._say(f"heap: {_core.check_heap(False)}, {shmexec.heap_info()}")
            for worker in list(pool._workers.values()):
                calls = [(call.number, call.state, call.position) for call in worker.seat.sent]
                self._say(f"worker {worker.process.pid} ready {worker.seat.is_ready} has {calls}")
                os.kill(worker.process.pid, signal.SIGUSR1)
        time.sleep(2)
        self._say(f"hangs 1: {self.checker and self.checker.figures}")
        os._exit(3)


class Chaos:
    """Everything that one process goes through."""

    def __init__(self, seed, say, report):
        self.figures = Figures()
        self._seed = seed
        self._kept = 0  # blocks of the pool that keeps the fork server
        self._say = say
        self._report = report
        self._watchdog = Watchdog(say)

    def run(self, seconds):
        keeper = shmexec.SharedExecutor(1)  # its fork server is the one of all
        until = time.monotonic() + seconds
        self._kept, fds = shmexec.heap_info().blocks, None
        while time.monotonic() < until:
            self._season(min(SEASON, until - time.monotonic()))
            self.figures.rounds += 1
            self._look_around()
            fds = fds or len(os.listdir("/proc/self/fd"))
            more = len(os.listdir("/proc/self/fd")) - fds
            if more > 0:
                self._say(f"{more} descriptors more than after the first season")
                self.figures.left += more
            self._report(self.figures)
        keeper.shutdown()
        return self.figures

    def _season(self, seconds):
        rng = np.random.default_rng([self._seed, self.figures.rounds])
        board = work.Board()
        executor = shmexec.SharedExecutor(
            int(rng.integers(2, 5)),
            initializer=work.come_up,
            initargs=(board,),
            max_tasks_per_child=None if rng.random() < 0.7 else int(rng.integers(1, 40)),
            shared_results=rng.random() < 0.8,
        )
        where = f"season {self.figures.rounds} of seed {self._seed}"
        checker = Checker(board, self.figures, lambda text: self._say(f"{where}: {text}"))
        self._watchdog.checker, self._watchdog.executor = checker, executor
        note_deaths(executor, checker)
        killer = Killer(executor, board, int(rng.integers(1 << 30)), float(10 ** rng.uniform(-2, -0.5)))
        killer.start()
        until = time.monotonic() + seconds
        actors = [Actor(executor, checker, child) for child in rng.spawn(int(rng.integers(1, 4)))]
        others = [threading.Thread(target=self._act, args=(actor, until)) for actor in actors[1:]]
        for other in others:
            other.start()
        self._act(actors[0], until)
        for other in others:
            other.join()
        executor.shutdown(wait=True, cancel_futures=bool(rng.random() < 0.3))
        killer.stop()
        checker.finish()
        self._watchdog.checker = self._watchdog.executor = None

    def _act(self, actor, until):
        try:
            while time.monotonic() < until:
                actor.act()
            actor.settle_all()
        except BaseException as error:
            actor.checker.wrong(f"an action failed: {error!r}")
            raise

    def _look_around(self):
        for _ in range(3):
            gc.collect()
        blocks = shmexec.heap_info().blocks - self._kept
        if blocks:
            self._say(f"{blocks} blocks are left")
            self.figures.blocks += blocks
        broken = _core.check_heap(True)
        if broken:
            self._say(f"broken invariant: {broken}")
            self.figures.blocks += 1
