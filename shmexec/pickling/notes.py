"""What a dump did with the large parts of an object, and where in the object they are: for `explain` and `stats`."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from shmexec.pickling.crossings import Crossing, How

# Why something is copied.
PLAIN = "it is not in shared memory: shmexec.share() or shared_allocation() puts it there"
ELSEWHERE = "it lies in the heap of another process tree"
SMALL = "it is smaller than {threshold:,} bytes: inside the message it crosses faster"
BYTES = "bytes and strings cannot lie in shared memory: their content is copied there, and out of it again"
KEPT = "its worker keeps it, or a view of it, and may change it later"
SPARSE = "it is a small part of the array that it is a view of, which a name would keep in memory"
OURS = "NumPy's code made it in this worker for itself: to another pool it is a plain array"
SCATTERED = "it is a buffer that is not contiguous"

_MOST_NODES = 10_000


class Note(NamedTuple):
    """One large part, as the pickler met it."""

    part: Any
    size: int
    how: "How"
    why: str
    trail: int  # objects that the pickler had met before


class Notes:
    """The first few parts of one dump.

    Parameters
    ----------
    room : int
        How many.
    by_name : bool
        Also those that go by name.
    """

    def __init__(self, room: int, *, by_name: bool = False) -> None:
        self._room = room
        self._by_name = by_name
        self._notes: list[Note] = []
        self.trail: list[Any] = []

    def add(self, part: Any, size: int, how: "How", why: str) -> None:
        """The pickler is at this part."""
        if len(self._notes) < self._room and (self._by_name or how != "by name"):
            self._notes.append(Note(part, size, how, why, len(self.trail)))

    def crossings(self, function: str, roots: Iterable[tuple[str, Any]]) -> "tuple[Crossing, ...]":
        """The parts with their places, below these named objects."""
        if not self._notes:
            return ()
        from shmexec.pickling.crossings import Crossing  # not before it is needed: workers come up the sooner

        places = _find_places(roots)
        return tuple(
            Crossing(function, self._place(note, places), describe(note.part), note.size, note.how, note.why)
            for note in self._notes
        )

    def _place(self, note: Note, places: dict[int, str]) -> str:
        if (found := places.get(id(note.part))) is not None:
            return found
        for passed in reversed(self.trail[: note.trail]):
            if (found := places.get(id(passed))) is not None:
                return f"in {found}" if not found.startswith("in ") else found
        return "inside"


def describe(part: Any) -> str:
    """Its type, in words."""
    name = type(part).__name__
    if isinstance(part, np.ndarray):
        return f"{name} of {part.dtype}, shape {part.shape}"
    return name


def _find_places(roots: Iterable[tuple[str, Any]]) -> dict[int, str]:
    """Names of the objects that are found from the roots, the nearest first, by their identity."""
    places: dict[int, str] = {}
    waiting = deque(roots)
    while waiting and len(places) < _MOST_NODES:
        place, value = waiting.popleft()
        if id(value) not in places:
            places[id(value)] = place
            waiting.extend(_children(place, value))
    return places


def _children(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    if type(value) in (list, tuple, deque):
        for i, child in enumerate(value):
            yield f"{place}[{i}]", child
    elif isinstance(value, Mapping) and type(value).__module__ in ("builtins", "collections"):
        for key, child in value.items():
            yield f"{place}[{key!r:.40}]", child
    else:
        for name, child in _attributes(value):
            yield f"{place}.{name}", child


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    closure = getattr(value, "__closure__", None) or ()
    code = getattr(value, "__code__", None)
    for name, cell in zip(getattr(code, "co_freevars", ()), closure, strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not bound yet
            continue
    for name in "func", "args", "keywords", "__self__", "__defaults__":  # of partials, methods and functions
        if (child := _plain_attribute(value, name)) is not None:
            yield name, child
    space = getattr(value, "__dict__", None)
    if type(space) is dict:
        yield from list(space.items())


def _plain_attribute(value: Any, name: str) -> Any:
    """Only of types that are known to have it: others may compute what they like."""
    module = type(value).__module__
    return getattr(value, name, None) if module in ("functools", "builtins") else None


class FirstCopies:
    """The first few things of a pool that were copied, each once.

    Guarantee: after so many calls, or so many things, nothing is written down any more, and nothing is spent on it.
    """

    MOST = 16
    CALLS = 1000

    def __init__(self) -> None:
        self._calls_left = self.CALLS
        self._found: dict[tuple[str, str, str], Crossing] = {}

    def notes(self) -> Notes | None:
        """Where one more dump is written down."""
        if self._calls_left <= 0 or len(self._found) >= self.MOST:
            return None
        self._calls_left -= 1
        return Notes(self.MOST)

    def add(self, crossings: "Iterable[Crossing]") -> "tuple[Crossing, ...]":
        """Those of one dump; which of them are new."""
        new = []
        for crossing in crossings:
            key = crossing.function, crossing.where, crossing.why
            if key not in self._found and len(self._found) < self.MOST:
                self._found[key] = crossing
                new.append(crossing)
        return tuple(new)

    def all(self) -> "tuple[Crossing, ...]":
        """What was found so far."""
        return tuple(self._found.values())


def roots_of_call(args: Iterable[Any], kwargs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The arguments of a call, by the names that a reader knows them by."""
    return [
        *((f"argument {i}", value) for i, value in enumerate(args)),
        *((f"argument {name!r}", value) for name, value in kwargs.items()),
    ]
