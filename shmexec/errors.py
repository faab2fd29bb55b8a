"""What can go wrong with shared arrays and workers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shmexec.deaths import WorkerDied

__all__ = ["NotShareable", "SharedMemoryFull", "StaleName", "TaskTimeout", "WorkerDied"]


class TaskTimeout(TimeoutError):
    """A call ran for longer than it was given, and its worker process has been ended: nothing of it runs any more."""


class SharedMemoryFull(MemoryError):
    """No shared memory is left: the heap's limit or the machine's memory is reached."""

    bytes_needed: int = 0


class StaleName(LookupError):
    """The array that a kernel name stands for is gone: the last array on its block was dropped."""


class NotShareable(TypeError):
    """This value cannot lie in shared memory: its elements are references to Python objects, or it is no array."""


def __getattr__(name: str) -> Any:
    if name != "WorkerDied":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from shmexec.deaths import WorkerDied  # loads the standard library's pool, which workers have no use for

    return WorkerDied
