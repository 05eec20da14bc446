"""At which distance along a line stored entries keep company: the writer's guess, nothing that a file depends on.

A line of a layer is often an image or a stack of kernels laid out flat: the cell above is one image's width back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: Distances looked at, and how many cells of the tensor's first lines.
MOST_LAG, SAMPLE = 64, 1 << 20


def likely(pointers: Array, indices: Array, labels: Array, lines: int, length: int, negatives: int) -> list[int]:
    """Return up to three distances above 1, most promising first: by pairs of entries, then by pairs of equal sign."""
    rows = min(lines, max(SAMPLE // max(length, 1), 1))
    count = int(pointers[rows])
    if length < 3 or length > SAMPLE or not count:
        return []
    cells = np.zeros((rows, length), np.int32)
    row = np.repeat(np.arange(rows), np.diff(pointers[: rows + 1]))
    cells[row, indices[:count]] = np.where(labels[:count] < negatives, -1, 1)
    there = np.abs(cells)
    lags = range(2, min(MOST_LAG, length - 1) + 1)
    pairs = {lag: int((there[:, lag:] * there[:, :-lag]).sum()) * length // (length - lag) for lag in lags}
    alike = {lag: int((cells[:, lag:] * cells[:, :-lag]).sum()) * length // (length - lag) for lag in lags}
    by_pairs = sorted(lags, key=lambda lag: (-pairs[lag], lag))
    by_sign = sorted(lags, key=lambda lag: (-alike[lag], lag))
    return list(dict.fromkeys([by_pairs[0], by_sign[0], *by_pairs[1:2]]))
