"""How an object becomes part of a message: cloudpickle's pickler, and what goes by name instead.

A module of its own because cloudpickle, with what it imports, takes 7 ms of a worker's coming up: workers whose calls
return numbers never need it, and the fork server loads it when nobody asks for a worker.
"""

import importlib
import io
import sys
import types
from typing import Any

import cloudpickle
import numpy as np

from shmexec.pickling import arrays, buffers, main_module, stream
from shmexec.pickling.fixed import is_importable
from shmexec.pickling.pickler import Forwarded, MessageAccount, dump_into, load_again
from shmexec.pickling.placed import reduce_placed
from shmexec.pickling.wishes import Wish


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Into one message, on one account."""

    def __init__(self, file: stream.Writer, account: MessageAccount, to_worker: bool) -> None:
        super().__init__(file, protocol=5, buffer_callback=account.place)
        self._account = account
        self._to_worker = to_worker
        self._trail = None if account.notes is None else account.notes.trail

    def reducer_override(self, obj: Any) -> Any:
        if self._trail is not None:
            self._trail.append(obj)
        if isinstance(obj, np.ndarray):
            reduced = arrays.reduce_array(obj, self._account)
            return NotImplemented if reduced is None else reduced
        if type(obj) is memoryview:
            return buffers.reduce_view(obj)
        if isinstance(obj, Wish):
            return obj.reduced(self._account)
        if type(obj) is Forwarded:
            packed = obj.packed
            self._account.holds.add_all(packed.holds)
            self._account.bytes_by_name += packed.bytes_by_name + packed.bytes_copied
            return load_again, (bytes(packed.data),)
        if type(obj) is io.TextIOWrapper:  # cloudpickle would send what is in the file, without a word
            raise TypeError("cannot pickle '_io.TextIOWrapper' object")
        if type(obj) is types.MethodType and (by_name := _method_by_name(obj)) is not None:
            return by_name
        if type(obj) is types.CodeType:
            return _with_filename(obj, self.dispatch_table[types.CodeType](obj))
        if isinstance(obj, type):
            _import_home(obj)
        reduced = super().reducer_override(obj)
        if not self._to_worker:
            return reduced
        return reduce_placed(obj, main_module.share_globals(obj, reduced, self._dump_global))

    def _dump_global(self, value: object) -> bytes:
        packed = dump_into(value, self._account.inner(), to_worker=True)
        self._account.add(packed)
        return bytes(packed.data)


def _import_home(obj: Any) -> None:
    """Import the part of a package that a class says it is of, if the package is there, as pickle itself would.

    `numpy.recarray` is of `numpy.rec`, which nobody may have imported yet: cloudpickle would send it by value, and it
    would arrive as another class.
    """
    name = getattr(obj, "__module__", None)
    if isinstance(name, str) and name not in sys.modules and name.rpartition(".")[0] in sys.modules:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit):
            pass  # there is none: by value


def _method_by_name(method: types.MethodType) -> Any:
    """A method that its class has under its name, and whose function cannot be imported: as pickle itself does it.

    cloudpickle sends that function by value, with copies of its module's globals: each class method, for one.
    """
    function, bound, name = method.__func__, method.__self__, method.__func__.__name__
    kind = bound if isinstance(bound, type) else type(bound)
    if is_importable(function) or not is_importable(kind):
        return None
    found = getattr(kind, name, None)
    return (getattr, (bound, name)) if (found == method if bound is kind else found is function) else None


def _with_filename(code: types.CodeType, reduced: tuple[Any, tuple[Any, ...]]) -> tuple[Any, tuple[Any, ...]]:
    """cloudpickle forgets where code comes from; a traceback of the worker shall say it, and show the lines."""
    make, parts = reduced
    return make, tuple(code.co_filename if type(part) is str and part == "<dynamic-code>" else part for part in parts)
