"""The threads that are there when nobody else waits for answers, and for what takes Python code, deaths and callbacks.

Some facts: a worker rings by writing to an event descriptor, if no other thread of this process reads the answers
(native/hub.h); a worker that is killed between deciding to ring and ringing is seen by its pidfd, in the same sleep;
what is read from a ring after the death is certain is all that there will ever be. Users' callbacks may block, submit,
raise, or ask for other results. To wake a thread takes 20 to 50 us.

What this means for us: one sleep, in epoll, for the event, all pidfds, and the desk's timer: calls that wait behind
others while a worker sleeps do so for a millisecond at most. At a death: get the baton, read the rings,
deal with what was left over, then judge. The same when the time of a call may be up, which bounds the sleep. Two
threads sleep there, from the first callback on. The kernel wakes one of them, and that one runs the callbacks of what
it has read, so that nobody needs to be woken for those; the other wakes if something comes meanwhile. A thread that
adds a callback to a short call collects the answer and wakes one of them on its own core (Desk.glance).

Guarantees
    one thread at a time is *on duty*: it alone deals with answers, deaths and the pool's next steps
    a thread that leaves callbacks to the other sleeps meanwhile
    users' callbacks run off duty, one at a time, in the order in which their futures were finished
    each write to the event is followed by a round: it is registered edge-triggered, so that it wakes one thread, once
Rejected: a thread of its own for callbacks (one more wake for each); waking a second thread before a callback (the
    same, for each that returns at once, as nearly all do); looking at the rings for a while after a callback (on few
    cores that is in the way of the thread that the callback has woken: 39 in place of 23 us for a call).
"""

import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable

from shmexec import _core
from shmexec.pool.crew import Worker

END = -1.0

_NO_THREAD = "can't start new thread"  # Python's words
_WHY_NO_THREAD = (
    "the pool needs one for what workers answer; raise the limit of this user (ulimit -u, RLIMIT_NPROC) or of the"
    " control group (pids.max; --pids-limit of a container), end others, or free memory for its stack (ulimit -v)"
)

_LOGGER = logging.getLogger("concurrent.futures")


