"""How the buffers of PEP 574 cross: pandas, Arrow and whoever else hands `pickle.PickleBuffer`s out, each as an
array would.
"""

import pickle
from collections.abc import Iterable

from shmexec import _core
from shmexec.pickling.arrays import Account

# block, birth, offset, bytes, read-only, and whether each receiver has a copy-on-write view of its own
Place = tuple[int, int, int, int, bool, bool]


def place_buffer(buffer: pickle.PickleBuffer, account: Account) -> Place | None:
    """Where the bytes lie in shared memory, copied there if they were not; None: they go inside the message."""
    try:
        view = buffer.raw()
    except BufferError:  # not contiguous
        return None
    place = _core.locate_buffer(view) if view.nbytes else None
    if place is not None and not account.may_name(place[0], view.nbytes):
        place = None
    if place is None and view.nbytes < _core.threshold():
        account.bytes_copied += view.nbytes
        return None
    is_borrowed = account.is_borrowed and place is None and not view.readonly
    if place is not None:
        account.bytes_by_name += view.nbytes
    else:
        account.bytes_copied += view.nbytes
        block = _core.allocate(view.nbytes)
        memoryview(block)[:] = view
        place = block.number, block.birth, 0
    number, birth, offset = place
    account.holds.add(number, birth)
    return number, birth, offset, view.nbytes, view.readonly, is_borrowed


def open_places(places: Iterable[Place]) -> list[memoryview]:
    """The receiver's half: the same bytes."""
    return [
        memoryview(_core.borrow(number, birth) if is_borrowed else _core.hold(number, birth, readonly))[
            offset : offset + size
        ]
        for number, birth, offset, size, readonly, is_borrowed in places
    ]
