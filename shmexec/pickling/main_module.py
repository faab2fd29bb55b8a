"""The globals of `__main__` in a worker: one namespace, as if the worker had imported the user's script.

Some facts: functions of `__main__` go by value, with the globals that they name; by itself cloudpickle gives each
load a namespace of its own, so that what an initializer sets, or a counter that a call moves, is gone for the next
call. With the standard library's pool both stay, since there the function is found in a module.

What this means for us: in a worker all functions of `__main__` share the worker's own `__main__`, and a global comes
with a digest of its pickle. It is set when it comes for the first time and whenever the parent's value has changed
since; else the worker's value stands. Functions, classes and modules are always the parent's latest. A forked worker
has the globals of its parent already, so their first coming changes nothing.

Only what goes from a parent to its worker is done so: a function that comes back has globals of its own, and does not
touch the parent's `__main__`.
"""

import sys
import threading
import types
from collections.abc import Callable
from typing import Any

_NOT_DATA = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)

Dump = Callable[[object], bytes]


# ---- the parent's half -----------------------------------------------------------------------------------------------


class _Namespace:
    """Becomes the worker's `__main__` in the pickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return namespace, ()


_NAMESPACE = _Namespace()


class _Open(threading.local):
    """The globals whose pickling is going on in this thread: what they refer to may refer to them."""

    def __init__(self) -> None:
        self.names: set[str] = set()


_open = _Open()


def send_by_value() -> None:
    """Let cloudpickle know the user's script by its other name.

    In a child of multiprocessing's that was not forked it is called ``__mp_main__``, and nobody else can import it.
    """
    main = sys.modules.get("__mp_main__")
    if main is not None and main.__name__ == "__mp_main__":
        import cloudpickle

        cloudpickle.register_pickle_by_value(main)


def track_classes() -> None:
    """Before a fork: give the classes of `__main__` the names by which cloudpickle recognises them.

    Parent and child then mean the same class by a name, also if the child sends an instance of one that it inherited.
    """
    import cloudpickle

    for value in list(namespace().values()):
        if isinstance(value, type) and value.__module__ == "__main__":
            try:
                cloudpickle.dumps(value)
            except Exception:
                pass  # it cannot be sent at all


def share_globals(function: object, reduced: Any, dump: Dump) -> Any:
    """What cloudpickle makes of a function of `__main__` by value, or of a class, changed to use the worker's one
    namespace.

    Parameters
    ----------
    function : object
        Whatever is being pickled.
    reduced : tuple or NotImplemented
        What cloudpickle's `reducer_override` returned for it.
    dump : callable
        Pickles the value of a global; `shmexec.pickling.pickler.load` reads it.
    """
    main = sys.modules.get("__main__")
    if reduced is NotImplemented or main is None:
        return reduced
    if type(function) is not types.FunctionType:
        return _share_class(function, reduced, vars(main)) if isinstance(function, type) else reduced
    if function.__globals__ is not vars(main):
        return reduced
    make, (code, _, *others), (state, slots), *_, set_state = reduced
    slots = {**slots, "__globals__": {name: _marked(name, value, dump) for name, value in slots["__globals__"].items()}}
    return make, (code, _NAMESPACE, *others), ((state, slots), set_state), None, None, set_function_state


def _share_class(cls: type, reduced: Any, space: dict[str, Any]) -> Any:
    """The worker's `__main__` gets a class that the parent's has: plain pickle looks for it there."""
    if len(reduced) != 6 or cls.__module__ != "__main__" or space.get(cls.__qualname__) is not cls:
        return reduced
    make, arguments, state, *_, set_state = reduced
    return make, arguments, (state, set_state), None, None, set_class_state


def _marked(name: str, value: Any, dump: Dump) -> Any:
    if isinstance(value, _NOT_DATA):
        return value
    if name in _open.names:
        return _Global(name, None)
    _open.names.add(name)
    try:
        return _Global(name, dump(value))
    finally:
        _open.names.discard(name)


# ---- the worker's half -----------------------------------------------------------------------------------------------


class _Global:
    """A global that is data: its name and its pickle; None: it is on its way already."""

    __slots__ = ("data", "name")

    def __init__(self, name: str, data: bytes | None) -> None:
        self.name = name
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return _Global, (self.name, self.data)


_MISSING = object()

_told: list[Callable[[], None]] = []
_seen: dict[str, bytes | None] = {}  # digests of the globals as they last came; None: from before the first


def note_inherited() -> None:
    """In a worker, before anything of the user's runs: what is in `__main__` now was there before."""
    _seen.update(dict.fromkeys(namespace()))


def when_changed(callback: Callable[[], None]) -> None:
    """Call this when something that came with a function has changed the globals of `__main__`."""
    _told.append(callback)


def namespace() -> dict[str, Any]:
    """The globals of this process's `__main__`."""
    return vars(sys.modules["__main__"])


def set_class_state(cls: type, both: tuple[Any, Callable[..., None]]) -> None:
    """Fill a class in, the parent's latest of this name."""
    state, set_state = both
    set_state(cls, state)
    _set_globals({cls.__qualname__: cls})


def _set_globals(kept: dict[str, Any]) -> None:
    space = namespace()
    if any(space.get(name, _MISSING) is not value for name, value in kept.items()):
        for callback in _told:
            callback()
    space.update(kept)


def set_function_state(function: types.FunctionType, both: tuple[Any, Callable[..., None]]) -> None:
    """Fill a function in; its globals that are data as the rule above says."""
    from hashlib import blake2b  # not before it is needed: workers come up the sooner

    from shmexec.pickling.pickler import load

    (state, slots), set_state = both
    kept = {}
    for name, value in slots["__globals__"].items():
        if type(value) is not _Global:
            kept[name] = value
        elif value.data is not None:
            digest = blake2b(value.data, digest_size=16).digest()
            before = _seen.get(name, b"")
            _seen[name] = digest
            if before is not None and before != digest:
                kept[name] = load(value.data)
    _set_globals(kept)
    set_state(function, (state, {**slots, "__globals__": kept}))
