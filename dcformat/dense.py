"""From a dense array to the tensor that packs best: sparse for zeros, a codebook where values repeat."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.codecs.values import ranks
from dcformat.layout import MAX_CODEBOOK
from dcformat.model import STORAGE, Tensor

Array = npt.NDArray[Any]

#: A codebook that is more than half as long as what it codes does not pay.
_LEAST_USES = 2


def from_dense(name: str, values: npt.ArrayLike, dtype: str = "float32", scale: float = 1.0) -> Tensor:
    """Return an array as a `Tensor`, bit for bit: only positive zeros are left out, other zeros are values.

    Parameters
    ----------
    name : str
    values : array_like
        Of any shape, in ``STORAGE[dtype]`` (bfloat16: bit patterns as uint16); another dtype is converted.
    dtype : {'float32', 'float16', 'bfloat16', 'int8'}
    scale : float
        For int8: an element's value is ``scale * code``.

    Returns
    -------
    Tensor
        Constant if one value stands for all elements; else sparse if there are zeros and two or more dimensions;
        with a codebook if the stored values repeat at least twice on average.
    """
    storage = STORAGE[dtype]
    array = np.asarray(values)
    shape = array.shape
    flat = np.ascontiguousarray(array, storage).reshape(-1)
    bits = flat.view(f"<u{storage.itemsize}")
    if flat.size > 1 and (bits == bits[0]).all():
        return Tensor(name, shape, dtype, flat[:1].copy(), scale=scale)
    if len(shape) < 2 or bits.all():
        codes, book = _share(flat, dtype)
        return Tensor(name, shape, dtype, codes, book, scale=scale)
    matrix = bits.reshape(shape[0], -1)
    row, column = np.nonzero(matrix)
    indptr = np.zeros(shape[0] + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=shape[0]), out=indptr[1:])
    codes, book = _share(flat[bits != 0], dtype)
    index = np.int32 if matrix.shape[1] <= np.iinfo(np.int32).max else np.int64
    return Tensor(name, shape, dtype, codes, book, indptr, column.astype(index), scale)


def _share(values: Array, dtype: str) -> tuple[Array, Array | None]:
    """Return codes and an ascending codebook, or the values and None where too few repeat."""
    if not len(values):
        return values, None
    distinct, codes = np.unique(values.view(f"<u{values.itemsize}"), return_inverse=True)
    if len(distinct) > min(MAX_CODEBOOK, len(values) // _LEAST_USES):
        return values, None
    book = distinct.view(values.dtype)
    order = np.argsort(ranks(book, dtype))
    rank = np.empty(len(order), np.uint8 if len(order) <= 256 else np.uint16)
    rank[order] = np.arange(len(order))
    return rank[codes], book[order]
