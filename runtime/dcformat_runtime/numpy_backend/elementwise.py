"""Operators that treat each element alike. Operands broadcast as in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.polynomial.chebyshev import chebval

from dcformat.graph import Add, Binary, Quantize, ReLU, Requantize, Unary, Where
from dcformat_runtime.weight_matrices import Floats

#: erf(x) / x as a Chebyshev series in x^2, from 0 to 16; the largest error of erf is 5e-10.
_ERF = (
    0.4859129569028632, -0.34540785500494986, 0.1618291012136461, -0.07648275610550899, 0.034669936800507534,
    -0.014811864147814748, 0.005922937956232045, -0.002211840658810108, 0.0007714154278402434,
    -0.00025159658780942926, 7.688658221076758e-05, -2.2065495938828436e-05, 5.961274041528978e-06,
    -1.5197750712943447e-06, 3.664930433268638e-07, -8.378998355957105e-08, 1.820144887819337e-08,
    -3.76447797896774e-09, 7.42736861477646e-10,
)  # fmt: skip


def relu(node: ReLU, x: Floats) -> Floats:
    """Return ``max(x, 0)``."""
    return np.maximum(x, np.float32(0))


def erf(x: Floats) -> Floats:
    """Return the error function."""
    wide = np.clip(x.astype(np.float64), -4.0, 4.0)
    return np.asarray(wide * chebval(wide * wide / 8.0 - 1.0, _ERF), np.float32)


def sigmoid(x: Floats) -> Floats:
    """Return ``1 / (1 + exp(-x))``, without overflow."""
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, e) / (1 + e), np.float32)


_UNARY: dict[str, Any] = {
    "neg": np.negative, "abs": np.abs, "sign": np.sign, "floor": np.floor, "ceil": np.ceil, "round": np.rint,
    "sqrt": np.sqrt, "exp": np.exp, "log": np.log, "erf": erf, "sigmoid": sigmoid, "tanh": np.tanh, "sin": np.sin,
    "cos": np.cos,
}  # fmt: skip
_BINARY: dict[str, Any] = {
    "sub": np.subtract, "mul": np.multiply, "div": np.divide, "pow": np.power, "minimum": np.minimum,
    "maximum": np.maximum, "equal": np.equal, "less": np.less, "less_equal": np.less_equal,
}  # fmt: skip


def unary(node: Unary, x: Floats) -> Floats:
    """Return a function of each element."""
    return np.asarray(_UNARY[node.function](x), np.float32)


def add(node: Add, operands: Sequence[Floats]) -> Floats:
    """Return the sum, added from left to right."""
    total = operands[0] + operands[1]
    for operand in operands[2:]:
        total = total + operand
    return total


def binary(node: Binary, operands: Sequence[Floats]) -> Floats:
    """Return a function of two operands; comparisons give 0 and 1."""
    return np.asarray(_BINARY[node.function](*operands), np.float32)


def where(node: Where, operands: Sequence[Floats]) -> Floats:
    """Choose between the second and the third operand."""
    condition, chosen, other = operands
    return np.where(condition != 0, chosen, other)


def quantize(node: Quantize, x: Floats) -> Floats:
    """Return the nearest numbers that quantised integers stand for."""
    scale, zero = np.float32(node.scale), np.float32(node.zero_point)
    steps = np.clip(np.rint(x / scale) + zero, np.float32(node.low), np.float32(node.high))
    return np.asarray((steps - zero) * scale, np.float32)


def requantize(node: Requantize, operands: Sequence[Floats]) -> Floats:
    """Return whole numbers times a factor, rounded to whole numbers of a range."""
    x, scale = operands
    steps = np.rint(x * requantize_factor(node, scale))
    return np.asarray(np.clip(steps, np.float32(node.low), np.float32(node.high)), np.float32)


def requantize_factor(node: Requantize, scale: Floats) -> Floats:
    """Return the factor of each of the scales of a `Requantize`, rounded to float32 after each step."""
    with np.errstate(all="ignore"):  # factors may be infinite
        return np.asarray(np.float32(node.input_scale) * scale / np.float32(node.output_scale), np.float32)
