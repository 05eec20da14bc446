"""Numbers in a range coder stream (spec, "Codebooks" and "Value streams"): sorted codebooks, and values in any order.

Both are lossless. A codebook is coded as steps between ordered bit patterns; other values as an adaptively coded
exponent, sign and top of the mantissa, and the rest as it is. Numbers that are small multiples of one float32 are
coded as that number and integers, where that is shorter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.codecs.rangecoder import (
    GAMMA_MODELS,
    RATE,
    Decoder,
    Encoder,
    State,
    code_adaptive,
    code_direct,
    code_gamma,
    code_tree,
    fresh,
)
from dcformat.errors import CodebookError, EncodingError
from dcformat.jit import device, kernel
from dcformat.model import STORAGE

Array = npt.NDArray[Any]

#: dtype -> bits of a value, of its exponent. An int8 has no parts: all of it counts as exponent.
LAYOUT = {"float32": (32, 8), "float16": (16, 5), "bfloat16": (16, 8), "int8": (8, 8)}
#: Integers of a grid are below this, so that scale * integer is exact in float64 before it is rounded to float32.
GRID_MOST = 1 << 20
#: The writer looks for no grid finer than these parts of the largest magnitude: coarse ones survive more rounding.
_FINEST = (1 << 12, 1 << 15, 1 << 18)
_VALUE_MODELS = 256 + 1 + 16


def patterns(values: Array) -> State:
    """Return values' bit patterns as int64."""
    return values.view(f"<u{values.dtype.itemsize}").astype(np.int64)


def ranks(values: Array, dtype: str) -> State:
    """Return integers that order bit patterns as the numbers they stand for (negative zero before zero)."""
    bits, (width, _) = patterns(values), LAYOUT[dtype]
    if dtype == "int8":
        return bits ^ 128
    half = 1 << (width - 1)
    return bits ^ (half | -(bits >> (width - 1)) & (half - 1))


def finite(values: Array, dtype: str) -> bool:
    """Whether no value is an infinity or not a number."""
    width, exponent = LAYOUT[dtype]
    if dtype == "int8":
        return True
    unit = values.view(f"<u{values.dtype.itemsize}")
    mask = unit.dtype.type(((1 << exponent) - 1) << (width - 1 - exponent))
    return not bool(((unit & mask) == mask).any())


def _shared_zeros(bits: State) -> int:
    together = int(np.bitwise_or.reduce(bits)) if bits.size else 0
    return (together & -together).bit_length() - 1 if together else 0


@np.errstate(over="ignore", invalid="ignore")  # of the largest numbers there are
def _grid(values: Array, dtype: str) -> tuple[int, State] | None:
    """Return the scale's bit pattern and the integers whose products with it are `values`, if there are such."""
    if dtype != "float32" or not values.size:
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
    """Return the largest number of which all are multiples but for `slack`, or 0: Euclid's algorithm."""
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
def code_integer(decode, low, rng, pos, buf, end, models, base, rate, signed, value):  # type: ignore[no-untyped-def]
    """Code an integer of magnitude below 2 ** 32 - 1, by `INTEGER_MODELS` models from `base`.

    How many bits magnitude + 1 has, in unary; the bit below its leading one; the rest direct; a sign if there is one.
    """
    number = (-value if value < 0 else value) + 1
    width = 0
    while width < 31:
        more, low, rng, pos = code_adaptive(
            decode, low, rng, pos, buf, end, models, base + width, 60, rate, 1 if number >> (width + 1) else 0
        )
        if not more:
            break
        width += 1
    out = 1
    if width:
        bit, low, rng, pos = code_adaptive(
            decode, low, rng, pos, buf, end, models, base + 32 + width, 60, rate, (number >> (width - 1)) & 1
        )
        rest, low, rng, pos = code_direct(decode, low, rng, pos, buf, end, width - 1, number & ((1 << (width - 1)) - 1))
        out = (2 | bit) << (width - 1) | rest
    out -= 1
    if signed and out:
        negative, low, rng, pos = code_adaptive(
            decode, low, rng, pos, buf, end, models, base + 31, 60, rate, 1 if value < 0 else 0
        )
        if negative:
            out = -out
    return out, low, rng, pos


INTEGER_MODELS = 64


def _from_grid(scale_bits: int, numbers: State) -> Array:
    with np.errstate(over="ignore"):
        return (np.float64(np.uint32(scale_bits).view(np.float32)) * numbers).astype("<f4")


