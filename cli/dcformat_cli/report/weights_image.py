"""The pictures of a layer's weights, side by side as one PNG image."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from math import ceil, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat_cli.report.numbers import Floats

Pixels = npt.NDArray[np.uint8]

#: Colours that are readable on white and on black: of positive and of negative weights, and of the background.
_POSITIVE, _NEGATIVE, _BACK = (0xD8, 0x68, 0x2C), (0x3B, 0x82, 0xD0), (0x80, 0x80, 0x80, 0x26)


def montage(tiles: Floats, ratio: float = 2.0) -> str:
    """Return pictures in rows as a ``data:`` URL.

    Parameters
    ----------
    tiles : float64 array
        ``(tiles, height, width)``: weights, drawn in a colour for their sign, the stronger the larger they are. Or
        ``(tiles, height, width, 3)``: weights of red, green and blue.
    ratio : float
        Approximate ratio of the width of the image to its height.
    """
    pixels = _colours(tiles) if tiles.ndim == 4 else _signs(tiles)
    count, height, width, _ = pixels.shape
    columns = min(count, max(1, ceil(sqrt(ratio * count * height / width))))
    rows = -(-count // columns)
    gap = 1 if count > 1 else 0
    out = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8)
    for number, tile in enumerate(pixels):
        row, column = divmod(number, columns)
        out[row * (height + gap) :, column * (width + gap) :][:height, :width] = tile
    return _png(out)


def _signs(tiles: Floats) -> Pixels:
    largest = np.abs(tiles).max(initial=0) or 1.0
    out = np.empty((*tiles.shape, 4), np.uint8)
    out[...] = _BACK
    for colour, there in ((_POSITIVE, tiles > 0), (_NEGATIVE, tiles < 0)):
        out[there, :3] = colour
        out[there, 3] = np.round(70 + 185 * np.sqrt(np.abs(tiles[there]) / largest))
    return out


def _colours(tiles: Floats) -> Pixels:
    largest = np.abs(tiles).max(axis=(1, 2, 3), keepdims=True)
    scaled = tiles / np.where(largest > 0, largest, 1)
    out = np.full((*tiles.shape[:3], 4), 255, np.uint8)
    out[..., :3] = np.round(127.5 + 127.5 * scaled)
    return out


def _png(pixels: Pixels) -> str:
    from matplotlib.image import imsave

    file: Any = BytesIO()
    imsave(file, pixels, format="png")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
