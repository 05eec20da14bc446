"""From dense arrays to tensors: every bit survives, whatever the form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcformat.codecs.values import ranks
from dcformat.dense import from_dense
from dcformat.model import STORAGE, Tensor


def check(tensor: Tensor, values: np.ndarray) -> None:  # type: ignore[type-arg]
    assert tensor.to_dense().tobytes() == np.ascontiguousarray(values).tobytes()
    assert tensor.shape == values.shape
    if tensor.codebook is not None:
        assert (np.diff(ranks(tensor.codebook, tensor.dtype)) > 0).all()
    if tensor.indices is not None and tensor.codebook is not None:
        assert tensor.codebook.view(f"<u{tensor.codebook.itemsize}").all()


def dense(values: object) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(values, np.float32)


@given(
    st.sampled_from(list(STORAGE)), st.lists(st.integers(0, 4), max_size=3), st.integers(0, 2**32 - 1),
    st.integers(1, 40), st.floats(0, 1),
)  # fmt: skip
def test_every_bit_survives(dtype: str, shape: list[int], seed: int, distinct: int, density: float) -> None:
    random = np.random.default_rng(seed)
    storage = STORAGE[dtype]
    book = random.integers(0, 1 << (8 * storage.itemsize), distinct, np.uint64).astype(f"<u{storage.itemsize}")
    if dtype != "int8":
        book &= {"float32": 0xFF7FFFFF, "float16": 0xFBFF, "bfloat16": 0xFF7F}[dtype]  # finite
    bits = np.where(random.random(shape) < density, book[random.integers(0, distinct, shape)], 0)
    values = bits.astype(book.dtype).view(storage).reshape(shape)
    check(from_dense("t", values, dtype), values)


def test_zeros_are_left_out_and_repeated_values_share_a_codebook() -> None:
    given = dense([[0, 2, 2, 0], [-1, 0, 0, -1]])
    tensor = from_dense("w", given)
    assert tensor.is_sparse
    assert tensor.nnz == 4
    assert tensor.codebook is not None
    assert tensor.codebook.tolist() == [-1, 2]
    check(tensor, given)


def test_a_negative_zero_is_a_value() -> None:
    given = dense([[0.0, -0.0, 1.0, 1.0]])
    tensor = from_dense("w", given)
    assert tensor.nnz == 3
    check(tensor, given)


def test_one_value_is_a_constant() -> None:
    tensor = from_dense("w", dense(np.full((3, 4), 2.5)))
    assert tensor.is_constant
    check(tensor, dense(np.full((3, 4), 2.5)))


def test_a_codebook_that_does_not_pay_is_not_made() -> None:
    given = dense(np.arange(1, 9).reshape(2, 4))
    tensor = from_dense("w", given)
    assert tensor.codebook is None
    assert not tensor.is_sparse
    check(tensor, given)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (0, 3)])
def test_scalars_and_empty_tensors(shape: tuple[int, ...]) -> None:
    given = dense(np.ones(shape))
    check(from_dense("w", given), given)


def test_the_scale_of_int8_is_kept() -> None:
    tensor = from_dense("w", np.array([[0, 3, 3, 0]], np.int8), "int8", 0.25)
    assert tensor.scale == 0.25
