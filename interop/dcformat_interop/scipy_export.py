"""The writer of SciPy's sparse matrices, which ``scipy.sparse.load_npz`` reads. It does not need SciPy."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from dcformat.conversions import csr_arrays
from dcformat.layout import DEFAULT_MAX_MEMORY
from dcformat.model import Tensor
from dcformat_interop.archives import write_arrays
from dcformat_interop.refusals import UnfitError


def write_csr(path: object, tensor: Tensor, out: BinaryIO, max_memory: int | None = DEFAULT_MAX_MEMORY) -> None:
    """Write the matrix view of a tensor, ``(shape[0], the rest)``, in CSR form.

    Values keep their dtype and bits, except that float16, bfloat16 and scaled int8 become float32, with which SciPy can
    compute.

    Raises
    ------
    UnfitError
        The tensor is a vector or a number, or has a dtype that SciPy does not know.
    MemoryLimitError
        The arrays take more than `max_memory` bytes.
    """
    if len(tensor.shape) < 2:
        raise UnfitError(path, "a tensor of at least two dimensions", tensor.shape, tensor.name)
    if tensor.dtype.startswith("float8"):
        raise UnfitError(path, "a dtype that SciPy's sparse matrices have", tensor.dtype, tensor.name)
    indptr, indices, values = csr_arrays(tensor, max_memory)
    arrays = {
        "indices": indices, "indptr": indptr, "format": np.array(b"csr"),
        "shape": np.array((tensor.rows, tensor.columns), np.int64), "data": values,
    }  # fmt: skip
    write_arrays(path, arrays, out)
