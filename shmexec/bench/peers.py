"""The peers: each as its users use it, behind one interface.

`how` says in the report what was done for arrays: an array goes in as a user of that package would pass it.
"""

import importlib.util
import multiprocessing
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import shared_memory
from typing import Any, ClassVar

import numpy as np
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


class Ours(FuturesPeer):
    """This package."""

    how = "inputs are made shared once; results of plain NumPy"
    shares_kept = True

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        from shmexec import SharedExecutor

        self.executor = SharedExecutor(workers)

    def keep(self, array: Array) -> Array:
        from shmexec import share

        return share(array)

    def keep_nested(self, nested: dict[str, Any]) -> Any:
        return {"arrays": [self.keep(array) for array in nested["arrays"]]}


class OursPlain(Ours):
    """This package, with arrays that nobody has shared."""

    how = "plain inputs, copied once by the pool"
    shares_kept = False

    def keep(self, array: Array) -> Array:
        return array

    def keep_nested(self, nested: dict[str, Any]) -> Any:
        return nested


class Threads(FuturesPeer):
    """`ThreadPoolExecutor`."""

    how = "arrays are the same objects"
    shares_kept = True

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.executor = ThreadPoolExecutor(workers)


class Processes(FuturesPeer):
    """`ProcessPoolExecutor`, by a fork server."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.executor = ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver"))


class MultiprocessingPool(Peer):
    """`multiprocessing.Pool`."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self._pool = multiprocessing.get_context("forkserver").Pool(workers)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._pool.apply(function, args)

    def burst(self, function: Callable[..., Any], count: int) -> None:
        results = [self._pool.apply_async(function, (i,)) for i in range(count)]
        for result in results:
            result.get()

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        return self._pool.starmap(function, zip(*columns, strict=True))

    def close(self) -> None:
        self._pool.close()
        self._pool.join()


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

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._received(super().call(_with_segments, function, self._described(list(args))))

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        described = [self._described(list(args)) for args in zip(*columns, strict=True)]
        return [self._received(value) for value in super().map(_with_segments, [function] * len(described), described)]

    def _described(self, value: Any) -> Any:
        """With a name in the place of each array."""
        if not isinstance(value, np.ndarray):
            return _changed(value, self._described)
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


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """What lists and dicts hold, changed."""
    if isinstance(value, list):
        return [change(item) for item in value]
    if isinstance(value, dict):
        return {name: change(item) for name, item in value.items()}
    return value


def _to_segment(array: Array) -> tuple[shared_memory.SharedMemory, Array]:
    segment = shared_memory.SharedMemory(create=True, size=max(1, array.nbytes))
    view: Array = np.ndarray(array.shape, array.dtype, segment.buf)
    view[...] = array
    return segment, view


def _with_segments(function: Callable[..., Any], args: list[Any]) -> Any:
    segments = []

    def opened(value: Any) -> Any:
        if not isinstance(value, _Described):
            return _changed(value, opened)
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


class Joblib(Peer):
    """joblib with loky, which maps large arguments from files."""

    needs = ("joblib",)
    how = "inputs from 1 MB up are mapped from a file; results are pickled"
    shares_kept = True

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        import joblib

        self._delayed = joblib.delayed
        self._parallel = joblib.Parallel(n_jobs=workers).__enter__()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._parallel([self._delayed(function)(*args)])[0]

    def burst(self, function: Callable[..., Any], count: int) -> None:
        self._parallel(self._delayed(function)(i) for i in range(count))

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        found: list[Any] = self._parallel(self._delayed(function)(*args) for args in zip(*columns, strict=True))
        return found

    def close(self) -> None:
        self._parallel.__exit__(None, None, None)
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)


class Mpire(Peer):
    """mpire.WorkerPool."""

    needs = ("mpire",)

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        import mpire

        self._pool: Any = mpire.WorkerPool(workers, keep_alive=True, start_method="forkserver")
        # of its own: after many apply_async its map passes one argument too many (2.10)
        self._maps: Any = mpire.WorkerPool(workers, keep_alive=True, start_method="forkserver")

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._pool.apply(function, args)

    def burst(self, function: Callable[..., Any], count: int) -> None:
        results = [self._pool.apply_async(function, (i,)) for i in range(count)]
        for result in results:
            result.get()

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        items = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        found: list[Any] = self._maps.map(function, items, concatenate_numpy_output=False)
        return found

    def close(self) -> None:
        self._pool.stop_and_join()
        self._maps.stop_and_join()


