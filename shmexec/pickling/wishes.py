"""`readonly` and `private`: what is to become of one array where it arrives.

The wrappers mean something to this package's pickler only; any other pickle, and code that is called without a pool,
gets an array that behaves as it would there.
"""

from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from shmexec import _core
from shmexec.pickling import arrays

A = TypeVar("A", bound=NDArray[Any])


class Wish:
    """An array, and how it is to arrive."""

    __slots__ = ("array",)

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def __repr__(self) -> str:
        return f"shmexec.{type(self).__name__.lower()}({self.array!r})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """In this process: what a function would get in a worker."""
        made = self.here()
        if dtype is not None and made.dtype != dtype:
            if copy is False:
                raise ValueError("another dtype takes a copy")
            return made.astype(dtype)
        return made.copy() if copy else made

    def here(self) -> NDArray[Any]:
        """The array for who is not in a worker."""
        raise NotImplementedError

    def reduced(self, account: arrays.Account) -> arrays.Reduced:
        """What stands for it in a pickle of ours."""
        raise NotImplementedError


class Readonly(Wish):
    """Arrives read-only."""

    __slots__ = ()

    def here(self) -> NDArray[Any]:
        return frozen(self.array)

    def reduced(self, account: arrays.Account) -> arrays.Reduced:
        return frozen, (self.array,)

    def __reduce__(self) -> Any:
        return frozen, (self.array,)


class Private(Wish):
    """Arrives as the receiver's own."""

    __slots__ = ()

    def here(self) -> NDArray[Any]:
        return self.array.copy("K")

    def reduced(self, account: arrays.Account) -> arrays.Reduced:
        if type(self.array) is not np.ndarray:
            return arrived, (self.array.copy("K"),)
        return arrays.reduce_private(self.array, account) or (arrived, (self.array,))

    def __reduce__(self) -> Any:
        return own, (self.array,)


def readonly(array: A, /) -> A:
    """Let an array arrive read-only: as an argument of a call, or as its result, at any depth.

    Otherwise it crosses as it would without: an array in shared memory by name, any other as a copy.

    Parameters
    ----------
    array : numpy.ndarray

    Returns
    -------
    object
        Stands for the array until it arrives; typed as the array that it becomes. NumPy's functions take it in this
        process, too; `.array` is the array itself.

    Raises
    ------
    TypeError
        If it is no array.

    Examples
    --------
    >>> ex.submit(look_at, shmexec.readonly(table))
    """
    return cast("A", Readonly(_checked("readonly", array)))


def private(array: A, /) -> A:
    """Let an array arrive as the receiver's own: what is written into it there is seen by nobody else.

    An array in shared memory is not copied: the receiver has a private mapping of it, of which the kernel copies each
    page when it is first written. Pages that were not written show what others write there meanwhile. Other arrays
    arrive as a copy, as ever.

    Parameters
    ----------
    array : numpy.ndarray

    Returns
    -------
    object
        As of `readonly`.

    Raises
    ------
    TypeError
        If it is no array.

    Examples
    --------
    >>> ex.submit(sort_in_place, shmexec.private(table))
    """
    return cast("A", Private(_checked("private", array)))


def _checked(name: str, array: object) -> NDArray[Any]:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} takes a NumPy array, not {type(array).__name__}")
    return array


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Of one array that has arrived: others in the message may be the same object."""
    view = array.view()
    view.flags.writeable = False
    return view


def arrived(array: NDArray[Any]) -> NDArray[Any]:
    """As it is."""
    return array


def own(array: NDArray[Any]) -> NDArray[Any]:
    """The same of an array that may be shared, by another way than our pickler's."""
    shared = type(array) is not np.ndarray or _core.locate(array) is not None or not array.flags.writeable
    return array.copy("K") if shared else array
