"""From a dense array to the tensor that packs best: sparse for zeros, a codebook where values repeat."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.model import STORAGE, Tensor
from dcformat_cli.checkpoints import Dense

Array = npt.NDArray[Any]

#: Codes are 16 bits at most; a codebook that is more than half as long as what it codes does not pay.
_MAX_CODEBOOK = 1 << 16
_LEAST_USES = 2


def to_tensor(name: str, dense: Dense) -> Tensor:
    """Return `dense` as a `Tensor`, bit for bit: only positive zeros are left out, other zeros are values."""
    shape, storage = dense.values.shape, STORAGE[dense.dtype]
    flat = np.ascontiguousarray(dense.values, storage).reshape(-1)
    bits = flat.view(f"<u{storage.itemsize}")
    if flat.size and (bits == bits[0]).all():
        return Tensor(name, shape, dense.dtype, flat[:1].copy(), scale=dense.scale)
    if len(shape) < 2 or bits.all():
        codes, book = _share(flat, bits)
        return Tensor(name, shape, dense.dtype, codes, book, scale=dense.scale)
    matrix = bits.reshape(shape[0], -1)
    row, column = np.nonzero(matrix)
    indptr = np.zeros(shape[0] + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=shape[0]), out=indptr[1:])
    stored = flat[bits != 0]
    codes, book = _share(stored, stored.view(bits.dtype))
    index = np.int32 if matrix.shape[1] <= np.iinfo(np.int32).max else np.int64
    return Tensor(name, shape, dense.dtype, codes, book, indptr, column.astype(index), dense.scale)


def _share(values: Array, bits: Array) -> tuple[Array, Array | None]:
    """Return codes and an ascending codebook, or the values and None where too few repeat."""
    book, codes = np.unique(bits, return_inverse=True)
    if not book.size or len(book) > min(_MAX_CODEBOOK, len(bits) // _LEAST_USES):
        return values, None
    distinct = book.view(values.dtype)
    order = np.argsort(distinct, kind="stable")
    if len(np.unique(distinct)) != len(distinct):
        return values, None  # both zeros: a codebook holds values in strictly ascending order
    rank = np.empty(len(order), np.uint16)
    rank[order] = np.arange(len(order))
    return rank[codes], distinct[order]
