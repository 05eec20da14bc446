"""Operators on shapes and sizes, whose results are constant because all shapes are."""

from __future__ import annotations

from math import prod

import numpy as np

from dcformat_interop.onnx_import.items import OnnxCall, OnnxItem, constant, lowers


@lowers("Shape")
def _shape(call: OnnxCall) -> OnnxItem:
    shape = call.shape()
    return constant(np.array(shape[slice(call.attr("start", 0), call.attr("end"))], np.int64))


@lowers("Size")
def _size(call: OnnxCall) -> OnnxItem:
    return constant(np.array(prod(call.shape()), np.int64))


@lowers("EyeLike")
def _eye_like(call: OnnxCall) -> OnnxItem:
    import onnx

    rows, columns = call.shape()
    call.take(rows * columns)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(call.attr("dtype")) if call.attr("dtype") else call.dtype()
    return constant(np.eye(rows, columns, call.attr("k", 0), dtype=dtype))
