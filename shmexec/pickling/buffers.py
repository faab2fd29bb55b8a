"""How buffers cross: those of PEP 574, which pandas, Arrow and others hand out, each as an array would; memoryviews."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from shmexec import _core
from shmexec.pickling import notes
from shmexec.pickling.arrays import Account, Reduced

if TYPE_CHECKING:
    from numpy.typing import NDArray

# block, birth, offset, bytes, read-only, and whether each receiver has a copy-on-write view of its own
Place = tuple[int, int, int, int, bool, bool]

# What memoryview.cast can name: one native element.
_CASTABLE = frozenset("@" * at + letter for letter in "cbB?hHiIlLqQnNfdP" for at in (0, 1))


def place_buffer(buffer: pickle.PickleBuffer, account: Account) -> Place | None:
    """Where the bytes lie in shared memory, copied there if they were not; None: they go inside the message."""
    try:
        view = buffer.raw()
    except BufferError:  # not contiguous
        return None
    size = view.nbytes
    place = _core.locate_buffer(view) if size else None
    why = notes.PLAIN if place is None else account.refusal(place[0], size)
    if why:
        place = None
    if place is not None:
        account.named(view.obj, size)
        if isinstance(view.obj, np.ndarray) and not (account.is_result or account.is_dry):
            _core.disown(view.obj)
    elif size < _core.threshold():
        account.copied(view.obj, size, notes.SMALL)
        return None
    else:
        account.copied(view.obj, size, why)
        if account.is_dry:
            return 0, 0, 0, size, view.readonly, False
    is_borrowed = account.is_borrowed and place is None and not view.readonly
    number, birth, offset = (*place_copy(view, account), 0) if place is None else place
    account.holds.add(number, birth)
    return number, birth, offset, size, view.readonly, is_borrowed


def place_copy(view: memoryview, account: Account) -> tuple[int, int]:
    """A block with these bytes, and its birth."""
    block = _core.allocate(view.nbytes)
    memoryview(block)[:] = view
    account.holds.add(block.number, block.birth)
    return block.number, block.birth


def open_places(places: Iterable[Place]) -> list[memoryview]:
    """The receiver's half: the same bytes."""
    return [
        memoryview(_core.borrow(number, birth) if is_borrowed else _core.hold(number, birth, readonly))[
            offset : offset + size
        ]
        for number, birth, offset, size, readonly, is_borrowed in places
    ]


# ---- memoryview, which pickle itself refuses -------------------------------------------------------


def reduce_view(view: memoryview) -> Reduced:
    """A view of the same bytes, or of a copy of them: format, shape and whether it is writeable stay."""
    if view.c_contiguous and view.nbytes and view.format in _CASTABLE:
        return _cast_view, (np.frombuffer(view.cast("B"), np.uint8), view.format, view.shape, view.readonly)
    return _view, (np.asarray(view), view.readonly)


def _cast_view(array: NDArray[np.uint8], form: str, shape: tuple[int, ...], readonly: bool) -> memoryview:
    return _view(array, readonly).cast(form, shape)  # type: ignore[call-overload, no-any-return]


def _view(array: NDArray[Any], readonly: bool) -> memoryview:
    view = array.data
    return view.toreadonly() if readonly else view