class Collector:
    """Calls back when a worker has answered or died, until it is told that nothing more will come.

    Parameters
    ----------
    event : int
        Its descriptor, which is closed in the end.
    desk : _core.Desk
    on_backlog : callable
        On duty, before each round: deal with what the desk's backlog holds.
    on_death : callable
        On duty. Of the worker, when all its answers have been dealt with; this thread has the baton.
    on_time : callable
        On duty. After that, and when the desk says that a call with a limit is due; this thread has the baton.
    on_round : callable
        On duty, whenever something has come, or somebody has rung. Seconds to sleep at most, None for no limit; or
        `END`, after which nobody rings any more.
    on_failure : callable
        Of the exception, if one of the others raises, which none should.
    """

    def __init__(
        self,
        event: int,
        desk: _core.Desk,
        on_backlog: Callable[[], None],
        on_death: Callable[[Worker], None],
        on_time: Callable[[], None],
        on_round: Callable[[], float | None],
        on_failure: Callable[[BaseException], None],
        name: str,
    ) -> None:
        self._event = event
        self._desk = desk
        self._on_backlog = on_backlog
        self._on_death = on_death
        self._on_time = on_time
        self._on_round = on_round
        self._on_failure = on_failure
        self._epoll = select.epoll()
        self._epoll.register(event, select.EPOLLIN | select.EPOLLET)
        self._epoll.register(desk.sender.timer, select.EPOLLIN | select.EPOLLET)
        self._watched: dict[int, Worker] = {}  # by pidfd; changed by one thread at a time, under the pool's lock
        self._dead: list[Worker] = []  # not judged yet
        self._name = name
        self._threads: list[threading.Thread] = []
        self._running = 0  # of them; under the duty lock
        self._duty = threading.Lock()
        self._on_duty = 0  # the thread that has it
        self._patience: float | None = None
        self._is_over = False
        self._callbacks: deque[Callable[[], None]] = deque()
        self._calling = threading.Lock()  # who has it runs them
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the first thread. Raises RuntimeError if there can be no more threads; then it may be tried again."""
        self._start_thread()

    @property
    def is_running(self) -> bool:
        """Whether there are threads of it."""
        return bool(self._threads)

    def is_current_thread(self) -> bool:
        """Whether this thread is on duty."""
        return self._on_duty == threading.get_ident()

    def join(self) -> None:
        """Wait until the threads have ended, and with them all callbacks, but for the one that asks."""
        if self._threads and threading.current_thread() not in self._threads:
            # a `join` that Ctrl-C interrupts takes the thread for ended, in Python 3.11 and 3.12; and a Ctrl-C that
            # comes between Python's last look for one and the wait is slept through, as long as that lasts
            while not self._ended.wait(1.0):
                pass
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def watch(self, worker: Worker) -> None:
        """From now on this worker's answers and its death are seen."""
        if self._watched.get(worker.process.sentinel) is not worker:
            self._epoll.register(worker.process.sentinel, select.EPOLLIN | select.EPOLLONESHOT)
            self._watched[worker.process.sentinel] = worker

    def call(self, callback: Callable[[], None]) -> None:
        """On duty: run a callback of the user's when this thread is off duty, or in the other."""
        self._callbacks.append(callback)
        if len(self._threads) < 2:
            try:
                self._start_thread()
            except RuntimeError:
                pass  # no more threads: then callbacks hold the answers up

    def forget_in_child(self) -> None:
        """In a process that was forked: the threads are the parent's."""
        self._threads = []

    def close(self) -> None:
        """Give the descriptors back; the threads have ended, or were never started."""
        self._epoll.close()
        self._desk.baton.close_event()
        os.close(self._desk.sender.timer)
        # and let go of the pool, which has this object: else both would wait for the collection of garbage
        del self._on_backlog, self._on_death, self._on_time, self._on_round, self._on_failure

    # ---- the threads -----------------------------------------------------------------------------

    def _start_thread(self) -> None:
        number = len(self._threads)
        name = f"{self._name}-{number}" if number else self._name
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._threads.append(thread)
        self._running += 1  # before any thread is there, or on duty
        try:
            thread.start()
        except BaseException as error:
            self._threads.pop()
            self._running -= 1
            if str(error) == _NO_THREAD:
                raise RuntimeError(f"{error}: {_WHY_NO_THREAD}") from error
            raise

    def _run(self) -> None:
        _core.name_thread("shmexec-collect")
        ready: list[tuple[int, int]] = []
        try:
            while True:
                if self._duty.acquire(blocking=bool(ready)):  # who has nothing in hand leaves it to who has
                    self._on_duty = threading.get_ident()
                    try:
                        self._serve(ready)
                    finally:
                        self._on_duty = 0
                        self._duty.release()
                self._call()
                if self._is_over:
                    return
                self._desk.baton.falls_asleep()
                ready = self._epoll.poll(self._patience)
                self._desk.baton.is_awake()
        finally:
            with self._duty:
                self._running -= 1
                is_last = not self._running
            if is_last:
                self.close()
                self._ended.set()

    def _serve(self, ready: list[tuple[int, int]]) -> None:
        """On duty: deal with what there is, until nothing comes or there are callbacks to run."""
        try:
            for descriptor, _ in ready:
                if descriptor == self._desk.sender.timer:
                    self._desk.sender.on_timer()
                elif descriptor != self._event:
                    self._epoll.unregister(descriptor)
                    self._dead.append(self._watched.pop(descriptor))
            self._desk.try_collect()
            while not self._is_over:
                self._on_backlog()
                if (self._dead or self._desk.sender.is_due) and self._desk.baton.try_take():
                    self._judge()
                self._patience = self._on_round()
                if self._patience == END:
                    self._end()
                elif self._callbacks or not self._desk.spin():
                    break
            if self._callbacks and self._patience is not None and not self._calling.locked():
                os.eventfd_write(self._event, 1)  # the other is to sleep no longer than this one would
        except BaseException as error:
            self._on_failure(error)
            self._end()
            raise

    def _end(self) -> None:
        self._is_over = True
        os.eventfd_write(self._event, 1)  # the other, who will find out; this one sleeps no more

    def _call(self) -> None:
        """Run the callbacks that there are, unless the other does."""
        while self._callbacks and self._calling.acquire(blocking=False):
            try:
                while self._callbacks:
                    _run_one(self._callbacks.popleft())
            finally:
                self._calling.release()  # and look again: the other may have put one there, and gone by

    def _judge(self) -> None:
        """With the baton: judge the dead, and those that have taken too long."""
        try:
            self._desk.collect_all()  # what it wrote last may have come after the first look
            self._on_backlog()
            while self._dead:
                self._on_death(self._dead.pop(0))
            self._on_time()
        finally:
            self._desk.baton.lay_down()


def _run_one(callback: Callable[[], None]) -> None:
    try:
        callback()  # concurrent.futures logs what a callback raises, but for SystemExit and its like
    except BaseException:
        _LOGGER.exception("exception calling callback")
