"""What `SharedExecutor.options` returns: the same pool, whose calls have limits, are tried again, or share arrays."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from shmexec.chunks import MapOptions
from shmexec.mapping import map_calls
from shmexec.pickling.repeated import CopiedOnce
from shmexec.pool.calls import NO_LIMITS, CallLimits, MapScope
from shmexec.pool.pool import Pool
from shmexec.transport.messages import Kind

P = ParamSpec("P")
T = TypeVar("T")


class Owner(Protocol):
    """The executor itself."""

    _max_workers: int

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any: ...
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        progress: bool | str | Callable[[float, int | None], object] = False,
    ) -> Iterator[T]: ...
    def cancel(self, future: Any) -> bool: ...
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None: ...


class LimitedExecutor(Executor):
    """The calls that are made through it have limits; in all else it is the executor that made it.

    Several may be in use at a time. It keeps the executor alive; shutting down either shuts down the pool.
    """

    def __init__(self, owner: Owner, pool: Pool, limits: CallLimits, *, copy_once: bool = False) -> None:
        self._owner = owner
        self._pool = pool
        self._limits = limits
        self._scope = MapScope(CopiedOnce(), one_function=False) if copy_once else None
        self._max_workers = owner._max_workers  # other libraries read it

    @property
    def _is_plain(self) -> bool:
        return self._limits == NO_LIMITS and self._scope is None

    # Futures may stand where their results are wanted.

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
        """As `SharedExecutor.submit`."""
        if self._is_plain or not callable(fn):
            future: Future[Any] = self._owner.submit(fn, *args, **kwargs)
            return future
        return self._pool.submit(Kind.CALL, fn, args, kwargs, self._scope, self._limits)

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
        """As `SharedExecutor.map`. Each chunk has the limits; the default `chunksize` is 1.

        `timeout` is for the whole map, as ever: it raises in the iterator, and ends nothing that runs.
        """
        if self._is_plain:
            return self._owner.map(
                fn,
                *iterables,
                timeout=timeout,
                chunksize=chunksize,
                buffersize=buffersize,
                ordered=ordered,
                progress=progress,
            )
        options = MapOptions.checked(fn, timeout, chunksize, buffersize, ordered, progress)
        repeated = None if self._scope is None else self._scope.repeated
        return map_calls(
            self._pool, fn, iterables, options, adapts=False, owner=self, limits=self._limits, repeated=repeated
        )

    def cancel(self, future: Any) -> bool:
        """As `SharedExecutor.cancel`."""
        return self._owner.cancel(future)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `SharedExecutor.shutdown`: it is the same pool."""
        self._owner.shutdown(wait, cancel_futures=cancel_futures)
