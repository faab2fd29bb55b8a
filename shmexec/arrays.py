"""NumPy arrays in shared memory: made, copied there, recognised, named, attached.

The array functions return plain `numpy.ndarray`s. An array owns its memory: the block is free when the last array on
it, in any process, is gone. There is nothing to close, and an array outlives the pool that it was made with.
"""

import contextvars
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from shmexec import _core
from shmexec.errors import NotShareable, SharedMemoryFull

Order = Literal["C", "F"]
KeepOrder = Literal["K", "A", "C", "F"]
ShapeLike = SupportsIndex | Sequence[SupportsIndex]

_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class KernelName:
    """What an array in shared memory is called in the kernel: small, picklable, printable, and weak.

    A name keeps nothing alive: once the last array on the block is gone, `attach` raises `StaleName`.

    Attributes
    ----------
    segment : str
        Where the segment is, and what tells it from a later one there: ``/proc/<pid>/fd/<n>:<inode>``,
        ``sysv-<id>:<identity>`` or ``/shmexec-<pid>-<start time>:<inode>``.
    block, birth : int
        The block in the segment, and which of its lives.
    offset : int
        Bytes from the start of the block to the first element.
    dtype : numpy.dtype
    shape, strides : tuple of int
        Elements, and bytes, for each dimension.
    writeable : bool
    """

    segment: str
    block: int
    birth: int
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    writeable: bool

    def __str__(self) -> str:
        return f"{self.segment}#{self.block}.{self.birth}+{self.offset}"


@dataclass(frozen=True)
class HeapInfo:
    """The figures of the shared heap; bytes throughout.

    Attributes
    ----------
    kind : str
        Of the kernel segment: ``"memfd"``, ``"sysv"`` or ``"posix"``.
    kernel_name : str
        Of the segment; see `KernelName.segment`.
    bytes_in_use : int
        In blocks that some process holds.
    bytes_resident : int
        Memory that the kernel backs the segment with: blocks, recycled warm pages, and the heap's own tables.
    bytes_limit : int
        What `bytes_resident` may grow to.
    blocks, holders : int
        Blocks in use, and how many processes hold them, added up.
    processes : int
        Processes that take part in the heap.
    bytes_by_name, bytes_copied : int
        Of arguments and results of all executors of this process, since its start. `SharedExecutor.stats` tells which
        were copied, and why.
    unclaimed : int
        Blocks that are kept for pickles that nobody has read so far; each counts for each pickle. See
        `register_multiprocessing`.
    """

    kind: str
    kernel_name: str
    bytes_in_use: int
    bytes_resident: int
    bytes_limit: int
    blocks: int
    holders: int
    processes: int
    bytes_by_name: int
    bytes_copied: int
    unclaimed: int


def _checked_dtype(dtype: DTypeLike | None) -> np.dtype[Any]:
    described = np.dtype(dtype)
    if described.hasobject or described.char == "T":
        raise NotShareable(
            f"dtype {described!r} holds references to Python objects, which mean nothing to another process; "
            "use a numeric, fixed-width string or structured dtype"
        )
    return described


def _checked_shape(shape: ShapeLike, itemsize: int) -> tuple[int, ...]:
    # an array has __index__, whatever its shape
    if isinstance(shape, SupportsIndex) and np.ndim(cast("Any", shape)) == 0:
        dimensions: tuple[int, ...] = (operator.index(shape),)
    else:
        dimensions = tuple(map(operator.index, cast("Sequence[SupportsIndex]", shape)))
    for n in dimensions:
        if n < 0:
            raise ValueError(f"shape {dimensions} has a negative dimension")
    # as NumPy: what overflows without its zeros is refused even if a zero makes the array empty
    if math.prod(n or 1 for n in dimensions) * max(itemsize, 1) > _LARGEST:
        raise ValueError(f"shape {dimensions} with {itemsize} bytes an element is larger than any memory")
    return dimensions


def _new(shape: ShapeLike, dtype: DTypeLike | None, order: str, zero: bool) -> NDArray[Any]:
    if order not in ("C", "F"):
        raise ValueError(f"order must be 'C' or 'F', not {order!r}")
    described = _checked_dtype(dtype)
    if described.itemsize == 0 and described.char in "SU":
        described = np.dtype(f"{described.char}1")  # as NumPy: an empty string type holds one character
    made = described
    dimensions = _checked_shape(shape, described.itemsize)
    if described.subdtype is not None:
        made, inner = described.subdtype
        dimensions += inner
    return _core.new_array(dimensions, made, order == "F", zero)


