"""`report_progress`: what a task says of how far it has come. Its future and the bar of its map show it."""

import math
from typing import SupportsFloat

from shmexec import _core


def report_progress(fraction_or_text: SupportsFloat | str, /) -> None:
    """Say how far the present call has come.

    The caller sees it as `future.progress`, or on the bar of its ``map(..., progress=True)``. A report costs about a
    microsecond and wakes nobody: who wants to know looks. Outside a call of a pool nothing happens.

    Parameters
    ----------
    fraction_or_text : float or str
        From 0 to 1, or a text, of which the first 152 bytes (UTF-8) are kept. Each leaves the other as it was.

    Raises
    ------
    TypeError, ValueError
        If it is neither.

    Examples
    --------
    >>> def solve(problem):
    ...     for step in range(1000):
    ...         shmexec.report_progress(step / 1000)
    """
    if isinstance(fraction_or_text, str):
        _core.running.report(0.0, fraction_or_text)
        return
    try:
        fraction = float(fraction_or_text)
    except (TypeError, ValueError):
        raise TypeError(
            f"progress is a fraction from 0 to 1 or a text, not {type(fraction_or_text).__name__}"
        ) from None
    if not 0.0 <= fraction <= 1.0 or math.isnan(fraction):
        raise ValueError(f"progress is a fraction from 0 to 1, not {fraction}")
    _core.running.report(fraction, None)