# --- codebooks --------------------------------------------------------------------------------------------------


@device
def _code_steps(decode, state, buf, end, models, rate, form, first_width, numbers):  # type: ignore[no-untyped-def]
    low, rng, pos = state[0], state[1], state[2]
    last = 0
    for index in range(len(numbers)):
        number = numbers[index]
        if index:
            if form:
                step, low, rng, pos = code_integer(
                    decode, low, rng, pos, buf, end, models, INTEGER_MODELS, rate, 0, number - last - 1
                )
            else:
                step, low, rng, pos = code_gamma(
                    decode, low, rng, pos, buf, end, models, 0, 60, rate, number - last - 1
                )
            number = last + 1 + step
        elif form:
            number, low, rng, pos = code_integer(decode, low, rng, pos, buf, end, models, 0, rate, 1, number)
        else:
            number, low, rng, pos = code_direct(decode, low, rng, pos, buf, end, first_width, number)
        if decode:
            numbers[index] = number
        last = number
    state[0], state[1], state[2] = low, rng, pos


def _steps_work(numbers: State) -> int:
    return 70 * len(numbers) + 20


@kernel("void(int64[::1], uint8[::1], int64, int32[::1], int64[::1], int64, int64, int64[::1])", work=_steps_work)
def _encode_steps(state, buf, end, models, rate, form, first_width, numbers):  # type: ignore[no-untyped-def]
    _code_steps(False, state, buf, end, models, rate, form, first_width, numbers)


@kernel("void(int64[::1], uint8[::1], int64, int32[::1], int64[::1], int64, int64, int64[::1])", work=_steps_work)
def _decode_steps(state, buf, end, models, rate, form, first_width, numbers):  # type: ignore[no-untyped-def]
    _code_steps(True, state, buf, end, models, rate, form, first_width, numbers)


@kernel("int64(int64[::1], uint8[::1], int64, int64, int64)", work=lambda width: 2 * width + 4)
def _encode_direct(state, buf, end, width, value):  # type: ignore[no-untyped-def]
    _, state[0], state[1], state[2] = code_direct(False, state[0], state[1], state[2], buf, end, width, value)
    return value


@kernel("int64(int64[::1], uint8[::1], int64, int64, int64)", work=lambda width: 2 * width + 4)
def _decode_direct(state, buf, end, width, value):  # type: ignore[no-untyped-def]
    value, state[0], state[1], state[2] = code_direct(True, state[0], state[1], state[2], buf, end, width, 0)
    return value


def put(encoder: Encoder, width: int, value: int) -> None:
    """Append `width` plain bits."""
    encoder.reserve(16)
    _encode_direct(encoder.state, encoder.buf, 0, width, value)


def get(decoder: Decoder, width: int) -> int:
    """Read `width` plain bits."""
    return int(_decode_direct(decoder.state, decoder.buf, len(decoder.buf), width, 0))


def _put_scale(encoder: Encoder, bits: int) -> None:
    """Append a positive float32: how many bits of its mantissa are needed, exponent, those bits."""
    zeros = min(_shared_zeros(np.array([bits])), 23)
    put(encoder, 5, 23 - zeros)
    put(encoder, 8, bits >> 23)
    put(encoder, 23 - zeros, (bits & 0x7FFFFF) >> zeros)


def _get_scale(decoder: Decoder) -> int:
    width, exponent = get(decoder, 5), get(decoder, 8)
    if width > 23:
        raise EncodingError("scale", got=f"{width} bits of mantissa", expected="at most 23")
    bits = exponent << 23 | get(decoder, width) << (23 - width)
    if not bits or exponent == 255:
        raise EncodingError("scale", got=f"the bits {bits:#x}", expected="a positive, finite number")
    return bits


def _shifted(values: Array, dtype: str, zeros: int) -> State:
    """Ordered integers of values whose lowest `zeros` bits are dropped: sign and magnitude made one number line."""
    width = LAYOUT[dtype][0]
    bits, half = patterns(values), 1 << (width - 1)
    if dtype == "int8":
        return bits ^ 128
    magnitude = (bits & (half - 1)) >> zeros
    return (magnitude ^ -(bits >> (width - 1))) + (half >> zeros)


def _unshifted(numbers: State, dtype: str, zeros: int) -> Array:
    width = LAYOUT[dtype][0]
    half = 1 << (width - 1)
    if dtype == "int8":
        bits = numbers ^ 128
    else:
        line = numbers - (half >> zeros)
        negative = line >> 63
        bits = negative & half | (line ^ negative) << zeros
    return bits.astype(f"<u{width // 8}").view(STORAGE[dtype])


