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
from dataclasses import dataclass
from typing import Any

import cloudpickle
import numpy as np

from shmexec import _core
from shmexec.pickling import arrays, buffers, main_module, stream

# What pickle writes by itself in C, with nothing in it that could name a block or live in __main__.
_ATOMS = frozenset({int, float, complex, str, bytes, bool, type(None)})
_SIZED = frozenset({str, bytes})
_WITH_BUFFERS = b"B"

# A result that is a smaller part than this of what was allocated is copied: that costs at most a sixteenth of one pass
# over the memory, and the rest can be freed.
_SPARSE = 16


@dataclass(frozen=True, slots=True)
class Packed:
    """Bytes on their way, the blocks that they name, and how many bytes of data went by name or were copied."""

    data: bytes | memoryview
    holds: _core.Holds
    bytes_by_name: int = 0
    bytes_copied: int = 0


class Forwarded:
    """Stands for a value that was received and goes on unread: in the pickle it becomes the value itself."""

    __slots__ = ("packed",)

    def __init__(self, packed: Packed) -> None:
        self.packed = packed


class _Account:
    """What one dump holds and counts. Apart from the pickler, which would refer to itself and keep its arrays alive."""

    __slots__ = (
        "bytes_by_name",
        "bytes_copied",
        "copying",
        "covered",
        "given",
        "holds",
        "is_borrowed",
        "is_loaded_once",
        "is_result",
        "keeping",
        "names",
        "places",
    )

    def __init__(
        self,
        holds: _core.Holds,
        *,
        is_result: bool = False,
        is_borrowed: bool = False,
        is_loaded_once: bool = False,
        copying: frozenset[int] = frozenset(),
        keeping: frozenset[int] = frozenset(),
    ) -> None:
        self.is_borrowed = is_borrowed
        self.is_loaded_once = is_loaded_once
        self.holds = holds
        self.is_result = is_result
        self.copying = copying
        self.keeping = keeping
        self.covered: dict[int, int] = {}  # bytes that are named of each plain block
        self.names: dict[int, int] = {}  # how often each is named
        self.given: set[int] = set()
        self.places: list[buffers.Place] = []
        self.bytes_by_name = 0
        self.bytes_copied = 0

    def add(self, packed: Packed) -> None:
        """What a pickle inside this one holds and counts."""
        self.holds.add_all(packed.holds)
        self.bytes_by_name += packed.bytes_by_name
        self.bytes_copied += packed.bytes_copied

    def may_name(self, block: int, size: int) -> bool:
        """Whether `size` bytes of this block go by name. What only happens to lie there goes so as a result."""
        if not _core.is_plain(block):
            return True
        if not self.is_result:
            return not _core.is_own_plain(block)
        if block in self.copying or size < _core.threshold():
            return False
        self.covered[block] = self.covered.get(block, 0) + size
        self.names[block] = self.names.get(block, 0) + 1
        return True

    def may_give(self, block: int) -> bool:
        """Whether the receiver has this block, which has been named, for itself."""
        if not self.is_loaded_once or block in self.keeping or block not in self.names:
            return False
        self.given.add(block)
        return True

    def contested(self) -> frozenset[int]:
        """The blocks that were given to one array while others have them, too."""
        return frozenset(block for block in self.given if self.names[block] > 1)

    def sparse(self) -> frozenset[int]:
        """The plain blocks of which so little is named that a copy is better than keeping the whole."""
        return frozenset(block for block, size in self.covered.items() if size * _SPARSE < _core.block_size(block))

    def place(self, buffer: pickle.PickleBuffer) -> bool:
        """A buffer's place beside the message; true: it goes inside."""
        place = buffers.place_buffer(buffer, self)
        if place is not None:
            self.places.append(place)
        return place is None

    def place_bytes(self, data: bytes) -> tuple[int, int]:
        """A block with a copy of these."""
        self.bytes_copied += len(data)
        return buffers.place_copy(memoryview(data), self)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: stream.Writer, account: _Account, to_worker: bool) -> None:
        super().__init__(file, protocol=5, buffer_callback=account.place)
        self._account = account
        self._to_worker = to_worker

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray):
            reduced = arrays.reduce_array(obj, self._account)
            return NotImplemented if reduced is None else reduced
        if type(obj) is memoryview:
            return buffers.reduce_view(obj)
        if type(obj) is Forwarded:
            packed = obj.packed
            self._account.holds.add_all(packed.holds)
            self._account.bytes_by_name += packed.bytes_by_name + packed.bytes_copied
            return load_again, (bytes(packed.data),)
        if type(obj) is io.TextIOWrapper:  # cloudpickle would send what is in the file, without a word
            raise TypeError("cannot pickle '_io.TextIOWrapper' object")
        reduced = super().reducer_override(obj)
        return main_module.share_globals(obj, reduced, self._dump_global) if self._to_worker else reduced

    def _dump_global(self, value: object) -> bytes:
        packed = dump(value, to_worker=True, borrowed=self._account.is_borrowed)
        self._account.add(packed)
        return bytes(packed.data)


