"""What the standard library's process pool has, and a subclass of it that shares none of its code has not."""

from concurrent.futures.process import ProcessPoolExecutor
from typing import NoReturn, TypeVar

C = TypeVar("C", bound=type[ProcessPoolExecutor])


class _Absent:
    """In the place of a method that means nothing in the subclass.

    A descriptor, so that no attribute that is there costs anything: `__getattribute__` would cost each call.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise AttributeError(f"{owner.__name__!r} has no {self._name!r}, which is private to the standard library")


def without_inherited(subclass: C) -> C:
    """Of `ProcessPoolExecutor` nothing but the name: what this subclass does not define itself raises AttributeError.

    `Executor`'s own methods stay: they are made of the public ones.
    """
    for name in vars(ProcessPoolExecutor).keys() - vars(subclass).keys():
        if not name.startswith("__"):
            setattr(subclass, name, _Absent(name))
    return subclass
