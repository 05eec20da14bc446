"""Sparse rows are laid out by piece, the longest first, and entries that read only padding are dropped."""

from __future__ import annotations

import numpy as np
from dcformat_runtime.kernels.row_layout import lay_out

# Rows of the columns (0, 4), (), (1, 2, 4, 5) and (3, 4), with the values 10 r + c.
INDPTR = np.array([0, 2, 2, 6, 8], np.int64)
COLUMNS = np.array([0, 4, 1, 2, 4, 5, 3, 4], np.uint32)
VALUES = np.array([0, 4, 21, 22, 24, 25, 33, 34], np.float32)
BIASES = np.array([0.5, 1.5, 2.5, 3.5], np.float32)


def _run(places: list[int], pieces: list[int]) -> tuple[list[int], list[int], list[int], list[float], list[float]]:
    order, starts = np.zeros(4, np.int32), np.full(max(pieces) + 4 + 1, 5, np.uint32)
    indices, kept, bias = np.zeros(8, np.int32), np.zeros(8, np.float32), np.zeros(4, np.float32)
    lay_out(
        INDPTR, COLUMNS, VALUES, BIASES, np.array(places, np.int32), np.array(pieces, np.uint32),
        np.empty(4 + 2, np.int64), np.empty(4, np.uint32), order, starts, indices, kept, bias,
    )  # fmt: skip
    end = starts[-1]
    return order.tolist(), starts.tolist(), indices[:end].tolist(), kept[:end].tolist(), bias.tolist()


def test_one_piece() -> None:
    order, starts, indices, kept, bias = _run([0, 10, 20, 30, 40, 50], [0] * 6)
    assert (order, starts) == ([2, 0, 3, 1], [0, 4, 6, 8, 8])
    assert indices == [10, 20, 40, 50, 0, 40, 30, 40]
    assert kept == [21, 22, 24, 25, 0, 4, 33, 34]
    assert bias == [2.5, 0.5, 3.5, 1.5]


def test_runs_of_columns() -> None:
    """The pieces have the columns 0 to 1, none, 2 to 3, and 4 to 5."""
    _, starts, indices, kept, _ = _run([0, 10, 20, 30, 40, 50], [0, 0, 8, 8, 12, 12])
    assert starts == [0, 1, 2, 2, 2, 2, 2, 2, 2, 3, 3, 4, 4, 6, 7, 8, 8]
    assert indices == [10, 0, 20, 30, 40, 50, 40, 40]
    assert kept == [21, 0, 22, 33, 24, 25, 4, 34]


def test_pieces_in_turn() -> None:
    """The columns belong to two lists in turn, between which `starts` has one element more."""
    _, starts, indices, kept, _ = _run([0, 10, 20, 30, 40, 50], [0, 5, 0, 5, 0, 5])
    assert starts == [0, 2, 4, 5, 5, 5, 7, 7, 8, 8]
    assert indices == [20, 40, 0, 40, 40, 10, 50, 30]
    assert kept == [22, 24, 0, 4, 34, 21, 25, 33]


def test_dropped_columns() -> None:
    _, starts, indices, kept, _ = _run([0, 10, 20, 30, -1, 50], [0, 0, 0, 4, 4, 4])
    assert starts == [0, 2, 3, 3, 3, 4, 4, 5, 5]
    assert indices == [10, 20, 0, 50, 30]
    assert kept == [21, 22, 0, 25, 33]
