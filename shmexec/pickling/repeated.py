"""Plain arrays that are in several items of one `map`: one copy in shared memory serves them all."""

import gc
import itertools
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        self._met: Known = {}
        self._copies: dict[int, tuple[weakref.ref[NDArray[Any]], NDArray[Any]]] = {}

    def copy_of(self, array: NDArray[Any]) -> NDArray[Any] | None:
        """The copy for all, if there is one by now."""
        known = self._copies.get(id(array))
        return known[1] if known is not None and known[0]() is array else None

    def comes_again(self, array: NDArray[Any]) -> bool:
        """Whether the copy that is to be made now should be for all."""
        if _has(self._often, array) or _has(self._met, array):
            return True
        if self._learns:
            self._met[id(array)] = weakref.ref(array)
        return False

    def keep(self, array: NDArray[Any], copy: NDArray[Any]) -> None:
        """This is the copy for all: it lives as long as the map has calls to pickle."""
        self._copies[id(array)] = weakref.ref(array), copy


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


def _has(known: Known, array: NDArray[Any]) -> bool:
    found = known.get(id(array))
    return found is not None and found() is array
