"""Modules that are loaded here and that no import finds: they go by the place of their file.

Some facts: pytest's importlib mode loads test modules by their paths, and so do plugin systems. They stand in
`sys.modules`, so pickle writes their functions and classes by reference, and an interpreter that has not loaded them
finds nothing.

What this means for us: with such a reference goes the file. A worker that does not have the module loads it from there,
once, with the packages that its name speaks of; from then on it is a module like any other.
"""

import importlib
import importlib.util
import os
import sys
import types
from typing import Any

_files: dict[str, tuple[object, str]] = {}  # by name: the module, and where it has to be loaded from; "": it is found


class Placed:
    """A function or class of such a module; its pickle is the thing itself."""

    def __init__(self, module: str, file: str, path: str) -> None:
        self._parts = module, file, path

    def __reduce__(self) -> tuple[Any, ...]:
        return find, self._parts


def placed(thing: Any) -> Any:
    """What to pickle for a function or class that goes by reference."""
    reduced = reduce_placed(thing, NotImplemented)
    return thing if reduced is NotImplemented else Placed(*reduced[1])


def reduce_placed(thing: Any, reduced: Any) -> Any:
    """What `reducer_override` returns for it instead of NotImplemented."""
    if reduced is not NotImplemented or not (type(thing) is types.FunctionType or isinstance(thing, type)):
        return reduced
    name = thing.__module__
    file = _file_of(name) if isinstance(name, str) else ""
    return (find, (name, file, thing.__qualname__)) if file else reduced


def _file_of(name: str) -> str:
    module = sys.modules.get(name)
    known = _files.get(name)
    if known is None or known[0] is not module:
        known = _files[name] = module, _hidden_file(name, getattr(module, "__file__", None))
    return known[1]


def _hidden_file(name: str, file: object) -> str:
    if not isinstance(file, str) or not file.endswith(".py") or name in ("__main__", "__mp_main__"):
        return ""
    file = os.path.abspath(file)
    stem, tail = file.removesuffix(".py").removesuffix(f"{os.sep}__init__"), name.replace(".", os.sep)
    if any(stem == os.path.join(os.path.abspath(folder), tail) for folder in sys.path):
        return ""
    try:
        return "" if _is_found(name) or not os.path.exists(file) else file
    except Exception:  # somebody's finder
        return ""


def _is_found(name: str) -> bool:
    """Whether an import would find it that has not happened yet."""
    prefix, folders = "", None
    for part in name.split("."):
        prefix = f"{prefix}.{part}" if prefix else part
        found = (finder.find_spec(prefix, folders) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None:
            return False
        folders = spec.submodule_search_locations
    return True


# ---- the worker's half -----------------------------------------------------------------------------------------------


def find(name: str, file: str, path: str) -> Any:
    """The function or class, of a module that is loaded from its file if it is not there."""
    if name not in sys.modules:
        folder = os.path.dirname(file)
        parts = name.split(".")[: -1 if os.path.basename(file) != "__init__.py" else None]
        folders = {".".join(parts[: i + 1]): _above(folder, len(parts) - 1 - i) for i in range(len(parts))}
        for package, where in folders.items():
            _load_package(package, where)
        if name not in sys.modules:
            _load(name, file, None)
    found: Any = sys.modules[name]
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _above(folder: str, levels: int) -> str:
    for _ in range(levels):
        folder = os.path.dirname(folder)
    return folder


def _load_package(name: str, folder: str) -> None:
    if name in sys.modules:
        return
    file = os.path.join(folder, "__init__.py")
    if os.path.exists(file):
        _load(name, file, [folder])
    else:
        package = types.ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package


def _load(name: str, file: str, folders: list[str] | None) -> None:
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=folders)
    assert spec is not None, "it is the file of a module"
    assert spec.loader is not None, "and has source"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
