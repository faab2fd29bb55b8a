"""What calls have in common, and what is counted of them. (A call itself: `shmexec._core.Call`.)"""

from typing import NamedTuple

from shmexec import _core
from shmexec._core import Packed
from shmexec.pickling.notes import FirstCopies
from shmexec.pickling.repeated import Repeated


class MapScope:
    """What the calls of one `map` have in common: the function, pickled with the first of them, and arrays.

    If each call has a function of its own (`one_function` is false), the arrays alone.
    """

    __slots__ = "number", "one_function", "packed", "repeated"

    def __init__(self, repeated: Repeated | None, *, one_function: bool = True) -> None:
        self.repeated = repeated
        self.one_function = one_function
        self.number = 0
        self.packed: Packed | None = None

    def take(self) -> Packed:
        """The function for one more call, with holds of its own."""
        assert self.packed is not None
        packed, holds = self.packed, _core.Holds()
        holds.add_all(packed.holds)
        return Packed(packed.data, holds, packed.bytes_by_name + packed.bytes_copied)


class CallLimits(NamedTuple):
    """What a call may do: run for so many nanoseconds (0: as long as it likes), be run again after so many deaths."""

    nanoseconds: int = 0
    retries: int = 0


NO_LIMITS = CallLimits()


class Tally:
    """Figures of a pool, as `SharedExecutor.stats` gives them."""

    def __init__(self) -> None:
        self.bytes_by_name_in = 0
        self.bytes_copied_in = 0
        self.workers_started = 0
        self.workers_died = 0
        self.copies = FirstCopies()

    def note_arguments(self, call: _core.Call) -> None:
        """A call has been packed. The caller sees to it that nobody else counts."""
        for packed in (call.packed, call.function_packed):
            if packed is not None:
                self.bytes_by_name_in += packed.bytes_by_name
                self.bytes_copied_in += packed.bytes_copied
                _core.count_traffic(packed.bytes_by_name, packed.bytes_copied)
