"""Sparse entries as dense arrays and along the other axis, compared with NumPy, also if the entries are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcformat import model
from dcformat.codecs import index, scattering
from dcformat.errors import IndexRangeError
from dcformat.model import Tensor

SIZES = {"uint8": np.uint8, "float16": np.float16, "float32": np.float32, "float64": np.float64}


def matrix(dtype: str, rows: int, columns: int, density: float, seed: int) -> npt.NDArray[Any]:
    random = np.random.default_rng(seed)
    kept = random.random((rows, columns)) < density
    return np.where(kept, random.integers(1, 100, (rows, columns)), 0).astype(SIZES[dtype])


def sparse(dense: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    rows, indices = np.nonzero(dense)
    indptr = np.searchsorted(rows, np.arange(len(dense) + 1))
    return indptr.astype(np.int64), indices.astype(np.int32), dense[rows, indices]


@settings(max_examples=60)
@given(
    st.sampled_from(list(SIZES)), st.integers(1, 12), st.integers(1, 12), st.floats(0, 1), st.integers(0, 999),
    st.integers(1, 40),
)  # fmt: skip
def test_pieces_of_the_dense_form(dtype: str, rows: int, columns: int, density: float, seed: int, piece: int) -> None:
    dense = matrix(dtype, rows, columns, density, seed)
    tensor = Tensor("t", dense.shape, dtype, *_data_first(*sparse(dense)))
    whole = model._PIECE
    try:
        model._PIECE = piece
        assert tensor.to_dense().tobytes() == dense.tobytes()
        assert np.concatenate(list(tensor.pieces())).tobytes() == dense.tobytes()
    finally:
        model._PIECE = whole


@settings(max_examples=60)
@given(st.sampled_from(list(SIZES)), st.integers(1, 12), st.integers(1, 12), st.floats(0, 1), st.integers(0, 999))
def test_entries_along_the_other_axis(dtype: str, rows: int, columns: int, density: float, seed: int) -> None:
    dense = matrix(dtype, rows, columns, density, seed)
    found = index.transpose(*sparse(dense), columns)
    for made, expected in zip(found, sparse(np.ascontiguousarray(dense.T)), strict=True):
        assert made.tobytes() == expected.tobytes()


@settings(max_examples=150)
@given(
    st.lists(st.integers(-2, 9), min_size=1, max_size=6), st.lists(st.integers(-3, 9), max_size=8),
    st.integers(-2, 9), st.integers(0, 9), st.integers(1, 5), st.integers(0, 9), st.integers(1, 12),
)  # fmt: skip
def test_kernels_write_nothing_outside_for_any_entries(
    indptr: list[int], indices: list[int], begin: int, count: int, columns: int, start: int, size: int
) -> None:
    room = np.full(size + 2, 77, np.uint16)
    values = np.arange(1, count + 1, dtype=np.uint16)
    done = scattering.scatter(np.array(indptr), np.array(indices, np.int32), values, begin, columns, start, room[1:-1])
    assert room[0] == room[-1] == 77
    assert not done or int(np.count_nonzero(room[1:-1])) <= count


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("indices", [[0, 4, 1], [0, 1, -1], [0, 9, 1], [0, 1 << 30, 1]])
def test_a_column_outside_the_matrix_is_an_error(indices: list[int], dtype: type[np.integer[Any]]) -> None:
    data = np.ones(3, np.float32)
    tensor = Tensor("t", (1, 4), "float32", data, None, np.array([0, 3]), np.array(indices, dtype))
    with pytest.raises(IndexRangeError, match="'t'"):
        tensor.to_dense()


def _data_first(indptr: Any, indices: Any, values: Any) -> tuple[Any, None, Any, Any]:
    return values, None, indptr, indices
