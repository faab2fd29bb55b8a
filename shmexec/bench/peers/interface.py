"""What the workloads ask of a peer."""

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, ClassVar

from numpy.typing import NDArray

Array = NDArray[Any]


class Peer:
    """A pool of workers."""

    needs: ClassVar[tuple[str, ...]] = ()
    how: ClassVar[str] = "arrays are pickled"
    shares_kept: ClassVar[bool] = False  # a kept array as an argument costs nothing, however large

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def keep(self, array: Array) -> Array:
        """An input that is used more than once, where the package wants it."""
        return array

    def keep_nested(self, nested: dict[str, Any]) -> Any:
        """A dict with a list of arrays, where the package wants it."""
        return nested

    def keep_frame(self, frame: Any) -> Any:
        """A pandas.DataFrame, where the package wants it."""
        return frame

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """One call, and its value."""
        raise NotImplementedError

    def burst(self, function: Callable[..., Any], count: int) -> None:
        """So many calls under way at once, one by one, and all their values."""
        raise NotImplementedError

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        """A call for each item, as the package does it if nothing more is said."""
        raise NotImplementedError

    def stage(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        """`map` whose results go to another call: they may stay where the package has them."""
        return self.map(function, *columns)

    def values(self, staged: list[Any]) -> list[Any]:
        """The arrays of such results."""
        return staged

    def close(self) -> None:
        """No process is left."""


class FuturesPeer(Peer):
    """Whoever is a `concurrent.futures.Executor`."""

    executor: Executor

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.executor.submit(function, *args).result()

    def burst(self, function: Callable[..., Any], count: int) -> None:
        futures = [self.executor.submit(function, i) for i in range(count)]
        for future in futures:
            future.result()

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        return list(self.executor.map(function, *columns))

    def close(self) -> None:
        self.executor.shutdown()


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """What lists and dicts hold, changed."""
    if isinstance(value, list):
        return [change(item) for item in value]
    if isinstance(value, dict):
        return {name: change(item) for name, item in value.items()}
    return value
