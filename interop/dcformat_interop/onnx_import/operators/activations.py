"""Activations, most of which are built from a few functions of one operand."""

from __future__ import annotations

from typing import Any

import numpy as np

from dcformat.graph import ReLU
from dcformat_interop.graph_builder import Value
from dcformat_interop.lowering.composed import (
    exponential_below_zero,
    gelu,
    hard_sigmoid,
    hard_swish,
    leaky,
    softmax,
    softplus,
)
from dcformat_interop.onnx_import.items import OnnxCall, lowers


@lowers("Relu")
def _relu(call: OnnxCall) -> Value:
    return call.emit(ReLU, call.value())


@lowers("LeakyRelu")
def _leaky_relu(call: OnnxCall) -> Value:
    return leaky(call.builder, call.value(), float(call.attr("alpha", 0.01)))


@lowers("PRelu")
def _prelu(call: OnnxCall) -> Value:
    return leaky(call.builder, call.value(), call.operand(1), call.tensor_name(1))


@lowers("Elu")
def _elu(call: OnnxCall) -> Value:
    return exponential_below_zero(call.builder, call.value(), call.attr("alpha", 1.0))


@lowers("Selu")
def _selu(call: OnnxCall) -> Value:
    alpha, gamma = call.attr("alpha", 1.67326319217681884765625), call.attr("gamma", 1.05070102214813232421875)
    return call.builder.binary("mul", exponential_below_zero(call.builder, call.value(), alpha), gamma)


@lowers("Celu")
def _celu(call: OnnxCall) -> Value:
    alpha = call.attr("alpha", 1.0)
    return exponential_below_zero(call.builder, call.value(), alpha, 1 / alpha)


@lowers("ThresholdedRelu")
def _thresholded_relu(call: OnnxCall) -> Value:
    b, x = call.builder, call.value()
    return b.where(b.binary("less_equal", x, float(call.attr("alpha", 1.0))), 0.0, x)


@lowers("HardSigmoid")
def _hard_sigmoid(call: OnnxCall) -> Value:
    return hard_sigmoid(call.builder, call.value(), call.attr("alpha", 0.2), call.attr("beta", 0.5))


@lowers("HardSwish")
def _hard_swish(call: OnnxCall) -> Value:
    return hard_swish(call.builder, call.value())


@lowers("Swish")
def _swish(call: OnnxCall) -> Value:
    b, x, alpha = call.builder, call.value(), call.attr("alpha", 1.0)
    return b.binary("mul", x, b.unary("sigmoid", x if alpha == 1 else b.binary("mul", x, alpha)))


@lowers("Mish")
def _mish(call: OnnxCall) -> Value:
    b, x = call.builder, call.value()
    return b.binary("mul", x, b.unary("tanh", softplus(b, x)))


@lowers("Softplus")
def _softplus(call: OnnxCall) -> Value:
    return softplus(call.builder, call.value())


@lowers("Softsign")
def _softsign(call: OnnxCall) -> Value:
    b, x = call.builder, call.value()
    return b.binary("div", x, b.add(b.unary("abs", x), 1.0))


@lowers("Gelu")
def _gelu(call: OnnxCall) -> Value:
    return gelu(call.builder, call.value(), call.attr("approximate", "none") == "tanh")


@lowers("Gelu", "FastGelu", "BiasGelu", "QuickGelu", domain="com.microsoft")
def _microsoft_gelu(call: OnnxCall) -> Value:
    b, x = call.builder, call.value()
    if call.has(1):
        x = b.add(x, call.operand(1), name=call.tensor_name(1))
    if call.op_type == "QuickGelu":
        return b.binary("mul", x, b.unary("sigmoid", b.binary("mul", x, float(call.attr("alpha", 1.702)))))
    return gelu(b, x, call.op_type == "FastGelu")


@lowers("Shrink")
def _shrink(call: OnnxCall) -> Value:
    b, x = call.builder, call.value()
    bias, bound = float(call.attr("bias", 0.0)), float(call.attr("lambd", 0.5))
    near = b.binary("less_equal", b.unary("abs", x), bound)
    return b.where(near, 0.0, b.binary("sub", x, b.binary("mul", b.unary("sign", x), bias)))


@lowers("Softmax", "LogSoftmax")
def _softmax(call: OnnxCall) -> Value:
    x, axis = call.value(), call.axis(call.attr("axis", 1 if call.opset < 13 else -1), max(call.rank, 1))
    shape = x.shape
    if call.opset < 13:  # all dimensions from the axis on count as one
        rows, columns = int(np.prod(shape[:axis], dtype=int)), int(np.prod(shape[axis:], dtype=int))
        x, axis = call.builder.reshape(x, (rows, columns) if axis else (columns,)), 1 if axis else 0
    result = softmax(call.builder, x, axis, call.op_type == "LogSoftmax")
    return call.builder.reshape(result, shape)


@lowers("Hardmax")
def _hardmax(call: OnnxCall) -> Value:
    b, x, axis = call.builder, call.value(), call.axis(call.attr("axis", 1 if call.opset < 13 else -1))
    shape = x.shape
    if call.opset < 13:
        x, axis = b.reshape(x, (int(np.prod(shape[:axis], dtype=int)), int(np.prod(shape[axis:], dtype=int)))), 1
    call.take(x.shape[axis])
    positions: Any = np.arange(x.shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(x.shape))])
    found = b.reduce("argmax", x, [axis], keepdims=True)
    return b.reshape(b.binary("equal", found, positions, "positions"), shape)
