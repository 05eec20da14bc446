"""The dense form of a sparse tensor's entries."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.jit import device, kernel, lacks_compiler

Array = npt.NDArray[Any]


def scatter(indptr: Array, indices: Array, values: Array, begin: int, columns: int, start: int, out: Array) -> bool:
    """Fill a part of the dense form: zeros, and the entries that lie in it.

    Parameters
    ----------
    indptr : int64 ``(rows + 1,)``
    indices : int32 or int64 ``(nnz,)``
    values : ``(count,)``
        The values of the entries in this part, of 1, 2, 4 or 8 bytes each.
    begin : int
        Number of the first of these entries.
    columns, start : int
        Length of a row, and the place of ``out[0]`` in the flattened tensor.
    out : ``(size,)``, of the dtype of `values`
        The part, contiguous.

    Returns
    -------
    bool
        Whether all entries lie in this part. Everything is checked, because anyone can make a `Tensor`.
    """
    run, bits = _KERNELS.get(values.itemsize, (None, ""))
    dtypes = values.dtype == out.dtype and indices.dtype == np.int32 and indptr.dtype == np.int64
    contiguous = all(each.flags.c_contiguous for each in (indptr, indices, values))
    if run is None or not dtypes or not contiguous or lacks_compiler(run):
        return _scatter_plain(indptr, indices, values, begin, columns, start, out)
    return bool(run(indptr, indices, values.view(bits), begin, columns, start, out.view(bits)))


def _scatter_plain(
    indptr: Array, indices: Array, values: Array, begin: int, columns: int, start: int, out: Array
) -> bool:
    """Do the work of the kernels in NumPy."""
    end, first, last = begin + len(values), start // columns, (start + len(out) - 1) // columns
    rows = np.repeat(np.arange(first, last + 1), np.diff(np.clip(indptr[first : last + 2], begin, end)))
    at = rows * columns + indices[begin:end] - start
    if len(at) != len(values) or ((at < 0) | (at >= len(out))).any():
        return False
    out[:] = 0
    out[at] = values
    return True


@device
def _scatter(indptr, indices, values, begin, columns, start, out):  # type: ignore[no-untyped-def]
    out[:] = 0
    entry, end, row = begin, begin + len(values), start // columns
    if begin < 0 or row < 0 or end > len(indices):
        return False
    while entry < end:
        row += 1
        if row >= len(indptr):
            return False
        before = (row - 1) * columns - start
        while entry < min(indptr[row], end):
            at = before + np.int64(indices[entry])
            if at < 0 or at >= len(out):
                return False
            out[at] = values[entry - begin]
            entry += 1
    return True


def _work(values: Array, out: Array) -> int:
    return 2 * len(values) + len(out) + 10


@kernel("boolean(const int64[::1], const int32[::1], const uint8[::1], int64, int64, int64, uint8[::1])", work=_work)
def _scatter8(indptr, indices, values, begin, columns, start, out):  # type: ignore[no-untyped-def]
    return _scatter(indptr, indices, values, begin, columns, start, out)


@kernel("boolean(const int64[::1], const int32[::1], const uint16[::1], int64, int64, int64, uint16[::1])", work=_work)
def _scatter16(indptr, indices, values, begin, columns, start, out):  # type: ignore[no-untyped-def]
    return _scatter(indptr, indices, values, begin, columns, start, out)


@kernel("boolean(const int64[::1], const int32[::1], const uint32[::1], int64, int64, int64, uint32[::1])", work=_work)
def _scatter32(indptr, indices, values, begin, columns, start, out):  # type: ignore[no-untyped-def]
    return _scatter(indptr, indices, values, begin, columns, start, out)


@kernel("boolean(const int64[::1], const int32[::1], const uint64[::1], int64, int64, int64, uint64[::1])", work=_work)
def _scatter64(indptr, indices, values, begin, columns, start, out):  # type: ignore[no-untyped-def]
    return _scatter(indptr, indices, values, begin, columns, start, out)


#: The kernel for each size of a value, and the dtype of its bit patterns.
_KERNELS = {1: (_scatter8, "u1"), 2: (_scatter16, "u2"), 4: (_scatter32, "u4"), 8: (_scatter64, "u8")}
