"""The operators of graphs in NumPy by the steps of the kernels of maps and rows, for `deterministic=True`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dcformat.graph import Binary, Node, Quantize, ReLU, Requantize, Shape, Unary
from dcformat_runtime.compile.rows import RowPlan
from dcformat_runtime.kernels import float_functions as functions
from dcformat_runtime.kernels import row_kernel as words
from dcformat_runtime.numpy_backend.elementwise import requantize_factor
from dcformat_runtime.numpy_backend.node_evaluation import NumpyOperand, aligned
from dcformat_runtime.weight_matrices import Floats

Doubles = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

_UNARY: dict[str, Callable[[Any], Any]] = {
    "exp": functions.exp, "log": functions.log, "erf": functions.erf, "sigmoid": functions.sigmoid,
    "tanh": functions.tanh, "sign": functions.sign,
}  # fmt: skip
_BINARY = {"minimum": functions.lesser, "maximum": functions.greater}


def elements(node: Node, operands: Sequence[NumpyOperand], rank: int) -> Floats | None:
    """Return an elementwise node's result, of rank `rank` without the batch; None if NumPy's own has the same bits."""
    if not isinstance(node, (Unary, Binary, ReLU, Quantize, Requantize)):
        return None
    arrays = [aligned(operand, rank) for operand in operands]
    with np.errstate(all="ignore"):  # infinities and NaN are not errors here
        match node:
            case Unary() if node.function in _UNARY:
                return np.asarray(_UNARY[node.function](arrays[0]), np.float32)
            case Binary() if node.function in _BINARY:
                return np.asarray(_BINARY[node.function](*arrays), np.float32)
            case ReLU():
                return np.asarray(functions.greater(arrays[0], np.float32(0)), np.float32)
            case Quantize():
                scale, zero = np.float32(node.scale), np.float32(node.zero_point)
                steps = functions.greater(np.rint(arrays[0] / scale) + zero, np.float32(node.low))
                return np.asarray((functions.lesser(steps, np.float32(node.high)) - zero) * scale, np.float32)
            case Requantize():
                x, scales = arrays
                steps = functions.greater(np.rint(x * requantize_factor(node, scales)), np.float32(node.low))
                return np.asarray(functions.lesser(steps, np.float32(node.high)), np.float32)
    return None


@np.errstate(all="ignore")
def rows(plan: RowPlan, x: Floats, shape: Shape) -> Floats:
    """Return ``(batch, *shape)`` of ``(batch, ...)``, with sums in the order of `kernels.row_kernel`."""
    lines = np.ascontiguousarray(x).reshape(-1, plan.length)
    if plan.function == words.SOFTMAX:
        e = functions.exp(lines - lines.max(axis=1, keepdims=True))
        out = e / _total(e.astype(np.float64)).astype(np.float32)
    elif plan.function in (words.CENTER, words.SCALE):
        wide = lines.astype(np.float64)
        if plan.function == words.CENTER:
            wide = wide - _total(wide) / plan.length
        out = wide * (1.0 / np.sqrt(_total(wide * wide) / plan.length + plan.epsilon))
    elif plan.function in (words.MEAN, words.SUM):
        out = _total(lines.astype(np.float64)) / (plan.length if plan.function == words.MEAN else 1)
    else:
        out = lines.max(axis=1) if plan.function == words.MAX else lines.min(axis=1)
    return np.asarray(out, np.float32).reshape(len(x), *shape)


def _total(lines: Doubles) -> Doubles:
    """Return the sum of each line ``(lines, 1)``, in interleaved parts."""
    parts = np.zeros((len(lines), words.LANES))
    for start in range(0, lines.shape[1], words.LANES):
        part = lines[:, start : start + words.LANES]
        parts[:, : part.shape[1]] += part
    half = words.LANES // 2
    while half:
        parts = parts[:, :half] + parts[:, half:]
        half //= 2
    return parts
