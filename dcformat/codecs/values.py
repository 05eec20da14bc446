"""Values in a range coder stream, in any order (spec, "Value streams").

A value's exponent, sign and the top of its mantissa are coded adaptively, and the rest is raw. Numbers on a grid are
coded as a scale and integers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.codecs.grid import GRID_LIMIT, INTEGER_MODELS, code_integer, from_grid, get_grid, put_grid, shared_zeros
from dcformat.codecs.rangecoder import (
    Decoder,
    Encoder,
    Stream,
    code_adaptive,
    code_direct,
    code_tree,
    fresh,
    get,
    keep,
    opened,
    put,
)
from dcformat.errors import EncodingError
from dcformat.floats import WIDTHS, Integers, patterns
from dcformat.jit import device, kernel
from dcformat.model import STORAGE

Array = npt.NDArray[Any]

_VALUE_MODELS = 256 + 1 + 16


class _Parts(NamedTuple):
    """How a value's bits are coded: `exponent` and `top` bits by trees of bit models; the `zeros` lowest not at all.

    `width` is the number of bits of a value, and `top` the number of bits at the top of its mantissa.
    """

    width: int
    exponent: int
    top: int
    zeros: int


@device
def _code_values(stream, state, models, parts, values):  # type: ignore[no-untyped-def]
    """Code values as bit patterns: exponent, sign, the top of the mantissa, and the rest of it directly."""
    interval = opened(state)
    width, exponent, top, zeros = parts
    mantissa = max(width - 1 - exponent, 0)
    rest = max(mantissa - top - zeros, 0)
    top = mantissa - zeros - rest
    for index in range(len(values)):
        value = values[index]
        high = (value >> mantissa) & ((1 << exponent) - 1)
        high, interval = code_tree(stream, interval, models, 0, exponent, 60, high)
        sign = 0
        middle = 0
        lower = 0
        if mantissa:
            sign, interval = code_adaptive(stream, interval, models, 256, 60, value >> (width - 1))
            middle = (value >> (mantissa - top)) & ((1 << top) - 1)
            middle, interval = code_tree(stream, interval, models, 257, top, 60, middle)
            lower, interval = code_direct(stream, interval, rest, (value >> zeros) & ((1 << rest) - 1))
        if stream.decode:
            sign_bit = sign << (width - 1) if mantissa else 0
            values[index] = sign_bit | high << mantissa | middle << (mantissa - top) | lower << zeros
    keep(state, interval)


_VALUES = "void(int64[::1], uint8[::1], int64, int32[::1], int64, int64, int64, int64, int64[::1])"


def _values_work(width: int, zeros: int, values: Integers) -> int:
    return (2 * (width - zeros) + 11) * len(values) + 10


@kernel(_VALUES, work=_values_work)
def _encode_values(state, buf, end, models, width, exponent, top, zeros, values):  # type: ignore[no-untyped-def]
    """Append values for `_decode_values`, which has the same parameters."""
    _code_values(Stream(False, buf, end), state, models, _Parts(width, exponent, top, zeros), values)


@kernel(_VALUES, work=_values_work)
def _decode_values(state, buf, end, models, width, exponent, top, zeros, values):  # type: ignore[no-untyped-def]
    """Read values.

    Parameters
    ----------
    state, buf, end
        As in `rangecoder.Stream`.
    models : int32
        Bit models of exponents (256), of the sign, and of the top of a mantissa (16).
    width, exponent, top, zeros : int
        As in `_Parts`.
    values : int64
        Bit patterns.
    """
    _code_values(Stream(True, buf, end), state, models, _Parts(width, exponent, top, zeros), values)


@device
def _code_integers(stream, state, models, values):  # type: ignore[no-untyped-def]
    interval = opened(state)
    for index in range(len(values)):
        value, interval = code_integer(stream, interval, models, 0, 1, values[index])
        if stream.decode:
            values[index] = value
    keep(state, interval)


_INTEGERS = "void(int64[::1], uint8[::1], int64, int32[::1], int64[::1])"


def _integers_work(values: Integers) -> int:
    return 120 * len(values) + 20


@kernel(_INTEGERS, work=_integers_work)
def encode_integers(state, buf, end, models, values):  # type: ignore[no-untyped-def]
    """Append integers by `INTEGER_MODELS` bit models."""
    _code_integers(Stream(False, buf, end), state, models, values)


@kernel(_INTEGERS, work=_integers_work)
def decode_integers(state, buf, end, models, values):  # type: ignore[no-untyped-def]
    """Read what `encode_integers` wrote."""
    _code_integers(Stream(True, buf, end), state, models, values)


def write_values(encoder: Encoder, values: Array, dtype: str) -> None:
    """Append values (one or more) whose number the reader knows."""
    encoder.reserve(16 * len(values) + 64)
    numbers = put_grid(encoder, values, dtype)
    if numbers is not None:
        encode_integers(encoder.state, encoder.buf, 0, fresh(INTEGER_MODELS), numbers)
        return
    (width, exponent), bits = WIDTHS[dtype], patterns(values)
    zeros = min(shared_zeros(bits), max(width - 1 - exponent, 0))
    top = 0 if len(values) < 100 else 2
    put(encoder, 5, zeros)
    put(encoder, 2, top)
    _encode_values(encoder.state, encoder.buf, 0, fresh(_VALUE_MODELS), width, exponent, top, zeros, bits)


def read_values(decoder: Decoder, count: int, dtype: str, field: str) -> Array:
    """Read `count` values of one of the first four dtypes."""
    buf, end, numbers = decoder.buf, len(decoder.buf), np.zeros(count, np.int64)
    width, exponent = WIDTHS[dtype]
    scale = get_grid(decoder, dtype)
    if scale is not None:
        decode_integers(decoder.state, buf, end, fresh(INTEGER_MODELS), numbers)
        if np.abs(numbers).max() >= GRID_LIMIT:
            raise EncodingError(field, got="an integer out of range", expected=f"below {GRID_LIMIT}")
        values = from_grid(scale, numbers)
        if not np.isfinite(values).all():
            raise EncodingError(field, got="an infinite value of a grid", expected="finite ones")
    else:
        zeros, top = divmod(get(decoder, 7), 4)
        if zeros > max(width - 1 - exponent, 0):
            raise EncodingError(field, got=f"{zeros} dropped bits", expected="no more than the mantissa has")
        models = fresh(_VALUE_MODELS)
        _decode_values(decoder.state, buf, end, models, width, exponent, top, zeros, numbers)
        values = numbers.astype(f"<u{width // 8}").view(STORAGE[dtype])
    return values
