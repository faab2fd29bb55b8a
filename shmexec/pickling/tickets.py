"""Arrays by name through multiprocessing's own queues, pipes, processes, pools and managers.

Purpose: `register_multiprocessing`, and what its pickles are made of.
Guarantees: an array that was pickled arrives, whether or not its sender has dropped it or has died meanwhile, as long
    as any process has its heap. A ticket keeps it until the pickle is first read; a second reading gives the same
    memory while somebody holds the array, and `StaleName` after. Arrays over one block are so in the receiver, too.
Assumptions: each pickle is read once, or at least once (`trim(unclaimed=True)` makes up for those that are not). The
    reader trusts the writer: the pickle is code, as any is.

Some facts about multiprocessing (CPython 3.11 to 3.14)
    Whatever crosses between its processes is pickled by `reduction.ForkingPickler`, which has a table of reducers of
    its own; plain `pickle`, and with it what goes to disk, does not look there.
    `Process` copies the `_config` of the process that makes it (the authentication key is there), and a child that is
    not forked unpickles it before its arguments, after it has imported the main module.
    While a child is being started `DupFd` hands it a descriptor.
What this means for us
    The reducer of arrays stands in that one table. A child finds its parent's heap in its `_config`: were it to make
    one of its own, what it sends would be lost with it, since a heap ends with the last process that has it.
    A heap of System V memory has no descriptor that would keep it: a child takes part in it as it starts.
"""

from __future__ import annotations

import pickle
from multiprocessing import process, reduction
from typing import TYPE_CHECKING, Any

import numpy as np

from shmexec import _core
from shmexec.pickling.arrays import dtype_token

if TYPE_CHECKING:
    from numpy.typing import NDArray

Reduced = tuple[Any, ...]

_reduction: Any = reduction  # for what typeshed does not declare
_HERITAGE = "shmexec"
_was_full = False


def register_multiprocessing() -> None:
    """Pass arrays in shared memory by name through `multiprocessing`'s own means, too, from now on.

    These are `Queue`, `SimpleQueue`, `JoinableQueue`, `Pipe`, `Process(args=...)`, `Pool`, managers, and the standard
    library's `ProcessPoolExecutor`. Both sides have the same memory: what one writes the other sees. Ordinary arrays
    go by value, as ever; `share` makes shared ones.

    One call is enough for this process and those that it starts from then on, under every start method; a process
    that receives an array by name passes it on by name. It may be called again.

    What is sent arrives, even if the sender drops it or ends before it is read. What is never read is kept, until
    `trim(unclaimed=True)`.

    Examples
    --------
    >>> shmexec.register_multiprocessing()
    >>> queue = multiprocessing.Queue()
    >>> queue.put(shmexec.zeros(1000))
    """
    if reduction.ForkingPickler._extra_reducers.get(np.ndarray) is not _reduce_array:  # type: ignore[attr-defined]
        _reduction.ForkingPickler.register(np.ndarray, _reduce_array)
        _reduction.ForkingPickler.register(_core.Block, _reduce_block)
    current: Any = process.current_process()
    current._config[_HERITAGE] = Heritage()
    if not getattr(current, "_inheriting", False):  # else the parent's heap is still to come
        _core.heritage()


def is_registered() -> bool:
    """Whether `register_multiprocessing` has been called here, or where this process comes from."""
    return _HERITAGE in process.current_process()._config  # type: ignore[attr-defined]


class Heritage:
    """What a process hands to its children in its `_config`: the heap, and that arrays go by name."""

    def __reduce__(self) -> Reduced:
        kind, number = _core.heritage()
        return _inherit, (kind, _reduction.DupFd(number) if _core.is_descriptor(kind) else number)


def _inherit(kind: int, number: Any) -> Heritage:
    _core.offer_heap(kind, number.detach() if _core.is_descriptor(kind) else number)
    register_multiprocessing()
    return Heritage()


# ---- pickling ------------------------------------------------------------------------------------


def _reduce_array(array: NDArray[Any]) -> Reduced:
    place = None if array.dtype.hasobject or array.dtype.char == "T" else _core.block_of(array)
    if place is None:
        return array.__reduce_ex__(pickle.DEFAULT_PROTOCOL)  # type: ignore[return-value]
    _core.disown(array)
    block, offset = place
    flags = array.flags
    strides = None if flags.c_contiguous or flags.f_contiguous else array.strides
    return _array, (block, offset, dtype_token(array.dtype), array.shape, strides, flags.writeable, flags.fnc)


def _reduce_block(block: _core.Block) -> Reduced:
    """Once in each pickle, however many arrays in it lie in the block."""
    ticket = _core.issue_ticket(block)
    if ticket is not None:
        return _block, ticket
    _warn_once()
    return bytearray, (bytes(block),)


def _warn_once() -> None:
    global _was_full
    if not _was_full:
        _was_full = True
        import logging  # with it a worker comes up 2 ms later

        logging.getLogger("shmexec").warning(
            "%d arrays are under way in pickles that nobody has read so far; more go by value. "
            "shmexec.trim(unclaimed=True) gives up those that nobody will read",
            _core.open_tickets(),
        )


def _block(*ticket: Any) -> _core.Block:
    block = _core.claim_ticket(*ticket)
    register_multiprocessing()
    return block


def _array(
    base: _core.Block | bytearray,
    offset: int,
    dtype: np.dtype[Any] | str,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
    writeable: bool,
    fortran: bool,
) -> NDArray[Any]:
    if isinstance(base, _core.Block):
        return _core.array_in(base, offset, dtype, shape, strides, writeable, fortran)
    array: NDArray[Any] = np.ndarray(shape, dtype, base, offset, strides, order="F" if fortran else "C")
    array.flags.writeable = writeable
    return array
