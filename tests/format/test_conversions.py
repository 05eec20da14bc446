"""Tensors as NumPy's and SciPy's numbers, and tensors of SciPy's matrices."""

import numpy as np
import pytest

import dcformat
from dcformat import Model, from_dense, from_scipy
from dcformat.errors import EncodingError, MemoryLimitError

sparse = pytest.importorskip("scipy.sparse")

MATRIX = np.array([[0, 1.5, 0, -2], [0, 0, 0, 0], [1.5, 0, 1.5, 0]], np.float32)


def test_numpy_takes_a_tensor():
    tensor = from_dense("w", MATRIX)
    assert (tensor.ndim, tensor.shape, tensor.size, tensor.nbytes, tensor.dtype) == (2, (3, 4), 12, 48, "float32")
    np.testing.assert_array_equal(np.asarray(tensor), MATRIX)
    assert np.asarray(tensor, np.float64).dtype == np.float64
    assert np.matmul(MATRIX.T, tensor).tolist() == (MATRIX.T @ MATRIX).tolist()
    copy = np.array(from_dense("b", np.arange(3, dtype=np.float32)))
    copy[0] = 7


def test_numbers_that_numpy_lacks():
    half = from_dense("b", np.array([[1.5, 0], [-2, 0]]), "bfloat16")
    assert np.asarray(half).tolist() == [[1.5, 0], [-2, 0]]
    assert half.to_scipy().toarray().tolist() == [[1.5, 0], [-2, 0]]
    scaled = from_dense("q", np.array([[1, 0], [-3, 0]], np.int8), "int8", 0.25)
    assert np.asarray(scaled).dtype == np.float32
    assert np.asarray(scaled).tolist() == scaled.to_scipy().toarray().tolist() == [[0.25, 0], [-0.75, 0]]
    tiny = from_dense("t", np.array([[1, 0]], np.uint8), "float8_e4m3fn")
    for convert in (np.asarray, type(tiny).to_scipy):
        with pytest.raises(EncodingError, match="float8_e4m3fn"):
            convert(tiny)


@pytest.mark.parametrize("form", ["csr_array", "csc_matrix", "coo_array", "lil_matrix", "dok_array", "bsr_array"])
def test_there_and_back(form):
    matrix = getattr(sparse, form)(MATRIX)
    tensor = from_scipy("w", matrix)
    assert repr(tensor) == "Tensor('w', float32 3x4, sparse, 4 of 12 stored, 2 shared values)"
    back = tensor.to_scipy()
    assert (type(back), back.dtype, back.indices.dtype) == (sparse.csr_array, np.float32, np.int32)
    np.testing.assert_array_equal(back.toarray(), MATRIX)
    np.testing.assert_array_equal(dcformat.load(dcformat.dumps(Model({"w": tensor}))).tensors["w"].to_dense(), MATRIX)


def test_what_matrices_may_hold():
    twice = sparse.coo_array(([1.0, 2.0, -0.0, 5.0], ([0, 0, 1, 1], [2, 2, 0, 1])), shape=(2, 3))
    tensor = from_scipy("w", twice)
    assert tensor.to_dense().tolist() == [[0, 0, 3], [0, 5, 0]]
    assert (tensor.nnz, from_scipy("w", twice, exact=True).nnz, twice.nnz) == (2, 3, 4)
    conv = from_scipy("c", sparse.csr_array(MATRIX), shape=(3, 1, 2, 2))
    np.testing.assert_array_equal(conv.to_dense(), MATRIX.reshape(3, 1, 2, 2))
    scaled = from_scipy("i", sparse.csr_array(np.eye(2)), "int8", 0.5)
    assert scaled.to_scipy().toarray().tolist() == [[0.5, 0], [0, 0.5]]
    empty = from_scipy("e", sparse.csr_array((3, 5)))
    assert dcformat.load(dcformat.dumps(Model({"e": empty}))).tensors["e"].shape == (3, 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: from_scipy("w", MATRIX), "from_dense takes arrays"),  # type: ignore[arg-type]
        (lambda: from_scipy("w", sparse.csr_array(MATRIX), shape=(4, 3)), "a matrix view of"),
        (lambda: from_scipy("w", sparse.csr_array(MATRIX), shape=(12,)), "a matrix view of"),
        (lambda: from_scipy("w", sparse.csr_array(MATRIX), "int8"), "numbers that int8 holds exactly"),
        (lambda: from_dense("w", np.arange(3, dtype=np.float32)).to_scipy(), "at least two dimensions"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(EncodingError, match=message):
        make()


def test_memory():
    wide = from_dense("w", np.zeros((1 << 10, 1 << 10), np.float32))
    with pytest.raises(MemoryLimitError):
        wide.to_scipy(max_memory=1000)
