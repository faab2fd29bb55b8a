"""Pools that nobody has shut down: as the executor becomes garbage, as the process ends, and in forked children.

Some facts: the interpreter ends threads, and what `threading` has registered, before it runs exit handlers; a child of
multiprocessing ends without either, by `multiprocessing.util`. A child of a fork has the pools, but not their threads.
What this means for us: a pool that is open ends at whichever of the two comes first; in a child it is forgotten.
"""

import multiprocessing.util
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shmexec.pool.pool import Pool

pools: "weakref.WeakSet[Pool]" = weakref.WeakSet()  # of this process
_registered_in = 0  # the process whose exit ends its pools


def register(executor: object, pool: "Pool") -> "weakref.finalize[..., Any]":
    """Shut the pool down when the executor is garbage, or the process ends; the first of these can be called off."""
    finalizer = weakref.finalize(executor, _abandon, pool)
    finalizer.atexit = False
    _register_exit()
    return finalizer


def _abandon(pool: "Pool") -> None:
    """What was submitted is done, and the workers end."""
    if pool.is_owned:
        pool.abandon()


def _end_pools() -> None:
    left = [pool for pool in list(pools) if pool.is_owned]
    for pool in left if _was_interrupted() else ():
        pool.interrupt()
    for pool in left:
        pool.shutdown(wait=True, cancel_futures=False)


def _was_interrupted() -> bool:
    """Whether the program ends because of Ctrl-C. (Of a session, where that was some line before, nobody can tell.)"""
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)  # since Python 3.12; before
    return isinstance(error, KeyboardInterrupt) and not (hasattr(sys, "ps1") or sys.flags.interactive)


def _register_exit() -> None:
    global _registered_in
    if _registered_in != os.getpid():
        _registered_in = os.getpid()
        threading._register_atexit(_end_pools)  # type: ignore[attr-defined]
        multiprocessing.util.Finalize(None, _end_pools, exitpriority=100)


def _forget_in_child() -> None:
    for pool in list(pools):
        pool.forget_in_child()
    pools.clear()


os.register_at_fork(after_in_child=_forget_in_child)
