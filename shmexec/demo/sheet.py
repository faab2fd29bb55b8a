"""Draws the contact sheet: each picture beside its result, with its name below."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from shmexec.demo.pipeline import THUMBNAIL_SIDE

_MARGIN = 12  # pixels
_CAPTION = 18
_PAIRS_IN_A_ROW = 2
_PAPER, _INK = (250, 250, 248), (40, 40, 40)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two thumbnails, height x width or height x width x 3, uint8, at most THUMBNAIL_SIDE on a side."""

    name: str
    original: NDArray[np.uint8]
    result: NDArray[np.uint8]


def write_contact_sheet(pairs: Sequence[Pair], path: Path) -> None:
    """As PNG, whatever the file's suffix. Raises OSError if it cannot be written."""
    pair_width = 2 * THUMBNAIL_SIDE + 2 * _MARGIN
    rows = [pairs[start : start + _PAIRS_IN_A_ROW] for start in range(0, len(pairs), _PAIRS_IN_A_ROW)]
    heights = [max(max(p.original.shape[0], p.result.shape[0]) for p in row) for row in rows]
    width = _MARGIN + pair_width * min(len(pairs), _PAIRS_IN_A_ROW)
    height = _MARGIN + sum(h + _CAPTION + _MARGIN for h in heights)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _MARGIN
    for row, row_height in zip(rows, heights, strict=True):
        for column, pair in enumerate(row):
            left = _MARGIN + column * pair_width
            sheet.paste(_image(pair.original), (left, top))
            sheet.paste(_image(pair.result), (left + THUMBNAIL_SIDE + _MARGIN, top))
            caption = pair.name.encode("ascii", "replace").decode()  # the built-in font has no more than that
            draw.text((left, top + row_height + 3), caption[:90], fill=_INK)
        top += row_height + _CAPTION + _MARGIN
    sheet.save(path, format="PNG")


def _image(thumbnail: NDArray[np.uint8]) -> Any:
    return Image.fromarray(thumbnail).convert("RGB")