def write_codebook(encoder: Encoder, codebook: Array, dtype: str) -> None:
    """Append a codebook (distinct, ascending in `ranks`) whose size the reader knows."""
    encoder.reserve(16 * len(codebook) + 64)
    grid = _grid(codebook, dtype)
    if dtype == "float32":
        put(encoder, 1, 1 if grid else 0)
    if grid:
        scale, numbers = grid
        _put_scale(encoder, scale)
        _encode_steps(encoder.state, encoder.buf, 0, fresh(GAMMA_MODELS), RATE, 1, 0, numbers)
        return
    zeros = 0 if dtype == "int8" else min(_shared_zeros(patterns(codebook)), LAYOUT[dtype][0] - 1)
    if dtype != "int8":
        put(encoder, 5, zeros)
    width = LAYOUT[dtype][0] - zeros
    numbers = _shifted(codebook, dtype, zeros)
    _encode_steps(encoder.state, encoder.buf, 0, fresh(GAMMA_MODELS), RATE, 0, width, numbers)


def read_codebook(decoder: Decoder, size: int, dtype: str, *, sparse: bool) -> Array:
    """Read a codebook of `size` values and require them finite, ascending and, if `sparse`, without zero."""
    buf, end, numbers = decoder.buf, len(decoder.buf), np.zeros(size, np.int64)
    width = LAYOUT[dtype][0]
    if dtype == "float32" and get(decoder, 1):
        scale = _get_scale(decoder)
        _decode_steps(decoder.state, buf, end, fresh(GAMMA_MODELS), RATE, 1, 0, numbers)
        if np.abs(numbers).max() >= GRID_MOST:
            raise CodebookError("codebook", got="an integer out of range", expected=f"below {GRID_MOST}")
        values = _from_grid(scale, numbers)
    else:
        zeros = get(decoder, 5) if dtype != "int8" else 0
        if zeros >= width:
            raise EncodingError("codebook", got=f"{zeros} dropped bits", expected=f"below {width}")
        _decode_steps(decoder.state, buf, end, fresh(GAMMA_MODELS), RATE, 0, width - zeros, numbers)
        if int(numbers.max()) >> (width - zeros):
            raise CodebookError("codebook", got="a bit pattern out of range", expected=f"{width} bits")
        values = _unshifted(numbers, dtype, zeros)
    if not finite(values, dtype) or (np.diff(ranks(values, dtype)) <= 0).any():
        raise CodebookError("codebook", got="values not finite or not ascending", expected="finite, ascending")
    if sparse and not patterns(values).all():
        raise CodebookError("codebook", got="a zero", expected="no zero in a sparse tensor's codebook")
    return values


# --- values in any order ----------------------------------------------------------------------------------------


@device
def _code_values(decode, state, buf, end, models, rate, width, exponent, top, zeros, values):  # type: ignore[no-untyped-def]
    low, rng, pos = state[0], state[1], state[2]
    mantissa = max(width - 1 - exponent, 0)
    rest = max(mantissa - top - zeros, 0)
    top = mantissa - zeros - rest
    for index in range(len(values)):
        value = values[index]
        high, low, rng, pos = code_tree(
            decode, low, rng, pos, buf, end, models, 0, exponent, 60, rate,
            (value >> mantissa) & ((1 << exponent) - 1),
        )  # fmt: skip
        sign = 0
        middle = 0
        lower = 0
        if mantissa:
            sign, low, rng, pos = code_adaptive(
                decode, low, rng, pos, buf, end, models, 256, 60, rate, value >> (width - 1)
            )
            middle, low, rng, pos = code_tree(
                decode, low, rng, pos, buf, end, models, 257, top, 60, rate,
                (value >> (mantissa - top)) & ((1 << top) - 1),
            )  # fmt: skip
            lower, low, rng, pos = code_direct(
                decode, low, rng, pos, buf, end, rest, (value >> zeros) & ((1 << rest) - 1)
            )
        if decode:
            values[index] = (
                (sign << (width - 1) if mantissa else 0)
                | high << mantissa | middle << (mantissa - top) | lower << zeros
            )  # fmt: skip
    state[0], state[1], state[2] = low, rng, pos


_VALUES = "void(int64[::1], uint8[::1], int64, int32[::1], int64[::1], int64, int64, int64, int64, int64[::1])"


