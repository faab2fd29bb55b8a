"""Objects to bytes and holds, and back.

Purpose: one `dump` and one `load` for arguments, results, functions and exceptions.
Guarantees: a `Packed` holds every block that its bytes name, until it is released; `load` of bytes whose blocks
    somebody holds never finds a stale name. What lives in `__main__` or has no name to import it by goes by value
    (cloudpickle).
Assumptions: the bytes come from a process of the same tree. Loading runs the code that they name, as pickle always
    does.
"""

import io
import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from shmexec import _core
from shmexec._core import Packed
from shmexec.pickling import arrays, buffers, notes, stream
from shmexec.pickling.notes import Notes

if TYPE_CHECKING:
    from shmexec.pickling.repeated import Repeated  # workers need it not

# What pickle writes by itself in C, with nothing in it that could name a block or live in __main__.
_FIXED = frozenset({int, float, complex, bool, type(None)})
_SIZED = frozenset({str, bytes})
_ATOMS = _FIXED | _SIZED
_WITH_BUFFERS = b"B"
_ARGUMENTS = b"(", b"A"  # of a call, marshalled (native/_arguments.pxi)
_RESULT = b"N", b"G", b"P"  # likewise
_NONE: Mapping[int, str] = {}


class Forwarded:
    """Stands for a value that was received and goes on unread: in the pickle it becomes the value itself."""

    __slots__ = ("packed",)

    def __init__(self, packed: Packed) -> None:
        self.packed = packed


class MessageAccount:
    """What one dump holds, counts and notes. Apart from the pickler, which refers to itself and keeps arrays alive.

    Parameters
    ----------
    is_result, is_borrowed, is_loaded_once, is_dry : bool
    repeated : Repeated, optional
    item : int
        As `shmexec.pickling.arrays.Account` says.
    copying : mapping
    keeping : frozenset of int
        As `dump_result` says.
    noted : Notes, optional
        Where the large parts are written down.
    """

    def __init__(
        self,
        *,
        is_result: bool = False,
        is_borrowed: bool = False,
        is_loaded_once: bool = False,
        is_dry: bool = False,
        repeated: "Repeated | None" = None,
        item: int = 0,
        copying: Mapping[int, str] = _NONE,
        keeping: frozenset[int] = frozenset(),
        noted: Notes | None = None,
    ) -> None:
        self.is_result = is_result
        self.is_borrowed = is_borrowed
        self.is_loaded_once = is_loaded_once
        self.is_dry = is_dry
        self.repeated = repeated
        self.item = item
        self.notes = noted
        self.holds = _core.Holds()
        self.places: list[buffers.Place] = []
        self.bytes_by_name = 0
        self.bytes_copied = 0
        self._copying = copying
        self._keeping = keeping
        self._covered: dict[int, int] = {}  # bytes that are named of each plain block
        self._names: dict[int, int] = {}  # how often each is named
        self._given: set[int] = set()

    def inner(self) -> "MessageAccount":
        """For a pickle inside this one; then `add` it."""
        return MessageAccount(is_borrowed=self.is_borrowed, is_dry=self.is_dry, noted=self.notes)

    def add(self, packed: Packed) -> None:
        """What a pickle inside this one holds and counts."""
        self.holds.add_all(packed.holds)
        self.bytes_by_name += packed.bytes_by_name
        self.bytes_copied += packed.bytes_copied

    def named(self, part: Any, size: int) -> None:
        """This goes by name."""
        self.bytes_by_name += size
        if self.notes is not None:
            self.notes.add(part, size, "by name", "")

    def copied(self, part: Any, size: int, why: str) -> None:
        """This is copied, into shared memory or into the message."""
        self.bytes_copied += size
        if self.notes is not None and (size >= _core.threshold() or self.is_dry):
            self.notes.add(part, size, "copied", why.format(threshold=_core.threshold()))

    def refusal(self, block: int, size: int) -> str:
        """Why not by name: what only happens to lie there goes so as a result, if its worker has no more use for it."""
        if not _core.is_plain(block):
            return ""
        if not self.is_result:
            return notes.OURS if _core.is_own_plain(block) else ""
        if size < _core.threshold():
            return notes.SMALL
        if block in self._copying:
            return self._copying[block]
        self._covered[block] = self._covered.get(block, 0) + size
        self._names[block] = self._names.get(block, 0) + 1
        return ""

    def may_give(self, block: int) -> bool:
        """Whether the receiver has this block, which has been named, for itself."""
        if not self.is_loaded_once or block in self._keeping or block not in self._names:
            return False
        self._given.add(block)
        return True

    def sparse(self) -> frozenset[int]:
        """The plain blocks of which so little is named that a copy is better than keeping the whole."""
        return frozenset(block for block, size in self._covered.items() if _core.is_sparse(size, block))

    def contested(self) -> frozenset[int]:
        """The blocks that were given to one array while others have them, too."""
        return frozenset(block for block in self._given if self._names[block] > 1)

    def place(self, buffer: pickle.PickleBuffer) -> bool:
        """A buffer's place beside the message; true: it goes inside."""
        place = buffers.place_buffer(buffer, self)
        if place is not None:
            self.places.append(place)
        return place is None

    def place_bytes(self, data: bytes) -> tuple[int, int]:
        """A block with a copy of these."""
        self.copied(data, len(data), notes.BYTES)
        return (0, 0) if self.is_dry else buffers.place_copy(memoryview(data), self)


def is_plain(values: Iterable[Any]) -> bool:
    """Whether plain pickle says all of these, and none is large."""
    kinds = set(map(type, values := tuple(values)))
    return kinds <= _FIXED or (kinds <= _ATOMS and all(map(is_atom, values)))


