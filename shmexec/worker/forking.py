"""The start of a worker by ``os.fork``: what was there is the parent's, what comes is the worker's.

Purpose: a forked child in which everything works that works in a fresh interpreter, and whose end touches
nothing of the parent's.
Guarantees: exit handlers, finalizers, threads' tables and C exit handlers that were there before the fork do
not run in the child; no object of the parent's is destroyed in it.
Assumptions: the child ends by `shmexec.worker.ending.leave`.

Some facts about exit handlers
    They run last in, first out, and ``atexit._clear()`` drops references: destructors of the parent's objects
    would run in the child. The standard library registers its own (``weakref.finalize``, ``logging``) once,
    at import or first use, and remembers having done so: after a clear nothing registers them again.
    A child that ``os.fork`` makes closes its pipe to the resource tracker (late releases of Python 3.14), gets a
    tracker of its own, and that unlinks the parent's SharedMemory; but not if multiprocessing has said that it forks.
What this means for us
    The parent registers `Fork._stop` right before the fork and removes it right after. In the child it stands
    between the inherited handlers and the child's: it ends the process when the child's have run, so that the
    inherited ones are never reached. And it says that multiprocessing forks.
"""

import atexit
import gc
import os
import signal
import sys
import threading
import warnings
import weakref
from multiprocessing import resource_tracker, util
from types import TracebackType
from typing import Any

from shmexec import _core
from shmexec.worker import ending

_threading: Any = threading  # for what these modules do not declare
_util: Any = util
_finalize: Any = weakref.finalize
_fork_intent: Any = getattr(resource_tracker, "_fork_intent", None)

_parents_own: list[object] = []  # what was taken out of tables: dropping it would destroy it


class Fork:
    """``with Fork(): pid = os.fork()``: what is registered at exit after this point is the child's own."""

    def __init__(self) -> None:
        self._parent = os.getpid()
        self._child = -1

    def __enter__(self) -> None:
        ignore_thread_warning()
        # blocked until serve() has its handlers: the parent's would run in the child
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        try:
            _util._flush_std_streams()
            _core.flush_all()  # or the child would write it a second time
            if _fork_intent is not None:
                _fork_intent.preserve_fd = True
        finally:
            atexit.register(self._stop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if _fork_intent is not None:
            _fork_intent.preserve_fd = False
        if os.getpid() == self._parent:
            atexit.unregister(self._stop)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        else:
            self._child = os.getpid()
            disown()

    def _stop(self) -> None:
        if os.getpid() == self._child:  # not in the parent, nor in a child of the child
            ending._let_go_and_exit()


def ignore_thread_warning() -> None:
    """Keep Python 3.12 from warning of a fork beside threads, which the user of the method has asked for.

    A filter for just that message and the modules here that fork, which stays: ``warnings.catch_warnings`` is
    not made for threads.
    """
    if sys.version_info >= (3, 12):
        warnings.filterwarnings(
            "ignore",
            message=r"This process \(pid=\d+\) is multi-threaded, use of fork\(\)",
            category=DeprecationWarning,
            module=r"shmexec\.worker\.(bootstrap|zygote)\Z",
        )


def disown() -> None:
    """In the child: leave to the parent what is its own, and register what every process has."""
    gc.freeze()
    signal.set_wakeup_fd(-1)  # our signals would wake the parent's event loop
    _core.exit_barrier()
    _take_out(_threading._threading_atexits)
    for finalizer in list(_finalize._registry):
        finalizer.atexit = False  # it is still called when its object dies
    _take_out(_util._finalizer_registry)
    _util._exiting = False
    atexit.register(_finalize._exitfunc)
    if logging := sys.modules.get("logging"):
        atexit.register(logging.shutdown)
    atexit.register(_util._exit_function)
    # concurrent.futures: its handlers would wait for the parent's threads, and write into the pipes of the
    # parent's pools
    for name, table in ("thread", "_threads_queues"), ("process", "_threads_wakeups"):
        if module := sys.modules.get(f"concurrent.futures.{name}"):
            _take_out(getattr(module, table))
            _threading._register_atexit(module._python_exit)


def _take_out(table: Any) -> None:
    _parents_own.append(list(table.items()) if hasattr(table, "items") else list(table))
    table.clear()
