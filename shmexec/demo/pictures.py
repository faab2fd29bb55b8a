"""Finds the pictures, reads them, and brings each to height x width x 3 of at least the wanted size."""

import importlib.util
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shmexec.image_files import read_npy, read_picture, read_tiff

PHOTOGRAPHS = (  # colour, and in scikit-image's wheel itself: its others would have to be downloaded
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
    "retina.jpg",
    "ihc.png",
)
SUFFIXES = (".npy", ".npz", ".png", ".jpg", ".jpeg", ".tif", ".tiff")


@dataclass(frozen=True)
class Picture:
    """`pixels` is height x width x 3, uint8, or float32 in 0..1."""

    name: str
    pixels: NDArray[Any]


@dataclass(frozen=True)
class Problem:
    """A file, or an array in it, that is not done, and why."""

    name: str
    reason: str


class NoPictures(Exception):
    """There is nothing to start with; the message says why."""


class _NotAPicture(Exception):
    pass


def load(folder: Path | None, megapixels: float, at_most: int) -> tuple[list[Picture], list[Problem]]:
    """Pictures from the user's folder, or scikit-image's photographs if it is None; and what cannot be.

    Reading stops when there are enough. Raises NoPictures if the folder is missing, unreadable or empty.
    """
    pictures: list[Picture] = []
    problems: list[Problem] = []
    for path in _photographs() if folder is None else _files_in(folder):
        if path.suffix.lower() not in SUFFIXES:
            problems.append(Problem(path.name, f"is not of a kind that is read: {', '.join(SUFFIXES)}"))
        elif path.exists() and not path.is_file():  # to open a named pipe would wait for ever
            problems.append(Problem(path.name, "is not a regular file"))
        elif len(pictures) < at_most:
            _load_file(path, megapixels, at_most - len(pictures), pictures, problems)
    return pictures, problems


def _photographs() -> list[Path]:
    spec = importlib.util.find_spec("skimage")
    assert spec is not None  # the command has looked
    folders = [Path(location, "data") for location in spec.submodule_search_locations or ()]
    found = [folder / name for name in PHOTOGRAPHS for folder in folders if (folder / name).is_file()]
    if not found:
        raise NoPictures("no photographs found inside scikit-image; give a folder of your own with --input")
    return found


def _files_in(folder: Path) -> list[Path]:
    if not folder.exists():
        raise NoPictures(f"there is no folder {folder}")
    if not folder.is_dir():
        raise NoPictures(f"{folder} is not a folder")
    try:
        files = sorted(p for p in folder.iterdir() if not p.name.startswith(".") and not p.is_dir())
    except OSError as error:
        raise NoPictures(f"the folder {folder} cannot be read: {error.strerror}")
    if not files:
        raise NoPictures(f"the folder {folder} holds no files")
    return files


def _load_file(path: Path, megapixels: float, at_most: int, pictures: list[Picture], problems: list[Problem]) -> None:
    wanted = len(pictures) + at_most
    try:
        for name, read in _arrays_in(path):
            if len(pictures) == wanted:
                return
            try:
                pictures.append(Picture(name, enlarged(as_picture(read()), megapixels)))
            except Exception as error:
                problems.append(Problem(name, _reason(error)))
    except Exception as error:  # image readers raise anything at all, SyntaxError and struct.error included
        problems.append(Problem(path.name, _reason(error)))


def _reason(error: Exception) -> str:
    if isinstance(error, _NotAPicture):
        return str(error)
    if isinstance(error, MemoryError):
        return f"does not fit in memory: {error}"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"cannot be read: {str(error) or type(error).__name__}"


def _arrays_in(path: Path) -> Iterator[tuple[str, Any]]:
    """(name, function that reads the array) for each picture in the file; more than one only in a .npz."""
    kind = path.suffix.lower()
    if kind == ".npz":
        yield from _arrays_in_npz(path)
    elif kind == ".npy":
        yield path.name, lambda: read_npy(path)
    elif kind in (".tif", ".tiff"):
        yield path.name, lambda: read_tiff(path)
    else:
        yield path.name, lambda: read_picture(path)


def _arrays_in_npz(path: Path) -> Iterator[tuple[str, Any]]:
    """Each array of two or three dimensions; others (exposure times, labels) are passed over."""
    if not zipfile.is_zipfile(path):
        raise _NotAPicture("is not an .npz archive")
    found = False
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            name = f"{path.name}: {key}"
            try:
                array = archive[key]
            except Exception as error:
                found = True
                yield name, _raiser(error)
                continue
            if array.ndim in (2, 3):
                found = True
                yield name, lambda array=array: array
    if not found:
        raise _NotAPicture("holds no array of two or three dimensions")


def _raiser(error: Exception) -> Any:
    def read() -> NDArray[Any]:
        raise error

    return read


def as_picture(values: NDArray[Any]) -> NDArray[Any]:
    """Height x width x 3, C order, uint8 or float32 in 0..1: grey is tripled, transparency dropped."""
    if values.dtype.kind not in "biuf":
        raise _NotAPicture(f"holds values of type {values.dtype}, which are not those of a picture")
    shape = values.shape
    if values.ndim == 2:
        values = values[:, :, None]
    elif values.ndim == 3 and shape[0] in (3, 4) and shape[2] > 4:
        values = np.moveaxis(values, 0, 2)  # planes first, as in many .tif files
    if values.ndim != 3 or values.shape[2] > 4 or values.size == 0:
        raise _NotAPicture(f"has the shape {shape}; a picture is height x width, or that x 1 to 4 channels")
    colour = values[:, :, :3] if values.shape[2] >= 3 else values[:, :, :1]
    if colour.dtype == np.bool_:
        colour = colour.astype(np.uint8) * np.uint8(255)
    elif colour.dtype != np.uint8:
        colour = _stretched(colour)
    return np.ascontiguousarray(np.broadcast_to(colour, (*colour.shape[:2], 3)))


def _stretched(values: NDArray[Any]) -> NDArray[np.float32]:
    """To 0..1, the smallest value at 0 and the largest at 1, since 16 bits may hold 12, and floats anything.

    Floats that lie in 0..1 already stay as they are. What is not finite becomes 0, or 1 for +inf.
    """
    wide = values.astype(np.float64)
    finite = np.isfinite(wide)
    if not finite.any():
        raise _NotAPicture("holds no finite value")
    low = float(np.min(wide, where=finite, initial=math.inf))
    high = float(np.max(wide, where=finite, initial=-math.inf))
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    wide /= 2  # so that the span of two huge numbers is not infinite
    wide -= low / 2
    wide /= (high / 2 - low / 2) or 1
    return np.nan_to_num(wide, copy=False, nan=0.0, posinf=1.0, neginf=0.0).astype(np.float32)


def enlarged(pixels: NDArray[Any], megapixels: float) -> NDArray[Any]:
    """At least so many million pixels, by bicubic interpolation; what is that large already stays."""
    height, width = pixels.shape[:2]
    factor = math.sqrt(megapixels * 1e6 / (height * width))
    if factor <= 1:
        return pixels
    size = math.ceil(width * factor), math.ceil(height * factor)
    if pixels.dtype == np.uint8:
        return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    larger = np.empty((size[1], size[0], 3), np.float32)
    for channel in range(3):  # Pillow has floats in one channel only
        plane = Image.fromarray(np.ascontiguousarray(pixels[:, :, channel]))
        larger[:, :, channel] = plane.resize(size, Image.Resampling.BICUBIC)
    return np.clip(larger, 0, 1, out=larger)
