"""Small kernels for the tests of machine code, one for each feature that an entry or image must handle."""

import numpy as np

from dcformat.jit import device, intrinsic, kernel, shared

FACTOR = 3
TABLE = np.array([10, 20, 30], np.int64)


def _build():
    from machine_kernels import ir

    return ir.double()


@intrinsic(_build)
def double(x):
    return 2 * x


@device
def scaled(values, i, factor):
    return values[i] * factor, i + 1


@kernel("int64(const int64[::1], int64)", work=lambda values: 10 * len(values))
def total(values, factor):
    """Return the sum of the values times `factor`."""
    out = 0
    i = 0
    while i < len(values):
        value, i = scaled(values, i, factor)
        out += value
    return out * FACTOR + TABLE[0]


@kernel("void(float32[:, ::1], float64, float32, boolean)")
def scale(values, factor, offset, on):
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            if on:
                values[row, column] = values[row, column] * factor + offset


@kernel("int64(int64, int64)")
def steps(count, step):
    """Loop in steps; Numba raises ValueError for step 0."""
    out = 0
    for i in range(0, count, step):
        out += double(i)
    return out


@kernel("void(uint8[::1], int64)")
def fill(out, value):
    """Fill an array; LLVM turns the loop into a call of memset."""
    for i in range(len(out)):
        out[i] = 7
    if value != 7:
        for i in range(len(out)):
            out[i] = value


@kernel("float64(const float64[::1])")
def mean(values):
    out = 0.0
    for value in values:
        out += value
    return out / len(values)


@kernel("boolean(const uint8[::1], int64)")
def has(values, wanted):
    return _search(values, wanted) and not _search(values[:1], wanted + 256)


@shared
def _search(values, wanted):
    for value in values:  # noqa: SIM110
        if value == wanted:
            return True
    return False
