"""How an array crosses: by name, copied into shared memory, inside the message, or by file.

What follows from DESIGN's table "what crosses, and how": an array in shared memory keeps its writeable flag, since
both sides see the same bytes; a plain one arrives as a private, writeable copy, whatever its size.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from shmexec import _core
from shmexec.pickling import notes

if TYPE_CHECKING:  # workers need it not
    from numpy.typing import NDArray

    from shmexec.pickling.repeated import Repeated

_byte_bounds: Any = (
    np.lib.array_utils.byte_bounds if hasattr(np.lib, "array_utils") else getattr(np, "byte_bounds", None)
)

Reduced = tuple[Any, ...]


class Account(Protocol):
    """Whoever dumps: takes a hold on each block that is named, and notes what crosses how.

    Attributes
    ----------
    holds : Holds
    is_result : bool
        Of a task; else it is an argument, a function or the like.
    is_borrowed : bool
        The bytes are loaded more than once.
    is_loaded_once : bool
        They are certainly not.
    is_dry : bool
        Nobody loads them: nothing is copied.
    repeated : Repeated or None
        The arrays that are in several items of a map.
    item : int
        Which of them this is.
    """

    holds: _core.Holds
    is_result: bool
    is_borrowed: bool
    is_loaded_once: bool
    is_dry: bool
    repeated: Repeated | None
    item: int

    def refusal(self, block: int, size: int) -> str:
        """Why `size` bytes of this block, where they lie, may not go by name; empty if they may."""

    def may_give(self, block: int) -> bool:
        """Whether the receiver is the only one to use this block from now on."""

    def named(self, part: Any, size: int) -> None:
        """This goes by name."""

    def copied(self, part: Any, size: int, why: str) -> None:
        """This is copied, into shared memory or into the message."""


def reduce_array(array: NDArray[Any], account: Account) -> Reduced | None:
    """What stands for an array in a pickle, or None: it is pickled as any object is."""
    if array.dtype.hasobject or array.dtype.char == "T":
        return None
    kind = type(array)
    if kind is np.ndarray:
        return _reduce_plain(array, account)
    if kind is np.memmap and (reduced := _reduce_memmap(array)) is not None:
        return reduced
    return _reduce_subclass(array)


def _reduce_plain(array: NDArray[Any], account: Account) -> Reduced:
    size = array.nbytes
    place = _core.locate(array) if array.size else None
    why = notes.PLAIN if place is None else account.refusal(place[0], size)
    if place is not None and not why:
        account.named(array, size)
        # a plain array comes back as a copy would: writeable, unless its elements lie on each other
        writeable = array.flags.writeable or (
            account.is_result and _core.is_own_plain(place[0]) and not _overlaps(array)
        )
        if not (account.is_result or account.is_dry):
            _core.disown(array)
        elif writeable and place[2] == 0 and array.flags.forc and account.may_give(place[0]):
            return _given(array, place, account)
        return _by_name(array, place, writeable, account)
    if place is None and size and (elsewhere := _core.block_elsewhere(array)) is not None:
        if not account.is_result:
            return _by_name_elsewhere(array, *elsewhere, account)
        why = notes.ELSEWHERE
    if account.repeated is not None and (copy := account.repeated.copy_of(array)) is not None:
        account.named(array, size)
        return _borrowed(copy, account)
    is_small = size < _core.threshold()
    account.copied(array, size, notes.SMALL if is_small else why)
    if account.is_dry:
        return _nothing, ()
    fortran = array.flags.fnc
    if is_small:
        data = array.tobytes("F" if fortran else "C")
        return _core.small_array, (data, dtype_token(array.dtype), array.shape, fortran)
    copy = _core.new_array(array.shape, array.dtype, fortran, False, True)
    np.copyto(copy, array)
    if account.repeated is not None and account.repeated.comes_again(array, account.item):
        return _borrowed(account.repeated.keep(array, copy), account)
    if account.is_borrowed:
        return _borrowed(copy, account)
    place = _core.locate(copy)
    assert place is not None
    return _given(copy, place, account) if account.is_loaded_once else _by_name(copy, place, True, account)


def reduce_private(array: NDArray[Any], account: Account) -> Reduced | None:
    """As `reduce_array`, for who wants it for itself: where that would go by name a private mapping does."""
    if array.dtype.hasobject or array.dtype.char == "T":
        return None
    place = _core.locate(array) if array.size else None
    # what plain code has made goes to one receiver anyway, as a result
    if place is None or (account.is_result and _core.is_plain(place[0])) or account.refusal(place[0], array.nbytes):
        return _reduce_plain(array, account)
    account.named(array, array.nbytes)
    if account.is_dry:
        return _nothing, ()
    if not account.is_result:
        _core.disown(array)
    block, birth, offset = place
    account.holds.add(block, birth)
    flags = array.flags
    strides = None if flags.c_contiguous or flags.f_contiguous else array.strides
    return _core.private_array, (block, birth, offset, dtype_token(array.dtype), array.shape, strides, flags.fnc)


def _nothing() -> None:
    """Of a dry run, which nobody loads."""


def _borrowed(copy: NDArray[Any], account: Account) -> Reduced:
    """A view for each receiver that is its own as soon as it writes into it."""
    place = _core.locate(copy)
    assert place is not None
    account.holds.add(*place[:2])
    return _core.borrowed_array, (*place[:2], dtype_token(copy.dtype), copy.shape, copy.flags.fnc)


def _by_name(array: NDArray[Any], place: tuple[int, int, int], writeable: bool, account: Account) -> Reduced:
    block, birth, offset = place
    account.holds.add(block, birth)
    flags = array.flags
    strides = None if flags.c_contiguous or flags.f_contiguous else array.strides
    token = dtype_token(array.dtype)
    return _core.array, (block, birth, offset, token, array.shape, strides, writeable, flags.fnc)


def _by_name_elsewhere(array: NDArray[Any], block: _core.Block, offset: int, account: Account) -> Reduced:
    """In the heap of another tree. Whoever sends a result may end before it is read: there it would be lost."""
    account.named(array, array.nbytes)
    account.holds.add_elsewhere(block)
    flags = array.flags
    strides = None if flags.c_contiguous or flags.f_contiguous else array.strides
    how = (offset, dtype_token(array.dtype), array.shape, strides, flags.writeable, flags.fnc)
    return _core.array_elsewhere, (*_core.name_elsewhere(block), *how)


def _given(array: NDArray[Any], place: tuple[int, int, int], account: Account) -> Reduced:
    """By name, to somebody who then has it alone."""
    account.holds.add(*place[:2])
    return _core.own_array, (*place[:2], dtype_token(array.dtype), array.shape, array.flags.fnc)


def _overlaps(array: NDArray[Any]) -> bool:
    """Whether elements of an array may share bytes. Exact for what slicing and transposing make."""
    reach = array.itemsize
    for stride, length in sorted(zip(map(abs, array.strides), array.shape, strict=True)):
        if length > 1:
            if stride < reach:
                return True
            reach = stride * length
    return False


def dtype_token(dtype: np.dtype[Any]) -> np.dtype[Any] | str:
    """The type as text where that says all of it: shorter, and much faster to pickle."""
    return dtype.str if dtype.isbuiltin == 1 and dtype.kind in "biufc" and dtype.metadata is None else dtype


# ---- subclasses ----------------------------------------------------------------------------------


def _reduce_subclass(array: NDArray[Any]) -> Reduced | None:
    kind = type(array)
    masked = isinstance(array, np.ma.MaskedArray)
    own_way = np.ma.MaskedArray if masked else np.ndarray
    for name in "__reduce__", "__reduce_ex__", "__setstate__":
        if getattr(kind, name) is not getattr(own_way, name) and kind is not np.memmap:
            return None  # it knows better how it is pickled
    attributes = getattr(array, "__dict__", None) if kind is not np.memmap else None
    # the attributes come later: they may refer to the array itself
    return _subclass, (kind, array.view(np.ndarray)), attributes or None, None, None, _set_attributes


def _subclass(kind: type[NDArray[Any]], array: NDArray[Any]) -> NDArray[Any]:
    return array.view(kind)


def _set_attributes(array: NDArray[Any], attributes: dict[str, Any]) -> None:
    array.__dict__.update(attributes)


# ---- memmap: by file -----------------------------------------------------------------------------


def _reduce_memmap(array: Any) -> Reduced | None:
    """By file, offset and mode; None if the file cannot say what the array holds (a copy is made then)."""
    import mmap  # it is there: the array has one

    mapping, path = getattr(array, "_mmap", None), array.filename
    if mapping is None or path is None or array.mode not in ("r", "r+", "w+") or not array.size:
        return None  # mode "c": what was written is in no file
    low, high = _byte_bounds(array)
    start = np.frombuffer(mapping, np.uint8).ctypes.data
    try:
        file = os.stat(path)
    except OSError:
        return None
    if file.st_ino != _core.mapped_inode(start):
        return None  # another file stands there by now
    # the mapping begins at a multiple of the granularity, the array behind it
    offset = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY + low - start
    if low < start or offset + high - low > file.st_size:
        return None
    first = array.ctypes.data - low
    return _memmap, (
        os.fspath(path),
        "r" if array.mode == "r" else "r+",
        offset,
        high - low,
        first,
        array.dtype,
        array.shape,
        array.strides,
        array.flags.writeable,
    )


def _memmap(
    path: str,
    mode: Any,
    offset: int,
    size: int,
    first: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    writeable: bool,
) -> Any:
    whole = np.memmap(path, np.uint8, mode, offset, (size,))
    made: Any = np.ndarray(shape, dtype, whole, first, strides).view(np.memmap)
    made._mmap, made.filename, made.mode, made.offset = whole._mmap, whole.filename, mode, whole.offset  # type: ignore[attr-defined]
    if not writeable:
        made.flags.writeable = False
    return made
