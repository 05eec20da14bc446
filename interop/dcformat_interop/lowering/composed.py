"""Functions that `dcformat.graph` does not have, composed of those that it has."""

from __future__ import annotations

from math import pi, sqrt

from dcformat.graph import ReLU, Softmax
from dcformat_interop.graph_builder import BuilderOperand, GraphBuilder, Value


def truncated(b: GraphBuilder, x: Value) -> Value:
    """Return `x` rounded towards zero."""
    return b.binary("mul", b.unary("sign", x), b.unary("floor", b.unary("abs", x)))


def logical_not(b: GraphBuilder, x: BuilderOperand) -> Value:
    """Return 1 where `x` is 0, and 0 where it is 1."""
    return b.binary("sub", 1.0, x)


def hard_sigmoid(b: GraphBuilder, x: Value, alpha: float, beta: float) -> Value:
    """Return ``max(0, min(1, alpha * x + beta))``."""
    shifted = b.add(b.binary("mul", x, alpha), beta)
    return b.emit(ReLU, (b.binary("minimum", shifted, 1.0),))


def hard_swish(b: GraphBuilder, x: Value) -> Value:
    """Return ``x * hard_sigmoid(x)``, with a slope of 1/6 and a value of 0.5 at 0."""
    return b.binary("mul", x, hard_sigmoid(b, x, 1 / 6, 0.5))


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
    return b.binary("mul", half, b.add(b.unary("tanh", b.binary("mul", inner, sqrt(2 / pi))), 1.0))


def exponential_below_zero(b: GraphBuilder, x: Value, alpha: float, inner: float = 1.0) -> Value:
    """Return ``max(x, 0) + alpha * (exp(min(x, 0) * inner) - 1)``."""
    below = b.binary("minimum", x, 0.0)
    grown = b.unary("exp", b.binary("mul", below, inner) if inner != 1 else below)
    return b.add(b.emit(ReLU, (x,)), b.binary("mul", b.add(grown, -1.0), alpha))


def leaky(b: GraphBuilder, x: Value, slope: BuilderOperand, name: str = "slope") -> Value:
    """Return ``max(x, 0) + slope * min(x, 0)``."""
    return b.add(b.emit(ReLU, (x,)), b.binary("mul", b.binary("minimum", x, 0.0), slope, name))


def softmax(b: GraphBuilder, x: Value, axis: int, logarithm: bool = False) -> Value:
    """Return a softmax along an axis, or its logarithm."""
    if not x.shape:
        return b.reshape(softmax(b, b.reshape(x, (1,)), 0, logarithm), ())
    if not logarithm:
        return b.emit(Softmax, (x,), axis=None if axis == len(x.shape) - 1 else axis)
    shifted = b.binary("sub", x, b.reduce("max", x, [axis], keepdims=True))
    total = b.reduce("sum", b.unary("exp", shifted), [axis], keepdims=True)
    return b.binary("sub", shifted, b.unary("log", total))