def empty(shape: ShapeLike, dtype: DTypeLike | None = None, order: Order = "C") -> NDArray[Any]:
    """A new array in shared memory, not initialised.

    Parameters
    ----------
    shape : int or sequence of int
    dtype : dtype-like, default float64
        Any but those that hold Python objects.
    order : {'C', 'F'}

    Returns
    -------
    numpy.ndarray

    Raises
    ------
    NotShareable
        For a dtype with Python objects in it.
    ValueError
        For a shape that is negative or overflows.
    SharedMemoryFull
        If the heap's limit or the machine's memory is reached.
    """
    return _new(shape, dtype, order, zero=False)


def zeros(shape: ShapeLike, dtype: DTypeLike | None = None, order: Order = "C") -> NDArray[Any]:
    """A new array in shared memory, filled with zeros. See `empty`."""
    return _new(shape, dtype, order, zero=True)


def ones(shape: ShapeLike, dtype: DTypeLike | None = None, order: Order = "C") -> NDArray[Any]:
    """A new array in shared memory, filled with ones. See `empty`."""
    return full(shape, 1, np.float64 if dtype is None else dtype, order)


def full(shape: ShapeLike, fill_value: ArrayLike, dtype: DTypeLike | None = None, order: Order = "C") -> NDArray[Any]:
    """A new array in shared memory, filled with `fill_value`, whose dtype is the default. See `empty`."""
    array = _new(shape, np.asarray(fill_value).dtype if dtype is None else dtype, order, zero=False)
    np.copyto(array, fill_value, casting="unsafe")
    return array


def _like(
    prototype: ArrayLike, dtype: DTypeLike | None, order: str, shape: ShapeLike | None, zero: bool
) -> NDArray[Any]:
    if order not in ("K", "A", "C", "F"):
        raise ValueError(f"order must be one of 'K', 'A', 'C', 'F', not {order!r}")
    model = np.asarray(prototype)
    described = _checked_dtype(model.dtype if dtype is None else dtype)
    dimensions = model.shape if shape is None else _checked_shape(shape, described.itemsize)
    if order in ("C", "F"):
        return _new(dimensions, described, order, zero)
    if len(dimensions) != model.ndim and order == "K":
        return _new(dimensions, described, "C", zero)
    if len(dimensions) != model.ndim or order == "A" or model.flags.c_contiguous or model.flags.f_contiguous:
        return _new(dimensions, described, "F" if model.flags.fnc else "C", zero)
    # 'K': the axes in the order of the model's strides, as NumPy does
    axes = sorted(range(model.ndim), key=lambda axis: -abs(model.strides[axis]))
    array = _new([dimensions[axis] for axis in axes], described, "C", zero)
    return array.transpose(np.argsort(axes)) if array.ndim == model.ndim else _new(dimensions, described, "C", zero)


def empty_like(
    prototype: ArrayLike,
    dtype: DTypeLike | None = None,
    order: KeepOrder = "K",
    subok: bool = False,
    shape: ShapeLike | None = None,
) -> NDArray[Any]:
    """A new array in shared memory with the shape and type of another, not initialised. See `numpy.empty_like` and
    `empty`.
    """
    return _like(prototype, dtype, order, shape, zero=False)


def zeros_like(
    a: ArrayLike,
    dtype: DTypeLike | None = None,
    order: KeepOrder = "K",
    subok: bool = False,
    shape: ShapeLike | None = None,
) -> NDArray[Any]:
    """A new array in shared memory with the shape and type of another, filled with zeros."""
    return _like(a, dtype, order, shape, zero=True)


def ones_like(
    a: ArrayLike,
    dtype: DTypeLike | None = None,
    order: KeepOrder = "K",
    subok: bool = False,
    shape: ShapeLike | None = None,
) -> NDArray[Any]:
    """A new array in shared memory with the shape and type of another, filled with ones."""
    return full_like(a, 1, dtype, order, shape=shape)


def full_like(
    a: ArrayLike,
    fill_value: ArrayLike,
    dtype: DTypeLike | None = None,
    order: KeepOrder = "K",
    subok: bool = False,
    shape: ShapeLike | None = None,
) -> NDArray[Any]:
    """A new array in shared memory with the shape and type of another, filled with `fill_value`."""
    array = _like(a, dtype, order, shape, zero=False)
    np.copyto(array, fill_value, casting="unsafe")
    return array


