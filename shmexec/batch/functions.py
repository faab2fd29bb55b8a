"""The user's function: found by its name, in the parent and again in each worker; its settings, checked against it."""

import ast
import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from shmexec.batch.errors import NotStarted, reason

_WORDS = {"true": True, "false": False, "null": None, "none": None}

_found: dict[str, Callable[..., Any]] = {}


def absolute(name: str) -> str:
    """The name with which workers find the same function, wherever they stand."""
    module, colon, attribute = name.rpartition(":")
    if not colon or not module or not attribute:
        raise NotStarted(f"{name!r} names no function: write package.module:function or file.py:function")
    return f"{os.path.abspath(module)}:{attribute}" if module.endswith(".py") else name


def find_function(name: str) -> Callable[..., Any]:
    """What an absolute name stands for; NotStarted if there is no such thing."""
    if name not in _found:
        module_name, _, attribute = name.rpartition(":")
        with contextlib.redirect_stdout(sys.stderr):  # what it prints as it is imported is no result
            found: Any = _file(module_name) if module_name.endswith(".py") else _module(module_name)
        for part in attribute.split("."):
            try:
                found = getattr(found, part)
            except AttributeError:
                raise NotStarted(f"{module_name} has no {attribute}{_similar(found, part)}")
        if not callable(found):
            raise NotStarted(f"{name} is no function, but of type {type(found).__name__}")
        _found[name] = found
    return _found[name]


def _module(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` has it
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise NotStarted(f"{name} cannot be imported: {reason(error)}")
        raise NotStarted(
            f"there is no module {error.name}: is it installed, or in this folder? (A file: {name}.py:...)"
        )
    except (Exception, SystemExit) as error:
        raise NotStarted(f"{name} cannot be imported: {reason(error)}")


def _file(path: str) -> ModuleType:
    if not os.path.isfile(path):
        raise NotStarted(f"there is no file {path}")
    name = os.path.basename(path)[: -len(".py")]
    if name in sys.modules or importlib.util.find_spec(name.partition(".")[0]) is not None:
        name = f"{name}__of_shmexec_map"  # it must not take the place of another module
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if os.path.dirname(path) not in sys.path:
        sys.path.insert(0, os.path.dirname(path))  # what lies beside it can be imported
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise NotStarted(f"{path} cannot be imported: {reason(error)}")
    return module


def _similar(owner: Any, name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, [known for known in dir(owner) if not known.startswith("_")])
    return f"; did you mean {' or '.join(near)}?" if near else ""


def parse_settings(texts: Sequence[str], function: Callable[..., Any]) -> dict[str, Any]:
    """``name=value`` each: numbers, true and false, none, lists and so on as in Python, all else text.

    Text stays text where the function's parameter is annotated as `str`.
    """
    parameters = _parameters(function)
    settings: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise NotStarted(f"--set {text}: write --set name=value")
        if name in settings:
            raise NotStarted(f"--set {name}: given twice")
        annotation = parameters[name].annotation if name in parameters else None
        settings[name] = value if annotation in (str, "str") else _value(value)
    _check(function, parameters, settings)
    return settings


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except (ValueError, TypeError):  # some of those in C do not tell; ufuncs
        return {}


def _check(function: Callable[..., Any], parameters: dict[str, inspect.Parameter], settings: dict[str, Any]) -> None:
    if not parameters:
        return
    name = getattr(function, "__qualname__", repr(function))
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    unknown = [one for one in settings if one not in parameters]
    if unknown and not takes_any:
        others = list(parameters)[1:]
        has = f"it has {', '.join(others)}" if others else "it has none beside the array"
        raise NotStarted(f"--set {unknown[0]}: {name} has no such parameter; {has}")
    try:
        inspect.signature(function).bind(None, **settings)
    except TypeError as error:
        raise NotStarted(f"{name} cannot be called with the array of a file and these settings: {error}")
