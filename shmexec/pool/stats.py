"""The figures of an executor, for its users."""

from dataclasses import dataclass

from shmexec.pickling.crossings import Crossing


@dataclass(frozen=True)
class PoolStats:
    """Figures of an executor since its start.

    Attributes
    ----------
    calls_waiting, calls_running, calls_done : int
        Calls; a chunk of `map` counts as one. Running ones include those that a worker was told of ahead.
    bytes_by_name_in, bytes_by_name_out : int
        Bytes of arrays that went by kernel name, as arguments and as results.
    bytes_copied_in, bytes_copied_out : int
        Bytes of arrays and buffers that were copied, into shared memory or into a message.
    workers_started, workers_died : int
        Those that ended because they were told to are no dead ones.
    heap_bytes_in_use : int
        Of the whole heap, whoever uses it.
    copies : tuple of Crossing
        The first few arguments and results that were copied, at most 16 of the first 1000 calls: the function, which
        argument or what of the result, how many bytes, and why. ``print(*ex.stats().copies, sep="\\n")``.
    workers_alive : int
        Worker processes that there are now.
    """

    calls_waiting: int
    calls_running: int
    calls_done: int
    bytes_by_name_in: int
    bytes_by_name_out: int
    bytes_copied_in: int
    bytes_copied_out: int
    workers_started: int
    workers_died: int
    heap_bytes_in_use: int
    copies: tuple[Crossing, ...] = ()
    workers_alive: int = 0