def share(a: ArrayLike) -> NDArray[Any]:
    """A shared copy of an array, or the array itself if it lies in shared memory already.

    Parameters
    ----------
    a : array_like
        Of any shape and any dtype without Python objects. A Fortran-ordered array stays so.

    Returns
    -------
    numpy.ndarray
        A plain array, whatever subclass `a` is; writeable, unless it is `a` itself.

    Raises
    ------
    NotShareable
        For object arrays and `StringDType`, also inside structured types.
    SharedMemoryFull
    """
    array = np.asarray(a)
    _checked_dtype(array.dtype)
    if is_shared(array):
        if (place := _core.locate(array)) is not None:
            _core.mark_shared(place[0])
        return array
    copy = _like(array, None, "K", None, zero=False)
    np.copyto(copy, array)
    return copy


def is_shared(a: object) -> bool:
    """Whether an array, a view of whatever kind included, lies in shared memory."""
    if not isinstance(a, np.ndarray) or a.dtype.hasobject:
        return False
    return _core.locate_foreign(a) is not None


def name_of(a: NDArray[Any]) -> KernelName:
    """The kernel name of an array in shared memory.

    Any process of the same user can `attach` it, as long as this process lives and somebody holds the array: the
    name alone keeps nothing alive.

    Raises
    ------
    NotShareable
        If the array does not lie in shared memory; see `share`.
    """
    if not isinstance(a, np.ndarray):
        raise NotShareable(f"only an array has a kernel name, not {type(a).__name__}")
    place = None if a.dtype.hasobject else _core.locate_foreign(a)
    if place is None:
        raise NotShareable("this array does not lie in shared memory; shmexec.share(a) makes a copy that does")
    segment, block, birth, offset = place
    _core.disown(a)
    return KernelName(segment, block, birth, offset, a.dtype, a.shape, a.strides, a.flags.writeable)


def attach(name: KernelName) -> NDArray[Any]:
    """The array that a kernel name stands for: the same memory, no copy.

    Raises
    ------
    TypeError
        If `name` is not what `name_of` returned.
    StaleName
        If the array is gone, or the process that gave the name is.
    PermissionError
        If it belongs to another user.
    """
    if not isinstance(name, KernelName):
        raise TypeError(f"attach takes what name_of returned, not {type(name).__name__}")
    if not isinstance(name.dtype, np.dtype) or name.dtype.hasobject or len(name.strides) != len(name.shape):
        raise ValueError(f"{name!r} is the name of no array")
    return _core.foreign_array(
        name.segment,
        name.block,
        name.birth,
        name.offset,
        name.dtype,
        name.shape,
        name.strides,
        name.writeable,
        False,
    )


class shared_allocation:
    """Inside, ordinary NumPy code makes its arrays in shared memory: loads, stacks, results of functions.

    For the code that makes the inputs of a pool: what it makes goes to workers by name. Arrays of 32 KiB or more (64
    KiB, where the kernel gives no 2 MiB pages); smaller ones stay where NumPy puts them. It holds for the present
    thread (and context, as in `contextvars`), not for threads that the code starts. It can be nested, and the same
    object used again. Afterwards NumPy's handler is the one that was set before. What was made inside lives on.

    Raises
    ------
    SharedMemoryFull
        At the end of the block, in place of the MemoryError that NumPy raised in it.

    Examples
    --------
    >>> with shmexec.shared_allocation():
    ...     stack = np.stack([np.load(path) for path in paths])
    """

    def __init__(self) -> None:
        self._before: contextvars.ContextVar[tuple[object, ...]] = contextvars.ContextVar("before", default=())

    def __enter__(self) -> None:
        _core.open_allocator(_core.threshold())
        _core.refused_bytes()
        self._before.set((*self._before.get(), _core.set_handler(_core.asked_handler())))

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        *rest, before = self._before.get()
        self._before.set(tuple(rest))
        _core.set_handler(before)
        if isinstance(error, MemoryError) and not isinstance(error, SharedMemoryFull):
            refused = _core.refused_bytes()
            if refused:
                raise SharedMemoryFull(_core.full_message(refused)) from error


def heap_info() -> HeapInfo:
    """The figures of the shared heap of this process tree, after taking back what dead processes held."""
    _core.reap_dead()
    return HeapInfo(*_core.heap_figures(), *_core.traffic_figures(), _core.open_tickets())


def trim(*, unclaimed: bool = False) -> None:
    """Give the pages of all free shared memory back to the kernel, at once.

    Freed arrays otherwise leave their pages warm for the next ones. Other processes of the tree are woken to give up
    theirs; busy workers do so after the call that they run.

    Parameters
    ----------
    unclaimed : bool
        Also free the arrays that are kept only for pickles that nobody has read (see `register_multiprocessing`), as
        those of a queue that was thrown away. A pickle that is read later raises `StaleName`.
    """
    _core.trim_heap(unclaimed)
