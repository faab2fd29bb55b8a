"""SharedExecutor: the executor that users see. Checks what it is given, and hands it to the pool.

A first result takes the time that the fork server needs to come up. So this module imports what starts that, and the
pool, with NumPy and the pickler, is imported meanwhile: where it is needed, not here.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import ProcessPoolExecutor
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from shmexec.checks import checked_count, checked_integer, checked_nanoseconds, is_boolean
from shmexec.pool import exits, fork_server
from shmexec.pool.starting import checked_context, checked_modules, default_method
from shmexec.standard import without_inherited

if TYPE_CHECKING:
    from shmexec._core import Call
    from shmexec.options import LimitedExecutor
    from shmexec.pool.futures import CallFuture
    from shmexec.pool.stats import PoolStats
    from shmexec.pool.worker_process import WorkerProcess

T = TypeVar("T")
P = ParamSpec("P")

_LEAST_BYTES = 8 << 20  # a page for messages, one for an argument, one for a result, and the heap's own tables


@without_inherited
class SharedArrayProcessPoolExecutor(ProcessPoolExecutor):
    """A process pool that passes NumPy arrays by kernel name instead of by value.

    It is a `concurrent.futures.ProcessPoolExecutor` by name only, for code that asks ``isinstance``: nothing of that
    class is used.

    Parameters
    ----------
    max_workers : int, optional
        Default: the CPUs that this process may use.
    mp_context : multiprocessing context, optional
        How workers are started: fork, forkserver or spawn. Default: a fork server of the package's own, which is
        fast and needs no ``if __name__ == "__main__"``; but fork, where that is the standard library's default, if
        there are `initargs` that can only be inherited, as the locks of that default.
    initializer : callable, optional
        Called as ``initializer(*initargs)`` in each worker as it comes up. If it raises, the pool is broken.
    initargs : tuple
        Its arguments. Locks, queues and pipes of the same context can be among them.
    max_tasks_per_child : int, optional
        Calls after which a worker ends and is replaced; a chunk of `map` is one call. Not with fork.
    finalizer : callable, optional
        Called without arguments as a worker ends, also on SIGTERM and when this process has died.
    on_worker_death : {'replace', 'break'}
        ``'replace'``: only the call that the dead worker was running fails, with `WorkerDied`, and a new worker
        takes its place. ``'break'``: the standard library's rule: all calls fail, and the pool is of no use any more;
        also if the arguments or the result of a call cannot be unpickled.
    shared_results : bool
        While a call runs, NumPy's allocator in the worker is the shared heap's, so what ordinary code returns goes by
        name. False: it is NumPy's own, and such results are copied once. For code that takes the memory of arrays away
        from NumPy.
    worker_threads : int, optional
        Threads that BLAS and OpenMP take in each worker. Default: what the environment says (``OMP_NUM_THREADS``,
        ``OPENBLAS_NUM_THREADS`` and the like), else the CPUs that this process may use, divided by `max_workers`.
    max_bytes : int, optional
        Bound, in bytes, of the shared memory that this process tree takes, from 8 MiB up to the smaller of physical
        memory and the control group's limit. Default: 80 % of that. Calls wait for others to free memory.
    preload : sequence of str
        Modules that the workers have from their beginning: ``["scipy.ndimage", "skimage"]``. They are imported once, by
        the process that the workers are forked from, instead of by each, and all share the memory that they take. What
        ``multiprocessing.set_forkserver_preload`` was told is, too. (Under the start method spawn each imports them for
        itself.)

    Raises
    ------
    ValueError, TypeError
        For an argument that makes no sense, which the message names.

    Examples
    --------
    >>> with SharedExecutor() as ex:
    ...     for out in ex.map(f, arrays):
    ...         ...
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        finalizer: Callable[[], Any] | None = None,
        on_worker_death: Literal["replace", "break"] = "replace",
        shared_results: bool = True,
        worker_threads: int | None = None,
        max_bytes: int | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        workers = checked_count("max_workers", max_workers)
        tasks = checked_count("max_tasks_per_child", max_tasks_per_child)
        for name, value in ("initializer", initializer), ("finalizer", finalizer):
            if value is not None and not callable(value):
                raise TypeError(f"{name} must be a callable, not {type(value).__name__}")
        if on_worker_death not in ("replace", "break"):
            raise ValueError(f"on_worker_death must be 'replace' or 'break', not {on_worker_death!r}")
        if not is_boolean(shared_results):
            raise TypeError(f"shared_results must be True or False, not {type(shared_results).__name__}")
        limit = checked_count("max_bytes", max_bytes)
        threads = checked_count("worker_threads", worker_threads)
        modules = fork_server.with_workers_modules(checked_modules(preload))
        context, method = checked_context(mp_context, tasks)
        if not isinstance(initargs, Iterable):
            raise TypeError(f"initargs must be a tuple, not {type(initargs).__name__}")
        if limit is not None:
            _set_limit(limit)
        self._max_workers = workers or _usable_cpus()
        self._counts_items = tasks is None  # else a worker's end comes after so many items
        self._breaks = on_worker_death == "break"
        self._mp_context = context
        with fork_server.kept(modules) if method == "forkserver" else contextlib.nullcontext():
            from shmexec.pool.crew import WorkerSettings
            from shmexec.pool.pool import Pool

            settings = WorkerSettings(
                method,
                initializer,
                tuple(initargs),
                finalizer,
                tasks,
                bool(shared_results),
                threads,
                self._max_workers,
                may_fork=mp_context is None and tasks is None and default_method() == "fork",
                preload=modules,
            )
            self._pool = Pool(self._max_workers, settings, breaks=self._breaks)
        self._submit_short: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], CallFuture | None]
        self._submit_short = self._pool.desk.submit
        self._let_go = exits.register(self, self._pool)

    # What other libraries read of the standard library's pool. (`_max_workers` and `_mp_context` are attributes.)

    @property
    def _processes(self) -> "dict[int, WorkerProcess]":  # type: ignore[override]
        return self._pool.processes()

    @property
    def _pending_work_items(self) -> "dict[int, Call]":  # type: ignore[override]
        return self._pool.pending()

    @property
    def _broken(self) -> str | bool:  # type: ignore[override]
        return self._pool.broken_by or False

    @property
    def _shutdown_thread(self) -> bool:  # type: ignore[override]
        return self._pool.is_closing

    # Futures may stand where their results are wanted; the last says what the standard library's says.

    @overload
    def submit(self, fn: Callable[..., T], first: Future[Any], /, *args: Any, **kwargs: Any) -> Future[T]: ...
    @overload
    def submit(
        self, fn: Callable[..., T], first: Any, second: Future[Any], /, *args: Any, **kwargs: Any
    ) -> Future[T]: ...
    @overload
    def submit(
        self, fn: Callable[..., T], first: Any, second: Any, third: Future[Any], /, *args: Any, **kwargs: Any
    ) -> Future[T]: ...
    @overload
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Schedule ``fn(*args, **kwargs)`` in a worker.

        An array in shared memory goes by name: both sides see the same bytes, and what the worker writes is seen
        here. A plain array is copied once, private to the call and writeable. A future of this executor among the
        arguments is waited for, and replaced by its result.

        Returns
        -------
        concurrent.futures.Future

        Raises
        ------
        TypeError
            If `fn` is not callable.
        RuntimeError
            After `shutdown`.
        concurrent.futures.process.BrokenProcessPool
            If the pool cannot go on; the message says why.
        """
        if not callable(fn):
            raise TypeError(f"fn must be a callable, not {type(fn).__name__}")
        if (future := self._submit_short(fn, args, kwargs)) is not None:
            return future
        return self._pool.call(fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        progress: bool | str | Callable[[float, int | None], object] = False,
    ) -> Iterator[T]:
        """Call `fn` on each tuple of items, in parallel; yield the results.

        Parameters
        ----------
        fn : callable
            Pickled once, with what it has bound or closes over: later changes are not seen. A plain array in it is
            copied once; each call has a writeable view of that copy, and sees no other call's writes.
        *iterables : iterable
            As for the built-in `map`: the shortest ends it. A plain array that several items have is copied once,
            too, if they come from lists, tuples or `itertools.repeat`; from other iterators, which may fill one array
            again and again, each time.
        timeout : float, optional
            Seconds from this call; when they are over, asking for the next result raises TimeoutError.
        chunksize : int, optional
            Items that go to a worker together, as one call. Default: as many as take about 16 ms, measured as the map
            goes on, and fewer towards its end; a worker for which it takes longer comes back early, and others take
            the rest. Each item is then as good as a call of its own: no two share an object. (With
            `max_tasks_per_child`, or if `submit` is overridden, through which all calls go then, the default is 1.)
        buffersize : int, optional
            Items (with a `chunksize`: chunks) that are taken from the iterables ahead of the results that were asked
            for; one more is taken before each result is waited for. Default: all, at once.
        ordered : bool
            Yield the results in the order of the items. False: as they come; an exception is raised when it comes.
        progress : bool, str or callable
            True or a label: while results are waited for a bar shows how many calls are done, on a terminal or in a
            notebook (by tqdm, if it is installed), and nothing elsewhere, unless the environment says
            ``SHMEXEC_PROGRESS=always``. A callable is called as ``progress(done, total)``, by the thread that iterates,
            at the beginning, when there is something new, ten times a second at most, and at the end; `total` is None
            if nobody knows. What calls `report_progress` counts as a part of them.

        Raises
        ------
        ValueError
            If `chunksize` or `buffersize` is less than 1.
        TypeError
            If `fn` is not callable, or one of them is not an integer.
        """
        from shmexec.chunks import MapOptions
        from shmexec.mapping import map_calls

        options = MapOptions.checked(fn, timeout, chunksize, buffersize, ordered, progress)
        is_own = getattr(self.submit, "__func__", None) is SharedArrayProcessPoolExecutor.submit
        return map_calls(
            self._pool,
            fn,
            iterables,
            options,
            adapts=self._counts_items,
            owner=self,
            submit=None if is_own else self.submit,
        )

    def options(self, *, timeout: float | None = None, retries: int = 0, copy_once: bool = False) -> "LimitedExecutor":
        """The same pool for calls with a limit of time, calls that are tried again, or calls that share their arrays.

        Parameters
        ----------
        timeout : float, optional
            Seconds that a call may run, from its beginning in the worker. Then its worker is sent SIGTERM, has 5
            seconds for its clean-up (exit handlers, the pool's `finalizer`), is killed, and replaced; the future
            raises `TaskTimeout` when it is dead. Such calls are sent to workers one by one, not ahead.
        retries : int
            How often a call is run again if the worker that ran it has died. What the dead attempt has written into
            its arguments stays written. A call that raises, whose time is up or that is cancelled is not run again.
        copy_once : bool
            A plain array that stands in several calls of this view is copied into shared memory once, not for each;
            each call has a writeable view of the copy, and sees no other call's writes. An array that has changed
            meanwhile is copied anew: it is compared with its copy, at memory speed. The copies go with the view, or
            with the arrays.

        Returns
        -------
        concurrent.futures.Executor
            With `submit`, `map`, `cancel` and `shutdown` of this executor. The default `chunksize` of `map` is 1; if
            one is given, the limits are those of a chunk.

        Raises
        ------
        TypeError
            If `timeout` is not a number, `retries` not an integer, or `copy_once` not a bool.
        ValueError
            If `timeout` is not greater than 0, or `retries` less than 0; or if there are retries, but a worker's death
            breaks the pool.
        """
        from shmexec.options import LimitedExecutor
        from shmexec.pool.calls import CallLimits

        limits = CallLimits(checked_nanoseconds("timeout", timeout), checked_integer("retries", retries, least=0))
        if limits.retries and self._breaks:
            raise ValueError("retries cannot be used with on_worker_death='break': a worker's death ends the pool")
        if not is_boolean(copy_once):
            raise TypeError(f"copy_once must be True or False, not {type(copy_once).__name__}")
        return LimitedExecutor(self, self._pool, limits, copy_once=bool(copy_once))

    def cancel(self, future: Future[Any]) -> bool:
        """Cancel a call of this executor, also if it runs: then its worker is ended and replaced.

        Parameters
        ----------
        future : concurrent.futures.Future
            Of this executor.

        Returns
        -------
        bool
            Whether the call is cancelled, now or as soon as its worker is dead: only then is the future of a call
            that ran done, and nothing of it goes on. False: it has been answered, or is being ended for its time.

        Raises
        ------
        TypeError
            If `future` is not a future of a `SharedExecutor`.
        ValueError
            If it is of another executor.
        """
        from shmexec.pool.futures import CallFuture

        if not isinstance(future, CallFuture):
            raise TypeError(f"future must be one that this executor's submit returned, not {type(future).__name__}")
        is_own: bool = future.pool is self._pool
        if not is_own:
            raise ValueError("future is of another executor: cancel it there")
        return self._pool.cancel(future)

    def terminate_workers(self) -> None:
        """Take no more calls, and send SIGTERM to all workers: they clean up and end, or are killed 10 seconds later.

        Calls that wait are cancelled, those that workers have fail with `BrokenProcessPool`. Does not wait.
        """
        self._pool.end_workers(kill=False)

    def kill_workers(self) -> None:
        """As `terminate_workers`, but by SIGKILL: no clean-up of a worker runs."""
        self._pool.end_workers(kill=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; the workers end, and clean up, when the last call is done.

        Parameters
        ----------
        wait : bool
            Return when that has happened.
        cancel_futures : bool
            Cancel the calls that wait.
        """
        self._pool.shutdown(wait=wait, cancel_futures=cancel_futures)
        if self._pool.is_closed:  # or the registry would keep what exceptions of a broken pool refer to
            self._let_go.detach()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._pool.interrupt()
        try:
            self.shutdown(wait=True)
        except KeyboardInterrupt:  # while it waits for what was submitted
            self._pool.interrupt()
            self.shutdown(wait=True)
            raise

    def stats(self) -> "PoolStats":
        """The figures of this executor."""
        from shmexec.pool.stats import PoolStats

        waiting, running = self._pool.counts()
        tally, desk = self._pool.tally, self._pool.desk
        return PoolStats(
            waiting,
            running,
            desk.calls_done,
            tally.bytes_by_name_in + desk.bytes_by_name_in,
            desk.bytes_by_name_out,
            tally.bytes_copied_in + desk.bytes_copied_in,
            desk.bytes_copied_out,
            tally.workers_started,
            tally.workers_died,
            self._pool.heap_bytes_in_use(),
            tally.copies.all(),
            len(self._pool.processes()),
        )


SharedExecutor = SharedArrayProcessPoolExecutor


def _set_limit(limit: int) -> None:
    from shmexec import _core

    machine = _core.machine_memory()
    if limit < _LEAST_BYTES:
        raise ValueError(f"max_bytes must be at least {_LEAST_BYTES:,}, which one worker needs, not {limit:,}")
    if limit > machine:
        raise ValueError(f"max_bytes must be at most {machine:,}, the memory of this machine or control group")
    _core.set_limit(limit)


def _usable_cpus() -> int:
    """As the standard library counts them; from 3.13 on they can be set."""
    counted: Callable[[], int | None] | None = getattr(os, "process_cpu_count", None)
    return len(os.sched_getaffinity(0)) if counted is None else counted() or 1
