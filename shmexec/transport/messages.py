"""The table of messages: what the parent and a worker say to each other, and what a worker is started with.

A message has a kind, the number of a call, the number of a function, and a payload of two parts;
`shmexec._core.Channel` carries it.

===============  =====================================  ===========================================
parent -> worker first part                             second part
===============  =====================================  ===========================================
CALL             the function, if it is shipped here    (args, kwargs); what is short: marshalled
CHUNK            the same                               [args, ...]: one call for each, in order
SPAN             the same                               a budget and items (`shmexec.pickling.spans`)
STOP
worker -> parent
READY
RESULT           `Cost`                                 the value, marshalled if it names arrays; of a
                                                        CHUNK, the list of values; of a SPAN, an `Outcome`:
                                                        of as many items as the budget was enough for, one at
                                                        least
ATOM             `Cost`                                 the value, which is short, marshalled
FAILURE          `Cost`                                 an exception (`shmexec.pickling.failures`)
UNREADABLE       `Cost`                                 what unpickling the function or the arguments has raised
UNREADY                                                 the initializer's exception
LEAVING                                                 (it has run `max_tasks` calls)
===============  =====================================  ===========================================
"""

import pickle
import struct
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from shmexec.pickling.crossings import Crossing


class Kind(IntEnum):
    """What a message says."""

    CALL = 1
    CHUNK = 2
    STOP = 3
    READY = 4
    RESULT = 5
    FAILURE = 6
    UNREADY = 7
    LEAVING = 8
    SPAN = 9
    ATOM = 10
    UNREADABLE = 11


_COST = struct.Struct("<QQd")

# The worker is not told more than this many calls ahead: one that runs and one that waits, which can be taken back.
DEPTH = 2


class Cost(NamedTuple):
    """What an answer took: bytes of results that went by name and that were copied, and seconds of work; which were
    copied, where the parent has not been told enough of that yet; and the last that the call reported of its progress.
    """

    bytes_by_name: int = 0
    bytes_copied: int = 0
    seconds: float = 0.0
    copies: "tuple[Crossing, ...]" = ()
    report: float | str | None = None

    def pack(self) -> bytes:
        figures = _COST.pack(self.bytes_by_name, self.bytes_copied, self.seconds)
        more = self.copies or self.report is not None
        return figures + pickle.dumps((self.copies, self.report), 5) if more else figures

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> "Cost":
        by_name, copied, seconds = _COST.unpack(data[: _COST.size])
        more = pickle.loads(data[_COST.size :]) if len(data) > _COST.size else ()
        return cls(by_name, copied, seconds, *more)


class WorkerHead(NamedTuple):
    """Where a worker finds its heap, its channel and its parent: known before anything of the user's is loaded.

    Its descriptors, of the heap (but System V memory has none) and of the parent's event, come beside it.
    """

    heap: tuple[int, int]
    slot: int
    channel: tuple[int, int]
    hub: tuple[int, int]
    max_tasks: int | None
    shared_results: bool = True
    variables: tuple[tuple[str, str], ...] = ()  # of the environment: threads of numeric libraries
    is_registered: bool = False  # multiprocessing's own means pass arrays by name, as in the parent


class WorkerJob(NamedTuple):
    """What of the user's a worker runs as it comes up and as it ends; may name blocks of the heap."""

    initializer: Callable[..., Any] | None
    initargs: tuple[Any, ...]
    finalizer: Callable[[], Any] | None