def _values_work(width: int, zeros: int, values: State) -> int:
    return (2 * (width - zeros) + 5) * len(values) + 10


@kernel(_VALUES, work=_values_work)
def _encode_values(state, buf, end, models, rate, width, exponent, top, zeros, values):  # type: ignore[no-untyped-def]
    _code_values(False, state, buf, end, models, rate, width, exponent, top, zeros, values)


@kernel(_VALUES, work=_values_work)
def _decode_values(state, buf, end, models, rate, width, exponent, top, zeros, values):  # type: ignore[no-untyped-def]
    _code_values(True, state, buf, end, models, rate, width, exponent, top, zeros, values)


@device
def _code_integers(decode, state, buf, end, models, rate, values):  # type: ignore[no-untyped-def]
    low, rng, pos = state[0], state[1], state[2]
    for index in range(len(values)):
        value = values[index]
        value, low, rng, pos = code_integer(decode, low, rng, pos, buf, end, models, 0, rate, 1, value)
        if decode:
            values[index] = value
    state[0], state[1], state[2] = low, rng, pos


@kernel(
    "void(int64[::1], uint8[::1], int64, int32[::1], int64[::1], int64[::1])",
    work=lambda values: 120 * len(values) + 20,
)
def _encode_integers(state, buf, end, models, rate, values):  # type: ignore[no-untyped-def]
    _code_integers(False, state, buf, end, models, rate, values)


@kernel(
    "void(int64[::1], uint8[::1], int64, int32[::1], int64[::1], int64[::1])",
    work=lambda values: 120 * len(values) + 20,
)
def _decode_integers(state, buf, end, models, rate, values):  # type: ignore[no-untyped-def]
    _code_integers(True, state, buf, end, models, rate, values)


def write_values(encoder: Encoder, values: Array, dtype: str) -> None:
    """Append values (one or more) whose number the reader knows."""
    encoder.reserve(16 * len(values) + 64)
    grid = _grid(values, dtype)
    if dtype == "float32":
        put(encoder, 1, 1 if grid else 0)
    if grid:
        _put_scale(encoder, grid[0])
        _encode_integers(encoder.state, encoder.buf, 0, fresh(INTEGER_MODELS), RATE, grid[1])
        return
    (width, exponent), bits = LAYOUT[dtype], patterns(values)
    zeros = min(_shared_zeros(bits), max(width - 1 - exponent, 0))
    top = 0 if len(values) < 100 else 2
    put(encoder, 5, zeros)
    put(encoder, 2, top)
    _encode_values(encoder.state, encoder.buf, 0, fresh(_VALUE_MODELS), RATE, width, exponent, top, zeros, bits)


def coded_bits(values: Array, dtype: str) -> float:
    """Return about how many bits a value takes in a value stream: at most those that it has."""
    width, exponent = LAYOUT[dtype]
    if not len(values):
        return float(width)
    bits = patterns(values)
    mantissa = max(width - 1 - exponent, 0)
    top = min(2, mantissa)
    _, counts = np.unique(bits >> (mantissa - top), return_counts=True)
    modelled = float((counts * -np.log2(counts / counts.sum())).sum()) / len(values)
    rest = max(mantissa - top - _shared_zeros(bits), 0)
    return min(modelled + rest, float(width))


def read_values(decoder: Decoder, count: int, dtype: str, field: str) -> Array:
    """Read `count` finite values."""
    buf, end, numbers = decoder.buf, len(decoder.buf), np.zeros(count, np.int64)
    width, exponent = LAYOUT[dtype]
    if dtype == "float32" and get(decoder, 1):
        scale = _get_scale(decoder)
        _decode_integers(decoder.state, buf, end, fresh(INTEGER_MODELS), RATE, numbers)
        if np.abs(numbers).max() >= GRID_MOST:
            raise EncodingError(field, got="an integer out of range", expected=f"below {GRID_MOST}")
        values = _from_grid(scale, numbers)
    else:
        zeros, top = get(decoder, 5), get(decoder, 2)
        if zeros > max(width - 1 - exponent, 0):
            raise EncodingError(field, got=f"{zeros} dropped bits", expected="no more than the mantissa has")
        models = fresh(_VALUE_MODELS)
        _decode_values(decoder.state, buf, end, models, RATE, width, exponent, top, zeros, numbers)
        values = numbers.astype(f"<u{width // 8}").view(STORAGE[dtype])
    if not finite(values, dtype):
        raise EncodingError(field, got="an infinity or not a number", expected="finite values")
    return values
