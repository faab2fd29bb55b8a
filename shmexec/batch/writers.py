"""Writes what the function has returned, and makes sure that it is on the disk."""

import json
import os
import shutil
from typing import Any

import numpy as np

from shmexec.batch.errors import NotWritten

FORMATS = ("npy", "npz", "json", "png", "jpg", "tif", "zarr")
AUTOMATIC = ("npy", "npz", "json")  # what `format_of` chooses from


def format_of(value: Any) -> str:
    """The format that suits a value."""
    if isinstance(value, np.ndarray):
        return "npy"
    if isinstance(value, np.generic):
        return "json" if value.dtype.kind in "biufU" else "npy"
    if isinstance(value, dict) and any(isinstance(one, np.ndarray) for one in value.values()):
        return "npz"
    if isinstance(value, (tuple, list)) and any(isinstance(one, np.ndarray) for one in value):
        return "npz"
    return "json"


def write(value: Any, kind: str, path: str) -> int:
    """Bytes written to `path`, which nobody else looks at yet; they are on the disk when this returns.

    Raises
    ------
    NotWritten
        If such a value cannot be written so.
    OSError
        If the disk is full, or the like.
    """
    try:
        if kind == "zarr":
            return _write_store(_array(value), path)
        with open(path, "wb") as file:
            _write(value, kind, file)
            file.flush()
            os.fsync(file.fileno())
            return file.tell()
    except (TypeError, ValueError, KeyError) as error:
        says = " ".join(str(error).split())
        raise NotWritten(f"its result, of type {type(value).__name__}, cannot be written as .{kind}: {says}")


def remove(path: str) -> None:
    """A file or a store, if it is there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):
        if not os.path.isdir(path):
            raise
        shutil.rmtree(path)


def _write(value: Any, kind: str, file: Any) -> None:
    if kind == "npy":
        np.lib.format.write_array(file, _array(value), allow_pickle=False)
    elif kind == "npz":
        named = value if isinstance(value, dict) else dict(_numbered(value))
        np.savez(file, allow_pickle=False, **{str(name): _array(one) for name, one in named.items()})
    elif kind == "json":
        file.write(json.dumps(value, default=_plain, indent=1).encode() + b"\n")
    elif kind == "tif":
        try:
            import tifffile
        except ImportError:
            _write_image(value, "TIFF", file)
        else:
            tifffile.imwrite(file, _array(value))
    else:
        _write_image(value, {"png": "PNG", "jpg": "JPEG"}[kind], file)


def _numbered(value: Any) -> list[tuple[str, Any]]:
    return [(f"arr_{i}", one) for i, one in enumerate(value if isinstance(value, (tuple, list)) else [value])]


def _array(value: Any) -> Any:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError("the mask would be lost; return a.filled(...), or a dict of data and mask")
    array = np.asarray(value)
    if array.dtype.hasobject or array.dtype.kind not in "biufcmMSUV":
        raise TypeError("it holds Python objects")
    return array


def _plain(value: Any) -> Any:
    """NumPy's numbers, and small arrays in lists of numbers."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError("return an array, a dict of arrays, numbers or text, or None")


def _write_image(value: Any, kind: str, file: Any) -> None:
    from PIL import Image

    Image.fromarray(np.ascontiguousarray(_array(value))).save(file, kind)


def _write_store(array: Any, path: str) -> int:
    import zarr

    made: Any = zarr.open(path, mode="w", shape=array.shape, dtype=array.dtype)
    made[...] = array
    written = 0
    for folder, _, names in os.walk(path):
        for name in names:
            descriptor = os.open(os.path.join(folder, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
                written += os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
    return written
