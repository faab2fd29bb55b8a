"""What the peers' workers run: functions that can be imported, and know nothing of how their arguments came."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def nothing(x: Any) -> Any:
    """The shortest call."""
    return x


def busy(seconds: float) -> None:
    """A call that computes for so long."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def look(a: Array) -> float:
    """An array in: one look at it, so that what costs is the way."""
    return float(a[0] + a[-1])


def make(size: int) -> Array:
    """An array out."""
    return np.ones(size // 8)


def double(a: Array) -> Array:
    """An array in and one out."""
    return a * 2


def look_inside(nested: dict[str, Any]) -> float:
    """Arrays in a dict of lists."""
    return float(sum(look(a) for a in nested["arrays"]))


def import_pandas(x: Any) -> None:
    """What a worker does once in its life."""
    import pandas  # noqa: F401


def total_of_frame(frame: Any) -> float:
    """A pandas.DataFrame in."""
    return float(frame.iloc[0].sum())


# ---- real work -----------------------------------------------------------------------------------


def background(frame: Array, dark: Array) -> Array:
    """First step of a picture stack: the dark frame and the sky come off."""
    difference: Array = frame - dark
    difference -= difference.mean()
    return difference


def smooth(frame: Array) -> Array:
    """Second step: a running mean over 9 x 9 pixels."""
    for axis in (0, 1):
        summed = np.cumsum(frame, axis=axis, dtype=frame.dtype)
        frame = summed - np.roll(summed, 9, axis=axis)
    return frame


def normalise(frame: Array, reference: Array) -> Array:
    """Third step: to the brightness of a reference."""
    scaled: Array = frame * (reference.std() / frame.std())
    return scaled


def price(seed: int, paths: int) -> float:
    """Monte Carlo: the mean pay-off of an option over so many random walks."""
    walks = np.random.default_rng(seed).standard_normal((paths, 64)).sum(axis=1)
    return float(np.maximum(np.exp(0.02 * walks) - 1, 0).mean())


def spectrum(window: Array) -> Array:
    """The power spectrum of one window of a time series."""
    power: Array = np.abs(np.fft.rfft(window * np.hanning(len(window)))) ** 2
    return power


def spectrum_at(series: Array, begin: int, length: int) -> Array:
    """The same, of a window that the worker cuts out."""
    return spectrum(series[begin : begin + length])