class Ray(Peer):
    """Ray's tasks and object store."""

    needs = ("ray",)
    how = "inputs are put into the object store once; results are read there, read-only; steps pass references"
    shares_kept = True

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        import ray

        self._ray = ray
        # the object store takes 30 % of memory, in /dev/shm, if nothing is said
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="error")
        self._remote: dict[Any, Any] = {}

    def keep(self, array: Array) -> Any:
        return self._ray.put(array)

    def keep_nested(self, nested: dict[str, Any]) -> Any:
        return self._ray.put(nested)

    def keep_frame(self, frame: Any) -> Any:
        return self._ray.put(frame)

    def _task(self, function: Callable[..., Any]) -> Any:
        if function not in self._remote:
            self._remote[function] = self._ray.remote(function)
        return self._remote[function]

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._ray.get(self._task(function).remote(*args))

    def burst(self, function: Callable[..., Any], count: int) -> None:
        task = self._task(function)
        self._ray.get([task.remote(i) for i in range(count)])

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        return self.values(self.stage(function, *columns))

    def stage(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        task = self._task(function)
        return [task.remote(*args) for args in zip(*columns, strict=True)]

    def values(self, staged: list[Any]) -> list[Any]:
        found: list[Any] = self._ray.get(staged)
        return found

    def close(self) -> None:
        self._ray.shutdown()


class Dask(Peer):
    """dask.distributed on this machine."""

    needs = ("distributed",)
    how = "inputs are scattered to each worker once; results come through a socket; steps pass futures"
    shares_kept = True

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        from distributed import Client

        self._client = Client(n_workers=workers, threads_per_worker=1, dashboard_address=None)

    def keep(self, array: Array) -> Any:
        return self._client.scatter(array, broadcast=True, hash=False)

    def keep_nested(self, nested: dict[str, Any]) -> Any:
        return self._client.scatter([nested], broadcast=True, hash=False)[0]

    def keep_frame(self, frame: Any) -> Any:
        return self._client.scatter(frame, broadcast=True, hash=False)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._client.submit(function, *args, pure=False).result()

    def burst(self, function: Callable[..., Any], count: int) -> None:
        self._client.gather(self._client.map(function, list(range(count)), pure=False))

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        return self.values(self.stage(function, *columns))

    def stage(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        futures: list[Any] = self._client.map(function, *columns, pure=False)
        return futures

    def values(self, staged: list[Any]) -> list[Any]:
        found: list[Any] = self._client.gather(staged)
        return found

    def close(self) -> None:
        self._client.shutdown()


class Torch(MultiprocessingPool):
    """torch.multiprocessing: tensors over the arrays, in shared memory."""

    needs = ("torch",)
    how = (
        "inputs are made shared tensors once, results are moved to shared memory by the pickler; DataFrames are pickled"
    )
    shares_kept = True

    def __init__(self, workers: int) -> None:
        Peer.__init__(self, workers)
        import torch
        import torch.multiprocessing

        self._torch = torch
        self._pool = torch.multiprocessing.get_context("forkserver").Pool(workers)

    def keep(self, array: Array) -> Any:
        return self._torch.from_numpy(array).share_memory_()

    def keep_nested(self, nested: dict[str, Any]) -> Any:
        return {"arrays": [self.keep(array) for array in nested["arrays"]]}

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return _to_array(self._pool.apply(_with_tensors, (function, args)))

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        return self.values(self.stage(function, *columns))

    def stage(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        return self._pool.starmap(_with_tensors, [(function, args) for args in zip(*columns, strict=True)])

    def values(self, staged: list[Any]) -> list[Any]:
        return [_to_array(value) for value in staged]


def _to_array(value: Any) -> Any:
    import torch

    return value.numpy() if isinstance(value, torch.Tensor) else _changed(value, _to_array)


def _with_tensors(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    import torch

    value = function(*_to_array(list(args)))
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


PEERS: dict[str, type[Peer]] = {
    "shmexec": Ours,
    "shmexec-plain": OursPlain,
    "threads": Threads,
    "processes": Processes,
    "mp-pool": MultiprocessingPool,
    "by-hand": ByHand,
    "joblib": Joblib,
    "mpire": Mpire,
    "ray": Ray,
    "dask": Dask,
    "torch": Torch,
}


def missing(name: str) -> tuple[str, ...]:
    """The modules that this peer needs and that are not installed."""
    return tuple(module for module in PEERS[name].needs if importlib.util.find_spec(module) is None)
