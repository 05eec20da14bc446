"""The kernels of coder 6 (spec, "Prediction"): the mean and the scales expected of an integer, and its bits.

They trust their arguments, which `prediction` checks or makes. Means and errors are in 1/64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.codecs.logistic import MAX_ODDS, SQUASH, STRETCH
from dcformat.codecs.mixer import LEARNING, LIMIT, Mixer, mixed_odds, odds_of, train, within
from dcformat.codecs.rangecoder import Stream, code_bit, keep, opened, overrun, update
from dcformat.jit import device, kernel

Array = npt.NDArray[Any]

#: How many rows up and columns left of an integer each tap looks, within the integer's block. The tap LINE_BEFORE looks
#: at the same place of the line before, and BLOCK_BEFORE at that of the block before.
UP = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 3, 0], np.int64)
LEFT = np.array([1, 2, 3, 0, 0, 1, -1, 2, -2, 0, 1, -1, 0, 0], np.int64)
LINE_BEFORE, BLOCK_BEFORE = 3, 13
#: Number of bits of an integer, and of scales that are expected of it.
BITS, SCALES = 8, 3
#: A tree of bit models for all integers, and one for each of CONTEXTS ranges of the mean.
TREE, CONTEXTS = 1 << BITS, 32
#: The least and the greatest mean.
LOWEST, HIGHEST = -(1 << 13), (1 << 13) - 64
#: The mean error expected before the first integer; how many integers it counts as in a line, and in a column.
FIRST_ERROR, IN_LINE, IN_COLUMN = 640, 16, 6
#: The least scale, and the dividend of a scale that gives a reciprocal.
LEAST_SCALE, RECIPROCAL = 8, 1 << 29
#: The share of each integer that no scale explains, in 2^-20.
FLOOR = 20


class Frame(NamedTuple):
    """How integers are predicted: the taps' coefficients in 1/64, and the width and height of a block of a line."""

    coefficients: Array
    width: int
    height: int


class _Errors(NamedTuple):
    """Sums of the errors before an integer.

    Attributes
    ----------
    columns : int64 ``(length,)``
        For each column, the sum over the lines before.
    total, along : int
        The sum of all errors, and of those in the line.
    recent : int
        A mean of the last errors in the line, in 1/64.
    """

    columns: Array
    total: int
    along: int
    recent: int


class _Spread(NamedTuple):
    """The distributions expected of an integer: a mean, the reciprocal of each scale, and room for `_code_number`.

    `low`, `cut` and `high` are the shares of each distribution, in 2^-20, that lie below the interval's lowest number,
    its middle and its end.
    """

    reciprocals: Array
    low: Array
    cut: Array
    high: Array


@device
def _mean(values, frame, line, column):  # type: ignore[no-untyped-def]
    """Predict an integer from those before it."""
    coefficients, width, height = frame
    block = width * height
    place = column % block
    row, aside = place // width, place % width
    total = 0
    for tap in range(len(coefficients)):
        if tap == LINE_BEFORE:
            if line:
                total += coefficients[tap] * np.int64(values[line - 1, column])
        elif tap == BLOCK_BEFORE:
            if column >= block:
                total += coefficients[tap] * np.int64(values[line, column - block])
        elif row >= UP[tap] and LEFT[tap] <= aside < width + LEFT[tap]:
            total += coefficients[tap] * np.int64(values[line, column - UP[tap] * width - LEFT[tap]])
    return within(total, LOWEST, HIGHEST)


