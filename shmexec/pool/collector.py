"""The thread that waits for answers and deaths.

Some facts: a worker rings by writing to an event descriptor, but only if the hub says that the collector sleeps; a
worker that is killed between deciding to ring and ringing is seen by its pidfd, in the same sleep; what is read from
a ring after the death is certain is all that there will ever be.

What this means for us: one sleep, in epoll, for the event and all pidfds; arm the hub, then look at every ring once
more, then sleep; at a death, first drain the ring, then judge.
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
    hub : _core.Hub
    on_answer : callable
        Of the worker and the message.
    on_death : callable
        Of the worker, when all its answers have been given to `on_answer`.
    on_round : callable
        Before each round, and whenever somebody has called `wake`. Seconds to sleep at most, None for no limit; or
        `END`.
    on_failure : callable
        Of the exception, if one of the others raises, which none should.
    """

    def __init__(
        self,
        hub: _core.Hub,
        on_answer: Callable[[Worker, _core.Message], None],
        on_death: Callable[[Worker], None],
        on_round: Callable[[], float | None],
        on_failure: Callable[[BaseException], None],
        name: str,
    ) -> None:
        self._hub = hub
        self._on_answer = on_answer
        self._on_death = on_death
        self._on_round = on_round
        self._on_failure = on_failure
        self._epoll = select.epoll()
        self._epoll.register(hub.event, select.EPOLLIN)
        self._watched: dict[int, Worker] = {}  # by pidfd; changed by one thread at a time, under the pool's lock
        self._name = name
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

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

    def wake(self) -> None:
        """Make a round, from any thread."""
        os.eventfd_write(self._hub.event, 1)

    def close(self) -> None:
        """Give the descriptor back; the thread has ended, or was never started."""
        self._epoll.close()
        # and let go of the pool, which has this object: else both would wait for the collection of garbage
        del self._on_answer, self._on_death, self._on_round, self._on_failure

    def _run(self) -> None:
        try:
            while (patience := self._on_round()) != END:
                self._make_round(patience)
        except BaseException as error:
            self._on_failure(error)
            raise
        finally:
            self.close()

    def _make_round(self, patience: float | None) -> None:
        dead = self._sleep(patience)
        for worker in list(self._watched.values()):
            self._drain(worker)
        for pidfd in dead:
            worker = self._watched.pop(pidfd)
            self._epoll.unregister(pidfd)
            self._drain(worker)  # again: what it wrote last came after the first look
            self._on_death(worker)

    def _sleep(self, patience: float | None) -> list[int]:
        """Until there is something to look at; the pidfds of the dead."""
        if self._hub.spin(tuple(worker.channel for worker in list(self._watched.values()))):
            return []
        self._hub.arm()
        if any(worker.channel.has_answer() for worker in list(self._watched.values())):
            patience = 0
        events = self._epoll.poll(patience)
        self._hub.disarm()
        if any(descriptor == self._hub.event for descriptor, _ in events):
            os.eventfd_read(self._hub.event)
        return [descriptor for descriptor, _ in events if descriptor != self._hub.event]

    def _drain(self, worker: Worker) -> None:
        try:
            while (message := worker.channel.receive()) is not None:
                self._on_answer(worker, message)
                del message
        except _core.BadMessage:
            worker.process.kill()  # it wrote where it should not: its death is judged like any other
