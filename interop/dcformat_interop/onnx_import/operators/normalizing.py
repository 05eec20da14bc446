"""Normalizations, and the scales and shifts that follow them."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import Normalize, Shape
from dcformat_interop.graph_builder import BuilderOperand, GraphBuilder, Value
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.onnx_import.items import OnnxCall, lowers

Array = npt.NDArray[Any]


def shaped(b: GraphBuilder, operand: BuilderOperand, shape: Shape) -> BuilderOperand:
    """Return an operand in another shape."""
    return b.reshape(operand, shape) if isinstance(operand, Value) else np.reshape(operand, shape)


def _scaled(call: OnnxCall, x: Value, scale: int, shift: int, shape: Shape) -> Value:
    """Return ``x * scale + shift``, for two inputs by number that broadcast in a shape; the second may be absent."""
    b = call.builder
    x = b.binary("mul", x, shaped(b, call.operand(scale), shape), call.tensor_name(scale))
    if call.has(shift):
        x = b.add(x, shaped(b, call.operand(shift), shape), name=call.tensor_name(shift))
    return x


@lowers("BatchNormalization")
def _batch_normalization(call: OnnxCall) -> Value:
    if call.attr("training_mode", 0) or sum(map(bool, call.outputs)) > 1:
        raise Unsupported("in training mode")
    if call.attr("spatial", 1) != 1:
        raise Unsupported("with statistics for each position")
    b, x, epsilon = call.builder, call.value(), call.attr("epsilon", 1e-5)
    shape = (call.shape()[1] if call.rank > 1 else 1, *(1,) * (call.rank - 2))
    scale, shift, mean, variance = (call.operand(number) for number in range(1, 5))
    if all(not isinstance(operand, Value) for operand in (scale, shift, mean, variance)):
        if (np.asarray(variance) < 0).any():
            raise ValueError("variance: expected numbers of at least 0, found less")
        factor = np.asarray(scale, np.float64) / np.sqrt(np.asarray(variance, np.float64) + epsilon)
        offset = np.asarray(shift, np.float64) - np.asarray(mean, np.float64) * factor
        scaled = b.binary("mul", x, factor.reshape(shape), call.tensor_name(1))
        return b.add(scaled, offset.reshape(shape), name=call.tensor_name(2))
    deviation = b.unary("sqrt", b.add(call.value(4), epsilon))
    centered = b.binary("sub", x, shaped(b, mean, shape), call.tensor_name(3))
    return _scaled(call, b.binary("div", centered, shaped(b, deviation, shape)), 1, 2, shape)


@lowers("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def _layer_normalization(call: OnnxCall) -> list[Value]:
    axes = tuple(range(call.axis(call.attr("axis", -1)), call.rank))
    epsilon, centered = call.attr("epsilon", 1e-5), call.op_type == "LayerNormalization"
    normal = call.emit(Normalize, call.value(), axes=axes, epsilon=epsilon, centered=centered)
    result = _scaled(call, normal, 1, 2, call.shape(1))
    return [result, *_statistics(call, axes, epsilon)] if any(call.outputs[1:]) else [result]


def _statistics(call: OnnxCall, axes: tuple[int, ...], epsilon: float) -> list[Value]:
    """Return the mean, and one divided by the standard deviation."""
    b, x = call.builder, call.value()
    mean = b.reduce("mean", x, axes, keepdims=True)
    centered = b.binary("sub", x, mean)
    variance = b.reduce("mean", b.binary("mul", centered, centered), axes, keepdims=True)
    return [mean, b.binary("div", 1.0, b.unary("sqrt", b.add(variance, epsilon)))]


@lowers("SkipLayerNormalization", domain="com.microsoft")
def _skip_layer_normalization(call: OnnxCall) -> list[Value | None]:
    b = call.builder
    total = b.add(call.operand(0), call.operand(1), name=call.tensor_name(1))
    if call.has(4):
        total = b.add(total, call.operand(4), name=call.tensor_name(4))
    normal = b.emit(Normalize, (total,), axes=(len(total.shape) - 1,), epsilon=call.attr("epsilon", 1e-12))
    return [_scaled(call, normal, 2, 3, call.shape(2)), None, None, total]


@lowers("InstanceNormalization")
def _instance_normalization(call: OnnxCall) -> Value:
    normal = call.emit(
        Normalize, call.value(), axes=tuple(range(2, call.rank)), epsilon=call.attr("epsilon", 1e-5)
    )  # fmt: skip
    return _scaled(call, normal, 1, 2, (call.shape()[1], *(1,) * (call.rank - 2)))


@lowers("GroupNormalization")
def _group_normalization(call: OnnxCall) -> Value:
    b, x, shape, groups = call.builder, call.value(), call.shape(), call.attr("num_groups")
    if groups < 1 or shape[1] % groups:
        raise ValueError(f"num_groups: expected a divisor of {shape[1]}, found {groups}")
    parts = b.reshape(x, (shape[0], groups, prod(shape[1:]) // groups))
    normal = b.emit(Normalize, (parts,), axes=(2,), epsilon=call.attr("epsilon", 1e-5))
    if call.opset >= 21:
        return _scaled(call, b.reshape(normal, shape), 1, 2, (shape[1], *(1,) * (call.rank - 2)))
    # Until operator set 21, there was a scale for each group.
    return b.reshape(_scaled(call, normal, 1, 2, (groups, 1)), shape)


@lowers("LRN")
def _local_response_normalization(call: OnnxCall) -> Value:
    """Lower the sum of squares of nearby channels to a sum of slices along the channels."""
    b, x, size = call.builder, call.value(), call.attr("size")
    squares = b.binary("mul", x, x)
    before, channels = (size - 1) // 2, call.shape()[1]
    low, high = ([side if axis == 1 else 0 for axis in range(call.rank)] for side in (before, size - 1 - before))
    padded = b.pad(squares, low, high)
    parts: list[BuilderOperand] = [b.slice(padded, 1, offset, channels) for offset in range(size)]
    total = b.add(*parts) if size > 1 else squares
    alpha, beta, bias = call.attr("alpha", 1e-4), call.attr("beta", 0.75), call.attr("bias", 1.0)
    norm = b.add(b.binary("mul", total, alpha / size), bias)
    return b.binary("div", x, b.binary("pow", norm, beta))
