"""Reads a file: what the function is given."""

import importlib.util
import os
from typing import Any

import numpy as np

from shmexec.batch.errors import NotRead
from shmexec.image_files import read_npy, read_picture, read_tiff

STORE = ".zarr"
_TIFF = (".tif", ".tiff")
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm")
_KNOWN = (".npy", ".npz", *_IMAGES, *_TIFF, STORE)


def ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def is_known(path: str) -> bool:
    return ending(path) in _KNOWN


def is_store(path: str) -> bool:
    """Whether a folder is a zarr array or group."""
    return any(os.path.exists(os.path.join(path, name)) for name in ("zarr.json", ".zarray", ".zgroup"))


def missing_for(suffix: str) -> str | None:
    """What has to be installed to read or write such a file, as a command; None: nothing."""
    if suffix == STORE:
        return None if importlib.util.find_spec("zarr") else 'pip install "shmexec[zarr]"'
    if suffix in _TIFF and importlib.util.find_spec("tifffile"):
        return None
    if suffix in (*_IMAGES, *_TIFF):
        return None if importlib.util.find_spec("PIL") else 'pip install "shmexec[images]"'
    return None


def read(path: str) -> Any:
    """An array; for a .npz file or a zarr group a dict of them.

    Raises
    ------
    NotRead
        The message says why. (Image readers raise anything at all, SyntaxError and struct.error included.)
    """
    suffix = ending(path)
    if os.path.isdir(path) and not is_store(path):
        raise NotRead("is a folder, not a file")
    if not os.path.isdir(path) and os.path.exists(path) and not os.path.isfile(path):
        raise NotRead("is not a regular file")  # to open a named pipe would wait for ever
    if suffix not in _KNOWN and not is_store(path):
        raise NotRead(f"is not of a kind that is read: {', '.join(_KNOWN)}")
    try:
        if suffix == ".npy":
            return read_npy(path)
        if suffix == ".npz":
            return _read_npz(path)
        if is_store(path):
            return _read_store(path)
        return read_tiff(path) if suffix in _TIFF else read_picture(path)
    except MemoryError as error:
        raise NotRead(f"does not fit in memory: {error}")
    except OSError as error:
        raise NotRead(f"cannot be read: {error.strerror or error}")
    except Exception as error:
        raise NotRead(f"cannot be read: {' '.join(str(error).split()) or type(error).__name__}")


def _read_npz(path: str) -> dict[str, Any]:
    import zipfile

    if os.path.exists(path) and not zipfile.is_zipfile(path):
        raise NotRead("cannot be read: not an .npz archive")
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _read_store(path: str) -> Any:
    import zarr

    found = zarr.open(path, mode="r")
    if isinstance(found, zarr.Array):
        return np.asarray(found[...])
    return {name: np.asarray(array[...]) for name, array in found.arrays()}
