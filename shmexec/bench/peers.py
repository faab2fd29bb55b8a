"""The peers: each as its users use it, behind one interface.

`how` says in the report what was done for arrays: an array goes in as a user of that package would pass it.
"""

import contextlib
import importlib.util
import multiprocessing
from collections.abc import Callable, Iterator
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

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def keep(self, array: Array) -> Array:
        """An input that is used more than once, where the package wants it."""
        return array

    def keep_nested(self, nested: dict[str, Any]) -> Any:
        """A dict with a list of arrays, where the package wants it."""
        return nested

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """One call, and its value."""
        raise NotImplementedError

    def burst(self, function: Callable[..., Any], count: int) -> None:
        """So many calls under way at once, one by one, and all their values."""
        raise NotImplementedError

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        """A call for each item, as the package does it if nothing more is said."""
        raise NotImplementedError

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

    def keep(self, array: Array) -> Array:
        return array

    def keep_nested(self, nested: dict[str, Any]) -> Any:
        return nested


class Threads(FuturesPeer):
    """`ThreadPoolExecutor`."""

    how = "arrays are the same objects"

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
    """`multiprocessing.shared_memory` by hand: for each array a segment that both sides open; results, too."""

    how = "a segment for each array, made, opened and unlinked by the caller"

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self._kept: dict[int, tuple[shared_memory.SharedMemory, Array]] = {}

    def keep(self, array: Array) -> Array:
        segment, view = _to_segment(array)
        self._kept[id(view)] = segment, view
        return view

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        described = [self._describe(arg) for arg in args]
        value = super().call(_with_segments, function, described)
        if isinstance(value, _Described):
            with _opened(value) as array:
                copy = np.array(array)
            _unlink(value)
            return copy
        return value

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        return [self.call(function, *args) for args in zip(*columns, strict=True)]

    def _describe(self, arg: Any) -> Any:
        if not isinstance(arg, np.ndarray):
            return arg
        known = self._kept.get(id(arg))
        if known is None:
            arg = self.keep(arg)
            known = self._kept[id(arg)]
        return _Described(known[0].name, arg.shape, arg.dtype.str)

    def close(self) -> None:
        super().close()
        for segment, _ in list(self._kept.values()):
            segment.unlink()
        self._kept.clear()


class _Described:
    def __init__(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self.name, self.shape, self.dtype = name, shape, dtype


def _to_segment(array: Array) -> tuple[shared_memory.SharedMemory, Array]:
    segment = shared_memory.SharedMemory(create=True, size=max(1, array.nbytes))
    view: Array = np.ndarray(array.shape, array.dtype, segment.buf)
    view[...] = array
    return segment, view


@contextlib.contextmanager
def _opened(described: _Described) -> Iterator[Array]:
    segment = shared_memory.SharedMemory(described.name)
    array: Array = np.ndarray(described.shape, described.dtype, segment.buf)
    try:
        yield array
    finally:
        del array
        segment.close()


def _unlink(described: _Described) -> None:
    segment = shared_memory.SharedMemory(described.name)
    segment.close()
    segment.unlink()


def _with_segments(function: Callable[..., Any], args: list[Any]) -> Any:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(_opened(arg)) if isinstance(arg, _Described) else arg for arg in args]
        value = function(*opened)
        del opened
    if not isinstance(value, np.ndarray):
        return value
    segment, view = _to_segment(value)
    described = _Described(segment.name, view.shape, view.dtype.str)
    del view
    segment.close()
    return described


class Joblib(Peer):
    """joblib with loky, which maps large arguments from files."""

    needs = ("joblib",)
    how = "inputs from 1 MB up are mapped from a file; results are pickled"

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
    how = "inputs are put into the object store once; results come from there, read-only"

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        import ray

        self._ray = ray
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
        self._remote: dict[Any, Any] = {}

    def keep(self, array: Array) -> Any:
        return self._ray.put(array)

    def keep_nested(self, nested: dict[str, Any]) -> Any:
        return self._ray.put(nested)

    def _task(self, function: Callable[..., Any]) -> Any:
        return self._remote.setdefault(function, self._ray.remote(function))

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._ray.get(self._task(function).remote(*args))

    def burst(self, function: Callable[..., Any], count: int) -> None:
        task = self._task(function)
        self._ray.get([task.remote(i) for i in range(count)])

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        task = self._task(function)
        found: list[Any] = self._ray.get([task.remote(*args) for args in zip(*columns, strict=True)])
        return found

    def close(self) -> None:
        self._ray.shutdown()


class Dask(Peer):
    """dask.distributed on this machine."""

    needs = ("distributed",)
    how = "inputs are scattered once"

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        from distributed import Client

        self._client = Client(n_workers=workers, threads_per_worker=1, dashboard_address=None)

    def keep(self, array: Array) -> Any:
        return self._client.scatter(array, broadcast=True)

    def keep_nested(self, nested: dict[str, Any]) -> Any:
        return self._client.scatter([nested], broadcast=True)[0]

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._client.submit(function, *args, pure=False).result()

    def burst(self, function: Callable[..., Any], count: int) -> None:
        self._client.gather(self._client.map(function, list(range(count)), pure=False))

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        found: list[Any] = self._client.gather(self._client.map(function, *columns, pure=False))
        return found

    def close(self) -> None:
        self._client.shutdown()


class Torch(MultiprocessingPool):
    """torch.multiprocessing: tensors over the arrays, in shared memory."""

    needs = ("torch",)
    how = "inputs are made shared tensors once, results are moved to shared memory by the pickler"

    def __init__(self, workers: int) -> None:
        Peer.__init__(self, workers)
        import torch
        import torch.multiprocessing

        self._torch = torch
        self._pool = torch.multiprocessing.get_context("forkserver").Pool(workers)

    def keep(self, array: Array) -> Any:
        return self._torch.from_numpy(array).share_memory_()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._pool.apply(_with_tensors, (function, args))

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        return self._pool.starmap(_with_tensors, [(function, args) for args in zip(*columns, strict=True)])


def _with_tensors(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    import torch

    value = function(*(arg.numpy() if isinstance(arg, torch.Tensor) else arg for arg in args))
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
