"""What is seen of a worker from outside: its name, its last words, and that no debugger in it has a terminal.

Some facts: `faulthandler` writes to the descriptor that it was given last, in a signal handler; a pipe that is full
takes no more. What a process forks has the handler and the descriptor, too. The standard input of a worker is at its
end from the beginning (multiprocessing sees to that), so pdb quits at its first prompt.
"""

import faulthandler
import os
import sys
import traceback
from multiprocessing import process
from typing import Any

from shmexec import _core

_NO_TERMINAL = (
    "a debugger in a worker process has no terminal. Call the function in the parent process, or call "
    "breakpoint() with the environment variable PYTHONBREAKPOINT set to a debugger that is reached from outside "
    "(remote_pdb.set_trace, debugpy.breakpoint)"
)

_was_enabled: bool | None = None  # None: faulthandler is not ours


def appear(last_words: int) -> None:
    """In a worker that comes up; to the descriptor goes what faulthandler has to say if it crashes."""
    global _was_enabled
    me: Any = process.current_process()
    _core.name_thread(f"shmexec-{me.name.rpartition('-')[2]}")
    _core.name_command(f"shmexec: {me.name} of process {me._parent_pid}")
    _was_enabled = faulthandler.is_enabled()
    faulthandler.enable(last_words)
    if sys.breakpointhook is sys.__breakpointhook__:  # else somebody's who knows how
        sys.breakpointhook = _breakpoint


def disappear() -> None:
    """In a process that a task has forked: its crash is none of the worker's."""
    global _was_enabled
    was_enabled, _was_enabled = _was_enabled, None
    if was_enabled:
        faulthandler.enable(2)
    elif was_enabled is not None:
        faulthandler.disable()


def explain_quit(error: BaseException) -> None:
    """Say why, if a debugger has left a call: by an exception of its own, or, since Python 3.14, as `sys.exit` does."""
    if type(error).__module__ == "bdb" or (isinstance(error, SystemExit) and _raised_in(error) == "pdb"):
        error.add_note(_NO_TERMINAL)


def _raised_in(error: BaseException) -> str:
    """The module whose code has raised it."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    name: str = frames[-1].f_globals.get("__name__", "") if frames else ""
    return name


def _breakpoint(*args: Any, **kwargs: Any) -> Any:
    if os.environ.get("PYTHONBREAKPOINT"):
        return sys.__breakpointhook__(*args, **kwargs)
    raise RuntimeError(_NO_TERMINAL)
