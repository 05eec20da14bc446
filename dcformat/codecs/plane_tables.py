"""The maps and frequency tables of coded planes, in a range coder stream (spec, "Maps and frequencies")."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.codecs.rangecoder import (
    Decoder,
    Encoder,
    Stream,
    code_direct,
    code_tree,
    fresh,
    keep,
    opened,
)
from dcformat.floats import Integers
from dcformat.jit import device, kernel

#: A number is coded with one of `_CONTEXTS` trees of `TREE_BITS` bits.
TREE_BITS, _CONTEXTS = 4, 16
_LIMIT = 30
#: Maximum number of decisions that a number takes: its tree, and the bits of a frequency below the highest.
NUMBER_DECISIONS = TREE_BITS + (1 << TREE_BITS) - 2
#: Frequencies choose between the trees for what follows 0, 1, and more.
_AFTER_FREQUENCY = 2


@device
def _code_numbers(stream, state, models, with_bits, numbers):  # type: ignore[no-untyped-def]
    """Code numbers below 16 or, `with_bits`, numbers of fewer than 16 bits: how many bits, then those below the top."""
    interval = opened(state)
    last = 0
    for index in range(len(numbers)):
        number = numbers[index]
        width = 0
        if with_bits:
            while number >> width:
                width += 1
            number = width
        number, interval = code_tree(stream, interval, models, last << TREE_BITS, TREE_BITS, _LIMIT, number)
        last = number
        if with_bits:
            last = min(number, _AFTER_FREQUENCY)
            if number:
                width = number - 1
                low, interval = code_direct(stream, interval, width, numbers[index] & ((1 << width) - 1))
                number = 1 << width | low
        if stream.decode:
            numbers[index] = number
    keep(state, interval)


_NUMBERS = "void(int64[::1], uint8[::1], int64, int32[::1], int64, int64[::1])"


def _work(numbers: Integers) -> int:
    return 20 * len(numbers) + 20


@kernel(_NUMBERS, work=_work)
def _encode_numbers(state, buf, end, models, with_bits, numbers):  # type: ignore[no-untyped-def]
    _code_numbers(Stream(False, buf, end), state, models, with_bits, numbers)


@kernel(_NUMBERS, work=_work)
def _decode_numbers(state, buf, end, models, with_bits, numbers):  # type: ignore[no-untyped-def]
    _code_numbers(Stream(True, buf, end), state, models, with_bits, numbers)


def _models() -> npt.NDArray[np.int32]:
    return fresh(_CONTEXTS << TREE_BITS)


def put_map(encoder: Encoder, chosen: npt.NDArray[Any]) -> None:
    """Append the table of each place, a number below 16."""
    encoder.reserve(2 * len(chosen) + 64)
    _encode_numbers(encoder.state, encoder.buf, 0, _models(), 0, chosen.astype(np.int64))


def put_frequencies(encoder: Encoder, frequencies: Integers) -> None:
    """Append frequencies, each below 2^15."""
    encoder.reserve(4 * len(frequencies) + 64)
    _encode_numbers(encoder.state, encoder.buf, 0, _models(), 1, np.ascontiguousarray(frequencies, np.int64))


def get_numbers(decoder: Decoder, count: int, field: str, *, frequencies: bool) -> Integers:
    """Read what `put_map` or `put_frequencies` wrote."""
    decoder.expect(count, field)
    numbers = np.zeros(count, np.int64)
    _decode_numbers(decoder.state, decoder.buf, len(decoder.buf), _models(), int(frequencies), numbers)
    return numbers
