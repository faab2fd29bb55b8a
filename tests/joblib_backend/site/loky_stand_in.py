"""Our backend in the place of loky's: in the tests, in their workers, and in the programs that they start."""

import functools
import importlib.machinery
import sys
from types import ModuleType
from typing import Any

NAME = "joblib.parallel"


def run_batch(batch: Any) -> Any:
    """In the worker, which finds it, too."""
    stand_in()
    return batch()


@functools.cache
def loky_backend() -> Any:
    """The class that stands for loky's."""
    from shmexec.integrations.joblib import ShmexecBackend

    class LokyBackend(ShmexecBackend):  # the name that some tests look for
        run_batch = staticmethod(run_batch)

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.default_n_jobs = 1  # as loky has it

    return LokyBackend


def stand_in() -> None:
    """Under the name "loky", which is joblib's default, and as the class that the tests import."""
    from joblib import _parallel_backends, parallel

    parallel.BACKENDS["loky"] = loky_backend()
    _parallel_backends.LokyBackend = loky_backend()  # not that of `parallel`, which asks it for its files


class _Finder:
    """Loads joblib's module as ever, then lets our backend stand in."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != NAME:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            module.BACKENDS["loky"] = lambda **options: loky_backend()(**options)  # ours cannot be imported yet

        spec.loader.exec_module = exec_module
        return spec


def stand_in_when_loaded() -> None:
    """Whoever loads joblib finds it under that name."""
    sys.meta_path.insert(0, _Finder())
