"""The pipeline of the demo: plain NumPy and SciPy functions, unaware of the executor that calls them.

    picture --denoise--> colour --balance--> colour --local_contrast--> grey
            --edges--> grey --drawing--> grey picture --summarise--> Summary

A picture is height x width x 3, uint8 or float32 in 0..1; `colour` is float32, height x width x 3, about
0..1; `grey` is float32, height x width. No step writes into its argument: others may be using that array.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

THUMBNAIL_SIDE = 320  # pixels, of the longer side, at most


@dataclass(frozen=True, eq=False)
class Summary:
    """What is kept of a finished picture: the share of ink, a histogram of 64 bins, a thumbnail."""

    ink: float
    histogram: NDArray[np.int64]
    thumbnail: NDArray[np.uint8]


def denoise(picture: NDArray[Any]) -> NDArray[np.float32]:
    """Box mean over 3 x 3 pixels, as float32 in 0..1."""
    scale = np.float32(255 if picture.dtype == np.uint8 else 1)
    smooth: NDArray[np.float32] = ndimage.uniform_filter(picture, size=(3, 3, 1), output=np.float32)
    smooth /= scale
    return smooth


def balance(colour: NDArray[np.float32]) -> NDArray[np.float32]:
    """Grey-world white balance (Buchsbaum 1980): every channel gets the same mean."""
    means = colour.mean(axis=(0, 1), dtype=np.float64)
    gains = means.mean() / np.maximum(means, 1e-6)
    balanced: NDArray[np.float32] = colour * gains.astype(np.float32)
    return balanced


def local_contrast(colour: NDArray[np.float32]) -> NDArray[np.float32]:
    """Luminance less its mean over 31 x 31 pixels, divided by its standard deviation there."""
    grey = luminance(colour)
    mean = ndimage.uniform_filter(grey, size=31)
    variance = ndimage.uniform_filter(grey * grey, size=31) - mean * mean
    deviation = np.sqrt(np.maximum(variance, 0, out=variance), out=variance)
    normalised: NDArray[np.float32] = (grey - mean) / (deviation + np.float32(0.05))
    return normalised


def edges(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gradient magnitude, by Sobel's operator."""
    magnitude: NDArray[np.float32] = np.hypot(ndimage.sobel(grey, axis=0), ndimage.sobel(grey, axis=1))
    return magnitude


def drawing(gradient: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Edges as dark lines on white paper; the strongest 2 % are black."""
    black = max(float(np.percentile(gradient, 98)), 1e-6)
    paper = 255 * (1 - np.minimum(gradient / np.float32(black), 1))
    drawn: NDArray[np.uint8] = paper.astype(np.uint8)
    return drawn


def summarise(picture: NDArray[np.uint8]) -> Summary:
    """The small answer that a batch job keeps."""
    histogram = np.bincount(picture.ravel() >> 2, minlength=64)
    ink = 1 - float(np.dot(histogram, np.arange(64))) / (63 * picture.size)
    return Summary(ink, histogram, thumbnail(picture))


STEPS: tuple[Callable[[Any], Any], ...] = (denoise, balance, local_contrast, edges, drawing, summarise)


def luminance(colour: NDArray[np.float32]) -> NDArray[np.float32]:
    """ITU-R BT.709. Not by `@`: BLAS need not sum in the same order everywhere, and results must be equal."""
    red, green, blue = np.float32(0.2126), np.float32(0.7152), np.float32(0.0722)
    grey: NDArray[np.float32] = red * colour[:, :, 0] + green * colour[:, :, 1] + blue * colour[:, :, 2]
    return grey


def thumbnail(picture: NDArray[Any]) -> NDArray[np.uint8]:
    """Means of equal boxes; at most THUMBNAIL_SIDE pixels on the longer side, channels kept."""
    height, width = picture.shape[:2]
    box = -(-max(height, width) // THUMBNAIL_SIDE)
    box_height, box_width = min(box, height), min(box, width)
    rows, columns = height // box_height, width // box_width
    boxes = picture[: rows * box_height, : columns * box_width].reshape(
        rows, box_height, columns, box_width, *picture.shape[2:]
    )
    means: NDArray[np.float32] = boxes.mean(axis=(1, 3), dtype=np.float32)
    if picture.dtype != np.uint8:
        means = means * 255
    return np.clip(means, 0, 255).astype(np.uint8)


def get_ready(seconds: float) -> None:
    """Nothing, for a while: makes every worker start and import this module before the clock runs."""
    time.sleep(seconds)
