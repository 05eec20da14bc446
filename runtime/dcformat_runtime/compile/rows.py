"""Plans softmax, normalisation and reductions over the last dimensions for `kernels.row_kernel`."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from dcformat.graph import Node, Normalize, Reduce, Shape, Softmax
from dcformat.graph.node import as_float32
from dcformat_runtime.kernels import row_kernel as words

_REDUCTIONS = {"mean": words.MEAN, "sum": words.SUM, "max": words.MAX, "min": words.MIN}


class RowPlan(NamedTuple):
    """A function of rows of `length` elements; `size` and `made` are the numbers of an input's elements and results."""

    function: int
    length: int
    epsilon: float
    size: int
    made: int


def plan(node: Node, shape: Shape) -> RowPlan | None:
    """Return how the kernel computes a node of an operand of this shape; None if it cannot."""
    match node:
        case Softmax():
            axes: Sequence[int] = (len(shape) - 1 if node.axis is None else node.axis,)
            function = words.SOFTMAX
        case Normalize():
            axes, function = node.axes, words.CENTER if node.centered else words.SCALE
        case Reduce() if node.function in _REDUCTIONS:
            axes, function = node.axes, _REDUCTIONS[node.function]
        case _:
            return None
    if any(shape[axis] > 1 for axis in range(axes[0], len(shape)) if axis not in axes):
        return None  # the elements of a row do not lie side by side
    length, size = prod(shape[axis] for axis in axes), prod(shape)
    epsilon = as_float32(node.epsilon) if isinstance(node, Normalize) else 0.0
    return RowPlan(function, length, epsilon, size, size // length if isinstance(node, Reduce) else size)
