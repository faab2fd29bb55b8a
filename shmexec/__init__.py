"""NumPy arrays through a process pool by kernel name instead of by value.

How a call flows::

    |============ parent ============|====== shared memory ======|========= worker #1..n =========|
     executor  submit(f, x)
        |      Call 7 and its CallFuture
     ledger    7: waiting -> packed -> sent to #2  (a state machine: events in, steps out)
        |
     pickling  dump((x,), {}) ----------> task ring of #2: [7: ...]  ----> loop: claims 7, load
        |      big buffers by name           heap: block 40                     f(x)
        |                                                                       dump(result)
     collector  takes hold <------------ answer ring of #2: [7: ...] <---------'   by name: block 41
        |
     CallFuture 7: done; load(result) when somebody asks

The names below are loaded when they are first used: a worker never loads the parent's half.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shmexec.arrays import (
        HeapInfo,
        KernelName,
        attach,
        empty,
        empty_like,
        full,
        full_like,
        heap_info,
        is_shared,
        name_of,
        ones,
        ones_like,
        share,
        shared_allocation,
        trim,
        zeros,
        zeros_like,
    )
    from shmexec.errors import NotShareable, SharedMemoryFull, StaleName, TaskTimeout, WorkerDied
    from shmexec.executor import SharedArrayProcessPoolExecutor, SharedExecutor
    from shmexec.pickling.crossings import Crossing
    from shmexec.pickling.explain import Explanation, explain
    from shmexec.pickling.tickets import register_multiprocessing
    from shmexec.pickling.wishes import private, readonly
    from shmexec.pool.stats import PoolStats
    from shmexec.reports import report_progress

_MODULES = {
    "shmexec.executor": ("SharedArrayProcessPoolExecutor", "SharedExecutor"),
    "shmexec.pool.stats": ("PoolStats",),
    "shmexec.pickling.explain": ("Explanation", "explain"),
    "shmexec.pickling.crossings": ("Crossing",),
    "shmexec.pickling.wishes": ("private", "readonly"),
    "shmexec.reports": ("report_progress",),
    "shmexec.pickling.tickets": ("register_multiprocessing",),
    "shmexec.errors": ("NotShareable", "SharedMemoryFull", "StaleName", "TaskTimeout", "WorkerDied"),
    "shmexec.arrays": (
        "HeapInfo",
        "KernelName",
        "attach",
        "empty",
        "empty_like",
        "full",
        "full_like",
        "heap_info",
        "is_shared",
        "name_of",
        "ones",
        "ones_like",
        "share",
        "shared_allocation",
        "trim",
        "zeros",
        "zeros_like",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Crossing",
    "Explanation",
    "HeapInfo",
    "KernelName",
    "NotShareable",
    "PoolStats",
    "SharedArrayProcessPoolExecutor",
    "SharedExecutor",
    "SharedMemoryFull",
    "StaleName",
    "TaskTimeout",
    "WorkerDied",
    "attach",
    "empty",
    "empty_like",
    "explain",
    "full",
    "full_like",
    "heap_info",
    "is_shared",
    "name_of",
    "ones",
    "ones_like",
    "private",
    "readonly",
    "register_multiprocessing",
    "report_progress",
    "share",
    "shared_allocation",
    "trim",
    "zeros",
    "zeros_like",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'shmexec' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _require_extension() -> None:
    from importlib.machinery import EXTENSION_SUFFIXES

    if not any(
        os.path.exists(os.path.join(folder, f"_core{end}")) for folder in __path__ for end in EXTENSION_SUFFIXES
    ):
        raise ImportError(
            "shmexec's extension module is not built. In a checkout, type\n\n    pip install -e .\n\n"
            "(or install the package: pip install .)"
        )


_require_extension()
