"""A call as it goes to another machine: bytes, and apart from them the big arrays and the results of other calls.

Guarantees: a value that is apart is put back at whatever depth it stood, by the worker that runs the call: nobody on
    the way unpickles what the user gave. What a call writes into an input is seen by no other call.
"""

import functools
import io
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle
import numpy as np

import shmexec
from shmexec import _core

BIG = 1 << 18  # bytes, from which on an array goes apart: with 1 Gbit/s as long on its way as a message


class _Packer(cloudpickle.CloudPickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO, take: Callable[[Any], int | None]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._take = take

    def persistent_id(self, obj: Any) -> int | None:
        return self._take(obj)


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, apart: Sequence[Any]) -> None:
        super().__init__(file)
        self._apart = apart

    def persistent_load(self, position: Any) -> Any:
        return self._apart[position]


def pack(value: Any, take: Callable[[Any], int | None]) -> bytes:
    """The bytes; `take` is asked for each object in it, and returns where among those apart it stands, or None."""
    file = io.BytesIO()
    _Packer(file, take).dump(value)
    return file.getvalue()


def unpack(packed: bytes, apart: Sequence[Any]) -> Any:
    """The value."""
    return _Unpacker(io.BytesIO(packed), apart).load()


@functools.lru_cache(64)
def _known_function(packed: bytes) -> Callable[..., Any]:
    function: Callable[..., Any] = unpack(packed, ())
    return function


def run_packed(function: bytes, arguments: bytes, is_whole: bool, is_chunk: bool, *apart: Any) -> Any:
    """Run a call, in a worker of a pool.

    Parameters
    ----------
    function, arguments : bytes
        Of the function, and of (args, kwargs); of a chunk: a list of args.
    is_whole : bool
        Nothing of the function is apart: it is kept for the next call.
    is_chunk : bool
        The result is a list, of one for each.
    *apart
        What was apart.
    """
    fn = _known_function(function) if is_whole else unpack(function, apart)
    if is_chunk:
        values: list[Any] = []
        for args in unpack(arguments, apart):
            _core.running.item = len(values)  # for what it reports
            values.append(fn(*args))
        return values
    args, kwargs = unpack(arguments, apart)
    return fn(*args, **kwargs)


class Shipped:
    """A big input, as it lies on a machine: in shared memory from the first call on that needs it there."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        return Shipped, (self._array,)

    def __sizeof__(self) -> int:
        return int(self._array.nbytes)

    def for_a_call(self) -> Any:
        """What to give to the pool: the same memory for all calls, of which a page that one writes is its own."""
        with self._lock:
            self._array = shmexec.share(self._array)
        return shmexec.private(self._array)
