"""Converts the inputs of a session to float32 rows, and refuses everything else."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from dcformat.graph import Shape
    from dcformat_runtime.weight_matrices import Floats

_FLOAT32 = np.dtype(np.float32)
_UINT8 = np.dtype(np.uint8)


class InputError(ValueError):
    """The network does not take an input of this name, shape or dtype.

    Attributes
    ----------
    name : str or None
        The input, if the error is about one of several.
    """

    def __init__(self, message: str, name: str | None = None) -> None:
        super().__init__(message)
        self.name = name


class Inputs:
    """The inputs that a network takes; one input has `features` numbers.

    Parameters
    ----------
    shape : tuple of int
        The shape of one input.
    pixels : ndarray or None
        Float32 of each uint8 pixel value, ``(channels or 1, 256)``; None without preprocessing.
    """

    def __init__(self, shape: Shape, pixels: Floats | None) -> None:
        self._shape, self._pixels = shape, pixels
        self.features = prod(shape)

    def check(self, x: npt.NDArray[Any]) -> None:
        """Refuse inputs that the network does not take.

        Parameters
        ----------
        x : ndarray
            float32 (already preprocessed) or uint8 pixels: ``(batch, *input_shape)``, ``(batch, features)`` or,
            for one channel, ``(batch, height, width)``.

        Raises
        ------
        InputError
            `x` has another shape or dtype, or is uint8 although the file has no preprocessing.
        """
        if not isinstance(x, np.ndarray):
            raise InputError(f"input: expected a NumPy array of {self._wanted()}, found {type(x).__name__}")
        if not x.ndim or (x.shape[1:] != self._shape and not self._fits(x.shape)):
            raise InputError(f"input shape: expected {self._wanted()}, found {x.shape}")
        if x.dtype != _FLOAT32 and (x.dtype != _UINT8 or self._pixels is None):
            kinds = "float32" if self._pixels is None else "float32 or uint8"
            more = " (the file has no preprocessing for uint8)" if x.dtype == _UINT8 else ""
            raise InputError(f"input dtype: expected {kinds}, found {x.dtype}{more}")

    def rows(self, x: npt.NDArray[Any]) -> Floats:
        """Return checked inputs as C-contiguous, aligned float32 ``(batch, features)``, copied only if necessary."""
        if x.dtype == _UINT8 and self._pixels is not None:
            return _preprocess(x, self._pixels, self._shape)
        if not x.flags.carray:
            x = np.require(x, requirements=["C", "A"])
        return x.reshape(len(x), self.features)

    def _fits(self, shape: tuple[int, ...]) -> bool:
        expected, inner = self._shape, shape[1:]
        if inner == (self.features,):
            return True
        if len(expected) == 1:
            return prod(inner) == expected[0] and len(inner) > 1
        return expected[:1] == (1,) and inner == expected[1:]

    def _wanted(self) -> str:
        from dcformat.wording import shaped  # for errors alone

        text = shaped((None, *self._shape))
        return text if len(self._shape) == 1 else f"{text} or (batch, {self.features})"


def _preprocess(x: npt.NDArray[Any], pixels: Floats, shape: Shape) -> Floats:
    """Look up every pixel in its channel's table."""
    n = len(x)
    if len(pixels) == 1:
        return np.asarray(pixels[0].take(x.reshape(n, prod(shape))))
    planes = x.reshape(n, shape[0], prod(shape[1:]))
    out = np.empty(planes.shape, np.float32)
    for channel, table in enumerate(pixels):
        out[:, channel] = table.take(planes[:, channel])
    return out.reshape(n, prod(shape))
