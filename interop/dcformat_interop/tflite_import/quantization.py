"""Quantised integers: their scales and zero points, and the numbers that they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import Shape
from dcformat_interop.refusals import UnfitError
from dcformat_interop.tflite_import.flatbuffer import Table

Array = npt.NDArray[Any]

#: The integers that activations of a dtype may have.
RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "int4": (-8, 7)}

#: Dtypes of which tensors may be quantised.
_QUANTIZED = (*RANGES, "int32", "int64", "uint4", "int2")

#: The kinds of details that say more than scales and zero points.
_NO_DETAILS = 0


@dataclass(frozen=True, slots=True, eq=False)
class Quantization:
    """An integer q stands for ``scale * (q - zero_point)``.

    Attributes
    ----------
    scales : float32 ndarray
        One for all elements, or one for each position along `axis`.
    zero_points : int64 ndarray
        As many.
    axis : int
    """

    scales: Array
    zero_points: Array
    axis: int

    @property
    def for_all(self) -> tuple[float, int] | None:
        """The scale and the zero point of all elements, or None if they differ."""
        if len(self.scales) != 1:
            return None
        return float(self.scales[0]), int(self.zero_points[0])

    def same(self, other: Quantization | None) -> bool:
        """Return whether integers stand for the same numbers."""
        return other is not None and self.for_all is not None and self.for_all == other.for_all

    def numbers(self, integers: Array) -> Array:
        """Return the numbers that integers stand for, rounded to float32 once."""
        scales, zeros = self.scales, self.zero_points
        if len(scales) > 1:
            shape = [-1 if axis == self.axis else 1 for axis in range(integers.ndim)]
            scales, zeros = scales.reshape(shape), zeros.reshape(shape)
        whole = integers.astype(np.float64) - zeros
        with np.errstate(over="ignore"):
            product: Array = (whole * scales.astype(np.float64)).astype(np.float32)
        return product


def read_quantization(path: str, what: str, table: Table, dtype: str, shape: Shape) -> Quantization | None:
    """Return how a tensor is quantised, or None if it is not.

    Raises
    ------
    UnfitError
        Scales or zero points do not fit the tensor.
    """
    scales, zeros = table.array(2, "f4"), table.array(3, "i8")
    if scales is None or not scales.size or dtype not in _QUANTIZED:
        return None
    if table.number(4, "B") != _NO_DETAILS:
        raise UnfitError(path, "scales for the tensor or its channels", "quantisation of another kind", what)
    axis = table.number(6, "i")
    table.buffer.count(12 * scales.size, what)
    if zeros is None or not zeros.size:
        zeros = np.zeros(1, np.int64)
    if scales.size > 1 and (not 0 <= axis < len(shape) or scales.size != shape[axis]):
        raise UnfitError(path, f"a scale for each position along dimension {axis} of {shape}", scales.size, what)
    if zeros.size not in (1, scales.size):
        raise UnfitError(path, f"{scales.size} zero points", zeros.size, what)
    if not (np.isfinite(scales) & (scales > 0)).all():
        raise UnfitError(path, "finite scales above 0", scales[~(np.isfinite(scales) & (scales > 0))][0], what)
    low, high = RANGES.get(dtype, (-(1 << 31), (1 << 31) - 1))
    if zeros.min() < low or zeros.max() > high:
        raise UnfitError(path, f"zero points from {low} to {high}", f"{zeros.min()} to {zeros.max()}", what)
    return Quantization(scales.astype(np.float32), np.broadcast_to(zeros, scales.shape).astype(np.int64), axis)
