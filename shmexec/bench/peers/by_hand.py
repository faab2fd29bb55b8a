"""Shared memory of the standard library, by hand: what a user would have to write."""

import weakref
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing import shared_memory
from typing import Any

import numpy as np

from shmexec.bench.peers.interface import Array, changed
from shmexec.bench.peers.standard import Processes


class ByHand(Processes):
    """`multiprocessing.shared_memory` by hand: a segment for each array, that both sides open; for results, too."""

    how = "a segment for each array, made, opened and unlinked by the caller; DataFrames are pickled"
    shares_kept = True

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self._segments: dict[int, shared_memory.SharedMemory] = {}  # by the id of the view
        self._unlinked: list[shared_memory.SharedMemory] = []

    def keep(self, array: Array) -> Array:
        return self._view(*_to_segment(array))

    def keep_nested(self, nested: dict[str, Any]) -> Any:
        return {"arrays": [self.keep(array) for array in nested["arrays"]]}

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        return super().submit(_with_segments, function, self._described(list(args)))

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._received(super().call(function, *args))

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        described = [self._described(list(args)) for args in zip(*columns, strict=True)]
        return [self._received(value) for value in super().map(_with_segments, [function] * len(described), described)]

    def each(self, function: Callable[..., Any], items: list[Any]) -> list[Any]:
        described = [self._described([item]) for item in items]
        found = self.executor.map(_with_segments, [function] * len(items), described, chunksize=1)
        return [self._received(value) for value in found]

    def _described(self, value: Any) -> Any:
        """With a name in the place of each array."""
        if not isinstance(value, np.ndarray):
            return changed(value, self._described)
        if id(value) not in self._segments:
            value = self.keep(value)
        return _Described(self._segments[id(value)].name, value.shape, value.dtype.str)

    def _received(self, value: Any) -> Any:
        if not isinstance(value, _Described):
            return value
        segment = shared_memory.SharedMemory(value.name)
        return self._view(segment, value.view(segment))

    def _view(self, segment: shared_memory.SharedMemory, view: Array) -> Array:
        while self._unlinked:  # the views of these are gone by now
            self._unlinked.pop().close()
        self._segments[id(view)] = segment
        weakref.finalize(view, self._forget, id(view))
        return view

    def _forget(self, number: int) -> None:
        segment = self._segments.pop(number)
        segment.unlink()
        self._unlinked.append(segment)

    def close(self) -> None:
        super().close()
        for number in list(self._segments):
            self._forget(number)


class _Described:
    def __init__(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self.name, self.shape, self.dtype = name, shape, dtype

    def view(self, segment: shared_memory.SharedMemory) -> Array:
        return np.ndarray(self.shape, self.dtype, segment.buf)


def _to_segment(array: Array) -> tuple[shared_memory.SharedMemory, Array]:
    segment = shared_memory.SharedMemory(create=True, size=max(1, array.nbytes))
    view: Array = np.ndarray(array.shape, array.dtype, segment.buf)
    view[...] = array
    return segment, view


def _with_segments(function: Callable[..., Any], args: list[Any]) -> Any:
    segments = []

    def opened(value: Any) -> Any:
        if not isinstance(value, _Described):
            return changed(value, opened)
        segments.append(shared_memory.SharedMemory(value.name))
        return value.view(segments[-1])

    value = function(*opened(args))
    if isinstance(value, np.ndarray):
        segment, view = _to_segment(value)
        value = _Described(segment.name, view.shape, view.dtype.str)
        del view
        segment.close()
    for segment in segments:
        segment.close()
    return value
