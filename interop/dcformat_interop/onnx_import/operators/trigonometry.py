"""Trigonometric and hyperbolic functions that `dcformat.graph` does not have, built from those that it has."""

from __future__ import annotations

from functools import reduce
from math import pi

from dcformat_interop.graph_builder import GraphBuilder, Value
from dcformat_interop.onnx_import.items import OnnxCall, lowers

#: atan(x) / x from 0 to 1 as a polynomial in x^2, to 2e-8 (Abramowitz and Stegun, 4.4.49).
_ATAN = (
    1.0, -0.3333314528, 0.1999355085, -0.1420889944, 0.1065626393, -0.0752896400, 0.0429096138, -0.0161657367,
    0.0028662257,
)  # fmt: skip


@lowers("Tan")
def _tan(call: OnnxCall) -> Value:
    b, x = call.builder, call.value()
    return b.binary("div", b.unary("sin", x), b.unary("cos", x))


@lowers("Sinh", "Cosh")
def _hyperbolic(call: OnnxCall) -> Value:
    b, x = call.builder, call.value()
    up, down = b.unary("exp", x), b.unary("exp", b.unary("neg", x))
    return b.binary("mul", b.binary("sub", up, down) if call.op_type == "Sinh" else b.add(up, down), 0.5)


@lowers("Asinh", "Acosh")
def _area(call: OnnxCall) -> Value:
    """Lower to ``log(x + sqrt(x^2 +- 1))``; asinh is odd, which keeps its precision below 0."""
    b, x = call.builder, call.value()
    positive = b.unary("abs", x) if call.op_type == "Asinh" else x
    root = b.unary("sqrt", b.add(b.binary("mul", x, x), 1.0 if call.op_type == "Asinh" else -1.0))
    result = b.unary("log", b.add(positive, root))
    return b.binary("mul", b.unary("sign", x), result) if call.op_type == "Asinh" else result


@lowers("Atanh")
def _atanh(call: OnnxCall) -> Value:
    b, x = call.builder, call.value()
    ratio = b.binary("div", b.add(x, 1.0), b.binary("sub", 1.0, x))
    return b.binary("mul", b.unary("log", ratio), 0.5)


@lowers("Atan", "Asin", "Acos")
def _arc(call: OnnxCall) -> Value:
    """Lower to a polynomial: ``asin(x) = atan(x / sqrt(1 - x^2))``, and ``acos(x) = pi / 2 - asin(x)``."""
    b, x = call.builder, call.value()
    if call.op_type != "Atan":
        x = b.binary("div", x, b.unary("sqrt", b.binary("sub", 1.0, b.binary("mul", x, x))))
    result = _atan(b, x)
    return b.binary("sub", pi / 2, result) if call.op_type == "Acos" else result


def _atan(b: GraphBuilder, x: Value) -> Value:
    size = b.unary("abs", x)
    inverse = b.binary("div", 1.0, size)
    small = b.binary("minimum", size, inverse)
    square = b.binary("mul", small, small)
    first, *rest = reversed(_ATAN)
    series = reduce(lambda total, factor: b.add(b.binary("mul", total, square), factor), rest[1:],
                    b.add(b.binary("mul", square, first), rest[0]))  # fmt: skip
    near = b.binary("mul", series, small)
    result = b.where(b.binary("less", 1.0, size), b.binary("sub", pi / 2, near), near)
    return b.binary("mul", b.unary("sign", x), result)
