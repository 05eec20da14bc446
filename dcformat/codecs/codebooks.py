"""Codebooks in a range coder stream (spec, "Codebooks"): steps between ordered bit patterns, or between multiples."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.codecs.grid import GRID_LIMIT, INTEGER_MODELS, code_integer, from_grid, get_grid, put_grid, shared_zeros
from dcformat.codecs.rangecoder import (
    GAMMA_MODELS,
    Decoder,
    Encoder,
    Stream,
    code_direct,
    code_gamma,
    fresh,
    get,
    keep,
    opened,
    put,
)
from dcformat.errors import CodebookError, EncodingError
from dcformat.floats import WIDTHS, Integers, patterns
from dcformat.jit import device, kernel
from dcformat.model import STORAGE
from dcformat.wording import counted

Array = npt.NDArray[Any]


@device
def _code_steps(stream, state, models, on_grid, first_width, numbers):  # type: ignore[no-untyped-def]
    """Code ascending integers: the first one (in `first_width` bits unless `on_grid`), then each step minus 1."""
    interval = opened(state)
    last = 0
    for index in range(len(numbers)):
        number = numbers[index]
        if index:
            step = number - last - 1
            if on_grid:
                step, interval = code_integer(stream, interval, models, INTEGER_MODELS, 0, step)
            else:
                step, interval = code_gamma(stream, interval, models, 0, 60, step)
            number = last + 1 + step
        elif on_grid:
            number, interval = code_integer(stream, interval, models, 0, 1, number)
        else:
            number, interval = code_direct(stream, interval, first_width, number)
        if stream.decode:
            numbers[index] = number
        last = number
    keep(state, interval)


_STEPS = "void(int64[::1], uint8[::1], int64, int32[::1], int64, int64, int64[::1])"


def _steps_work(numbers: Integers) -> int:
    return 70 * len(numbers) + 20


@kernel(_STEPS, work=_steps_work)
def encode_steps(state, buf, end, models, on_grid, first_width, numbers):  # type: ignore[no-untyped-def]
    """Append ascending integers: multiples of a scale if `on_grid`, else integers of `first_width` bits."""
    _code_steps(Stream(False, buf, end), state, models, on_grid, first_width, numbers)


@kernel(_STEPS, work=_steps_work)
def decode_steps(state, buf, end, models, on_grid, first_width, numbers):  # type: ignore[no-untyped-def]
    """Read what `encode_steps` wrote."""
    _code_steps(Stream(True, buf, end), state, models, on_grid, first_width, numbers)


def _shifted(values: Array, dtype: str, zeros: int) -> Integers:
    """Return integers that order values without their lowest `zeros` bits, with both signs on one number line."""
    width = WIDTHS[dtype][0]
    bits, half = patterns(values), 1 << (width - 1)
    if dtype == "int8":
        return bits ^ 128
    magnitude = (bits & (half - 1)) >> zeros
    return (magnitude ^ -(bits >> (width - 1))) + (half >> zeros)


def _unshifted(numbers: Integers, dtype: str, zeros: int) -> Array:
    width = WIDTHS[dtype][0]
    half = 1 << (width - 1)
    if dtype == "int8":
        bits = numbers ^ 128
    else:
        line = numbers - (half >> zeros)
        negative = line >> 63
        bits = negative & half | (line ^ negative) << zeros
    return bits.astype(f"<u{width // 8}").view(STORAGE[dtype])


def write_codebook(encoder: Encoder, codebook: Array, dtype: str) -> None:
    """Append a codebook (distinct values, ascending in `ranks`) whose size the reader knows."""
    encoder.reserve(16 * len(codebook) + 64)
    numbers = put_grid(encoder, codebook, dtype)
    if numbers is not None:
        encode_steps(encoder.state, encoder.buf, 0, fresh(GAMMA_MODELS), 1, 0, numbers)
        return
    zeros = 0 if dtype == "int8" else min(shared_zeros(patterns(codebook)), WIDTHS[dtype][0] - 1)
    if dtype != "int8":
        put(encoder, 5, zeros)
    width = WIDTHS[dtype][0] - zeros
    numbers = _shifted(codebook, dtype, zeros)
    encode_steps(encoder.state, encoder.buf, 0, fresh(GAMMA_MODELS), 0, width, numbers)


def read_codebook(decoder: Decoder, size: int, dtype: str, *, sparse: bool) -> Array:
    """Read a codebook of `size` ascending values; if `sparse`, require that none is zero."""
    buf, end, numbers = decoder.buf, len(decoder.buf), np.zeros(size, np.int64)
    width = WIDTHS[dtype][0]
    scale = get_grid(decoder, dtype)
    if scale is not None:
        decode_steps(decoder.state, buf, end, fresh(GAMMA_MODELS), 1, 0, numbers)
        if np.abs(numbers).max() >= GRID_LIMIT:
            raise CodebookError("codebook", got="an integer out of range", expected=f"below {GRID_LIMIT}")
        values = from_grid(scale, numbers)
        if not np.isfinite(values).all():
            raise CodebookError("codebook", got="an infinite value of a grid", expected="finite ones")
    else:
        zeros = get(decoder, 5) if dtype != "int8" else 0
        if zeros >= width:
            raise EncodingError("codebook", got=f"{zeros} dropped bits", expected=f"below {width}")
        decode_steps(decoder.state, buf, end, fresh(GAMMA_MODELS), 0, width - zeros, numbers)
        if int(numbers.max()) >> (width - zeros):
            raise CodebookError("codebook", got="a bit pattern out of range", expected=counted(width, "bit"))
        values = _unshifted(numbers, dtype, zeros)
    if sparse and not patterns(values).all():
        raise CodebookError("codebook", got="a zero", expected="no zero in a sparse tensor's codebook")
    return values
