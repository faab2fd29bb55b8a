"""Our executor in the place of the standard library's, in this interpreter.

By name, lazily: an interpreter that does not ask for a process pool loads nothing of ours.
"""

import concurrent.futures
from typing import Any

NAME = "ProcessPoolExecutor"


def stand_in() -> type:
    """Put our class where the standard library keeps its own; that class."""
    import concurrent.futures.process as home

    from shmexec import SharedExecutor

    class ProcessPoolExecutor(SharedExecutor):  # the name that the tests print into the programs that they start
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, on_worker_death="break", **options)

    home.ProcessPoolExecutor = concurrent.futures.ProcessPoolExecutor = ProcessPoolExecutor  # type: ignore[misc]
    return ProcessPoolExecutor


def stand_in_when_asked() -> None:
    """The same as soon as anybody takes the class from `concurrent.futures`."""
    usual = concurrent.futures.__getattr__  # type: ignore[attr-defined]

    def getattr_of_futures(name: str) -> Any:
        return stand_in() if name == NAME else usual(name)

    concurrent.futures.__getattr__ = getattr_of_futures  # type: ignore[attr-defined]
