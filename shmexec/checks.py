"""What users give is checked here: a wrong type or value gets an exception that names the argument."""

import operator
from typing import SupportsFloat, SupportsIndex

_LONGEST = 1e9  # seconds: 30 years are no limit

_KIND = {"buffersize": "an integer or None"}
_AT_LEAST = {  # in the standard library's words, where it has some
    "max_tasks_per_child": ">= 1",
    "chunksize": ">= 1",
    "buffersize": "None or > 0",
}


def is_boolean(value: object) -> bool:
    """Python's, or NumPy's, which nobody has to import for that."""
    kind = type(value)
    return kind is bool or (kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"))


def checked_count(name: str, value: int | None) -> int | None:
    """An integer of at least 1, or None."""
    return None if value is None else checked_integer(name, value, least=1)


def checked_integer(name: str, value: int, *, least: int) -> int:
    """An integer of at least so much."""
    if is_boolean(value) or not isinstance(value, SupportsIndex):
        raise TypeError(f"{name} must be {_KIND.get(name, 'an integer')}, not {type(value).__name__}")
    value = operator.index(value)  # NumPy's integers, too
    if value < least:
        raise ValueError(f"{name} must be {_AT_LEAST.get(name, f'greater than {least - 1}')}, not {value}")
    return value


def checked_nanoseconds(name: str, seconds: float | None) -> int:
    """A time in seconds, greater than 0, in nanoseconds; None and infinity, which are no limit: 0."""
    if seconds is None:
        return 0
    if is_boolean(seconds) or not isinstance(seconds, (SupportsFloat, SupportsIndex)):
        raise TypeError(f"{name} must be a number of seconds, not {type(seconds).__name__}")
    seconds = float(seconds)
    if not seconds > 0:
        raise ValueError(f"{name} must be greater than 0 seconds, not {seconds:g}")
    return 0 if seconds > _LONGEST else max(1, round(seconds * 1e9))
