"""How the rows of a product are divided among the threads that share an operator."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from dcformat.jit import device
from dcformat_runtime.kernels.simd import word

Array = npt.NDArray[Any]

#: The number of entries that take as long as the start and the end of a row.
_ROW = 8


@device
def first_of(mem: Array, ends: int, step: int, rows: int, part: int, parts: int) -> int:
    """Return the first row of a part; the part ends before the first row of the next one.

    A part has adjacent rows, because the processor fetches their entries ahead, which lie in a row in memory. Parts
    have about the same number of entries: those before row r are ``word(ends + step * r)``.
    """
    if part == 0 or part == parts:
        return rows if part else 0
    least = (word(mem, ends + step * rows) + _ROW * rows) * part // parts
    low = 0
    high = rows
    while low < high:
        middle = (low + high) // 2
        if word(mem, ends + step * middle) + _ROW * middle < least:
            low = middle + 1
        else:
            high = middle
    return low
