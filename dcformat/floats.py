"""Values as bit patterns: their order, their numbers, and whether they are finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

#: dtype -> bits of a value, and of its exponent. An int8 has no parts: all its bits count as exponent.
WIDTHS = {"float32": (32, 8), "float16": (16, 5), "bfloat16": (16, 8), "int8": (8, 8)}


def bit_patterns(values: Array) -> Array:
    """View values as unsigned integers, so that negative zero counts as a value."""
    return values.view(f"<u{values.dtype.itemsize}")


def as_numbers(values: Array, dtype: str) -> Array:
    """Return values that compare as numbers: the bit patterns of bfloat16 become float32."""
    return (values.astype("<u4") << 16).view("<f4") if dtype == "bfloat16" else values


def patterns(values: Array) -> Integers:
    """Return the bit patterns of values as int64."""
    return bit_patterns(values).astype(np.int64)


def ranks(values: Array, dtype: str) -> Integers:
    """Return integers that sort as the values do (negative zero before zero)."""
    bits, (width, _) = patterns(values), WIDTHS[dtype]
    if dtype == "int8":
        return bits ^ 128
    half = 1 << (width - 1)
    return bits ^ (half | -(bits >> (width - 1)) & (half - 1))


def negatives(codebook: Array | None) -> int:
    """Return how many of a codebook's ascending values have the sign bit set; 0 without a codebook."""
    if codebook is None:
        return 0
    return int((bit_patterns(codebook) >> (8 * codebook.dtype.itemsize - 1)).sum())


def finite(values: Array, dtype: str) -> bool:
    """Return whether all values are finite: neither infinite nor NaN."""
    width, exponent = WIDTHS[dtype]
    if dtype == "int8":
        return True
    unit = bit_patterns(values)
    mask = unit.dtype.type(((1 << exponent) - 1) << (width - 1 - exponent))
    return not bool(((unit & mask) == mask).any())
