"""What a worker that is not simply forked is sent: preparation and job, by value, in a file.

Purpose: anything that multiprocessing can hand to a process of the same context (locks, queues, connections)
and anything that cloudpickle can pickle (lambdas, classes of ``__main__``) may be in a job.
Guarantees: the user's main module is not among what the child imports; the user's default start method stays
undecided.

The payload is a memfd and not a pipe: writing never waits for the child, nor fails because it has died.
"""

import collections
import contextlib
import errno
import io
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing import context, process, reduction, spawn
from typing import Any, ClassVar

import cloudpickle

from shmexec.pickling.main_module import share_globals
from shmexec.pickling.placed import reduce_placed
from shmexec.transport.launch import (
    Descriptor,
    PickledJob,
    SameDescriptor,
    SentDescriptor,
    StartRequest,
    call,
)

Reducer = Callable[[object], object]

_context: Any = context  # for what typeshed does not declare
_spawn: Any = spawn
_ForkingPickler: Any = reduction.ForkingPickler


class JobPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """By value what lives in ``__main__``, by multiprocessing's own reducers what only a child may have.

    Both keep tables of reducers: with cloudpickle's alone a Connection would be pickled as a bare number.
    """

    dispatch_table: ClassVar[Any] = collections.ChainMap(
        _ForkingPickler._extra_reducers, cloudpickle.Pickler.dispatch_table
    )

    def __init__(self, file: io.BytesIO, reducer: Reducer | None) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._reducer = reducer

    def reducer_override(self, obj: object) -> object:
        """Ask the pool's reducer, then cloudpickle's."""
        if self._reducer is not None:
            reduced = self._reducer(obj)
            if reduced is not NotImplemented:
                return reduced
        reduced = super().reducer_override(obj)
        return reduce_placed(obj, share_globals(obj, reduced, lambda value: pickle_job(value, self._reducer).data))


class Passing:
    """Collects the descriptors that a pickle speaks of.

    To reducers it looks like multiprocessing's Popen of the child.
    """

    def __init__(self, *, by_socket: bool) -> None:
        self.numbers: list[int] = []
        self._by_socket = by_socket

    def duplicate_for_child(self, number: int) -> int:
        """Take note of a descriptor; what it returns is for `DupFd`."""
        self.numbers.append(number)
        return len(self.numbers) - 1 if self._by_socket else number

    def DupFd(self, taken: int) -> Descriptor:  # multiprocessing's name for it
        """What stands for the descriptor in the pickle."""
        return SentDescriptor(taken) if self._by_socket else SameDescriptor(taken)

    def descriptor(self, number: int) -> Descriptor:
        """Take note of a descriptor, and what stands for it."""
        return self.DupFd(self.duplicate_for_child(number))


class WorkerByName:
    """Pickled, it is a call of the worker's side, which this layer does not import."""

    def __init__(self, factory: str, request: StartRequest) -> None:
        self._factory = factory
        self._request = request

    def __reduce__(self) -> tuple[object, ...]:
        return call, (self._factory, self._request)


@contextlib.contextmanager
def spawning(passing: Passing) -> Iterator[None]:
    """While this lasts, this thread may pickle what only a child process may have."""
    before = _context.get_spawning_popen()
    _context.set_spawning_popen(passing)
    try:
        yield
    finally:
        _context.set_spawning_popen(before)


def pickle_job(job: object, reducer: Reducer | None) -> PickledJob:
    """The job by value. Within `spawning`."""
    buffer = io.BytesIO()
    JobPickler(buffer, reducer).dump(job)
    return PickledJob(buffer.getvalue())


def preparation_data(name: str) -> dict[str, Any]:
    """What multiprocessing sends first, less the user's main module.

    The standard library's function, because coverage.py adds to it. It also asks for the start method, which
    settles the default one for good: if it was open before, it is open again afterwards.
    """
    default = _context._default_context
    undecided = default._actual_context is None
    try:
        data: dict[str, Any] = _spawn.get_preparation_data(name)
    finally:
        if undecided and default._actual_context is default._default_context:
            default._actual_context = None
    data.pop("init_main_from_name", None)
    data.pop("init_main_from_path", None)
    if undecided:
        data.pop("start_method", None)
    return data


def write_payload(factory: str, request: StartRequest, *, environment: bool) -> int:
    """A memfd with the pickles that a child starts from. Within `spawning`; the caller closes it."""
    buffer = io.BytesIO()
    if environment:  # exec passes it on, the fork server's is old
        reduction.dump(dict(os.environ), buffer)
    reduction.dump(preparation_data(request.name), buffer)
    reduction.dump(WorkerByName(factory, request), buffer)
    payload = _nameless_file(f"shmexec-{request.name}"[:200])
    try:
        with open(payload, "wb", closefd=False) as file:
            file.write(buffer.getbuffer())
        os.lseek(payload, 0, os.SEEK_SET)  # the child shares the position
    except BaseException:
        os.close(payload)
        raise
    return payload


def _nameless_file(name: str) -> int:
    try:
        return os.memfd_create(name)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        # a sandbox without it: a file on disk, which has no name either
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())


def next_identity() -> tuple[int, ...]:
    """The next child's ``multiprocessing.current_process()._identity``.

    From the counter that the user's own processes count by, so that no two children are alike.
    """
    current: Any = process.current_process()
    counter: Any = process._process_counter  # type: ignore[attr-defined]
    return (*current._identity, next(counter))
