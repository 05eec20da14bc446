"""The compiled kernel of operators over rows: softmax, normalisation and reductions.

Sums are kept in float64, in `LANES` interleaved parts that are added in a fixed order, so every instruction set gives
the same bits. The kernel validates nothing (`compile.rows` proves the sizes), and treats denormal numbers as zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.jit import device, kernel
from dcformat_runtime.kernels.float_functions import exp, greater, lesser
from dcformat_runtime.kernels.map_functions import copy
from dcformat_runtime.kernels.simd import flush_denormals, restore_denormals

Array = npt.NDArray[Any]

#: The number of parts of a sum or maximum.
LANES = 64
#: The functions of the kernel. `CENTER` subtracts the mean and divides by the standard deviation; `SCALE` divides by
#: the root of the mean square. Reductions make one number from each row.
SOFTMAX, CENTER, SCALE, MEAN, SUM, MAX, MIN = range(7)

_ZERO = np.float32(0)


@kernel(
    "void(float32[::1], const float32[::1], float64[::1], float32[::1], int64, int64, float64)",
    unroll=False,
    work=lambda x, length: 16 * len(x) + 8 * LANES * (len(x) // length),
)
def run_rows(
    out: Array, x: Array, sums: Array, extremes: Array, function: int, length: int, epsilon: float
) -> None:  # fmt: skip
    """Compute a function of every row.

    Parameters
    ----------
    out : float32
        Shares no memory with `x`; a row or a number for each row of it.
    x : float32 (rows * length,)
    sums : float64 (LANES,)
        Memory that the kernel uses.
    extremes : float32 (LANES,)
        The same.
    function : int64
    length : int64
    epsilon : float64
        The number added to the variance or the mean square.
    """
    floats = flush_denormals()
    for r in range(len(x) // length):
        row = x[r * length : (r + 1) * length]
        if function == SOFTMAX:
            _softmax(out[r * length : (r + 1) * length], row, sums, extremes, length)
        elif function <= SCALE:
            _normalize(out[r * length : (r + 1) * length], row, sums, length, function == CENTER, epsilon)
        elif function <= SUM:
            total = _total(row, sums, length)
            out[r] = total / length if function == MEAN else total
        else:
            out[r] = _extreme(row, extremes, length, function == MAX)
    restore_denormals(floats)


@device
def _total(row: Array, sums: Array, length: int) -> float:
    for j in range(LANES):
        sums[j] = 0.0
    whole = length - length % LANES
    for start in range(0, whole, LANES):
        part = row[start : start + LANES]
        for j in range(LANES):
            sums[j] += np.float64(part[j])
    rest = row[whole:length]
    for j in range(length - whole):
        sums[j] += np.float64(rest[j])
    return _joined(sums)


@device
def _squares(row: Array, sums: Array, length: int, mean: float) -> float:
    """Return the sum of the squared differences of the elements from `mean`."""
    for j in range(LANES):
        sums[j] = 0.0
    whole = length - length % LANES
    for start in range(0, whole, LANES):
        part = row[start : start + LANES]
        for j in range(LANES):
            over = np.float64(part[j]) - mean
            sums[j] += over * over
    rest = row[whole:length]
    for j in range(length - whole):
        over = np.float64(rest[j]) - mean
        sums[j] += over * over
    return _joined(sums)


@device
def _joined(sums: Array) -> float:
    """Return the sum of the parts, added in pairs."""
    _add(sums, 32)
    _add(sums, 16)
    _add(sums, 8)
    _add(sums, 4)
    _add(sums, 2)
    total: float = sums[0] + sums[1]
    return total


@device
def _add(sums: Array, half: int) -> None:
    """Add the second half of the parts to the first; a constant `half` lets LLVM do so by registers."""
    for j in range(half):
        sums[j] += sums[j + half]


@device
def _extreme(row: Array, extremes: Array, length: int, greatest: bool) -> Any:
    """Return the maximum or the minimum, NaN if the row has one."""
    lanes = min(LANES, length)
    copy(extremes, 0, row, 0, lanes)
    for start in range(LANES, length, LANES):
        part = row[start : start + LANES]
        count = min(LANES, length - start)
        if greatest:
            for j in range(count):
                extremes[j] = greater(extremes[j], part[j])
        else:
            for j in range(count):
                extremes[j] = lesser(extremes[j], part[j])
    for j in range(lanes, LANES):
        extremes[j] = extremes[0]
    _compare(extremes, 32, greatest)
    _compare(extremes, 16, greatest)
    _compare(extremes, 8, greatest)
    _compare(extremes, 4, greatest)
    _compare(extremes, 2, greatest)
    _compare(extremes, 1, greatest)
    return extremes[0]


@device
def _compare(extremes: Array, half: int, greatest: bool) -> None:
    """Keep the extremes of both halves in the first."""
    for j in range(half):
        x, y = extremes[j], extremes[j + half]
        extremes[j] = greater(x, y) if greatest else lesser(x, y)


@device
def _softmax(out: Array, row: Array, sums: Array, extremes: Array, length: int) -> None:
    shift = _extreme(row, extremes, length, True)
    for i in range(length):
        out[i] = exp(row[i] - shift)
    total = np.float32(_total(out, sums, length))
    for i in range(length):
        out[i] = out[i] / total


@device
def _normalize(out: Array, row: Array, sums: Array, length: int, centered: bool, epsilon: float) -> None:
    mean = _total(row, sums, length) / length if centered else 0.0
    factor = 1.0 / np.sqrt(_squares(row, sums, length, mean) / length + epsilon)
    for i in range(length):
        out[i] = np.float32((np.float64(row[i]) - mean) * factor)
