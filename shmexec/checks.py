"""What users give is checked here: a wrong type or value gets an exception that names the argument."""

import operator
from typing import SupportsIndex

_AT_LEAST_ONE = {  # in the standard library's words, where it has some
    "max_tasks_per_child": ">= 1",
    "chunksize": ">= 1",
    "buffersize": "None or > 0",
}


def checked_count(name: str, value: int | None) -> int | None:
    """An integer of at least 1, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError(f"{name} must be an integer or None, not {type(value).__name__}")
    value = operator.index(value)  # NumPy's integers, too
    if value < 1:
        raise ValueError(f"{name} must be {_AT_LEAST_ONE.get(name, 'greater than 0')}, not {value}")
    return value
