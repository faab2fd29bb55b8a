"""How the function of a call crosses: by reference if it can be imported, else by value; shipped once per worker.

A function by reference is resolved once in each worker. One by value (a lambda, a closure, a function of `__main__`,
a partial, a bound method) is pickled for each call, since what it closes over may have changed, and once for all
calls of a `map`, whose arrays are then read by all and copied page by page for who writes to them. Its bytes are
shipped once, and loaded anew for each call, so that no call sees what another did to the captured values. A function
whose bytes are long or name blocks is shipped with each call: a cache would keep its arrays alive.

Both sides keep the same least-recently-used table, moved by the same sequence of messages, so neither has to tell
the other what it has forgotten.
"""

import dis
import hashlib
import itertools
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import cloudpickle

from shmexec import _core
from shmexec._core import Packed
from shmexec.pickling import main_module
from shmexec.pickling.pickler import dump, load

_BY_REFERENCE = b"R"
_BY_VALUE = b"V"
_LONGEST_KEPT = 16 << 10
_TABLE_SIZE = 256
_STORE_GLOBAL = dis.opmap["STORE_GLOBAL"]
_UNCHANGING = (types.ModuleType, types.BuiltinFunctionType, int, float, complex, str, bytes, type(None))
_REFERABLE = (types.FunctionType, types.BuiltinFunctionType, type)


class FunctionTable:
    """The parent's: numbers for functions.

    Without a lock: two threads that pack one function at the same moment may give it two numbers; it is shipped twice.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._by_reference: dict[tuple[str, str], tuple[object, int, bytes]] = {}
        self._by_value: OrderedDict[bytes, int] = OrderedDict()

    def pack(self, function: Callable[..., Any], *, borrowed: bool = False) -> tuple[int, Packed]:
        """(number, bytes); number 0: shipped with each call. `borrowed`: the bytes serve several calls."""
        if is_importable(function):
            name = function.__module__, function.__qualname__
            known = self._by_reference.get(name)
            if known is None or known[0] is not function:
                known = function, next(self._numbers), _BY_REFERENCE + pickle.dumps(function, 5)
                self._by_reference[name] = known
            return known[1], Packed(known[2], _core.Holds())
        packed = dump(function, to_worker=True, borrowed=borrowed)
        data = _BY_VALUE + bytes(packed.data)
        if len(packed.holds) or len(data) > _LONGEST_KEPT:
            return 0, Packed(data, packed.holds, packed.bytes_by_name, packed.bytes_copied)
        digest = hashlib.blake2b(data, digest_size=16).digest()
        number = self._by_value.pop(digest, 0) or next(self._numbers)
        self._by_value[digest] = number
        if len(self._by_value) > _TABLE_SIZE:
            self._by_value.popitem(last=False)
        return number, Packed(data, packed.holds)


def is_importable(function: object) -> bool:
    """Whether another process finds this very function by importing its module."""
    if type(function) not in _REFERABLE:
        return False
    module, path = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    found: Any = sys.modules.get(module or "")
    if module in (None, "__main__", "__mp_main__") or found is None or "<" in path:
        return False
    if any(module == name or module.startswith(name + ".") for name in cloudpickle.list_registry_pickle_by_value()):
        return False
    for part in path.split("."):
        found = getattr(found, part, None)
    return found is function


def shipped() -> _core.Recent:
    """The parent's record of what one worker was sent."""
    return _core.Recent(_TABLE_SIZE)


class Received(_core.Recent):
    """The worker's functions."""

    def __init__(self) -> None:
        super().__init__(_TABLE_SIZE)

    def withdrawn(self, number: int) -> None:
        """What came with a message that was taken back does not count: it may lie in a block that is gone."""
        self.use(number)

    def note(self, number: int, shipped: bytes | memoryview) -> None:
        """What came with a message."""
        if number and not self.use(number):
            self.add(number, bytes(shipped))

    def is_cached(self, number: int) -> bool:
        """Whether all calls with this number get the same object."""
        return callable(self.get(number))

    def resolve(self, number: int, shipped: bytes | memoryview) -> Callable[..., Any]:
        """The function of a call. Raises whatever its import or its unpickling raises."""
        known = self.get(number) if number else bytes(shipped)
        if callable(known):
            return known  # type: ignore[no-any-return]
        function = load(known[1:])
        if number and known[:1] == _BY_REFERENCE:
            self.set(number, function)
        return function  # type: ignore[no-any-return]


def is_stateless(function: object) -> bool:
    """Whether a call cannot leave anything in a function that was sent by value: no closure, no defaults, and only
    global variables that it does not set and that do not change.
    """
    if type(function) is not types.FunctionType:
        return False
    if function.__closure__ or function.__defaults__ or function.__kwdefaults__ or function.__dict__:
        return False
    if function.__globals__ is main_module.namespace():
        return True  # the worker's one namespace, which all calls share
    if _STORE_GLOBAL in function.__code__.co_code[::2]:
        return False
    space = function.__globals__
    return all(_is_constant(space[name]) for name in function.__code__.co_names if name in space)


def _is_constant(value: object) -> bool:
    return isinstance(value, _UNCHANGING) or is_importable(value)
