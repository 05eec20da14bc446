"""Threads that share a product of sparse rows take adjacent rows, with about the same number of entries each."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from dcformat_runtime.kernels.row_parts import first_of


def _parts(lengths: np.ndarray, parts: int, step: int = 1) -> list[int]:
    """Return the first row of each part, and the number of rows."""
    ends = np.full(step * len(lengths) + 4, -1, np.int32)
    ends[3::step][: len(lengths) + 1] = np.concatenate(([0], np.cumsum(lengths)))
    return [first_of(ends.view(np.float32), 3, step, len(lengths), part, parts) for part in range(parts + 1)]


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [1, 2, 5, 64])
@pytest.mark.parametrize("most", [0, 3, 500])
def test_every_row_is_in_one_part(rows: int, parts: int, most: int) -> None:
    first = _parts(np.random.default_rng(rows).integers(0, most + 1, rows), parts)
    assert (first[0], first[-1]) == (0, rows)
    assert first == sorted(first)


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_parts_have_about_the_same_number_of_entries(parts: int) -> None:
    lengths = np.arange(400, 0, -2)  # rows are sorted by length, so the first half of them has three quarters
    first = _parts(lengths, parts)
    entries = [int(lengths[start:end].sum()) for start, end in pairwise(first)]
    assert max(entries) < 1.1 * lengths.sum() / parts
    assert first[1] < 200 // parts


def test_ends_of_rows_may_lie_apart() -> None:
    lengths = np.arange(30)
    assert _parts(lengths, 4, step=15) == _parts(lengths, 4)


def test_rows_without_entries_are_shared_too() -> None:
    assert _parts(np.zeros(12, np.int64), 4) == [0, 3, 6, 9, 12]
