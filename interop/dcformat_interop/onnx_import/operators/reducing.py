"""Reductions over some dimensions."""

from __future__ import annotations

import numpy as np

from dcformat_interop.graph_builder import Value
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.onnx_import.items import OnnxCall, OnnxItem, lowers

#: Maximum number of elements that are chosen by repeated maxima.
_MAX_K = 32


def _axes(call: OnnxCall, since: int) -> list[int]:
    axes = call.ints_of("axes", 1, since)
    if not axes:
        return [] if call.attr("noop_with_empty_axes", 0) else list(range(call.rank))
    return call.axes(axes)


@lowers("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd")
def _reduce(call: OnnxCall) -> Value:
    function = call.op_type.removeprefix("Reduce").lower()
    return call.builder.reduce(function, call.value(), _axes(call, 18), bool(call.attr("keepdims", 1)))


@lowers("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")
def _sum(call: OnnxCall) -> Value:
    b, x, kind = call.builder, call.value(), call.op_type.removeprefix("Reduce")
    axes, keepdims = _axes(call, 13 if kind == "Sum" else 18), bool(call.attr("keepdims", 1))
    if kind in ("L2", "SumSquare"):
        x = b.binary("mul", x, x)
    elif kind == "L1":
        x = b.unary("abs", x)
    elif kind == "LogSumExp":
        largest = b.reduce("max", x, axes, keepdims=True)
        total = b.unary("log", b.reduce("sum", b.unary("exp", b.binary("sub", x, largest)), axes, keepdims))
        return b.add(total, b.reshape(largest, total.shape))
    total = b.reduce("sum", x, axes, keepdims)
    if kind == "L2":
        return b.unary("sqrt", total)
    return b.unary("log", total) if kind == "LogSum" else total


@lowers("ArgMax", "ArgMin")
def _arg(call: OnnxCall) -> OnnxItem:
    b, x, axis = call.builder, call.value(), call.axis(call.attr("axis", 0))
    last, size = call.attr("select_last_index", 0), call.shape()[axis]
    if last:
        x = b.slice(x, axis, size - 1, size, -1)
    found = b.reduce(call.op_type.lower(), x, [axis], bool(call.attr("keepdims", 1)))
    return call.as_dtype(b.binary("sub", float(size - 1), found) if last else found, np.int64)


@lowers("LpNormalization")
def _lp_normalization(call: OnnxCall) -> Value:
    b, x, axis = call.builder, call.value(), call.axis(call.attr("axis", -1))
    if call.attr("p", 2) == 1:
        norm = b.reduce("sum", b.unary("abs", x), [axis], keepdims=True)
    else:
        norm = b.unary("sqrt", b.reduce("sum", b.binary("mul", x, x), [axis], keepdims=True))
    # A vector of zeros stays one.
    return b.binary("div", x, b.add(norm, b.binary("equal", norm, 0.0)))


@lowers("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(call: OnnxCall) -> Value:
    function = "mean" if call.op_type == "GlobalAveragePool" else "max"
    return call.builder.reduce(function, call.value(), range(2, call.rank), keepdims=True)


@lowers("GlobalLpPool")
def _global_lp_pool(call: OnnxCall) -> Value:
    b, p = call.builder, float(call.attr("p", 2))
    powers = b.binary("pow", b.unary("abs", call.value()), p)
    return b.binary("pow", b.reduce("sum", powers, range(2, call.rank), keepdims=True), 1 / p)


@lowers("TopK")
def _top_k(call: OnnxCall) -> list[OnnxItem | Value]:
    """Lower the choice of a few elements: each is the greatest of those that are left."""
    b, x, axis = call.builder, call.value(), call.axis(call.attr("axis", -1))
    k = int(call.const(1, "a number k").reshape(())) if call.opset >= 10 else call.attr("k")
    if not 1 <= k <= _MAX_K:
        raise Unsupported(f"for {k} elements")
    largest = call.attr("largest", 1)
    call.take(x.shape[axis])
    positions = np.arange(x.shape[axis]).reshape([-1 if i == axis else 1 for i in range(call.rank)])
    best, places = [], []
    for _ in range(k):
        best.append(b.reduce("max" if largest else "min", x, [axis], keepdims=True))
        places.append(b.reduce("argmax" if largest else "argmin", x, [axis], keepdims=True))
        taken = b.binary("equal", places[-1], positions, "positions")
        x = b.where(taken, -np.inf if largest else np.inf, x)
    return [b.concat(best, axis), call.as_dtype(b.concat(places, axis), np.int64)]


@lowers("MeanVarianceNormalization")
def _mean_variance_normalization(call: OnnxCall) -> Value:
    b, x, axes = call.builder, call.value(), call.axes(call.attr("axes", [0, 2, 3]))
    centered = b.binary("sub", x, b.reduce("mean", x, axes, keepdims=True))
    deviation = b.unary("sqrt", b.reduce("mean", b.binary("mul", centered, centered), axes, keepdims=True))
    return b.binary("div", centered, b.add(deviation, 1e-9))
