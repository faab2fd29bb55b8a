"""How parts of arguments and results cross, as users are told: what `explain` and `stats` give."""

from dataclasses import dataclass
from typing import Literal

How = Literal["by name", "copied", "pickled"]


@dataclass(frozen=True)
class Crossing:
    """How one part of an argument or a result crosses.

    Attributes
    ----------
    function : str
        The function of the call; empty from `explain`.
    where : str
        The part: ``argument 0``, ``argument 'table'``, ``result[1]['mask']``.
    what : str
        Its type, for arrays also dtype and shape.
    bytes : int
    how : {'by name', 'copied', 'pickled'}
    why : str
        Why it is not named, or empty.
    """

    function: str
    where: str
    what: str
    bytes: int
    how: How
    why: str

    def __str__(self) -> str:
        place = f"{self.where} of {self.function}" if self.function else self.where
        reason = f": {self.why}" if self.why else ""
        return f"{place} ({self.what}, {self.bytes:,} bytes) {self.how}{reason}"
