"""Stored values as numbers that can be counted and drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

#: Floats of eight bits: bits of the exponent, its bias, and the bit patterns that are not a number.
_EIGHT_BITS = {
    "float8_e4m3fn": (4, 7, (0x7F, 0xFF)),
    "float8_e5m2": (5, 15, (0x7C, 0x7D, 0x7E, 0x7F, 0xFC, 0xFD, 0xFE, 0xFF)),
    "float8_e4m3fnuz": (4, 8, (0x80,)),
    "float8_e5m2fnuz": (5, 16, (0x80,)),
}


def numbers(values: Array, dtype: str, scale: float = 1.0) -> Floats:
    """Return values that a file stores as float64.

    Parameters
    ----------
    values : ndarray
        In ``STORAGE[dtype]``.
    dtype : str
        One of `dcformat.layout.DTYPES`. Complex numbers become their magnitudes.
    scale : float
        Of an int8 tensor.
    """
    if dtype in _EIGHT_BITS:
        table: Floats = _of_eight_bits(*_EIGHT_BITS[dtype])[values]
        return table
    with np.errstate(over="ignore", invalid="ignore"):  # infinities and signalling NaNs stay unchanged
        if dtype == "bfloat16":
            return (values.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
        if dtype == "float8_e8m0fnu":
            return np.where(values == 255, np.nan, np.exp2(values.astype(np.float64) - 127))
        real = np.abs(values) if dtype == "complex64" else values
        return np.asarray(real, np.float64) * scale


def _of_eight_bits(exponent_bits: int, bias: int, missing: tuple[int, ...]) -> Floats:
    """Return the number of each bit pattern."""
    patterns, mantissa_bits = np.arange(256), 7 - exponent_bits
    exponents = (patterns >> mantissa_bits) & ((1 << exponent_bits) - 1)
    fractions = (patterns & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    sizes = np.where(exponents > 0, 1 + fractions, fractions) * np.exp2(np.maximum(exponents, 1) - bias)
    out = np.where(patterns < 128, sizes, -sizes)
    out[list(missing)] = np.nan
    return np.asarray(out, np.float64)
