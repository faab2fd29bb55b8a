"""The pools of other packages, which are imported when a peer is made."""

from collections.abc import Callable
from typing import Any

import numpy as np

from shmexec.bench.peers.interface import Ability, ApplyPeer, Array, Peer, changed
from shmexec.bench.peers.standard import MultiprocessingPool


class Joblib(Peer):
    """joblib with loky, which maps large arguments from files."""

    needs = ("joblib",)
    module = "joblib"
    how = "inputs from 1 MB up are mapped from a file; results are pickled; one worker is the caller itself"
    shares_kept = True
    abilities = frozenset({Ability.CHUNKS})

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        import joblib

        self._joblib = joblib
        self._delayed = joblib.delayed
        self._parallel = joblib.Parallel(n_jobs=workers).__enter__()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._parallel([self._delayed(function)(*args)])[0]

    def burst(self, function: Callable[..., Any], count: int) -> None:
        self._parallel(self._delayed(function)(i) for i in range(count))

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        found: list[Any] = self._parallel(self._delayed(function)(*args) for args in zip(*columns, strict=True))
        return found

    def each(self, function: Callable[..., Any], items: list[Any]) -> list[Any]:
        parallel = self._joblib.Parallel(n_jobs=self.workers, batch_size=1)  # has the same processes
        found: list[Any] = parallel(self._delayed(function)(item) for item in items)
        return found

    def close(self) -> None:
        self._parallel.__exit__(None, None, None)
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)


class Mpire(ApplyPeer):
    """mpire.WorkerPool."""

    needs = ("mpire",)
    module = "mpire"
    abilities = frozenset({Ability.CHUNKS, Ability.POOLS})

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        import mpire

        self._pool = mpire.WorkerPool(workers, keep_alive=True, start_method="forkserver")
        # of its own: after many apply_async its map passes one argument too many (2.10)
        self._maps: Any = mpire.WorkerPool(workers, keep_alive=True, start_method="forkserver")

    def map(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        items = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        found: list[Any] = self._maps.map(function, items, concatenate_numpy_output=False)
        return found

    def each(self, function: Callable[..., Any], items: list[Any]) -> list[Any]:
        found: list[Any] = self._maps.map(function, items, chunk_size=1, concatenate_numpy_output=False)
        return found

    def close(self) -> None:
        self._pool.stop_and_join()
        self._maps.stop_and_join()


class Ray(Peer):
    """Ray's tasks and object store."""

    needs = ("ray",)
    module = "ray"
    abilities = frozenset()
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
    module = "distributed"
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
    module = "torch.multiprocessing"
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

    def each(self, function: Callable[..., Any], items: list[Any]) -> list[Any]:
        return self.values(self._pool.starmap(_with_tensors, [(function, (item,)) for item in items], chunksize=1))

    def stage(self, function: Callable[..., Any], *columns: list[Any]) -> list[Any]:
        return self._pool.starmap(_with_tensors, [(function, args) for args in zip(*columns, strict=True)])

    def values(self, staged: list[Any]) -> list[Any]:
        return [_to_array(value) for value in staged]


def _to_array(value: Any) -> Any:
    import torch

    return value.numpy() if isinstance(value, torch.Tensor) else changed(value, _to_array)


def _with_tensors(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    import torch

    value = function(*_to_array(list(args)))
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
