"""Pickles calls for workers: the function, and the arguments with the values of futures in their place.

No lock is held: the code of what is pickled may do anything, submit calls included.
"""

import itertools
import pickle
import weakref
from collections.abc import Callable
from typing import Any

from shmexec import _core
from shmexec._core import Call, Packed
from shmexec.pickling import failures, main_module
from shmexec.pickling.fixed import is_unchanging
from shmexec.pickling.functions import FunctionTable
from shmexec.pickling.notes import FirstCopies, roots_of_call
from shmexec.pickling.pickler import Forwarded, dump_arguments, is_plain, load_all
from shmexec.pickling.repeated import Repeated
from shmexec.pickling.spans import dump_items
from shmexec.pool.calls import MapScope
from shmexec.pool.futures import CallFuture
from shmexec.transport.messages import Kind


class Packer:
    """The packing of one pool, whose futures it knows; `learn` is told of functions that need not be packed again."""

    def __init__(
        self, pool: object, copies: FirstCopies, learn: Callable[[Callable[..., Any], _core.Known], None]
    ) -> None:
        self._copies = copies
        self._pool = weakref.ref(pool)  # which has this object
        main_module.send_by_value()
        load_all()
        self._functions = FunctionTable()
        self._learn = learn

    def known(self, function: Callable[..., Any]) -> _core.Known | None:
        """What all calls of a map may use of a function, if it cannot change in its place."""
        found = self._functions.known(function)
        if found is None and is_unchanging(function):
            for _ in range(2):  # one by value is known when it has come out the same a second time
                self._functions.pack(function)
            found = self._functions.known(function)
        return found if found is not None and found.is_short else None

    def awaited(self, kind: Kind, args: tuple[Any, ...], kwargs: dict[str, Any]) -> set[CallFuture]:
        """The futures of the pool among the arguments."""
        if kind is Kind.CALL:
            return {value for value in (*args, *kwargs.values()) if self._is_ours(value)}
        if _core.are_short_items(args):
            return set()
        return {value for item in args for value in item if type(value) is CallFuture and self._is_ours(value)}

    def pack(self, call: Call) -> BaseException | None:
        """Pickle a call, whose awaited futures are done; or what came in between.

        An argument's own call may have failed or been cancelled, something may be no matter for pickle, or there is no
        shared memory left.
        """
        assert call.function is not None
        try:
            args, kwargs = self._fill_in(call)
        except BaseException as error:
            return error.with_traceback(None)  # its frames have the arguments
        try:
            call.function_number, call.function_packed = self._pack_function(call.function, call.scope)
            call.packed = self._pack_arguments(call, args, kwargs)
        except MemoryError as error:
            return error.with_traceback(None)  # its frames have the arguments
        except Exception as error:
            alone = call.kind is Kind.SPAN and call.count == 1
            what = failures.find_unpicklable(call.function, call.args[0] if alone else call.args, call.kwargs)
            return failures.explain(error, what)
        call.function, call.args, call.kwargs, call.scope = None, (), {}, None
        return None

    def _pack_arguments(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Packed:
        if call.kind is Kind.CALL and not kwargs and is_plain(args):
            return Packed(pickle.dumps((args, kwargs), 5), _core.Holds())
        repeated = None if call.scope is None else call.scope.repeated
        if call.kind is Kind.SPAN:
            numbers = itertools.count(call.begin)
            return dump_items(args, call.budget, lambda item: self._pack_item(call.name, item, repeated, next(numbers)))
        noted = self._copies.notes()
        arguments = (args, kwargs) if call.kind is Kind.CALL else list(args)
        packed = dump_arguments(arguments, repeated=repeated, item=call.number, noted=noted)
        if noted is not None:
            items = [(args, kwargs)] if call.kind is Kind.CALL else [(item, {}) for item in args]
            roots = [root for item in items for root in roots_of_call(*item)]
            self._copies.add(noted.crossings(call.name, roots))
        return packed

    def _pack_item(self, name: str, item: tuple[Any, ...], repeated: Repeated | None, number: int) -> Packed:
        noted = self._copies.notes()
        packed = dump_arguments(item, repeated=repeated, item=number, noted=noted)
        if noted is not None:
            self._copies.add(noted.crossings(name, roots_of_call(item, {})))
        return packed

    def _pack_function(self, function: Callable[..., Any], scope: MapScope | None) -> tuple[int, Packed]:
        if scope is None or not scope.one_function:
            number, packed = self._functions.pack(function)
            if (known := self._functions.known(function)) is not None:
                self._learn(function, known)
            return number, packed
        if scope.packed is not None:
            return scope.number, scope.take()
        number, packed = self._functions.pack(function, borrowed=True)
        scope.number, scope.packed = number, packed  # two threads may both do this, each with its own
        return number, Packed(packed.data, scope.take().holds, packed.bytes_by_name, packed.bytes_copied)

    def _is_ours(self, value: object) -> bool:
        return type(value) is CallFuture and value.pool is self._pool()

    def _fill_in(self, call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if not call.has_futures:
            return call.args, call.kwargs
        if call.kind is not Kind.CALL:
            return tuple(tuple(map(self._filled, item)) for item in call.args), {}
        return tuple(map(self._filled, call.args)), {key: self._filled(value) for key, value in call.kwargs.items()}

    def _filled(self, value: Any) -> Any:
        if not self._is_ours(value):
            return value
        packed = None if value.cancelled() else value.share_packed()
        return Forwarded(packed) if packed is not None else value.result()
