"""The vector helper that multiplies sparse rows and shifts sums instead of operands, in plain Python.

The compiled form is the LLVM IR that the function with the same name writes in `simd_shifts`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.jit import intrinsic
from dcformat_runtime.kernels.simd import Row, Rows, Sum, accumulate, clipped, compiled_form, word
from dcformat_runtime.kernels.simd_widths import BLOCK, MASK

Array = npt.NDArray[Any]


class Shifts(NamedTuple):
    """The places of shifted sums, and the elements that they lose.

    The sums of the first row go to the adjacent blocks from `y` on. The residual of a sum lies `residual` floats after
    its place. Where a row begins is in the same place of three lists, `columns` words apart: one for each column of the
    kernel. `masks` is the address of `MASK` words that are 0 at the first positions of lines, and then of as many that
    are 0 at the last; the others have all bits set.
    """

    y: int
    residual: int
    columns: int
    masks: int


@intrinsic(compiled_form("rows_shifted"))
def rows_shifted(k: int, a: Array, mem: Array, table: Rows, how: Sum, shifts: Shifts) -> None:
    """Multiply sparse rows of kernels with three columns by `k` blocks, which hold whole lines.

    The sums of the first and the last column belong to the next position and to the one before. They move there, except
    across the ends of lines. Sums are never exact.
    """
    n = BLOCK * k
    masks = mem.view(np.int32)[shifts.masks :]
    first, last = masks[:n] != 0, masks[MASK : MASK + n] != 0
    for r in range(table.first, table.stop):
        columns = []
        for column in range(3):
            at = table.indptr + column * shifts.columns + r
            row = Row(table.x, table.unit, table.indices, table.values, word(mem, at), word(mem, at + 1))
            columns.append(np.zeros(n, np.float32))
            accumulate(columns[-1], a, mem, row, row.x)
        y = shifts.y + word(mem, table.order + r) * table.apart
        acc = a[y : y + n] if how.resume else np.full(n, mem[table.bias + r], np.float32)
        if how.residual_first:
            acc = acc + a[y + shifts.residual :][:n]
        acc = acc + np.where(first, np.roll(columns[0], 1), np.float32(0))
        acc = acc + np.where(last, np.roll(columns[2], -1), np.float32(0))
        a[y : y + n] = clipped(mem, how.bounds, acc + columns[1])
