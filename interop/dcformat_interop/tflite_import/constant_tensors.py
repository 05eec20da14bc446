"""The numbers of constant tensors."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.layout import MAX_ELEMENTS
from dcformat_interop.refusals import UnfitError
from dcformat_interop.tensors import Budget, is_single
from dcformat_interop.tflite_import.loading import TfliteTensor
from dcformat_interop.tflite_import.sparsity import dense

Array = npt.NDArray[Any]

#: Dtypes of two integers to a byte.
_HALF_BYTES = ("int4", "uint4")
_DTYPES = ("float32", "float16", "float64", "bfloat16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64",
           "bool")  # fmt: skip

#: Bytes that each element of a constant takes while it is made.
BYTES_PER_ELEMENT = 16


def constant(path: str, info: TfliteTensor, budget: Budget) -> Array | None:
    """Return a constant's numbers; for quantised integers, those that they stand for. None if it is not a constant.

    A state that passes from one call of the network to the next counts as constant zeros, its first value.

    Raises
    ------
    UnfitError
        The bytes do not fit the shape, or there are too many.
    """
    count = prod(info.shape)
    if info.data is None and not (info.is_variable or count == 0):
        return None
    if info.dtype not in (*_DTYPES, *_HALF_BYTES):
        raise UnfitError(path, f"a constant of {', '.join((*_DTYPES, *_HALF_BYTES))}", info.dtype, info.what)
    if count > MAX_ELEMENTS:
        raise UnfitError(path, f"at most {MAX_ELEMENTS:,} elements", f"{count:,}", info.what)
    budget.take(BYTES_PER_ELEMENT * count, info.what)
    if info.is_variable:
        return np.zeros(info.shape, np.float32)
    integers = _elements(path, info)
    if info.quantization is not None:
        return info.quantization.numbers(integers)
    if info.dtype == "bfloat16":
        return (integers.astype("<u4") << 16).view("<f4")
    if info.dtype == "float64" and not is_single(integers):
        raise UnfitError(path, "float64 numbers that float32 holds exactly", "others", info.what)
    return integers.astype(np.float32) if info.dtype in ("float16", "float64") else integers


def _elements(path: str, info: TfliteTensor) -> Array:
    """Return the elements as stored in the file."""
    data = b"" if info.data is None else info.data
    if info.sparsity is not None:
        return dense(path, info, info.sparsity, lambda count: _unpacked(path, info, data, count))
    return _unpacked(path, info, data, prod(info.shape)).reshape(info.shape)


def _unpacked(path: str, info: TfliteTensor, data: memoryview | bytes, count: int) -> Array:
    half = info.dtype in _HALF_BYTES
    stored = np.dtype("u1" if half else "<u2" if info.dtype == "bfloat16" else info.dtype).newbyteorder("<")
    need = (count + 1) // 2 if half else count * stored.itemsize
    if len(data) != need:
        raise UnfitError(path, f"{need:,} bytes for {count:,} elements of {info.dtype}", f"{len(data):,}", info.what)
    values = np.frombuffer(data, stored)
    if not half:
        return values
    nibbles = np.stack([values & 15, values >> 4], 1).reshape(-1)[:count].astype(np.int8)
    return np.where(nibbles > 7, nibbles - 16, nibbles) if info.dtype == "int4" else nibbles
