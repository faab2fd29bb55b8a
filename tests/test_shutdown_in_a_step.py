"""Shutdown while a step of the pool is under way: a first start in another thread, or what a signal interrupts."""

import signal
import threading
from concurrent import futures

import pytest
import tasks


class Slow:
    """Among initargs: it is pickled while the first worker is started."""

    def __init__(self, begun, go_on, error=None):
        self.begun, self.go_on, self.error = begun, go_on, error

    def __reduce__(self):
        self.begun.set()
        self.go_on.wait()
        if self.error is not None:
            raise self.error
        return int, ()


@pytest.fixture
def starting():
    """Makes a pool whose first worker another thread is starting, for a call; go_on(), and what came of the call."""
    begun, go_on, threads = threading.Event(), threading.Event(), []

    def make(make_executor, error=None):
        executor = make_executor(2, initializer=tasks.give, initargs=(Slow(begun, go_on, error),))
        outcome = futures.Future()

        def submit():
            outcome.set_result(executor.submit(tasks.give, 5))

        threads.append(threading.Thread(target=submit))
        threads[0].start()
        begun.wait()
        return executor, go_on.set, outcome

    yield make
    go_on.set()
    threads[0].join()


def test_a_shutdown_waits_for_the_call_whose_worker_another_thread_is_starting(make_executor, starting):
    executor, go_on, outcome = starting(make_executor)
    ended = threading.Thread(target=executor.shutdown)
    ended.start()
    ended.join(0.1)
    was_waiting = ended.is_alive()
    go_on()
    ended.join()
    assert was_waiting
    assert outcome.result().done()
    assert outcome.result().result() == 5


def test_a_shutdown_that_cancels_the_only_call_waits_for_its_worker(make_executor, starting):
    executor, go_on, outcome = starting(make_executor)
    executor.shutdown(wait=False, cancel_futures=True)
    go_on()
    executor.shutdown()
    assert outcome.result().cancelled()
    assert executor._processes == {}


def test_a_pool_whose_first_worker_cannot_be_started_after_its_shutdown_ends(make_executor, starting):
    executor, go_on, outcome = starting(make_executor, OSError("no room"))
    executor.shutdown(wait=False)
    go_on()
    executor.shutdown()
    with pytest.raises(futures.BrokenExecutor, match="no room"):
        outcome.result().result()


class Signals:
    """An argument: whoever pickles it is interrupted by a signal."""

    def __reduce__(self):
        signal.raise_signal(signal.SIGUSR1)
        return int, ()


@pytest.mark.parametrize("when", ["start", "pack", "map"])
def test_a_signal_handler_that_shuts_down_does_not_wait_for_what_it_interrupts(make_executor, when):
    executor = make_executor(1, initializer=tasks.give, initargs=(Signals() if when == "start" else 0,))
    if when != "start":
        executor.submit(tasks.give, 1).result()

    def items():
        signal.raise_signal(signal.SIGUSR1)
        yield from range(3)

    before = signal.signal(signal.SIGUSR1, lambda *of: executor.shutdown())
    try:
        if when == "map":
            try:
                assert list(executor.map(tasks.give, items())) == [0, 1, 2]
            except (futures.CancelledError, RuntimeError):
                pass
        else:
            assert executor.submit(tasks.give, Signals()).result() == 0
    finally:
        signal.signal(signal.SIGUSR1, before)
