"""How an exception crosses: with its remote traceback; and what stands for one that cannot."""

import pickle
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from shmexec import _core
from shmexec._core import Packed
from shmexec.pickling.pickler import dump, load


class RemoteTraceback(Exception):
    """The traceback in another process, as text: the cause of the exception that the caller sees."""

    def __init__(self, tb: str) -> None:
        super().__init__(tb)
        self.tb = tb

    def __str__(self) -> str:
        return self.tb


def remote_traceback(text: str) -> Exception:
    """The standard library's exception for it where its process pool is loaded, as it is in the parent; else ours."""
    kind = getattr(sys.modules.get("concurrent.futures.process"), "_RemoteTraceback", RemoteTraceback)
    made: Exception = kind(f'\n"""\n{text}"""')
    return made


class Unreadable(Exception):
    """A task could not be unpickled, because of the error that is the cause of this one."""


def pack_exception(error: BaseException) -> Packed:
    """An exception as (its pickle or None, why not, what it says, its traceback)."""
    told = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
    text, says = "".join(told.format()), "".join(told.format_exception_only()).strip()
    try:
        packed, why = dump(error), ""
    except BaseException as reason:  # also what its author's code leaves by
        packed, why = None, f"{type(reason).__name__}: {reason}"
    if packed is None:
        return Packed(pickle.dumps((None, why, says, text), 5), _core.Holds())
    data = pickle.dumps((packed.data, why, says, text), 5)
    return Packed(data, packed.holds, packed.bytes_by_name, packed.bytes_copied)


def load_exception(
    data: bytes | memoryview, caught: tuple[type[BaseException], ...] = (BaseException,)
) -> BaseException:
    """The exception, with the remote traceback as its cause; if it cannot be had, one that says why and what it was.

    `caught`: what its unpickling may leave by. SystemExit would end the thread that all answers come through.
    """
    pickled, reason, says, text = load(data)
    error: BaseException | None = None
    if pickled is not None:
        try:
            error = load(pickled)
        except caught as unpickling:
            reason = f"{type(unpickling).__name__}: {unpickling}"
    if not isinstance(error, BaseException):
        error = pickle.PicklingError(f"the call raised an exception that cannot be sent back ({reason}): {says}")
    error.__cause__ = remote_traceback(text)
    return error


def explain(error: Exception, what: str) -> Exception:
    """The same kind of error, saying what could not be pickled."""
    says = _words(error)
    message = f"{what} cannot be pickled: {says}" if says else f"{what} cannot be pickled"
    kept = (pickle.PicklingError, TypeError, AttributeError)
    made = type(error)(message) if type(error) in kept else pickle.PicklingError(f"{message} ({type(error).__name__})")
    # as text: the frames have the call's arrays
    made.__cause__ = remote_traceback("".join(traceback.format_exception(error)))
    return made


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return f"<{type(error).__name__} without words>"


def find_unpicklable(function: Callable[..., Any], args: Iterable[Any], kwargs: dict[str, Any]) -> str:
    """Which part of a call cannot be pickled, in words."""
    name = name_of(function)
    parts = [(f"the function {name}", function)]
    parts += [(f"argument {i} of {name} (of type {type(value).__name__})", value) for i, value in enumerate(args)]
    parts += [(f"argument {key!r} of {name} (of type {type(value).__name__})", value) for key, value in kwargs.items()]
    for what, value in parts:
        try:
            dump(value, to_worker=True)
        except Exception:
            return what
    return f"the call of {name}"


def name_of(function: Callable[..., Any]) -> str:
    """What a person calls this function."""
    inner = getattr(function, "func", function)
    return str(getattr(inner, "__qualname__", None) or getattr(inner, "__name__", None) or type(function).__name__)
