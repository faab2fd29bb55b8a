"""A call in the parent, with its future; on the wire it is a task, and what comes back is an answer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from shmexec import _core
from shmexec.pickling.notes import FirstCopies
from shmexec.pickling.pickler import Packed
from shmexec.pickling.repeated import Repeated
from shmexec.pool.futures import CallFuture
from shmexec.pool.ledger import CallState
from shmexec.pool.spans import SpanMap
from shmexec.transport.messages import Cost, Kind


@dataclass(eq=False, slots=True)
class MapScope:
    """What the calls of one `map` have in common: the function, pickled with the first of them, and arrays."""

    repeated: Repeated | None = None
    number: int = 0
    packed: Packed | None = None

    def take(self) -> Packed:
        """The function for one more call, with holds of its own."""
        assert self.packed is not None
        packed, holds = self.packed, _core.Holds()
        holds.add_all(packed.holds)
        return Packed(packed.data, holds, packed.bytes_by_name + packed.bytes_copied)


@dataclass(eq=False, slots=True)
class Call:
    """One call of a function, or, for a CHUNK or a SPAN, of one function on several items."""

    number: int
    kind: Kind
    future: CallFuture
    function: Callable[..., Any] | None  # until it is packed
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    name: str
    scope: MapScope | None = None
    job: SpanMap | None = None  # of a SPAN
    begin: int = 0  # its first item
    count: int = 0
    budget: float = 0.0
    has_futures: bool = False  # among the arguments
    missing: int = 0  # those that are not done
    state: CallState = CallState.WAITING
    function_number: int = 0
    function_packed: Packed | None = None
    packed: Packed | None = None
    ships_function: bool = False  # in that ring, for the first time
    position: int = -1  # in the ring of the worker that has it

    def release(self) -> None:
        """The call is over: what its arguments held goes."""
        self.function, self.args, self.kwargs, self.scope, self.job = None, (), {}, None, None
        for packed in (self.packed, self.function_packed):
            if packed is not None:
                packed.holds.release()
        self.packed = self.function_packed = None


@dataclass(slots=True)
class Tally:
    """Figures of a pool, as `SharedExecutor.stats` gives them."""

    calls_done: int = 0
    bytes_by_name_in: int = 0
    bytes_by_name_out: int = 0
    bytes_copied_in: int = 0
    bytes_copied_out: int = 0
    workers_started: int = 0
    workers_died: int = 0
    copies: FirstCopies = field(default_factory=FirstCopies)

    def note_arguments(self, call: Call) -> None:
        """A call has been packed. The caller sees to it that nobody else counts."""
        for packed in (call.packed, call.function_packed):
            if packed is not None:
                self.bytes_by_name_in += packed.bytes_by_name
                self.bytes_copied_in += packed.bytes_copied
                _core.count_traffic(packed.bytes_by_name, packed.bytes_copied)

    def note_answer(self, cost: Cost) -> None:
        """A call has been answered."""
        self.calls_done += 1
        self.bytes_by_name_out += cost.bytes_by_name
        self.bytes_copied_out += cost.bytes_copied
        _core.count_traffic(cost.bytes_by_name, cost.bytes_copied)
        self.copies.add(cost.copies)
