"""Operators whose results depend on shapes alone, and constants that other operators compute with."""

from __future__ import annotations

import numpy as np

from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.tflite_import.calls import TfliteCall, TfliteResult, lowers


@lowers("SHAPE")
def _shape(call: TfliteCall) -> TfliteResult:
    return np.array(call.shape(), np.int64 if call.results[0].dtype == "int64" else np.int32)


@lowers("RANK")
def _rank(call: TfliteCall) -> TfliteResult:
    return np.array(call.rank, np.int32)


@lowers("ZEROS_LIKE")
def _zeros_like(call: TfliteCall) -> TfliteResult:
    call.reserve(call.shape())
    return np.zeros(call.shape(), np.int32 if call.is_whole() else np.float32)


@lowers("FILL")
def _fill(call: TfliteCall) -> TfliteResult:
    shape, value = call.ints(0, "a shape"), call.const(1, "a value")
    if value.size != 1:
        raise ValueError(f"value: expected one, found {value.size}")
    call.reserve(shape)
    return np.full(shape, value.reshape(()))


@lowers("RANGE")
def _range(call: TfliteCall) -> TfliteResult:
    start, stop, step = (call.const(number, "a range").reshape(-1) for number in range(3))
    if any(bound.size != 1 for bound in (start, stop, step)) or not step[0]:
        raise ValueError("range: expected a start, a stop, and a step that is not 0")
    count = int(np.ceil((float(stop[0]) - float(start[0])) / float(step[0])))
    call.reserve([max(count, 0)])
    return np.asarray(start[0] + step[0] * np.arange(max(count, 0), dtype=start.dtype))


@lowers("ONE_HOT")
def _one_hot(call: TfliteCall) -> TfliteResult:
    depth, on, off = (call.const(number, "a depth or values").reshape(-1) for number in (1, 2, 3))
    if any(item.size != 1 for item in (depth, on, off)) or depth[0] < 1:
        raise ValueError("depth and values: expected a depth of at least 1, and two values")
    if call.options["axis"] not in (-1, call.rank):
        raise Unsupported("along another axis than the last")
    call.reserve([int(depth[0])])
    b, indices = call.builder, call.value()
    found = b.binary("equal", b.reshape(indices, (*indices.shape, 1)), np.arange(int(depth[0])), "positions")
    if (float(on[0]), float(off[0])) == (1.0, 0.0):
        return found
    return b.where(found, float(on[0]), float(off[0]))
