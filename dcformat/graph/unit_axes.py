"""Follows units, such as the neurons of a linear layer or the channels of a convolution, through other operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dcformat.graph.elementwise import Add, Binary, Quantize, ReLU, Unary, Where
from dcformat.graph.node import Node, Shape
from dcformat.graph.rearranging import Flatten, Transpose
from dcformat.graph.reducing import Reduce
from dcformat.graph.windows import AvgPool, MaxPool


def unit_axis(node: Node, value: int, shapes: Sequence[Shape], axes: Mapping[int, int]) -> int | None:
    """Return the dimension of the units in the result of an operator, or None if it mixes units.

    Parameters
    ----------
    node : Node
        An operator that is not a layer with weights.
    value : int
        The number of its result.
    shapes : sequence of tuple of int
        The shape of every value.
    axes : mapping of int to int
        The dimension of the units in each value that has them.
    """
    source, found = node.values[0], {axes.get(operand) for operand in node.values}
    axis = axes.get(source)
    if axis is None or len(found) != 1:
        return None
    match node:
        case Transpose():
            return node.order.index(axis)
        case Reduce() if axis not in node.axes:
            return axis if node.keepdims else axis - sum(other < axis for other in node.axes)
        case MaxPool() | AvgPool() if axis == len(shapes[source]) - len(node.kernel) - 1:
            return axis
        case Flatten() if axis == 0:
            return 0
        case ReLU() | Unary() | Add() | Binary() | Where() | Quantize():
            return axis if all(shapes[operand] == shapes[value] for operand in node.values) else None
    return None