def is_plain(values: tuple[Any, ...]) -> bool:
    """Whether plain pickle says all of these."""
    return all(map(_is_atom, values))


def _is_atom(value: object) -> bool:
    kind = type(value)
    return kind in _ATOMS and (kind not in _SIZED or len(value) < stream.BULK)  # type: ignore[arg-type]


def dump(obj: Any, *, to_worker: bool = False, borrowed: bool = False, once: bool = False) -> Packed:
    """Pickle an object; its arrays by name, or copied into shared memory from the threshold up.

    Parameters
    ----------
    obj : object
    to_worker : bool
        From a parent to its worker: functions of `__main__` use the worker's (`shmexec.pickling.main_module`).
    borrowed : bool
        The bytes are loaded more than once: each time plain arrays are copy-on-write views of the one copy.
    once : bool
        They are loaded once: plain arrays arrive as owners of their copies.

    Raises
    ------
    Exception
        Whatever the object's own code raises, `pickle.PicklingError`, `SharedMemoryFull`.
    """
    if _is_atom(obj):
        data = pickle.dumps(obj, 5)
        return Packed(data, _core.Holds(), 0, 0)
    return _dump(obj, _Account(_core.Holds(), is_borrowed=borrowed, is_loaded_once=once), to_worker)


def dump_result(obj: Any, *, copying: frozenset[int] = frozenset(), keeping: frozenset[int] = frozenset()) -> Packed:
    """Pickle the result of a task: arrays that lie in shared memory go by name, whoever made them.

    Parameters
    ----------
    obj : object
    copying : frozenset of int
        Blocks that are copied nevertheless, if nobody asked for shared memory there.
    keeping : frozenset of int
        Blocks that no array of the receiver may own by itself.
    """
    if _is_atom(obj):
        return dump(obj)
    account = _Account(_core.Holds(), is_result=True, is_loaded_once=True, copying=copying, keeping=keeping)
    packed = _dump(obj, account, to_worker=False)
    sparse, contested = account.sparse(), account.contested()
    if sparse or contested:
        return dump_result(obj, copying=copying | sparse, keeping=keeping | contested)
    return packed


def _dump(obj: Any, account: _Account, to_worker: bool) -> Packed:
    file = stream.Writer(account.place_bytes)
    _Pickler(file, account, to_worker).dump(obj)
    data = file.getvalue()
    if account.places or file.pieces:
        data = b"".join((_WITH_BUFFERS, pickle.dumps((account.places, file.pieces), 5), data))
    return Packed(data, account.holds, account.bytes_by_name, account.bytes_copied)


def dump_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Packed:
    """Pickle the arguments of a call for a worker."""
    if not kwargs and is_plain(args):
        return Packed(pickle.dumps((args, kwargs), 5), _core.Holds())
    return dump((args, kwargs), to_worker=True, once=True)


def load(data: bytes | memoryview, unpickler: Any = None) -> Any:
    """What `dump` was given. Once: an array in it may be the owner of its block."""
    if bytes(data[:1]) != _WITH_BUFFERS:
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

    account = _Account(holds)

    def reduce(obj: object) -> Any:
        reduced = arrays.reduce_array(obj, account) if isinstance(obj, np.ndarray) else None
        return NotImplemented if reduced is None else reduced

    return reduce
