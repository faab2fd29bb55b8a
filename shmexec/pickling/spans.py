"""A span of a map in one message: the arguments of many calls, or the results of some of them.

Each item is as good as alone: one pickle for each, so that no two share an object; a single pickle for all only where
that makes no difference, for numbers, short strings and the like.
"""

import itertools
import pickle
from collections.abc import Callable, Iterator
from typing import Any

from shmexec import _core
from shmexec._core import Packed
from shmexec.pickling.pickler import is_atom, is_plain, load


class Bundle:
    """Several pickles as one."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._holds = _core.Holds()
        self._bytes_by_name = 0
        self._bytes_copied = 0

    def add(self, packed: Packed) -> None:
        """One more. Its holds are taken over."""
        self._parts.append(bytes(packed.data))
        self.hold(packed)

    def hold(self, packed: Packed) -> None:
        """What a pickle names that goes its own way."""
        self._holds.add_all(packed.holds)
        self._bytes_by_name += packed.bytes_by_name
        self._bytes_copied += packed.bytes_copied
        packed.holds.release()

    def packed(self, wrap: Callable[[list[bytes]], Any]) -> Packed:
        """All of them, as `wrap` arranges them."""
        data = pickle.dumps(wrap(self._parts), 5)
        return Packed(data, self._holds, self._bytes_by_name, self._bytes_copied)


def dump_items(items: tuple[tuple[Any, ...], ...], budget: float, dump: Callable[[tuple[Any, ...]], Packed]) -> Packed:
    """The arguments of some calls, and the seconds after which the worker is to come back with what it has."""
    if _core.are_short_items(items) or is_plain(itertools.chain.from_iterable(items)):
        return Packed(pickle.dumps((budget, items, None), 5), _core.Holds())
    bundle = Bundle()
    for item in items:
        bundle.add(dump(item))
    return bundle.packed(lambda parts: (budget, None, parts))


def load_items(
    data: bytes | memoryview,
) -> tuple[float, tuple[tuple[Any, ...], ...] | Iterator[tuple[Any, ...]]]:
    """The budget, and the items: plain ones all at once, others each as it is asked for."""
    budget, items, parts = pickle.loads(data)
    if items is not None:
        return budget, items
    parts.reverse()
    return budget, (load(parts.pop()) for _ in range(len(parts)))


class Outcome:
    """What became of a span: values of its first items, and, if one failed, its packed exception.

    Attributes
    ----------
    plain : list, optional
        The values as they are.
    parts : list of bytes, optional
        Or their pickles.
    failure : bytes, optional
    holds : Holds
        On the blocks that the pickles name.
    """

    plain: list[Any] | None
    parts: list[bytes] | None
    failure: bytes | None

    def __init__(self, packed: Packed) -> None:
        self.plain, self.parts, self.failure = pickle.loads(packed.data)
        self.holds = packed.holds

    def __len__(self) -> int:
        values = self.plain if self.plain is not None else self.parts
        return len(values or ())

    def values(self, load: Callable[[bytes], Any]) -> Iterator[Any]:
        """Each is loaded when it is asked for, and its bytes go. Once."""
        if self.plain is not None:
            return iter(self.plain)
        return self._loaded(load)

    def _loaded(self, load: Callable[[bytes], Any]) -> Iterator[Any]:
        parts = self.parts or []
        parts.reverse()
        while parts:
            yield load(parts.pop())  # while this object, and so its holds, is there


class OutcomeWriter:
    """The worker's side of `Outcome`."""

    def __init__(self) -> None:
        self.plain: list[Any] = []  # the values, as long as all can be taken as they are
        self._is_plain = True
        self._bundle = Bundle()

    def add_plain(self, value: Any) -> bool:
        """A value, if it and all before it can be taken as they are."""
        if not (self._is_plain and is_atom(value)):
            return False
        self.plain.append(value)
        return True

    def add(self, packed: Packed) -> None:
        """The pickle of a value."""
        for value in self.plain:
            self._bundle.add(Packed(pickle.dumps(value, 5), _core.Holds()))
        self.plain.clear()
        self._is_plain = False
        self._bundle.add(packed)

    def packed(self, failure: Packed | None) -> Packed:
        """The answer."""
        data = None if failure is None else bytes(failure.data)
        if failure is not None:
            self._bundle.hold(failure)
        if self._is_plain:
            return self._bundle.packed(lambda _: (self.plain, None, data))
        return self._bundle.packed(lambda parts: (None, parts, data))
