"""What a caller hands to a session, made float32 rows; everything else is refused by name."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import Shape
from dcformat_runtime.network import Floats, Network

_FLOAT32 = np.dtype(np.float32)
_UINT8 = np.dtype(np.uint8)


class InputError(ValueError):
    """An input whose shape or dtype the network does not take."""


def rows(x: npt.NDArray[Any], network: Network) -> Floats:
    """Return `x` as C-contiguous, aligned float32 ``(batch, features)``; a copy only where one is needed.

    Parameters
    ----------
    x : ndarray
        float32 (already preprocessed) or uint8 pixels, ``(batch, *input_shape)``, ``(batch, features)``, or for one
        channel ``(batch, height, width)``.

    Raises
    ------
    InputError
        Another shape or dtype, or uint8 although the file has no preprocessing.
    """
    if not isinstance(x, np.ndarray):
        raise InputError(f"input: expected a NumPy array of {_wanted(network)}, found {type(x).__name__}")
    if not _fits(x.shape, network.input_shape):
        raise InputError(f"input shape: expected {_wanted(network)}, found {x.shape}")
    if x.dtype == _FLOAT32:
        return np.require(x, requirements="CA").reshape(len(x), prod(network.input_shape))
    if x.dtype == _UINT8 and network.pixels is not None:
        return _preprocess(x, network.pixels, network.input_shape)
    kinds = "float32" if network.pixels is None else "float32 or uint8"
    more = " (the file has no preprocessing for uint8)" if x.dtype == _UINT8 else ""
    raise InputError(f"input dtype: expected {kinds}, found {x.dtype}{more}")


def _fits(shape: tuple[int, ...], expected: Shape) -> bool:
    if not shape:
        return False
    inner = shape[1:]
    if inner == expected or inner == (prod(expected),):
        return True
    if len(expected) == 1:
        return prod(inner) == expected[0] and len(inner) > 1
    return expected[0] == 1 and inner == expected[1:]


def _wanted(network: Network) -> str:
    shape = network.input_shape
    text = f"(batch, {', '.join(map(str, shape))})"
    return text if len(shape) == 1 else f"{text} or (batch, {prod(shape)})"


def _preprocess(x: npt.NDArray[Any], pixels: Floats, shape: Shape) -> Floats:
    """Look every pixel up in its channel's table."""
    n = len(x)
    if len(pixels) == 1:
        return pixels[0].take(x.reshape(n, -1))
    planes = x.reshape(n, shape[0], -1)
    out = np.empty(planes.shape, np.float32)
    for channel, table in enumerate(pixels):
        out[:, channel] = table.take(planes[:, channel])
    return out.reshape(n, -1)
