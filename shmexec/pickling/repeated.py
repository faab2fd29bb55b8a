"""Plain arrays that are in several items of a `map`, or in several calls: one copy in shared memory serves them all."""

import gc
import itertools
import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shmexec import _core
from shmexec.errors import StaleName

Known = dict[int, weakref.ref[NDArray[Any]]]


class Repeated:
    """The arrays of one map, known by identity.

    Parameters
    ----------
    often : dict
        Arrays that are known to come again, by their identity.
    learns : bool
        Whether any other that comes a second time is still the same array with the same content.
    """

    def __init__(self, often: Known, *, learns: bool) -> None:
        self._often = often
        self._learns = learns
        self._met: dict[int, tuple[weakref.ref[NDArray[Any]], int]] = {}
        self._copies: dict[int, tuple[weakref.ref[NDArray[Any]], NDArray[Any]]] = {}

    def copy_of(self, array: NDArray[Any]) -> NDArray[Any] | None:
        """The copy for all, if there is one by now."""
        known = self._copies.get(id(array))
        return known[1] if known is not None and known[0]() is array else None

    def comes_again(self, array: NDArray[Any], item: int) -> bool:
        """Whether the copy that is to be made now should be for all; `item` is that which has it.

        An item may be pickled several times: there was no memory for it, or its span came back.
        """
        if _has(self._often, array):
            return True
        met, before = self._met.get(id(array), (_nothing, item))
        if met() is array and before != item:
            return True
        if self._learns:
            self._met[id(array)] = weakref.ref(array), item
        return False

    def keep(self, array: NDArray[Any], copy: NDArray[Any]) -> NDArray[Any]:
        """The copy for all, which lives as long as the map has calls to pickle.

        Two threads that come upon an array at the same time each make one; the first stays. (Rejected: that one waits
        for the other. It may be the collector, for which a finalizer in the other may wait.)
        """
        if (first := self.copy_of(array)) is not None:
            return first
        self._copies[id(array)] = weakref.ref(array), copy
        return copy


class _Copy:
    """Of the array that `of` refers to; `name` is that of its block. Kept is only what has come a second time."""

    __slots__ = "dtype", "is_fortran", "kept", "name", "of", "shape"

    def __init__(
        self, of: "weakref.ref[NDArray[Any]]", name: tuple[int, int], array: "NDArray[Any]", kept: "NDArray[Any] | None"
    ) -> None:
        self.of = of
        self.name = name
        self.dtype: np.dtype[Any] = array.dtype
        self.shape: tuple[int, ...] = array.shape
        self.is_fortran = array.flags.fnc
        self.kept = kept

    def is_like(self, array: NDArray[Any]) -> bool:
        known = self.dtype, self.shape, self.is_fortran
        return self.of() is array and known == (array.dtype, array.shape, array.flags.fnc)

    def array(self) -> NDArray[Any] | None:
        """None: it is gone with the call that had it."""
        if self.kept is not None:
            return self.kept
        try:
            found: NDArray[Any] = _core.array(*self.name, 0, self.dtype, self.shape, None, True, self.is_fortran)
        except StaleName:
            return None
        return found


class CopiedOnce(Repeated):
    """The arrays of calls that nobody knows beforehand: each is compared with its copy before that is used again.

    A copy lives as long as a call that has it is under way; if its array comes again by then, as long as that array
    and this object. (Rejected: to trust the identity, as joblib does from 1 MB up. Whoever fills one array again and
    again would send the first content each time.)
    """

    def __init__(self) -> None:
        super().__init__({}, learns=False)
        self._made: dict[int, _Copy] = {}

    def copy_of(self, array: NDArray[Any]) -> NDArray[Any] | None:
        """The copy for all, if there is one by now and it says the same."""
        known = self._made.get(id(array))
        if known is None:
            return None
        copy = known.array() if known.is_like(array) else None
        if copy is not None and _same_bytes(array, copy):
            known.kept = copy
            return copy
        if copy is not None or known.of() is not array:  # else it has come again, too late: the next one is kept
            self._made.pop(id(array), None)
        return None

    def comes_again(self, array: NDArray[Any], item: int) -> bool:
        """It may."""
        return True

    def keep(self, array: NDArray[Any], copy: NDArray[Any]) -> NDArray[Any]:
        """It is the copy for all from now on."""
        place = _core.locate(copy)
        assert place is not None
        key = id(array)
        kept = copy if key in self._made else None
        of = weakref.ref(array, partial(_forget, weakref.ref(self), key))
        self._made[key] = _Copy(of, place[:2], array, kept)
        return copy

    def forget(self, key: int) -> None:
        """The array that had this identity is gone."""
        self._made.pop(key, None)


def _forget(copies: "weakref.ref[CopiedOnce]", key: int, _: object) -> None:
    """Weakly, or the copies would refer to themselves, and wait for the collection of garbage."""
    if (those := copies()) is not None:
        those.forget(key)


_PIECE = 1 << 16  # elements of 8 bytes that are compared at once: what the caches hold


def _same_bytes(array: NDArray[Any], copy: NDArray[Any]) -> bool:
    """Of an array and one of the same type and shape, whose bytes lie together, in the array's order if it has one."""
    if array.flags.forc:
        return _same_row(array.ravel("A"), copy.ravel("A"))
    step = max(1, 8 * _PIECE * len(array) // array.nbytes)
    pieces = ((array[i : i + step], copy[i : i + step]) for i in range(0, len(array), step))
    return all(_same_row(np.ascontiguousarray(one).ravel(), other.ravel()) for one, other in pieces)


def _same_row(one: NDArray[Any], other: NDArray[Any]) -> bool:
    first, second = one.view(np.uint8), other.view(np.uint8)
    whole = first.size - first.size % 8
    if not np.array_equal(first[whole:], second[whole:]):
        return False
    first, second = first[:whole].view(np.uint64), second[:whole].view(np.uint64)
    return all(np.array_equal(first[i : i + _PIECE], second[i : i + _PIECE]) for i in range(0, first.size, _PIECE))


def repeated_in(iterables: Iterable[Iterable[Any]]) -> Repeated:
    """For a map over these. Other iterators than those of lists, tuples and the like may hand out one array again and
    again, each time with other content.
    """
    often: Known = {}
    learns = True
    for iterable in iterables:
        if type(iterable) is itertools.repeat:
            for value in gc.get_referents(iterable):  # what it repeats: asking takes one of a number
                if isinstance(value, np.ndarray):
                    often[id(value)] = weakref.ref(value)
        elif type(iterable) in (list, tuple):
            often |= _occurring_often(iterable)
        elif type(iterable) is not range:
            learns = False
    return Repeated(often, learns=learns)


def _occurring_often(values: Iterable[Any]) -> Known:
    seen: set[int] = set()
    often: Known = {}
    if any(issubclass(kind, np.ndarray) for kind in set(map(type, values))):
        for value in values:
            if isinstance(value, np.ndarray):
                if id(value) in seen:
                    often[id(value)] = weakref.ref(value)
                seen.add(id(value))
    return often


def _nothing() -> None:
    return None


def _has(known: Known, array: NDArray[Any]) -> bool:
    found = known.get(id(array))
    return found is not None and found() is array
