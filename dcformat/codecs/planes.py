"""Values as planes of bytes, highest plane first (spec, "Planes").

A float is rotated left by one bit first, so that its highest plane holds nothing but exponent bits and the sign joins
the lowest bits of the mantissa. A signed integer of more than one byte becomes 2 x, or -2 x - 1 if it is negative, so
that small magnitudes leave the high planes zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.jit import kernel, lacks_compiler
from dcformat.model import STORAGE

Array = npt.NDArray[Any]
Plane = npt.NDArray[np.uint8]

_ROTATED = ("float32", "float16", "bfloat16", "float64", "complex64")
_FOLDED = ("int16", "int32", "int64")
#: A complex number is two float32 values, each with planes of its own.
_UNITS_EACH = {"complex64": 2}


def units_of(dtype: str) -> tuple[int, int]:
    """Return how many units a value has, and the bytes of a unit, which is the number of planes."""
    each = _UNITS_EACH.get(dtype, 1)
    return each, STORAGE[dtype].itemsize // each


def split(values: Array, dtype: str) -> list[Plane]:
    """Return the planes of values."""
    size = units_of(dtype)[1]
    bits = np.ascontiguousarray(values).view(f"<u{size}")
    top = 8 * size - 1
    if dtype in _ROTATED:
        bits = bits << 1 | bits >> top
    elif dtype in _FOLDED:
        bits = bits << 1 ^ (0 - (bits >> top))
    columns = bits.view(np.uint8).reshape(-1, size)
    return [np.ascontiguousarray(columns[:, byte]) for byte in range(size - 1, -1, -1)]


def join(planes: Sequence[Plane | int], dtype: str, out: Array) -> None:
    """Put values into `out`, an array of ``STORAGE[dtype]``, from their planes; an integer stands for equal bytes."""
    size = units_of(dtype)[1]
    bits = out.view(f"<u{size}")
    fused = _FUSED.get(size)
    if fused is not None and dtype in _ROTATED and not lacks_compiler(fused):
        fused(*(np.full(len(bits), plane, np.uint8) if isinstance(plane, int) else plane for plane in planes), bits)
        return
    bits[:] = planes[0]
    for plane in planes[1:]:
        bits <<= 8
        bits |= plane
    if dtype in _ROTATED:
        bits[:] = bits >> 1 | bits << (8 * size - 1)
    elif dtype in _FOLDED:
        bits[:] = bits >> 1 ^ (0 - (bits & 1))


def _work(out: Array) -> int:
    return 2 * len(out) + 10


@kernel("void(const uint8[::1], const uint8[::1], uint16[::1])", work=_work)
def _join2(high, low, out):  # type: ignore[no-untyped-def]
    for index in range(len(out)):
        bits = np.int64(high[index]) << 8 | np.int64(low[index])
        out[index] = (bits >> 1 | bits << 15) & 65535


@kernel("void(const uint8[::1], const uint8[::1], const uint8[::1], const uint8[::1], uint32[::1])", work=_work)
def _join4(first, second, third, last, out):  # type: ignore[no-untyped-def]
    for index in range(len(out)):
        bits = np.int64(first[index]) << 24 | np.int64(second[index]) << 16
        bits |= np.int64(third[index]) << 8 | np.int64(last[index])
        out[index] = (bits >> 1 | bits << 31) & 4294967295


#: The kernel that joins the planes of a rotated value, by the bytes of a unit.
_FUSED = {2: _join2, 4: _join4}
