"""The thread that is there when nobody else waits for answers, and for what takes Python code, and for deaths.

Some facts: a worker rings by writing to an event descriptor, if no other thread of this process reads the answers
(native/hub.h); a worker that is killed between deciding to ring and ringing is seen by its pidfd, in the same sleep;
what is read from a ring after the death is certain is all that there will ever be.

What this means for us: one sleep, in epoll, for the event and all pidfds. At a death: get the baton, read the rings,
deal with what was left over, then judge.
"""

import os
import select
import threading
from collections.abc import Callable

from shmexec import _core
from shmexec.pool.crew import Worker

END = -1.0


class Collector:
    """Calls back when a worker has answered or died, until it is told that nothing more will come.

    Parameters
    ----------
    event : int
        Its descriptor.
    desk : _core.Desk
    on_backlog : callable
        Before each round: deal with what the desk's backlog holds.
    on_death : callable
        Of the worker, when all its answers have been dealt with; this thread has the baton.
    on_round : callable
        Before each round, and whenever somebody has called `wake`. Seconds to sleep at most, None for no limit; or
        `END`.
    on_failure : callable
        Of the exception, if one of the others raises, which none should.
    """

    def __init__(
        self,
        event: int,
        desk: _core.Desk,
        on_backlog: Callable[[], None],
        on_death: Callable[[Worker], None],
        on_round: Callable[[], float | None],
        on_failure: Callable[[BaseException], None],
        name: str,
    ) -> None:
        self._event = event
        self._desk = desk
        self._on_backlog = on_backlog
        self._on_death = on_death
        self._on_round = on_round
        self._on_failure = on_failure
        self._epoll = select.epoll()
        self._epoll.register(event, select.EPOLLIN)
        self._watched: dict[int, Worker] = {}  # by pidfd; changed by one thread at a time, under the pool's lock
        self._dead: list[Worker] = []  # not judged yet
        self._name = name
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Raises RuntimeError if there can be no more threads; then it may be tried again."""
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread = thread
        try:
            thread.start()
        except BaseException:
            self._thread = None
            raise

    def is_current_thread(self) -> bool:
        return self._thread is threading.current_thread()

    def join(self) -> None:
        """Wait until the thread has ended."""
        if self._thread is not None:
            self._thread.join()

    def watch(self, worker: Worker) -> None:
        """From now on this worker's answers and its death are seen."""
        self._watched[worker.process.sentinel] = worker
        self._epoll.register(worker.process.sentinel, select.EPOLLIN)

    def close(self) -> None:
        """Give the descriptor back; the thread has ended, or was never started."""
        self._epoll.close()
        # and let go of the pool, which has this object: else both would wait for the collection of garbage
        del self._on_backlog, self._on_death, self._on_round, self._on_failure

    def _run(self) -> None:
        try:
            while (patience := self._on_round()) != END:
                if not self._desk.spin():
                    self._sleep(patience)
                    self._desk.try_collect()
                self._on_backlog()
                if self._dead and self._desk.try_take():
                    self._bury()
        except BaseException as error:
            self._on_failure(error)
            raise
        finally:
            self.close()

    def _sleep(self, patience: float | None) -> None:
        """Until there is something to do."""
        for descriptor, _ in self._epoll.poll(patience):
            if descriptor == self._event:
                os.eventfd_read(self._event)
            else:
                self._epoll.unregister(descriptor)
                self._dead.append(self._watched.pop(descriptor))

    def _bury(self) -> None:
        """With the baton: judge the dead."""
        try:
            self._desk.collect_all()  # what it wrote last may have come after the first look
            self._on_backlog()
            while self._dead:
                self._on_death(self._dead.pop(0))
        finally:
            self._desk.lay_down()
