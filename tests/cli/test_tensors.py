"""From dense arrays to tensors: every bit survives, whatever the form."""

from __future__ import annotations

import numpy as np
import pytest
from dcformat_cli.checkpoints import Dense
from dcformat_cli.tensors import to_tensor
from hypothesis import given
from hypothesis import strategies as st

from dcformat.model import STORAGE, Tensor


def dense(values: object, dtype: str = "float32") -> Dense:
    return Dense(dtype, np.asarray(values, STORAGE[dtype]))


def check(tensor: Tensor, given: Dense) -> None:
    assert tensor.to_dense().tobytes() == np.ascontiguousarray(given.values).tobytes()
    assert tensor.shape == given.values.shape
    if tensor.codebook is not None:
        assert (np.diff(tensor.codebook.astype(np.float64)) > 0).all()
    if tensor.indices is not None and tensor.codebook is not None:
        assert tensor.codebook.view(f"<u{tensor.codebook.itemsize}").all()


@given(
    st.sampled_from(list(STORAGE)), st.lists(st.integers(0, 4), max_size=3), st.integers(0, 2**32 - 1),
    st.integers(1, 40), st.floats(0, 1),
)  # fmt: skip
def test_every_bit_survives(dtype: str, shape: list[int], seed: int, distinct: int, density: float) -> None:
    random = np.random.default_rng(seed)
    storage = STORAGE[dtype]
    book = random.integers(0, 1 << (8 * storage.itemsize), distinct, np.uint64).astype(
        f"<u{storage.itemsize}"
    )
    if dtype != "int8":
        book &= {"float32": 0xFF7FFFFF, "float16": 0xFBFF, "bfloat16": 0xFF7F}[dtype]  # finite
    bits = np.where(random.random(shape) < density, book[random.integers(0, distinct, shape)], 0)
    values = bits.astype(book.dtype).view(storage).reshape(shape)
    check(to_tensor("t", Dense(dtype, values)), Dense(dtype, values))


def test_zeros_are_left_out_and_repeated_values_share_a_codebook() -> None:
    given = dense([[0, 2, 2, 0], [-1, 0, 0, -1]])
    tensor = to_tensor("w", given)
    assert tensor.is_sparse
    assert tensor.nnz == 4
    assert tensor.codebook is not None
    assert tensor.codebook.tolist() == [-1, 2]
    check(tensor, given)


def test_a_negative_zero_is_a_value() -> None:
    given = dense([[0.0, -0.0, 1.0, 1.0]])
    tensor = to_tensor("w", given)
    assert tensor.nnz == 3
    check(tensor, given)


def test_one_value_is_a_constant() -> None:
    tensor = to_tensor("w", dense(np.full((3, 4), 2.5)))
    assert tensor.is_constant
    check(tensor, dense(np.full((3, 4), 2.5)))


def test_a_codebook_that_does_not_pay_is_not_made() -> None:
    given = dense(np.arange(1, 9).reshape(2, 4))
    tensor = to_tensor("w", given)
    assert tensor.codebook is None
    assert not tensor.is_sparse
    check(tensor, given)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (0, 3)])
def test_scalars_and_empty_tensors(shape: tuple[int, ...]) -> None:
    given = dense(np.ones(shape))
    check(to_tensor("w", given), given)


def test_the_scale_of_int8_is_kept() -> None:
    tensor = to_tensor("w", Dense("int8", np.array([[0, 3, 3, 0]], np.int8), 0.25))
    assert tensor.scale == 0.25
