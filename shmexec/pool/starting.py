"""How workers are to be started: what is given for it is checked, and what it stands for."""

import importlib.util
import multiprocessing
import sys
from collections.abc import Sequence
from multiprocessing.context import BaseContext

from shmexec.pool import fork_server


def checked_context(context: BaseContext | None, max_tasks: int | None) -> tuple[BaseContext, str]:
    """The context, or that of our own fork server, and its start method. Raises TypeError, ValueError."""
    if context is None:  # what is made by these can be passed to workers of our own fork server
        return multiprocessing.get_context("forkserver" if max_tasks is None else "spawn"), "forkserver"
    if not callable(getattr(context, "get_start_method", None)):
        raise TypeError(f"mp_context must be a multiprocessing context, not {type(context).__name__}")
    method = context.get_start_method(allow_none=True) or default_method()
    if method not in fork_server.METHODS:
        raise ValueError(f"mp_context must start by one of {', '.join(fork_server.METHODS)}, not {method!r}")
    if method == "fork" and max_tasks is not None:
        raise ValueError(
            "max_tasks_per_child is incompatible with the 'fork' multiprocessing start method; supply a different"
            " mp_context."
        )
    return context, method


def checked_modules(names: Sequence[str]) -> Sequence[str]:
    """What `preload` names. Raises TypeError, ModuleNotFoundError."""
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"preload must be a sequence of names of modules, not {names!r:.60}")
    for name in names:
        if name not in sys.modules and importlib.util.find_spec(name.partition(".")[0]) is None:
            raise ModuleNotFoundError(f"preload names a module that is not there: {name!r}", name=name)
    return names


def default_method() -> str:
    """How the standard library's pool would start its workers; it stays undecided if it is."""
    return multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
