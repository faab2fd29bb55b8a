"""What can go wrong with shared arrays and workers."""

from concurrent.futures.process import BrokenProcessPool

__all__ = ["NotShareable", "SharedMemoryFull", "StaleName", "TaskTimeout", "WorkerDied"]


class WorkerDied(BrokenProcessPool):
    """The worker process ended while it was running this call.

    Attributes
    ----------
    pid : int
        Of the worker that died.
    exitcode : int or None
        As `multiprocessing.Process.exitcode`: negative for a signal, 255 if nobody could learn it.
    call : str
        The name of the function that the call was for.
    """

    def __init__(self, message: str, *, pid: int = 0, exitcode: int | None = None, call: str = "") -> None:
        super().__init__(message)
        self.pid = pid
        self.exitcode = exitcode
        self.call = call

    def __reduce__(self) -> tuple[object, ...]:
        return _worker_died, (str(self), self.pid, self.exitcode, self.call)


def _worker_died(message: str, pid: int, exitcode: int | None, call: str) -> WorkerDied:
    return WorkerDied(message, pid=pid, exitcode=exitcode, call=call)


class TaskTimeout(TimeoutError):
    """A call took longer than the time it was given."""


class SharedMemoryFull(MemoryError):
    """No shared memory is left: the heap's limit or the machine's memory is reached."""

    bytes_needed: int = 0


class StaleName(LookupError):
    """The array that a kernel name stands for is gone: the last array on its block was dropped."""


class NotShareable(TypeError):
    """This value cannot lie in shared memory: its elements are references to Python objects, or it is no array."""
