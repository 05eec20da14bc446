"""From dense arrays to tensors: every bit survives in every form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcformat.dense import from_dense, negative_zeros
from dcformat.errors import EncodingError
from dcformat.floats import ranks
from dcformat.model import STORAGE, Tensor


def check(tensor: Tensor, values: np.ndarray) -> None:
    assert tensor.to_dense().tobytes() == np.ascontiguousarray(values).tobytes()
    assert tensor.shape == values.shape
    if tensor.codebook is not None:
        assert (np.diff(ranks(tensor.codebook, tensor.dtype)) > 0).all()
    if tensor.indices is not None and tensor.codebook is not None:
        assert tensor.codebook.view(f"<u{tensor.codebook.itemsize}").all()


def dense(values: object) -> np.ndarray:
    return np.asarray(values, np.float32)


@given(
    st.sampled_from(list(STORAGE)), st.lists(st.integers(0, 4), max_size=3), st.integers(0, 2**32 - 1),
    st.integers(1, 40), st.floats(0, 1),
)  # fmt: skip
def test_every_bit_survives(dtype: str, shape: list[int], seed: int, distinct: int, density: float) -> None:
    random = np.random.default_rng(seed)
    storage = STORAGE[dtype]
    codebook = random.integers(0, (1 << (8 * storage.itemsize)) - 1, distinct, np.uint64, endpoint=True).astype(
        f"<u{storage.itemsize}"
    )
    if dtype == "bool":
        codebook &= 1
    bits = np.where(random.random(shape) < density, codebook[random.integers(0, distinct, shape)], 0)
    values = bits.astype(codebook.dtype).view(storage).reshape(shape)
    check(from_dense("t", values, dtype, exact=True), values)


def test_zeros_are_left_out_and_repeated_values_share_a_codebook() -> None:
    given = dense([[0, 2, 2, 0], [-1, 0, 0, -1]])
    tensor = from_dense("w", given)
    assert tensor.is_sparse
    assert tensor.nnz == 4
    assert tensor.codebook is not None
    assert tensor.codebook.tolist() == [-1, 2]
    check(tensor, given)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_negative_zero_is_a_zero_unless_every_bit_is_to_be_kept(dtype: str) -> None:
    numbers = dense([[0.0, -0.0, 1.0, 1.0]])
    given = numbers if dtype == "bfloat16" else numbers.astype(dtype)
    tensor = from_dense("w", given, dtype)
    assert tensor.nnz == 2
    assert tensor.to_dense().tobytes() == from_dense("w", np.abs(given), dtype, exact=True).to_dense().tobytes()
    assert negative_zeros(given, dtype) == 1
    exact = from_dense("w", given, dtype, exact=True)
    assert exact.nnz == 3
    kept = exact.to_dense()
    assert kept.view(f"<u{kept.itemsize}")[0, 1] == 1 << (8 * kept.itemsize - 1)
    assert np.signbit(given[0, 1])  # the argument is unchanged


def test_only_zeros_lose_their_sign() -> None:
    given = dense([[-1.0, -0.0], [-1e-45, 0.0]])
    assert from_dense("w", given).to_dense().view("<u4").tolist() == [[0xBF800000, 0], [0x80000001, 0]]
    assert negative_zeros(np.zeros(3, np.int8), "int8") == 0
    assert negative_zeros([-0.0, 1.0, -0.0]) == 2
    assert negative_zeros(np.array([0x8000, 0], np.uint16), "bfloat16") == 1


def test_one_negative_zero_after_another_is_a_constant_zero() -> None:
    tensor = from_dense("w", -np.zeros((3, 4), np.float32))
    assert tensor.is_constant
    assert tensor.data.view("<u4").tolist() == [0]


#: Arrays that cannot be held exactly: the array, the requested dtype, and the error's text after "found".
LOSSY: dict[str, tuple[object, str | None, str]] = {
    "bfloat16 of float32": (dense([1.5, 2.1]), "bfloat16", "2.0999999046325684 at (1,)"),
    "int8 that wraps": (dense([[1], [300]]), "int8", "300.0 at (1, 0)"),
    "int8 of fractions": ([2.0, 0.5], "int8", "0.5 at (1,)"),
    "int8 of no number": ([float("nan")], "int8", "nan at (0,)"),
    "int8 of integers": (np.array([-129, 0]), "int8", "-129 at (0,)"),
    "int8 of unsigned ones": (np.array([128], np.uint8), "int8", "128 at (0,)"),
    "complex": (np.array([1j]), None, "dtype complex128"),
    "float16 overflow": (dense([1, 70000]), "float16", "70000.0 at (1,)"),
    "float16 underflow": ([1e-9], "float16", "1e-09 at (0,)"),
    "float32 of float64": ([0.5, 0.1], None, "0.1 at (1,)"),
    "float32 overflow": ([1e300], "float32", "1e+300 at (0,)"),
    "large integers": (np.array([1 << 24, (1 << 24) + 1]), None, "16777217 at (1,)"),
    "the largest integer": (np.array([(1 << 63) - 1]), "float32", "9223372036854775807 at (0,)"),
    "the largest unsigned integer": (np.array([(1 << 64) - 1], np.uint64), "float32", "18446744073709551615 at (0,)"),
    "objects": (np.array([None]), None, "dtype object"),
    "text": (["a"], None, "dtype <U1"),
    "dates": (np.array(["2020-01-01"], "datetime64[D]"), None, "dtype datetime64[D]"),
    "ragged": ([[1], [2, 3]], None, "setting an array element"),
    "masked": (np.ma.masked_array([1.0, 2.0], [False, True]), None, "masked elements"),
    "uint16 of either kind": (np.zeros(3, np.uint16), None, "uint16 without a dtype"),
    "an unknown dtype": (dense([1]), "float128", "'float128'"),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSY)
def test_values_that_cannot_be_held_exactly_are_refused(name: str) -> None:
    given, dtype, found = LOSSY[name]
    with pytest.raises(EncodingError) as caught:
        from_dense("conv1", given, dtype)  # type: ignore[arg-type]
    assert found in str(caught.value)
    assert "'conv1'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_bit_includes_the_sign_of_a_zero() -> None:
    assert from_dense("w", [-0.0, 1.0], "int8").to_dense().tolist() == [0, 1]
    with pytest.raises(EncodingError, match=r"-0\.0 at \(0,\)"):
        from_dense("w", [-0.0, 1.0], "int8", exact=True)


def test_values_that_can_be_held_exactly_are_converted() -> None:
    halves = [1.5, -2.0, 0.0]
    for values in (halves, np.array(halves, ">f4"), np.array(halves, ">f2"), np.ma.masked_array(halves, False)):
        assert from_dense("w", values).to_dense().tolist() == halves
        assert from_dense("w", values, "bfloat16").to_dense().tolist() == [0x3FC0, 0xC000, 0]
    assert from_dense("w", np.array([1, 0], ">i8"), "int8").to_dense().tolist() == [1, 0]
    assert from_dense("w", np.array([0x3FC0], ">u2"), "bfloat16").to_dense().tolist() == [0x3FC0]
    assert from_dense("w", [True, False]).to_dense().tolist() == [1, 0]
    assert from_dense("w", np.ones(2, np.int8)).dtype == "int8"
    assert from_dense("w", np.ones(2, np.float16)).dtype == "float16"
    assert from_dense("w", [(1 << 24) + 2]).to_dense().tolist() == [(1 << 24) + 2]


def test_arrays_of_bfloat16_are_taken_as_they_are() -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    given = np.array([1.5, -2.0, 0.0], bfloat16)
    assert from_dense("w", given).dtype == "bfloat16"
    assert from_dense("w", given).to_dense().tolist() == [0x3FC0, 0xC000, 0]
    assert from_dense("w", given, "float16").to_dense().tolist() == [1.5, -2.0, 0.0]


def test_a_sparse_matrix_of_scipy_is_refused() -> None:
    with pytest.raises(EncodingError, match="toarray"):
        from_dense("w", pytest.importorskip("scipy.sparse").eye(3))


def test_a_vector_is_sparse_in_one_row() -> None:
    tensor = from_dense("w", dense([0, 0, 3, 0, 3]))
    assert tensor.indptr is not None and tensor.indices is not None
    assert (tensor.indptr.tolist(), tensor.indices.tolist()) == ([0, 2], [2, 4])
    assert (tensor.rows, tensor.columns) == (1, 5)
    check(tensor, dense([0, 0, 3, 0, 3]))


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
