"""Sizes and times as people read them."""

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")
_DECIMAL = ("bytes", "kB", "MB", "GB", "TB")


def binary_size(count: float) -> str:
    """Memory."""
    return _scaled(count, 1024, _BINARY)


def decimal_size(count: float) -> str:
    """Files, and what is read of them in a second."""
    return _scaled(count, 1000, _DECIMAL)


def _scaled(count: float, step: int, units: tuple[str, ...]) -> str:
    at = 0
    while count >= step and at < len(units) - 1:
        count /= step
        at += 1
    return f"{count:.0f} {units[at]}" if count >= 100 or not at else f"{count:.1f} {units[at]}"


def clock(seconds: float) -> str:
    """Short times in ms or s, long ones as a clock shows them."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
