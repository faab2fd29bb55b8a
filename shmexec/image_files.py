"""Reads files of one array: .npy, and pictures, as they are. Pillow and tifffile are imported when they are needed."""

import importlib.util
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_npy(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Raises what NumPy does; ValueError for what would have to be unpickled."""
    with open(path, "rb") as file:  # not np.load: it takes what is not .npy for a pickle, and says so
        return np.lib.format.read_array(file, allow_pickle=False)


def read_tiff(path: str | os.PathLike[str]) -> NDArray[Any]:
    """All pages, by tifffile if it is there. Raises anything at all."""
    if not importlib.util.find_spec("tifffile"):
        return read_picture(path)
    import tifffile

    try:
        array: NDArray[Any] = tifffile.imread(path)
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        return read_picture(path)  # compressed: Pillow brings the usual decoders along
    return array


def read_picture(path: str | os.PathLike[str]) -> NDArray[Any]:
    """By Pillow; colours as red, green and blue. Raises anything at all, SyntaxError and struct.error included."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # what Pillow calls a decompression bomb is a large photograph here, or a scan
    with Image.open(path) as image:
        if image.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
            return np.array(image.convert("RGB"))
        return np.array(image)
