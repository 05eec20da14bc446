"""Functions of one operand, most of which are built from a few."""

from __future__ import annotations

from collections.abc import Callable

from dcformat.graph import ReLU
from dcformat_interop.graph_builder import BuilderOperand, GraphBuilder, Value
from dcformat_interop.lowering.composed import (
    exponential_below_zero,
    gelu,
    hard_swish,
    leaky,
    logical_not,
    softmax,
)
from dcformat_interop.tflite_import.calls import TfliteCall, aligned, lowers
from dcformat_interop.tflite_import.items import TfliteItem, of_value

_FUNCTIONS = {
    "LOGISTIC": "sigmoid", "TANH": "tanh", "EXP": "exp", "LOG": "log", "SQRT": "sqrt", "NEG": "neg", "ABS": "abs",
    "SIN": "sin", "COS": "cos", "FLOOR": "floor", "CEIL": "ceil", "ROUND": "round", "SIGN": "sign",
}  # fmt: skip


@lowers(*_FUNCTIONS)
def _function(call: TfliteCall) -> TfliteItem:
    return _elementwise(call, lambda b, x: b.unary(_FUNCTIONS[call.op_type], x))


def _elementwise(call: TfliteCall, function: Callable[[GraphBuilder, Value], Value]) -> TfliteItem:
    """Return a function of each element, whose dimensions stay where they are."""
    view = call.view()
    assert view.value is not None
    return of_value(function(call.builder, view.value), view.axes)


@lowers("RELU", moves_only=True)
def _relu(call: TfliteCall) -> TfliteItem:
    return _elementwise(call, lambda b, x: b.emit(ReLU, (x,)))


@lowers("RELU6")
def _relu6(call: TfliteCall) -> TfliteItem:
    return _elementwise(call, lambda b, x: b.binary("minimum", b.emit(ReLU, (x,)), 6.0))


@lowers("RELU_0_TO_1")
def _relu_0_to_1(call: TfliteCall) -> TfliteItem:
    return _elementwise(call, lambda b, x: b.binary("minimum", b.emit(ReLU, (x,)), 1.0))


@lowers("RELU_N1_TO_1")
def _relu_n1_to_1(call: TfliteCall) -> TfliteItem:
    return _elementwise(call, lambda b, x: b.binary("minimum", b.binary("maximum", x, -1.0), 1.0))


@lowers("SQUARE")
def _square(call: TfliteCall) -> TfliteItem:
    return _elementwise(call, lambda b, x: b.binary("mul", x, x))


@lowers("RSQRT")
def _rsqrt(call: TfliteCall) -> TfliteItem:
    return _elementwise(call, lambda b, x: b.binary("div", 1.0, b.unary("sqrt", x)))


@lowers("LOGICAL_NOT")
def _not(call: TfliteCall) -> TfliteItem:
    return _elementwise(call, logical_not)


@lowers("LEAKY_RELU")
def _leaky_relu(call: TfliteCall) -> TfliteItem:
    return _elementwise(call, lambda b, x: leaky(b, x, call.options["alpha"]))


@lowers("ELU")
def _elu(call: TfliteCall) -> TfliteItem:
    return _elementwise(call, lambda b, x: exponential_below_zero(b, x, 1.0))


@lowers("GELU")
def _gelu(call: TfliteCall) -> TfliteItem:
    return _elementwise(call, lambda b, x: gelu(b, x, call.options["approximate"]))


@lowers("HARD_SWISH")
def _hard_swish(call: TfliteCall) -> TfliteItem:
    return _elementwise(call, hard_swish)


@lowers("PRELU")
def _prelu(call: TfliteCall) -> TfliteItem:
    (x, slope), axes = aligned(call, (0, 1))
    if not isinstance(x, Value):
        x, slope, axes = call.value(), call.operand(1), tuple(range(call.rank))
    return of_value(leaky(call.builder, x, slope, call.name(1)), axes)


@lowers("SOFTMAX", "LOG_SOFTMAX")
def _softmax(call: TfliteCall) -> TfliteItem:
    view, beta = call.view(), call.options.get("beta", 1.0)
    assert view.value is not None
    if not view.axes:
        raise ValueError("input: expected at least one dimension, found a scalar")
    x: BuilderOperand = view.value if beta == 1 else call.builder.binary("mul", view.value, beta)
    assert isinstance(x, Value)
    return of_value(softmax(call.builder, x, view.axes[-1], call.op_type == "LOG_SOFTMAX"), view.axes)
