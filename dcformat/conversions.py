"""Tensors as the numbers that NumPy and SciPy compute with, and tensors made from SciPy's sparse matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from dcformat.dense import SIGNED_ZEROS, as_stored, positive_zeros, with_codebook
from dcformat.errors import EncodingError
from dcformat.floats import as_numbers, bit_patterns
from dcformat.layout import DEFAULT_MAX_MEMORY
from dcformat.model import Tensor, matrix_shape

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Array = npt.NDArray[Any]


class SparseMatrix(Protocol):
    """Any of SciPy's sparse matrices or arrays."""

    shape: tuple[int, ...]

    def tocsr(self, copy: bool = ...) -> Any:
        """Return the matrix in CSR form."""


def to_array(tensor: Tensor, max_memory: int | None = DEFAULT_MAX_MEMORY) -> Array:
    """Return the numbers of a tensor as a dense array: bfloat16 and scaled int8 become float32.

    Raises
    ------
    EncodingError
        NumPy has no numbers of the dtype (float8).
    MemoryLimitError
        The dense form takes more than `max_memory` bytes.
    """
    return _numbers(tensor, tensor.to_dense(max_memory=max_memory), "NumPy")


def csr_arrays(tensor: Tensor, max_memory: int | None = DEFAULT_MAX_MEMORY) -> tuple[Array, Array, Array]:
    """Return ``(indptr, indices, values)`` of the matrix view as SciPy computes with them.

    float16, bfloat16 and scaled int8 become float32. Both index arrays have one dtype, int32 where it is wide enough.

    Raises
    ------
    EncodingError
        The tensor is a vector or a number, or SciPy has no numbers of its dtype (float8).
    MemoryLimitError
        The arrays take more than `max_memory` bytes.
    """
    if len(tensor.shape) < 2:
        raise EncodingError(f"tensor {tensor.name!r}", got=tensor.shape, expected="at least two dimensions")
    indptr, indices, values = tensor.to_csr(max_memory=max_memory)
    numbers = _numbers(tensor, values, "SciPy")
    numbers = numbers.astype(np.float32) if tensor.dtype == "float16" else numbers
    index = np.int32 if len(values) < 1 << 31 and indices.dtype == np.int32 else np.int64
    return indptr.astype(index, copy=False), indices.astype(index, copy=False), numbers


def to_scipy(tensor: Tensor, max_memory: int | None = DEFAULT_MAX_MEMORY) -> csr_array:
    """Return the matrix view of a tensor as a `scipy.sparse.csr_array`; errors are those of `csr_arrays`."""
    from scipy.sparse import csr_array

    indptr, indices, values = csr_arrays(tensor, max_memory)
    return csr_array((values, indices, indptr), shape=(tensor.rows, tensor.columns))


def from_scipy(
    name: str,
    matrix: SparseMatrix,
    dtype: str | None = None,
    scale: float = 1.0,
    *,
    shape: tuple[int, ...] | None = None,
    exact: bool = False,
) -> Tensor:
    """Return a SciPy sparse matrix as a sparse `Tensor`, without making it dense.

    Parameters
    ----------
    name : str
    matrix : sparse matrix or array of SciPy
        Two-dimensional, in any format. Elements that it stores twice are added up, and stored zeros are left out.
    dtype, scale, exact
        As in `from_dense`; `dtype` applies to the stored values.
    shape : tuple of int, optional
        The shape of the tensor, whose first dimension is the matrix's rows; by default that of the matrix.

    Raises
    ------
    EncodingError
        `matrix` is not such a matrix, does not have the elements of `shape`, or has a value that `dtype` cannot hold.
    """
    field = f"tensor {name!r}"
    if not hasattr(matrix, "tocsr") or len(matrix.shape) != 2:
        got = f"{type(matrix).__name__} of {len(getattr(matrix, 'shape', ()))} dimensions"
        raise EncodingError(field, got=got, expected="a SciPy sparse matrix (from_dense takes arrays)")
    whole = tuple(matrix.shape if shape is None else shape)
    if len(whole) < 2 or matrix_shape(whole, True) != tuple(matrix.shape):
        raise EncodingError(f"shape of {field}", got=whole, expected=f"a matrix view of {tuple(matrix.shape)}")
    csr = matrix.tocsr(copy=True)
    csr.sum_duplicates()
    values, dtype = as_stored(name, csr.data, dtype, exact)
    values = np.ascontiguousarray(values)
    if not exact and dtype in SIGNED_ZEROS:
        values = positive_zeros(values, dtype)
    there = bit_patterns(values) != 0
    indptr = np.concatenate(([0], np.cumsum(there)))[csr.indptr].astype(np.int64)
    indices = csr.indices[there].astype(np.int32 if matrix.shape[1] < 1 << 31 else np.int64)
    return with_codebook(Tensor(name, whole, dtype, values[there], None, indptr, indices, scale))


def numbers_of(values: Array, tensor: Tensor) -> Array | None:
    """Return values of a tensor as numbers, bfloat16 and scaled int8 as float32; None if NumPy has none (float8)."""
    if tensor.dtype.startswith("float8"):
        return None
    numbers = as_numbers(values, tensor.dtype)
    return numbers if tensor.scale == 1.0 else numbers.astype(np.float32) * np.float32(tensor.scale)


def _numbers(tensor: Tensor, values: Array, program: str) -> Array:
    numbers = numbers_of(values, tensor)
    if numbers is None:
        expected = f"numbers that {program} has (to_dense gives the bit patterns)"
        raise EncodingError(f"tensor {tensor.name!r}", got=tensor.dtype, expected=expected)
    return numbers
