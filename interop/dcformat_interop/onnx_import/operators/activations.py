"""Activations, most of which are built from a few functions of one operand."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from dcformat.graph import ReLU, Softmax
from dcformat_interop.graph_builder import GraphBuilder, Operand, Value
from dcformat_interop.onnx_import.items import Call, lowers


def hard_sigmoid(b: GraphBuilder, x: Value, alpha: float, beta: float) -> Value:
    """Return ``max(0, min(1, alpha * x + beta))``."""
    shifted = b.add(b.binary("mul", x, alpha), beta)
    return b.emit(ReLU, (b.binary("minimum", shifted, 1.0),))


def softplus(b: GraphBuilder, x: Value) -> Value:
    """Return ``log(1 + exp(x))``, as ``max(x, 0) + log(1 + exp(-|x|))``, which does not overflow."""
    small = b.unary("log", b.add(b.unary("exp", b.unary("neg", b.unary("abs", x))), 1.0))
    return b.add(b.emit(ReLU, (x,)), small)


def gelu(b: GraphBuilder, x: Value, tanh: bool = False) -> Value:
    """Return ``x * P(X <= x)`` for a normal X, exactly or by its approximation with tanh."""
    half = b.binary("mul", x, 0.5)
    if not tanh:
        return b.binary("mul", half, b.add(b.unary("erf", b.binary("mul", x, sqrt(0.5))), 1.0))
    cube = b.binary("mul", b.binary("mul", x, x), x)
    inner = b.add(x, b.binary("mul", cube, 0.044715))
    return b.binary("mul", half, b.add(b.unary("tanh", b.binary("mul", inner, sqrt(2 / np.pi))), 1.0))


def exponential_below_zero(b: GraphBuilder, x: Value, alpha: float, inner: float = 1.0) -> Value:
    """Return ``max(x, 0) + alpha * (exp(min(x, 0) * inner) - 1)``."""
    below = b.binary("minimum", x, 0.0)
    grown = b.unary("exp", b.binary("mul", below, inner) if inner != 1 else below)
    return b.add(b.emit(ReLU, (x,)), b.binary("mul", b.add(grown, -1.0), alpha))


def leaky(b: GraphBuilder, x: Value, slope: Operand, name: str = "slope") -> Value:
    """Return ``max(x, 0) + slope * min(x, 0)``."""
    return b.add(b.emit(ReLU, (x,)), b.binary("mul", b.binary("minimum", x, 0.0), slope, name))


@lowers("Relu")
def _relu(call: Call) -> Value:
    return call.emit(ReLU, call.value())


@lowers("LeakyRelu")
def _leaky_relu(call: Call) -> Value:
    return leaky(call.builder, call.value(), float(call.attr("alpha", 0.01)))


@lowers("PRelu")
def _prelu(call: Call) -> Value:
    return leaky(call.builder, call.value(), call.operand(1), call.tensor_name(1))


@lowers("Elu")
def _elu(call: Call) -> Value:
    return exponential_below_zero(call.builder, call.value(), call.attr("alpha", 1.0))


@lowers("Selu")
def _selu(call: Call) -> Value:
    alpha, gamma = call.attr("alpha", 1.67326319217681884765625), call.attr("gamma", 1.05070102214813232421875)
    return call.builder.binary("mul", exponential_below_zero(call.builder, call.value(), alpha), gamma)


@lowers("Celu")
def _celu(call: Call) -> Value:
    alpha = call.attr("alpha", 1.0)
    return exponential_below_zero(call.builder, call.value(), alpha, 1 / alpha)


@lowers("ThresholdedRelu")
def _thresholded_relu(call: Call) -> Value:
    b, x = call.builder, call.value()
    return b.where(b.binary("less_equal", x, float(call.attr("alpha", 1.0))), 0.0, x)


@lowers("HardSigmoid")
def _hard_sigmoid(call: Call) -> Value:
    return hard_sigmoid(call.builder, call.value(), call.attr("alpha", 0.2), call.attr("beta", 0.5))


@lowers("HardSwish")
def _hard_swish(call: Call) -> Value:
    x = call.value()
    return call.builder.binary("mul", x, hard_sigmoid(call.builder, x, 1 / 6, 0.5))


@lowers("Swish")
def _swish(call: Call) -> Value:
    b, x, alpha = call.builder, call.value(), call.attr("alpha", 1.0)
    return b.binary("mul", x, b.unary("sigmoid", x if alpha == 1 else b.binary("mul", x, alpha)))


@lowers("Mish")
def _mish(call: Call) -> Value:
    b, x = call.builder, call.value()
    return b.binary("mul", x, b.unary("tanh", softplus(b, x)))


@lowers("Softplus")
def _softplus(call: Call) -> Value:
    return softplus(call.builder, call.value())


@lowers("Softsign")
def _softsign(call: Call) -> Value:
    b, x = call.builder, call.value()
    return b.binary("div", x, b.add(b.unary("abs", x), 1.0))


@lowers("Gelu")
def _gelu(call: Call) -> Value:
    return gelu(call.builder, call.value(), call.attr("approximate", "none") == "tanh")


@lowers("Gelu", "FastGelu", "BiasGelu", "QuickGelu", domain="com.microsoft")
def _microsoft_gelu(call: Call) -> Value:
    b, x = call.builder, call.value()
    if call.has(1):
        x = b.add(x, call.operand(1), name=call.tensor_name(1))
    if call.op_type == "QuickGelu":
        return b.binary("mul", x, b.unary("sigmoid", b.binary("mul", x, float(call.attr("alpha", 1.702)))))
    return gelu(b, x, call.op_type == "FastGelu")


@lowers("Shrink")
def _shrink(call: Call) -> Value:
    b, x = call.builder, call.value()
    bias, bound = float(call.attr("bias", 0.0)), float(call.attr("lambd", 0.5))
    near = b.binary("less_equal", b.unary("abs", x), bound)
    return b.where(near, 0.0, b.binary("sub", x, b.binary("mul", b.unary("sign", x), bias)))


@lowers("Softmax", "LogSoftmax")
def _softmax(call: Call) -> Value:
    x, axis = call.value(), call.axis(call.attr("axis", 1 if call.opset < 13 else -1), max(call.rank, 1))
    shape = x.shape
    if call.opset < 13:  # all dimensions from the axis on count as one
        rows, columns = int(np.prod(shape[:axis], dtype=int)), int(np.prod(shape[axis:], dtype=int))
        x, axis = call.builder.reshape(x, (rows, columns) if axis else (columns,)), 1 if axis else 0
    result = softmax(call.builder, x, axis, call.op_type == "LogSoftmax")
    return call.builder.reshape(result, shape)


def softmax(b: GraphBuilder, x: Value, axis: int, logarithm: bool = False) -> Value:
    """Return a softmax along an axis, or its logarithm."""
    if not x.shape:
        return b.reshape(softmax(b, b.reshape(x, (1,)), 0, logarithm), ())
    if not logarithm:
        return b.emit(Softmax, (x,), axis=None if axis == len(x.shape) - 1 else axis)
    shifted = b.binary("sub", x, b.reduce("max", x, [axis], keepdims=True))
    total = b.reduce("sum", b.unary("exp", shifted), [axis], keepdims=True)
    return b.binary("sub", shifted, b.unary("log", total))


@lowers("Hardmax")
def _hardmax(call: Call) -> Value:
    b, x, axis = call.builder, call.value(), call.axis(call.attr("axis", 1 if call.opset < 13 else -1))
    shape = x.shape
    if call.opset < 13:
        x, axis = b.reshape(x, (int(np.prod(shape[:axis], dtype=int)), int(np.prod(shape[axis:], dtype=int)))), 1
    call.take(x.shape[axis])
    positions: Any = np.arange(x.shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(x.shape))])
    found = b.reduce("argmax", x, [axis], keepdims=True)
    return b.reshape(b.binary("equal", found, positions, "positions"), shape)
