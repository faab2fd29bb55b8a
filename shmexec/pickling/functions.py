"""How the function of a call crosses: by reference if it can be imported, else by value; shipped once per worker.

A function by reference is resolved once in each worker. One by value (a lambda, a closure, a function of `__main__`,
a partial, a bound method) is pickled for each call, since what it closes over may have changed, and once for all
calls of a `map`, whose arrays are then read by all and copied page by page for who writes to them. Its bytes are
shipped once, and loaded anew for each call, so that no call sees what another did to the captured values. A function
whose bytes are long or name blocks is shipped with each call: a cache would keep its arrays alive.

One by value that refers to nothing mutable (`fixed.py`) is pickled again only when something of it has been replaced,
from the second time on that its pickle came out the same; a worker loads it once, and again after another function has
changed what is in its `__main__`.

Both sides keep the same least-recently-used table, moved by the same sequence of messages, so neither has to tell
the other what it has forgotten.
"""

import dis
import itertools
import pickle
import types
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from shmexec import _core
from shmexec._core import Packed
from shmexec.pickling import main_module
from shmexec.pickling.fixed import fixed, is_importable
from shmexec.pickling.pickler import dump, load
from shmexec.pickling.placed import placed

_BY_REFERENCE = b"R"
_BY_VALUE = b"V"
_FIXED = b"C"
_LONGEST_KEPT = 16 << 10
_TABLE_SIZE = 256
_STORE_GLOBAL = dis.opmap["STORE_GLOBAL"]
_UNCHANGING = (types.ModuleType, types.BuiltinFunctionType, int, float, complex, str, bytes, type(None))


class FunctionTable:
    """The parent's: numbers for functions.

    Without a lock: two threads that pack one function at the same moment may give it two numbers; it is shipped twice.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._by_reference: dict[tuple[str, str], tuple[object, _core.Imported]] = {}
        self._by_value: OrderedDict[bytes, tuple[int, int]] = (
            OrderedDict()
        )  # also the number as one that is loaded once
        self._fixed: dict[Callable[..., Any], _core.Fixed] = {}

    def known(self, function: Callable[..., Any]) -> _core.Known | None:
        """Of a function that has been packed: what the next call needs not do again."""
        if type(function) not in (types.FunctionType, types.BuiltinFunctionType):
            return None
        _, found = self._by_reference.get((function.__module__, function.__qualname__), (None, None))
        known = found or self._fixed.get(function)
        return known if known is not None and known.is_current(function) else None

    def pack(self, function: Callable[..., Any], *, borrowed: bool = False) -> tuple[int, Packed]:
        """(number, bytes); number 0: shipped with each call. `borrowed`: the bytes serve several calls."""
        if is_importable(function):
            name = function.__module__, function.__qualname__
            known = self._by_reference.get(name)
            if known is None or known[0] is not function or not known[1].is_up_to_date:
                packed = Packed(_BY_REFERENCE + pickle.dumps(placed(function), 5), _core.Holds())
                known = function, _core.Imported(function, next(self._numbers), packed)
                self._by_reference[name] = known
            return known[1].number, known[1].packed
        found = self._fixed.get(function) if type(function) is types.FunctionType else None
        if found is not None and found.is_current(function):
            return found.number, found.packed
        packed = dump(function, to_worker=True, borrowed=borrowed)
        data = _BY_VALUE + bytes(packed.data)
        if len(packed.holds) or len(data) > _LONGEST_KEPT:
            return 0, Packed(data, packed.holds, packed.bytes_by_name, packed.bytes_copied)
        from hashlib import blake2b  # which takes a worker's coming up some milliseconds

        digest = blake2b(data, digest_size=16).digest()
        number, once = self._by_value.pop(digest, (0, 0))
        found = None
        if number:  # it has come out the same a second time
            once = once or next(self._numbers)
            found = fixed(function, once, Packed(_FIXED + data[1:], packed.holds))
        self._by_value[digest] = number, once = number or next(self._numbers), once
        if len(self._by_value) > _TABLE_SIZE:
            self._by_value.popitem(last=False)
        if found is None:
            return number, Packed(data, packed.holds)
        if len(self._fixed) >= _TABLE_SIZE:
            self._fixed.clear()
        self._fixed[function] = found
        return once, found.packed


def shipped() -> _core.Recent:
    """The parent's record of what one worker was sent."""
    return _core.Recent(_TABLE_SIZE)


class Received(_core.Recent):
    """The worker's functions."""

    def __init__(self) -> None:
        super().__init__(_TABLE_SIZE)
        self._fixed: dict[int, bytes] = {}  # those that are loaded
        main_module.when_changed(self._load_again)

    def _load_again(self) -> None:
        """What functions by value refer to in `__main__` may be another's by now."""
        for number, data in self._fixed.items():
            if self.get(number) is not None:
                self.set(number, data)
        self._fixed.clear()

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
        elif number and known[:1] == _FIXED:
            if len(self._fixed) >= _TABLE_SIZE:
                self._load_again()
            self._fixed[number] = known
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
