"""The predictors that the writer of coder 6 tries; no file depends on how it finds them.

A line of a tensor may be a stack of kernels, which the shape tells, or a flattened spectrum or image, which shows in
the correlation of integers at a distance. The coefficients follow from least squares, and the smallest stream decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.codecs.prediction import MAX_COEFFICIENT, TAPS, encode
from dcformat.codecs.prediction_kernels import BLOCK_BEFORE, LEFT, LINE_BEFORE, UP, Frame
from dcformat.codecs.rangecoder import Encoder

Array = npt.NDArray[Any]

#: The largest distance at which the writer looks for correlation; the number of first integers that it looks at there,
#: and for the coefficients.
_MAX_DISTANCE, _SOME, _MANY = 1 << 10, 1 << 15, 1 << 17


def smallest(values: Array, shape: tuple[int, ...]) -> bytes:
    """Return the smallest stream of a matrix of integers.

    Parameters
    ----------
    values : int8 ``(lines, length)``
        At least one integer.
    shape : tuple of int
        That of a tensor whose rows are the lines; lines of columns have the shape of a matrix.

    Raises
    ------
    LimitError
        The matrix is too large for coder 6 (`codecs.fits`).
    """
    made = []
    for frame in _frames(values, shape):
        encoder = Encoder(16)
        encode(encoder, values, frame)
        made.append(encoder.take())
    return min(made, key=len)


def _frames(values: Array, shape: tuple[int, ...]) -> Iterator[Frame]:
    length = values.shape[1]
    yield Frame(np.zeros(0, np.int64), length, 1)
    for width, height in dict.fromkeys(_blocks(values, shape)):
        frame = Frame(_coefficients(values, width, height), width, height)
        if len(frame.coefficients):
            yield frame


def _blocks(values: Array, shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield widths and heights of blocks: a kernel's, or those of a whole line."""
    length = values.shape[1]
    if len(shape) > 2 and 1 < prod(shape[2:]) <= length:
        yield shape[-1], prod(shape[2:-1])
        return
    yield length, 1
    distance = _distance(values)
    if distance:
        yield distance, length // distance


def _distance(values: Array) -> int:
    """Return the distance above 1 at which the integers of a line resemble each other most; 0 if they do at none.

    Only distances count at which they do so more than at the next ones. Twice the distance is often as good, so the
    least one wins that is nearly the best.
    """
    some = _first(values, _SOME)
    length = some.shape[1]
    sums = {
        distance: int((some[:, distance:] * some[:, :-distance]).sum()) * length // (length - distance)
        for distance in range(1, min(_MAX_DISTANCE, length // 2) + 1)
    }
    peaks = [distance for distance in list(sums)[1:-1] if sums[distance - 1] < sums[distance] > sums[distance + 1]]
    least = max(16 * max((sums[distance] for distance in peaks), default=0), 2 * int((some * some).sum()))
    return next((distance for distance in peaks if 17 * sums[distance] > least), 0)


def _coefficients(values: Array, width: int, height: int) -> Array:
    """Return the coefficients of the taps in 1/64, by least squares; zeros at the end are left out.

    Sums are of integers, and elimination goes in one order, so every machine finds the same coefficients. Lines count
    in inverse proportion to their mean square.
    """
    some = _first(values, _MANY)
    squares = (some * some).sum(axis=1) // some.shape[1] + 1
    weights = (1 << 16) // squares + 1
    inputs = np.stack([_shifted(some, tap, width, height) for tap in range(TAPS)])
    weighted = (inputs * weights[:, None]).reshape(TAPS, -1)
    gram = (weighted @ inputs.reshape(TAPS, -1).T).astype(np.float64)
    target = (weighted @ some.reshape(-1)).astype(np.float64)
    solved = _solved(gram + np.eye(TAPS) * (1 + gram.max() * 1e-4), target)
    rounded: Array = np.clip(np.rint(solved * 64), -MAX_COEFFICIENT, MAX_COEFFICIENT).astype(np.int64)
    return rounded[: int(np.flatnonzero(rounded)[-1]) + 1 if rounded.any() else 0]


def _first(values: Array, count: int) -> Array:
    """Return about `count` integers, int64: those of the first lines, or of the beginning of the first."""
    some: Array = values[: max(count // values.shape[1], 1), :count].astype(np.int64)
    return some


def _shifted(values: Array, tap: int, width: int, height: int) -> Array:
    """Return for each integer the one that a tap looks at, or 0."""
    out = np.zeros_like(values)
    length, block = values.shape[1], width * height
    if tap == LINE_BEFORE:
        out[1:] = values[:-1]
        return out
    place = np.arange(length)
    row, aside = place % block // width, place % width
    if tap == BLOCK_BEFORE:
        back, known = block, place >= block
    else:
        back = int(UP[tap]) * width + int(LEFT[tap])
        known = (row >= UP[tap]) & (aside >= LEFT[tap]) & (aside < width + LEFT[tap])
    out[:, known] = values[:, place[known] - back]
    return out


def _solved(matrix: Array, target: Array) -> Array:
    """Solve positive definite equations by Gaussian elimination, in the same order on every machine."""
    matrix, target = matrix.copy(), target.copy()
    size = len(target)
    for k in range(size):
        for below in range(k + 1, size):
            share = matrix[below, k] / matrix[k, k]
            matrix[below] -= share * matrix[k]
            target[below] -= share * target[k]
    out = np.zeros(size)
    for k in range(size - 1, -1, -1):
        rest = target[k]
        for right in range(k + 1, size):
            rest -= matrix[k, right] * out[right]
        out[k] = rest / matrix[k, k]
    return out
