"""Sparse tensors: rows that list their columns, blocks, and levels that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dcformat_interop import UnfitError, read_tflite

from tests.interop.tflite.support import random, run
from tests.interop.tflite.test_bad_files import network
from tests.interop.tflite.test_operators import close
from tests.interop.tflite.writer import Number, Operator, Tensor, constant, model


def level(
    starts: Any = None, places: Any = None, size: int = 0, kind: int = 1, dtypes: tuple[int, int] = (1, 1)
) -> dict[int, Any]:
    if starts is None:
        return {0: Number("b", 0), 1: Number("i", size)}
    lists = [
        np.array(values, {1: "i4", 2: "u2", 3: "u1"}[d]) for values, d in zip((starts, places), dtypes, strict=True)
    ]
    return {
        0: Number("b", kind), 2: Number("B", dtypes[0]), 3: {0: lists[0]}, 4: Number("B", dtypes[1]), 5: {0: lists[1]}
    }  # fmt: skip


def layer(shape: tuple[int, int], values: Any, order: Any, levels: Any, blocks: Any = ()) -> bytes:
    """Return a fully connected layer with sparse weights."""
    sparsity = {0: np.array(order, np.int32), 1: np.array(blocks, np.int32), 2: levels}
    tensors = [
        Tensor((1, shape[1])), Tensor(shape, np.array(values, np.float32), sparsity=sparsity), Tensor(shape),
        constant(np.zeros(shape[0], np.float32)), Tensor((1, shape[0])),
    ]  # fmt: skip
    return model(tensors, [Operator("DENSIFY", [1], [2]), Operator("FULLY_CONNECTED", [0, 2, 3], [4])], [0], [4])


@pytest.mark.parametrize("dtypes", [(1, 1), (2, 3), (3, 2)])
def test_rows_that_list_their_columns(dtypes: tuple[int, int]) -> None:
    levels = [level(size=3), level([0, 1, 1, 3], [2, 0, 3], dtypes=dtypes)]
    data = layer((3, 4), [5, 6, 7], [0, 1], levels)
    weight = np.array([[0, 0, 5, 0], [0, 0, 0, 0], [6, 0, 0, 7]], np.float32)
    x = random((1, 4))
    close(run(data, x), x @ weight.T)
    np.testing.assert_array_equal(read_tflite(data).tensors["tensor_1.weight"].to_dense(), weight)


def test_blocks_of_columns() -> None:
    levels = [level(size=2), level([0, 1, 3], [1, 0, 1]), level(size=2)]
    data = layer((2, 4), [1, 2, 3, 4, 5, 6], [0, 1, 2], levels, [1])
    np.testing.assert_array_equal(
        read_tflite(data).tensors["tensor_1.weight"].to_dense(), [[0, 0, 1, 2], [3, 4, 5, 6]]
    )  # fmt: skip


def test_columns_that_list_their_rows() -> None:
    levels = [level(size=4), level([0, 1, 1, 2, 3], [2, 0, 1])]
    found = read_tflite(layer((3, 4), [5, 6, 7], [1, 0], levels)).tensors["tensor_1.weight"].to_dense()
    np.testing.assert_array_equal(found, [[0, 0, 6, 0], [0, 0, 0, 7], [5, 0, 0, 0]])


def test_sparse_weights_of_a_quantised_network() -> None:
    dense = read_tflite(network()).tensors["tensor_6.weight"].to_dense()
    assert np.count_nonzero(dense) == 6
    assert sorted(dense[dense != 0]) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("order", "levels", "message"),
    [
        ([0, 0], [level(size=3), level([0, 1, 1, 3], [2, 0, 3])], "expected levels for 2 dimensions"),
        ([0, 1], [level(size=3)], "expected levels for 2 dimensions"),
        ([0, 1], [level(size=3), level([0, 1, 1, 3], [2, 0, 4])], "expected positions inside"),
        ([0, 1], [level(size=3), level([0, 1, 1, 3], [2, 0, -1])], "expected positions inside"),
        ([0, 1], [level(size=3), level([0, 1, 1, 4], [2, 0, 3])], "expected segments of 3 positions"),
        ([0, 1], [level(size=3), level([0, 5, 9, 13], range(13))], "expected levels of 12 elements at most, found 13"),
        ([0, 1], [level(size=3), level([0, 2, 1, 3], [2, 0, 3])], "expected ascending starts"),
        ([0, 1], [level(size=3), level([0, 3], [2, 0, 3])], "expected ascending starts"),
        ([0, 1], [level(size=1 << 30), level([0, 1, 1, 3], [2, 0, 3])], "expected levels of 12 elements at most"),
        ([0, 1], [level(size=3), level([0, 1, 1, 3], [2, 0, 3], kind=2)], "expected a dense or a sparse level"),
        ([0, 1], [level(size=3), {0: Number("b", 1)}], "expected starts and positions"),
        ([0, 1], [level(size=3), level([0, 1, 1, 2], [2, 0, 3])], "expected 8 bytes for 2 elements"),
    ],
)
def test_levels_that_do_not_fit(order: Any, levels: Any, message: str) -> None:
    with pytest.raises(UnfitError, match=f"tensor 1 'tensor_1': {message}"):
        read_tflite(layer((3, 4), [5, 6, 7], order, levels))
