"""Numbers that are small multiples of one float32, the scale: a grid (spec, "Value streams")."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.codecs.rangecoder import Decoder, Encoder, code_adaptive, code_direct, get, put
from dcformat.errors import EncodingError
from dcformat.floats import Integers
from dcformat.jit import device
from dcformat.wording import counted

Array = npt.NDArray[Any]

#: Integers on a grid are below this, so that scale * integer is exact in float64 before it is rounded to float32.
GRID_LIMIT = 1 << 20
#: The writer looks for grids whose scale is at least this share of the largest magnitude: coarse grids survive more
#: rounding.
_FINEST = (1 << 12, 1 << 15, 1 << 18)


def shared_zeros(bits: Integers) -> int:
    """Return the number of lowest bits that are zero in all numbers."""
    together = int(np.bitwise_or.reduce(bits)) if bits.size else 0
    return (together & -together).bit_length() - 1 if together else 0


@np.errstate(over="ignore", invalid="ignore")  # for the largest floats
def grid_of(values: Array, dtype: str) -> tuple[int, Integers] | None:
    """Return the bit pattern of a scale, and the integers whose products with it are `values`; None if no grid fits."""
    if dtype != "float32" or not values.size or not np.isfinite(values).all():
        return None
    magnitudes = np.unique(np.abs(values[values != 0].astype(np.float64)))
    if not magnitudes.size or (np.signbit(values) & (values == 0)).any():
        return None
    for finest in _FINEST:
        step = _common_step(magnitudes, float(magnitudes[-1]) / finest)
        if not step:
            continue
        numbers = np.rint(values.astype(np.float64) / step)
        for scale in (np.float32(step), _refined(values, numbers)):
            made = (np.float64(scale) * numbers).astype(np.float32)
            if scale > 0 and np.array_equal(made.view(np.uint32), values.view(np.uint32)):
                return int(scale.view(np.uint32)), numbers.astype(np.int64)
    return None


def _common_step(magnitudes: Array, slack: float) -> float:
    """Return the largest common divisor up to `slack`, by Euclid's algorithm, or 0."""
    largest = float(magnitudes[-1])
    step = largest
    for magnitude in magnitudes[-2::-1].tolist():
        while magnitude > slack:
            step, magnitude = magnitude, abs(step - magnitude * round(step / magnitude))
        if step <= 4 * slack:
            return 0.0
        step = largest / round(largest / step)
    return step


def _refined(values: Array, numbers: Array) -> np.float32:
    """Return the middle of the scales whose products with `numbers` all round to `values`."""
    there = numbers != 0
    sizes, magnitudes = np.abs(numbers[there]), np.abs(values[there])
    half = np.spacing(magnitudes).astype(np.float64) / 2
    least = ((magnitudes.astype(np.float64) - half) / sizes).max()
    return np.float32((least + ((magnitudes.astype(np.float64) + half) / sizes).min()) / 2)


@device
def code_integer(stream, interval, models, base, signed, value):  # type: ignore[no-untyped-def]
    """Code an integer of magnitude below 2 ** 32 - 1, by `INTEGER_MODELS` bit models from `base`.

    It codes the number of bits of magnitude + 1 in unary, the bit below its leading one, the rest directly, and a sign
    if `signed`.
    """
    number = (-value if value < 0 else value) + 1
    width = 0
    while width < 31:
        more, interval = code_adaptive(stream, interval, models, base + width, 60, 1 if number >> (width + 1) else 0)
        if not more:
            break
        width += 1
    out = 1
    if width:
        top = (number >> (width - 1)) & 1
        bit, interval = code_adaptive(stream, interval, models, base + 32 + width, 60, top)
        rest, interval = code_direct(stream, interval, width - 1, number & ((1 << (width - 1)) - 1))
        out = (2 | bit) << (width - 1) | rest
    out -= 1
    if signed and out:
        negative, interval = code_adaptive(stream, interval, models, base + 31, 60, 1 if value < 0 else 0)
        if negative:
            out = -out
    return out, interval


INTEGER_MODELS = 64


def from_grid(scale_bits: int, numbers: Integers) -> Array:
    """Return the float32 products of integers and a scale, given by its bit pattern."""
    with np.errstate(over="ignore"):
        return (np.float64(np.uint32(scale_bits).view(np.float32)) * numbers).astype("<f4")


def put_scale(encoder: Encoder, bits: int) -> None:
    """Append a positive float32: the number of mantissa bits that it needs, its exponent, and these bits."""
    zeros = min(shared_zeros(np.array([bits])), 23)
    put(encoder, 5, 23 - zeros)
    put(encoder, 8, bits >> 23)
    put(encoder, 23 - zeros, (bits & 0x7FFFFF) >> zeros)


def get_scale(decoder: Decoder) -> int:
    """Read what `put_scale` wrote: the bit pattern of a positive, finite float32."""
    width, exponent = get(decoder, 5), get(decoder, 8)
    if width > 23:
        raise EncodingError("scale", got=f"{counted(width, 'bit')} of mantissa", expected="at most 23")
    bits = exponent << 23 | get(decoder, width) << (23 - width)
    if not bits or exponent == 255:
        raise EncodingError("scale", got=f"the bits {bits:#x}", expected="a positive, finite number")
    return bits


def put_grid(encoder: Encoder, values: Array, dtype: str) -> Integers | None:
    """Append whether values are on a grid, and its scale; return their integers, or None if they are on none."""
    grid = grid_of(values, dtype)
    if dtype == "float32":
        put(encoder, 1, 1 if grid else 0)
    if grid is None:
        return None
    scale, numbers = grid
    put_scale(encoder, scale)
    return numbers


def get_grid(decoder: Decoder, dtype: str) -> int | None:
    """Read what `put_grid` wrote: the bit pattern of the scale, or None without a grid."""
    return get_scale(decoder) if dtype == "float32" and get(decoder, 1) else None
