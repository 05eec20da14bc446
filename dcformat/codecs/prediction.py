"""Coder 6: the integers of dense int8 tensors, each predicted from integers near it (spec, "Prediction").

Neighbouring weights of a kernel or of a spectrum resemble each other, so a linear predictor, whose coefficients the
writer stores, leaves small errors. Three distributions about the predicted mean, with the scales of earlier errors,
predict each bit of an integer, and two bit models learn what the distributions miss. A mixer joins all five.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs import require_fit
from dcformat.codecs.grid import INTEGER_MODELS
from dcformat.codecs.mixer import INPUTS
from dcformat.codecs.prediction_kernels import (
    BITS,
    CONTEXTS,
    SCALES,
    TREE,
    UP,
    Frame,
    decode_predicted,
    encode_predicted,
)
from dcformat.codecs.rangecoder import Decoder, Encoder, fresh, get, put
from dcformat.codecs.values import decode_integers, encode_integers
from dcformat.errors import StreamError
from dcformat.wording import counted

Array = npt.NDArray[Any]

#: The greatest number of taps, and the greatest magnitude of a coefficient.
TAPS, MAX_COEFFICIENT = len(UP), 1 << 8
#: The first weights of the mixers: of three distributions, then of two bit models.
_WEIGHTS = (30, 30, 10, 5, 10)


def _arrays() -> tuple[Array, ...]:
    """Return the initial arrays of the mixers, for both directions."""
    weights = np.tile(np.array(_WEIGHTS, np.int64) * 655, BITS)
    room = np.zeros(INPUTS, np.int64)
    return fresh((1 + CONTEXTS) * TREE), room, room.copy(), weights, np.zeros(BITS, np.int64)


def _state(length: int) -> tuple[Array, Array]:
    """Return room for the distributions, and the errors of each column."""
    return np.zeros((4, SCALES), np.int64), np.zeros(length, np.int64)


def encode(encoder: Encoder, values: Array, frame: Frame) -> None:
    """Append a matrix of integers.

    Parameters
    ----------
    encoder : Encoder
    values : int8 ``(lines, length)``
        At least one integer.
    frame : Frame

    Raises
    ------
    LimitError
        The matrix does not suit this coder (`codecs.fits`).
    """
    require_fit(layout.CODER_PREDICTION, *values.shape)
    put(encoder, 4, len(frame.coefficients))
    encoder.reserve(2 * BITS * values.size + 16 * TAPS + 64)
    if len(frame.coefficients):
        numbers = np.array([frame.width - 1, frame.height - 1, *frame.coefficients], np.int64)
        encode_integers(encoder.state, encoder.buf, 0, fresh(INTEGER_MODELS), numbers)
    encode_predicted(
        encoder.state, encoder.buf, 0, *_arrays(), *frame, *_state(values.shape[1]), np.ascontiguousarray(values)
    )  # fmt: skip


def decode(decoder: Decoder, values: Array) -> None:
    """Read what `encode` wrote.

    Parameters
    ----------
    decoder : Decoder
    values : int8 ``(lines, length)``
        The result; at least one integer.

    Raises
    ------
    LimitError
        The matrix does not suit this coder.
    StreamError
        The stream ends early, or its predictor is out of range.
    """
    lines, length = values.shape
    require_fit(layout.CODER_PREDICTION, lines, length)
    taps = get(decoder, 4)
    if taps > TAPS:
        raise StreamError("coder 6's taps", got=taps, expected=f"at most {TAPS}")
    frame = _read_frame(decoder, taps, length) if taps else Frame(np.zeros(0, np.int64), length, 1)
    decoder.expect(BITS * values.size, "coder 6's integers")
    if decode_predicted(
        decoder.state, decoder.buf, len(decoder.buf), *_arrays(), *frame, *_state(length), values
    ):  # fmt: skip
        raise StreamError("coder 6's integers", got="the stream's end", expected=counted(values.size, "integer"))


def _read_frame(decoder: Decoder, taps: int, length: int) -> Frame:
    numbers = np.zeros(2 + taps, np.int64)
    decode_integers(decoder.state, decoder.buf, len(decoder.buf), fresh(INTEGER_MODELS), numbers)
    width, height = (int(number) + 1 for number in numbers[:2])
    if width < 1 or height < 1 or width * height > length:
        raise StreamError("coder 6's block", got=f"{width} x {height}", expected=f"within a line of {length}")
    if np.abs(numbers[2:]).max() > MAX_COEFFICIENT:
        raise StreamError(
            "coder 6's coefficients", got=int(np.abs(numbers[2:]).max()), expected=f"at most {MAX_COEFFICIENT}"
        )
    return Frame(numbers[2:].copy(), width, height)
