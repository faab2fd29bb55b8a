"""joblib's `Parallel` on our pool: ``register()``, then ``with joblib.parallel_config("shmexec"):``.

Purpose: a backend of joblib, and with it scikit-learn and whatever else calls `joblib.Parallel`.
Guarantees: arrays go by name, in and out, and are writeable, whatever their size. One that stands in many tasks is
    copied once, and each batch of tasks has a copy-on-write view; one in shared memory is not copied, and all see what
    is written. When a `Parallel` raises, runs out of time or is dropped, its tasks stop: those that wait are cancelled,
    the workers of those that run are ended and replaced. Nobody else's calls are touched. No failure to submit leaves
    joblib waiting.
Assumptions: joblib calls `configure`, `start_call`, `submit` from any of its threads, `stop_call`, `terminate`, of one
    `Parallel` after the other. Another that comes in between gets a backend of its own.

Some facts about joblib (1.6): it hands over batches, objects that are called without arguments; their results are
    fetched in the callback of the future, with a lock of the `Parallel` held, and the callback submits the next.
    A backend that wants to stand aside for another raises `FallbackToBackend` in `configure`.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

try:
    import joblib
    from joblib import parallel
except ImportError as error:
    raise ImportError("shmexec.integrations.joblib needs joblib: pip install 'shmexec[joblib]'") from error

from shmexec.errors import WorkerDied
from shmexec.executor import SharedExecutor
from shmexec.integrations.kept import kept_pools
from shmexec.options import LimitedExecutor
from shmexec.pickling.failures import name_of

NAME = "shmexec"

# What joblib tells every backend; it is about files, pipes and other backends.
_OF_JOBLIB = ("max_nbytes", "temp_folder", "mmap_mode", "prefer", "require", "verbose", "context")
_OF_POOLS = ("initializer", "initargs", "finalizer", "max_tasks_per_child", "shared_results", "max_bytes", "preload")
_PATIENCE = 300.0  # seconds that workers stay when there is nothing to do, as with loky
_LOOK_AGAIN = 0.05  # seconds


def register(*, make_default: bool = False) -> None:
    """Let joblib know the backend, under the name ``"shmexec"``.

    Parameters
    ----------
    make_default : bool
        Also for `Parallel` outside of any ``joblib.parallel_config``.

    Examples
    --------
    >>> shmexec.integrations.joblib.register()
    >>> with joblib.parallel_config("shmexec"):
    ...     GridSearchCV(estimator, grid).fit(X, y)
    """
    parallel.register_parallel_backend(NAME, ShmexecBackend, make_default=make_default)


def shutdown() -> None:
    """End the workers that are kept for the next `Parallel`, now. Else they end after 300 seconds without work."""
    kept_pools.shutdown()


def run_batch(batch: Callable[[], list[Any]]) -> list[Any]:
    """In the worker."""
    register()  # `Parallel` in a task can name us, too
    return batch()


class ShmexecBackend(parallel.AutoBatchingMixin, parallel.ParallelBackendBase):  # type: ignore[misc]
    """The backend; joblib makes it.

    Parameters
    ----------
    nesting_level, inner_max_num_threads : int, optional
        joblib's.
    executor : SharedExecutor, optional
        The pool to use, as it is; it limits `n_jobs`. Default: a pool of `n_jobs` workers that is kept for later calls
        with the same settings.
    idle_worker_timeout : float, optional
        Seconds for which such a pool is kept. Default: 300.
    initializer, initargs, finalizer, max_tasks_per_child, shared_results, max_bytes, preload
        As `SharedExecutor` has them. Default of `preload`: what this process has of scikit-learn, when a pool is made.

    Notes
    -----
    ``parallel_config("shmexec")`` without `n_jobs` uses all cores; ``Parallel(backend="shmexec")`` has joblib's own
    default, one.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    run_batch = staticmethod(run_batch)

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        *,
        executor: SharedExecutor | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads, **settings)
        if executor is not None and not isinstance(executor, SharedExecutor):
            raise TypeError(f"executor must be a SharedExecutor, not {type(executor).__name__}")
        if nesting_level is None:  # made for a context
            self.default_n_jobs = -1
        self._executor = executor
        self._workers: SharedExecutor | None = None  # while a `Parallel` uses this backend
        self._patience = _PATIENCE
        self._calls: LimitedExecutor | None = None
        self._running: dict[Future[Any], str] = {}
        self._is_aborted = False
        self._has_failed = False
        self._is_quiet = threading.Event()  # nothing runs, or something has failed
        self._checked(settings)

    # ---- how many, and where -----------------------------------------------------------------------

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many workers there would be."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            n_jobs = self.default_n_jobs
        most = joblib.cpu_count() if self._executor is None else self._executor._max_workers
        if n_jobs < 0:
            n_jobs = max(most + 1 + n_jobs, 1)
        return int(n_jobs if self._executor is None else min(n_jobs, most))

    def configure(self, n_jobs: int = 1, parallel: Any = None, **settings: Any) -> int:
        """A `Parallel` is about to use this backend; the number of workers."""
        count = self.effective_n_jobs(n_jobs)
        if count == 1:
            raise _stand_aside(_sequential(self.nesting_level))
        if self._workers is not None:
            raise _stand_aside(self._another())
        options = self._checked({**self.backend_kwargs, **settings})
        self._patience = float(options.pop("idle_worker_timeout", None) or _PATIENCE)
        self._workers = self._executor or kept_pools.acquire(
            {"max_workers": count, "worker_threads": self.inner_max_num_threads, **options},
            {name: os.environ.get(name) for name in self.MAX_NUM_THREADS_VARS},
            ["joblib", *_modules_of_scikit_learn()],
        )
        self.parallel = parallel
        return count

    def _checked(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Those that are ours."""
        ours = {name: value for name, value in settings.items() if name not in _OF_JOBLIB}
        for name in ours:
            if name not in (*_OF_POOLS, "idle_worker_timeout"):
                raise TypeError(f"the joblib backend 'shmexec' has no parameter {name!r}")
            if self._executor is not None:
                raise ValueError(f"{name} cannot be used with executor: give it to SharedExecutor")
        return ours

    def _another(self) -> "ShmexecBackend":
        made = type(self)(
            self.nesting_level, self.inner_max_num_threads, executor=self._executor, **self.backend_kwargs
        )
        made.default_n_jobs = self.default_n_jobs
        return made

    def terminate(self) -> None:
        """The `Parallel` needs no workers any more; they stay for the next."""
        workers, self._workers, self._calls = self._workers, None, None
        if workers is not None and workers is not self._executor:
            kept_pools.release(workers, self._patience)
        self.reset_batch_stats()

    # ---- one call of a Parallel --------------------------------------------------------------------

    def start_call(self) -> None:
        """What follows has its arrays in common."""
        assert self._workers is not None
        self._is_aborted = self._has_failed = False
        self._is_quiet.clear()
        self._calls = self._workers.options(copy_once=True)

    def stop_call(self) -> None:
        """The copies go."""
        self._calls = None
        self._running.clear()

    def submit(self, func: Any, callback: Callable[[Any], object] | None = None) -> Future[Any]:
        """Run a batch; what cannot be submitted is a future that has failed, or joblib would wait for ever."""
        future: Future[Any]
        calls = self._calls
        try:
            if calls is None:
                raise RuntimeError("this Parallel is over: it takes no more tasks")
            future = calls.submit(self.run_batch, func)
        except Exception as error:
            future = Future()
            future.set_exception(error)
        else:
            self._running[future] = name_of(func.items[0][0])
            if self._is_aborted:
                calls.cancel(future)
        if callback is not None:
            future.add_done_callback(callback)
        future.add_done_callback(self._note_done)  # by now joblib has submitted what comes next
        return future

    def _note_done(self, future: Future[Any]) -> None:
        if self._has_failed or not self._running:
            self._is_quiet.set()

    @contextlib.contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """In here joblib looks every 10 ms for results. If it wants all of them first, there is no need to look yet."""
        wants_all = self.parallel.timeout is None and not self.parallel.return_generator
        while wants_all and self._running and not getattr(self.parallel, "_aborting", True):
            self._is_quiet.wait(_LOOK_AGAIN)
            self._is_quiet.clear()
        yield

    def retrieve_result_callback(self, future: Future[Any]) -> Any:
        """The results of a batch."""
        name = self._running.pop(future, "")
        try:
            return future.result()
        except BaseException as error:
            self._has_failed = True
            if isinstance(error, WorkerDied):
                error.add_note(f"It was running a batch of joblib: {name}")
            raise

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Nobody wants the rest: also what runs ends, with its worker."""
        self._is_aborted = True
        calls, running = self._calls, list(self._running)
        self._running.clear()
        for future in running:
            if calls is not None:
                calls.cancel(future)


def _modules_of_scikit_learn() -> list[str]:
    """Those that this process has, and its tasks need: a second and 60 MB for each worker that imports them itself."""
    found = [name.split(".") for name in list(sys.modules) if name.startswith("sklearn.")]
    return sorted(".".join(name) for name in found if len(name) == 2 and not name[1].startswith("_"))


def _sequential(nesting_level: int | None) -> Any:
    return parallel.SequentialBackend(nesting_level=nesting_level)


def _stand_aside(backend: Any) -> BaseException:
    error: BaseException = parallel.FallbackToBackend(backend)
    return error