@device
def _set_reciprocals(reciprocals, errors, line, column, length):  # type: ignore[no-untyped-def]
    """Set the reciprocals of the scales: of the line and the column together, of the last errors, of the column."""
    usual = max((errors.total + FIRST_ERROR) // (line * length + column + 1), 1)
    along = (errors.along + IN_LINE * usual) // (column + IN_LINE)
    down = (errors.columns[column] + IN_COLUMN * usual) // (line + IN_COLUMN)
    reciprocals[0] = RECIPROCAL // max(along * down // usual, LEAST_SCALE)
    reciprocals[1] = RECIPROCAL // max(errors.recent >> 6, LEAST_SCALE)
    reciprocals[2] = RECIPROCAL // max(down, LEAST_SCALE)


@device
def _share_below(distance, reciprocal):  # type: ignore[no-untyped-def]
    """Return the share of a logistic distribution, in 2^-20, that lies below a distance from its mean."""
    odds = within((distance * reciprocal) >> 16, -16 * MAX_ODDS, 16 * MAX_ODDS - 1)
    place = (odds >> 4) + MAX_ODDS
    return (SQUASH[place] << 4) + (SQUASH[place + 1] - SQUASH[place]) * (odds & 15)


@device
def _code_number(stream, interval, mixer, spread, mean, number):  # type: ignore[no-untyped-def]
    """Code a number below 2^BITS by halving the interval in which it lies."""
    reciprocals, low, cut, high = spread
    for k in range(SCALES):
        low[k], high[k] = 0, 1 << 20
    start, half, node = -(1 << (BITS - 1)), 1 << BITS, 1
    tree = (1 + ((mean - LOWEST) >> 9)) * TREE
    for depth in range(BITS):
        half >>= 1
        distance = ((start + half) << 6) - 32 - mean
        for k in range(SCALES):
            cut[k] = _share_below(distance, reciprocals[k])
            above = high[k] - cut[k] + FLOOR * half
            mixer.inputs[k] = STRETCH[(above << 12) // (high[k] - low[k] + 2 * FLOOR * half)]
        mixer.inputs[3] = odds_of(mixer.models, node)
        mixer.inputs[4] = odds_of(mixer.models, tree + node)
        p = SQUASH[mixed_odds(mixer, depth) + MAX_ODDS]
        bit, interval = code_bit(stream, interval, within(p, 32, 65504), (number >> (BITS - 1 - depth)) & 1)
        train(mixer, depth, (bit << 16) - p)
        update(mixer.models, node, LIMIT, bit)
        update(mixer.models, tree + node, LIMIT, bit)
        for k in range(SCALES):
            if bit:
                low[k] = cut[k]
            else:
                high[k] = cut[k]
        start += half if bit else 0
        node = node << 1 | bit
    return node - TREE, interval


@device
def _code_integers(stream, state, mixer, frame, spread, columns, values):  # type: ignore[no-untyped-def]
    """Code a matrix of integers, line by line."""
    interval = opened(state)
    lines, length = values.shape
    total = 0
    for line in range(lines):
        if overrun(stream, interval):
            break
        recent = (total + FIRST_ERROR) // (line * length + 1) << 6
        along = 0
        for column in range(length):
            mean = _mean(values, frame, line, column)
            _set_reciprocals(spread.reciprocals, _Errors(columns, total, along, recent), line, column, length)
            number = np.int64(values[line, column]) + TREE // 2
            number, interval = _code_number(stream, interval, mixer, spread, mean, number)
            if stream.decode:
                values[line, column] = number - TREE // 2
            error = abs(((number - TREE // 2) << 6) - mean)
            total += error
            along += error
            columns[column] += error
            recent += ((error << 6) - recent) >> 3
    keep(state, interval)
    return 1 if overrun(stream, interval) else 0


_INTEGERS = (
    "int64(int64[::1], uint8[::1], int64, int32[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1],"
    " int64, int64, int64[:, ::1], int64[::1], int8[:, ::1])"
)


def _integers_work(coefficients: Array, values: Array) -> int:
    return int(values.size) * (700 + 4 * len(coefficients)) + 10 * len(values)


@kernel(_INTEGERS, work=_integers_work)
def encode_predicted(state, buf, end, models, places, inputs, weights, used, coefficients, width, height, spread,  # type: ignore[no-untyped-def]
                    columns, values):  # fmt: skip
    """Append integers for `decode_predicted`, which has the same parameters."""
    mixer = Mixer(models, places, inputs, weights, used, LEARNING)
    frame, room = Frame(coefficients, width, height), _Spread(spread[0], spread[1], spread[2], spread[3])
    return _code_integers(Stream(False, buf, end), state, mixer, frame, room, columns, values)


@kernel(_INTEGERS, work=_integers_work)
def decode_predicted(state, buf, end, models, places, inputs, weights, used, coefficients, width, height, spread,  # type: ignore[no-untyped-def]
                    columns, values):  # fmt: skip
    """Read a matrix of integers; return 1 if the stream cannot hold them.

    Parameters
    ----------
    state, buf, end
        As in `rangecoder.Stream`.
    models, places, inputs, weights, used
        The `Mixer` of an integer's bits.
    coefficients, width, height
        As in `Frame`.
    spread : int64 ``(4, SCALES)``
        Room for `_Spread`.
    columns : int64 ``(length,)``
        As in `_Errors`.
    values : int8 ``(lines, length)``
    """
    mixer = Mixer(models, places, inputs, weights, used, LEARNING)
    frame, room = Frame(coefficients, width, height), _Spread(spread[0], spread[1], spread[2], spread[3])
    return _code_integers(Stream(True, buf, end), state, mixer, frame, room, columns, values)
