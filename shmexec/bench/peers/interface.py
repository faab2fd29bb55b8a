"""What the workloads ask of a peer."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from enum import Enum
from typing import Any, ClassVar

from numpy.typing import NDArray

Array = NDArray[Any]


class Ability(Enum):
    """What not every package has, in words of one that lacks it."""

    FUTURES = "no concurrent.futures.Executor"
    CHUNKS = "no chunk size"
    POOLS = "one pool in a process"


class Peer:
    """A pool of workers."""

    needs: ClassVar[tuple[str, ...]] = ()
    module: ClassVar[str] = "concurrent.futures.process"  # that its users import
    how: ClassVar[str] = "arrays are pickled"
    shares_kept: ClassVar[bool] = False  # a kept array as an argument costs nothing, however large
    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.POOLS})

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

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """A call under way, of who has `Ability.FUTURES`."""
        raise NotImplementedError

    def each(self, function: Callable[..., Any], items: list[Any]) -> list[Any]:
        """`map` with chunks of one item, of who has `Ability.CHUNKS`."""
        raise NotImplementedError

    def stage(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        """`map` whose results go to another call: they may stay where the package has them."""
        return self.map(function, *columns)

    def values(self, staged: list[Any]) -> list[Any]:
        """The arrays of such results."""
        return staged

    def close(self) -> None:
        """No process is left."""


class ApplyPeer(Peer):
    """Whoever has `multiprocessing.Pool`'s `apply` and `apply_async`."""

    _pool: Any

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._pool.apply(function, args)

    def burst(self, function: Callable[..., Any], count: int) -> None:
        results = [self._pool.apply_async(function, (i,)) for i in range(count)]
        for result in results:
            result.get()


class FuturesPeer(Peer):
    """Whoever is a `concurrent.futures.Executor`."""

    abilities = frozenset(Ability)
    executor: Executor

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        return self.executor.submit(function, *args)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.submit(function, *args).result()

    def burst(self, function: Callable[..., Any], count: int) -> None:
        futures = [self.executor.submit(function, i) for i in range(count)]
        for future in futures:
            future.result()

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        return list(self.executor.map(function, *columns))

    def each(self, function: Callable[..., Any], items: list[Any]) -> list[Any]:
        return list(self.executor.map(function, items, chunksize=1))

    def close(self) -> None:
        self.executor.shutdown()


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """What lists and dicts hold, changed."""
    if isinstance(value, list):
        return [change(item) for item in value]
    if isinstance(value, dict):
        return {name: change(item) for name, item in value.items()}
    return value
