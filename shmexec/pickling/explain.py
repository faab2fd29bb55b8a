"""What would go by name, what would be copied, what would be pickled: `shmexec.explain`."""

from dataclasses import dataclass
from typing import Any

from shmexec.pickling.crossings import Crossing
from shmexec.pickling.pickler import dry_run

_MOST_PARTS = 1000


@dataclass(frozen=True)
class Explanation:
    """How an object would cross as the argument of a call. ``print`` shows it as text.

    Attributes
    ----------
    bytes_by_name, bytes_copied, bytes_pickled : int
        Of the arrays and buffers that would be named, of those that would be copied, and of everything else.
    parts : tuple of Crossing
        Each array, buffer and large string, with where it is in the object and why it is not named; at most 1000.
    """

    bytes_by_name: int
    bytes_copied: int
    bytes_pickled: int
    parts: tuple[Crossing, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.bytes_by_name:,} bytes by name, {self.bytes_copied:,} copied, {self.bytes_pickled:,} pickled",
            *map(str, self.parts),
        ]
        return "\n    ".join(lines)


def explain(obj: Any) -> Explanation:
    """Say how an object would cross if it were the argument of a call now. Nothing is copied or sent.

    Parameters
    ----------
    obj : object
        Of whatever type: an array, a list of frames, a `functools.partial`, a function with what it closes over.

    Returns
    -------
    Explanation

    Raises
    ------
    Exception
        What pickling it raises.

    Examples
    --------
    >>> print(shmexec.explain({"table": shmexec.zeros(100_000), "weights": np.ones(100_000)}))
    800,000 bytes by name, 800,000 copied, 1... pickled
        obj['table'] (ndarray of float64, shape (100000,), 800,000 bytes) by name
        obj['weights'] (ndarray of float64, shape (100000,), 800,000 bytes) copied: it is not in shared memory: ...
    """
    account, pickled = dry_run(obj, _MOST_PARTS)
    assert account.notes is not None
    parts = account.notes.crossings("", [("obj", obj)])
    return Explanation(account.bytes_by_name, account.bytes_copied, pickled, parts)
