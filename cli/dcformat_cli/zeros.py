"""Values near zero: negative zeros, which seldom mean anything, and denormals, which are slow to compute with."""

from __future__ import annotations

import numpy as np
from dcformat_interop import Dense

#: The largest denormal number's bits; a float16 is never denormal as float32, in which the runtime computes.
_LARGEST = {"float32": 0x007F_FFFF, "bfloat16": 0x007F}


def negative_zeros(dense: Dense) -> int:
    """Return how many elements are -0.0."""
    return 0 if dense.dtype == "int8" else int(np.count_nonzero(_negative(dense)))


def positive(dense: Dense) -> Dense:
    """Return the tensor with each -0.0 replaced by +0.0."""
    return Dense(dense.dtype, np.where(_negative(dense), dense.values.dtype.type(0), dense.values), dense.scale)


def denormals(dense: Dense) -> int:
    """Return how many elements are denormal as float32."""
    if dense.dtype not in _LARGEST:
        return 0
    bits = _bits(dense).reshape(-1)
    one, largest = bits.dtype.type(1), bits.dtype.type(_LARGEST[dense.dtype])
    magnitudes = bits << one >> one
    return int(np.count_nonzero(magnitudes - one < largest))  # Zero wraps around to the largest number.


def _negative(dense: Dense) -> np.ndarray:
    bits = _bits(dense)
    return np.asarray(bits == bits.dtype.type(1 << (8 * bits.itemsize - 1)))


def _bits(dense: Dense) -> np.ndarray:
    return dense.values.view(f"<u{dense.values.itemsize}")