def is_atom(value: object) -> bool:
    """Whether plain pickle says it, and it is not large."""
    kind = type(value)
    return kind in _FIXED or (kind in _SIZED and len(value) < stream.BULK)  # type: ignore[arg-type]


def dump(obj: Any, *, to_worker: bool = False, borrowed: bool = False) -> Packed:
    """Pickle an object; its arrays by name, or copied into shared memory from the threshold up.

    Parameters
    ----------
    obj : object
    to_worker : bool
        From a parent to its worker: functions of `__main__` use the worker's (`shmexec.pickling.main_module`).
    borrowed : bool
        The bytes are loaded more than once: each time plain arrays are copy-on-write views of the one copy.

    Raises
    ------
    Exception
        Whatever the object's own code raises, `pickle.PicklingError`, `SharedMemoryFull`.
    """
    if is_atom(obj):
        return Packed(pickle.dumps(obj, 5), _core.Holds())
    return dump_into(obj, MessageAccount(is_borrowed=borrowed), to_worker)


def dump_arguments(
    arguments: Any, *, repeated: "Repeated | None" = None, item: int = 0, noted: Notes | None = None
) -> Packed:
    """Pickle the (args, kwargs) of a call, or the list of args of a chunk, for a worker, which loads them once.

    Parameters
    ----------
    arguments : tuple or list
    repeated : Repeated, optional
        Arrays that are in several items of a map.
    item : int
        Which of them this is, or of which chunk.
    noted : Notes, optional
        Where the large parts are written down.
    """
    return dump_into(
        arguments, MessageAccount(is_loaded_once=True, repeated=repeated, item=item, noted=noted), to_worker=True
    )


def dump_result(
    obj: Any,
    *,
    copying: Mapping[int, str] = _NONE,
    keeping: frozenset[int] = frozenset(),
    noted: Callable[[], Notes | None] = lambda: None,
) -> tuple[Packed, Notes | None]:
    """Pickle the result of a task: arrays that lie in shared memory go by name, whoever made them.

    Parameters
    ----------
    obj : object
    copying : mapping of int to str
        Blocks that are copied nevertheless, if nobody asked for shared memory there, and why.
    keeping : frozenset of int
        Blocks that no array of the receiver may own by itself.
    noted : callable
        Makes what the large parts are written down in; the last one is returned, too.
    """
    if is_atom(obj):
        return dump(obj), None
    account = MessageAccount(is_result=True, is_loaded_once=True, copying=copying, keeping=keeping, noted=noted())
    packed = dump_into(obj, account, to_worker=False)
    sparse, contested = account.sparse(), account.contested()
    if sparse or contested:
        return dump_result(
            obj, copying={**dict.fromkeys(sparse, notes.SPARSE), **copying}, keeping=keeping | contested, noted=noted
        )
    return packed, account.notes


def dry_run(obj: Any, room: int) -> tuple[MessageAccount, int]:
    """What pickling an object for a worker would do, and how many bytes the pickle would have without its arrays."""
    account = MessageAccount(is_dry=True, noted=Notes(room, by_name=True))
    packed = dump_into(obj, account, to_worker=True)
    return account, len(packed.data)


def dump_into(obj: Any, account: MessageAccount, to_worker: bool) -> Packed:
    """Pickle an object on this account."""
    from shmexec.pickling.reducing import Pickler  # not before it is needed: workers come up the sooner

    file = stream.Writer(account.place_bytes)
    Pickler(file, account, to_worker).dump(obj)
    data = file.getvalue()
    if account.places or file.pieces:
        data = b"".join((_WITH_BUFFERS, pickle.dumps((account.places, file.pieces), 5), data))
    return Packed(data, account.holds, account.bytes_by_name, account.bytes_copied)


def load_all() -> None:
    """Load what `dump` needs for more than atoms: before anything forks, and before a call may make that impossible."""
    import shmexec.pickling.crossings
    import shmexec.pickling.reducing  # noqa: F401


def load(data: bytes | memoryview, unpickler: Any = None) -> Any:
    """What `dump` was given, or `Desk.submit` and `serve_calls` have marshalled. Once: an array may own its block."""
    tag = bytes(data[:1])
    if tag in _ARGUMENTS:
        return _core.load_arguments(data)
    if tag in _RESULT:
        return _core.load_result(data, unpickler is None)
    if tag != _WITH_BUFFERS:
        return pickle.loads(data) if unpickler is None else unpickler(io.BytesIO(data)).load()
    file = io.BytesIO(data)
    file.seek(1)
    places, pieces = pickle.load(file)
    source: Any = stream.Reader(memoryview(data)[file.tell() :], pieces) if pieces else file
    return (unpickler or pickle.Unpickler)(source, buffers=buffers.open_places(places)).load()


class _AgainUnpickler(pickle.Unpickler):
    """Nothing in it has a block for itself."""

    def find_class(self, module: str, name: str) -> Any:
        if module == _core.__name__ and name == "own_array":
            return _not_own_array
        return super().find_class(module, name)


def _not_own_array(block: int, birth: int, dtype: Any, shape: tuple[int, ...], fortran: bool) -> Any:
    return _core.array(block, birth, 0, dtype, shape, None, True, fortran)


def load_again(data: bytes | memoryview) -> Any:
    """What `dump` was given, where others load the same bytes."""
    return load(data, _AgainUnpickler)


def array_reducer(holds: _core.Holds) -> Any:
    """A `reducer_override` for other picklers (of a worker's start): arrays by name, held by `holds`; no more."""

    account = MessageAccount()
    account.holds = holds

    def reduce(obj: object) -> Any:
        reduced = arrays.reduce_array(obj, account) if isinstance(obj, np.ndarray) else None
        return NotImplemented if reduced is None else reduced

    return reduce
