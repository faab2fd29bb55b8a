"""Functions by value that do not change: what their pickles depend on, to be looked at instead of pickling them anew.

Some facts: a function of `__main__`, a lambda or a closure is pickled with its code, its defaults, the contents of its
cells and the globals that its code names, functions among them, likewise. Each of these can be replaced between two
calls; what is immutable cannot change in its place.

What this means for us: if all of them are immutable, the pickle is good as long as each is the very object that it was.
A look at them takes less than a microsecond, pickling them twenty. Of functions with anything mutable nothing is kept.
"""

import dis
import functools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from shmexec import _core
from shmexec._core import Packed

_ATOMS = (int, float, complex, str, bytes, bool, type(None), type(Ellipsis))
_REFERABLE = (types.FunctionType, types.BuiltinFunctionType, type)
_GLOBAL_OPS = ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL")
# a call might leave something in the function itself, or in another
_CHANGING_OPS = ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF", "STORE_ATTR", "DELETE_ATTR")
_MOST_FUNCTIONS = 32
_NOTHING = Packed(b"", _core.Holds())


def is_importable(function: object) -> bool:
    """Whether another process finds this very function by importing its module."""
    if type(function) not in _REFERABLE:
        return False
    module, path = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    found: Any = sys.modules.get(module or "")
    if module in (None, "__main__", "__mp_main__") or found is None or "<" in path:
        return False
    if _is_sent_by_value(module):
        return False
    for part in path.split("."):
        found = getattr(found, part, None)
    return found is function


def _is_sent_by_value(module: str) -> bool:
    cloudpickle = sys.modules.get("cloudpickle")  # before it is loaded nobody can have told it of a module
    names = () if cloudpickle is None else cloudpickle.list_registry_pickle_by_value()
    return any(module == name or module.startswith(name + ".") for name in names)


def fixed(function: Callable[..., Any], number: int, packed: Packed) -> "_core.Fixed | None":
    """What to look at, for a function that has been pickled by value; None: it may change in its place."""
    if type(function) is not types.FunctionType:
        return None
    names: list[tuple[dict[str, Any], str, Any]] = []
    cells: list[tuple[types.CellType, Any]] = []
    functions = [function]
    for one in functions:  # which grows
        if one.__dict__ or one.__kwdefaults__ or not _is_constant(one.__defaults__):
            return None
        values = []
        for cell in one.__closure__ or ():
            try:
                values.append(cell.cell_contents)
            except ValueError:  # not set yet
                return None
            cells.append((cell, values[-1]))
        space = one.__globals__
        named, may_change = _read(one.__code__)
        if may_change:
            return None
        for name in named:
            names.append((space, name, space.get(name, _core.MISSING)))
            values.append(space.get(name))
        for value in values:
            if type(value) is types.FunctionType and not is_importable(value):
                if value not in functions:
                    functions.append(value)
                if len(functions) > _MOST_FUNCTIONS:
                    return None
            elif not _is_constant(value):
                return None
    return _core.Fixed(number, packed, functions, names, cells)


def is_unchanging(function: Callable[..., Any]) -> bool:
    """Whether its pickle stays what it is until something of it is replaced."""
    return is_importable(function) or fixed(function, 0, _NOTHING) is not None


def _is_constant(value: object) -> bool:
    if type(value) is tuple or type(value) is frozenset:
        return all(map(_is_constant, value))
    if type(value) is types.ModuleType:
        name = value.__name__
        return name != "__main__" and sys.modules.get(name) is value and not _is_sent_by_value(name)
    return type(value) in _ATOMS or is_importable(value)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if type(constant) is types.CodeType:
            yield from _codes(constant)


@functools.lru_cache(256)
def _read(code: types.CodeType) -> tuple[frozenset[str], bool]:
    """The globals that it names, and whether a call might leave something where the next would see it."""
    named, may_change = set[str](), False
    for one in _codes(code):
        mine = one.co_cellvars  # made anew for each call
        for op in dis.get_instructions(one):
            if op.opname in _GLOBAL_OPS:
                named.add(op.argval)
            if op.opname in _CHANGING_OPS and not (op.opname.endswith("_DEREF") and op.argval in mine):
                may_change = True
    return frozenset(named), may_change
