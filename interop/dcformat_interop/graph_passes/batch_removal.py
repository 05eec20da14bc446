"""Takes the batch, a dimension of size 1, out of a graph.

Each operator is copied without that dimension of its operands if it treats the dimension as a batch; otherwise the
dimension is put back first, which is always right, because the graph is written for one input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from dcformat import graph as ops
from dcformat.graph import Node, Shape
from dcformat.records import replace
from dcformat_interop.graph_builder import BuilderOperand, GraphBuilder, Value
from dcformat_interop.graph_passes.copying import Copier

#: A value, and the place of the batch that it has lost; None if it has lost none.
BatchedValue = tuple[Value, int | None]


def without_batch(
    builder: GraphBuilder, batch_axes: Sequence[int | None], outputs: Sequence[tuple[Value, int | None]]
) -> tuple[GraphBuilder, list[Value]]:
    """Return the graph for one input, without the batch.

    Parameters
    ----------
    builder : GraphBuilder
        A graph whose values have a batch of 1.
    batch_axes : sequence of int or None
        For each input, the dimension that is the batch.
    outputs : sequence of (Value, int or None)
        The outputs, and the dimension of each that is the batch.
    """
    remover = _Remover(builder)
    for port, axis in zip(builder.inputs, batch_axes, strict=True):
        remover.place(remover.new.input(replace(port, shape=_less(port.shape, axis), batch_axis=axis)), axis)
    wanted = remover.reachable([value.number for value, _ in outputs])
    for number, node in enumerate(builder.nodes, len(builder.inputs)):
        if number in wanted:
            remover.place(*remover.copied(node), number)
    return remover.new, [remover.at(value.number, axis) for value, axis in outputs]


class _Remover(Copier):
    def __init__(self, old: GraphBuilder) -> None:
        super().__init__(old)
        self._axes: dict[int, int | None] = {}

    def place(self, value: Value, axis: int | None, number: int | None = None) -> None:
        number = len(self.made) if number is None else number
        self.made[number], self._axes[number] = value, axis

    def at(self, number: int, axis: int | None) -> Value:
        """Return an old value without one of its dimensions, whose size is 1."""
        if self._axes[number] == axis:
            return self.made[number]
        return self.new.reshape(self.made[number], _less(self.old.shapes[number], axis))

    def copied(self, node: Node) -> BatchedValue:
        """Copy an operator, without the batch if that can be done."""
        handler = _HANDLERS.get(type(node))
        placed = None if handler is None else handler(self, node)
        if placed is not None:
            return placed
        return self.copy(node, [self._full(operand) for operand in node.inputs]), None

    def _full(self, operand: int | str | float) -> BuilderOperand:
        return self.at(operand, None) if isinstance(operand, int) else self.operand(operand)

    def _first(self, node: Node) -> tuple[int, Shape, int | None]:
        """Return the number of a node's first operand, its shape with the batch, and the place of that."""
        number = node.values[0]
        return number, self.old.shapes[number], self._axes[number]

    def elementwise(self, node: Any) -> BatchedValue | None:
        number, _, axis = self._first(node)
        return self.copy(node, [self.made[number]]), axis

    def leading(self, node: Any) -> BatchedValue | None:
        """Copy an operator that treats all dimensions alike except the last few."""
        number, shape, axis = self._first(node)
        own = _own_dimensions(self, node)
        if axis is None or axis >= len(shape) - own:
            return None
        if isinstance(node, ops.MaxPool | ops.AvgPool) and len(shape) - 1 <= own:
            return None
        return self.copy(node, [self.made[number]]), axis

    def softmax(self, node: Any) -> BatchedValue | None:
        number, shape, axis = self._first(node)
        along = len(shape) - 1 if node.axis is None else node.axis
        if axis is None or along == axis:
            return None
        along -= axis < along
        return self.copy(node, [self.made[number]], axis=None if along == len(shape) - 2 else along), axis

    def over_axes(self, node: Any) -> BatchedValue | None:
        number, _, axis = self._first(node)
        if axis is None or axis in node.axes:
            return None
        axes = tuple(along - (axis < along) for along in node.axes)
        gone = 0 if isinstance(node, ops.Normalize) or node.keepdims else sum(along < axis for along in node.axes)
        return self.copy(node, [self.made[number]], axes=axes), axis - gone

    def slice(self, node: Any) -> BatchedValue | None:
        number, _, axis = self._first(node)
        if axis is None or axis == node.axis:
            return None
        return self.copy(node, [self.made[number]], axis=node.axis - (axis < node.axis)), axis

    def each_dimension(self, node: Any) -> BatchedValue | None:
        """Copy an operator with an attribute for each dimension, which must leave the batch alone."""
        number, _, axis = self._first(node)
        fields = ("repeats",) if isinstance(node, ops.Tile) else ("before", "after")
        if axis is None or any(getattr(node, field)[axis] != isinstance(node, ops.Tile) for field in fields):
            return None
        changes = {field: _less(getattr(node, field), axis) for field in fields}
        return self.copy(node, [self.made[number]], **changes), axis

    def transpose(self, node: Any) -> BatchedValue | None:
        number, _, axis = self._first(node)
        if axis is None:
            return None
        order = [along - (axis < along) for along in node.order if along != axis]
        return self.new.transpose(self.made[number], order), node.order.index(axis)

    def reshape(self, node: Any) -> BatchedValue | None:
        number, shape, axis = self._first(node)
        if axis is None:
            return None
        before = prod(shape[:axis])
        places = [i for i, size in enumerate(node.shape) if size == 1 and prod(node.shape[:i]) == before]
        if not places:
            return None
        place = axis if axis in places else places[0]
        return self.new.reshape(self.made[number], _less(node.shape, place)), place

    def broadcast(self, node: Any) -> BatchedValue | None:
        """Copy an operator that broadcasts; the batch is counted from the last dimension."""
        rank = max(len(self._shape_of(operand)) for operand in node.inputs)
        least = 3 if isinstance(node, ops.MatMul) else 1
        for number in node.values:
            axis, shape = self._axes[number], self.old.shapes[number]
            if axis is None or len(shape) - axis < least:
                continue
            behind = len(shape) - axis
            sizes = [self._shape_of(o)[-behind] for o in node.inputs if len(self._shape_of(o)) >= behind]
            if set(sizes) == {1}:
                return self.copy(node, [self._counted(operand, behind) for operand in node.inputs]), rank - behind
        return None

    def _shape_of(self, operand: int | str | float) -> Shape:
        if isinstance(operand, float):
            return ()
        return self.old.shapes[operand] if isinstance(operand, int) else self.old.tensors[operand].shape

    def _counted(self, operand: int | str | float, behind: int) -> BuilderOperand:
        """Return an operand without its dimension `behind`, counted from the end, if it has that dimension."""
        axis = len(self._shape_of(operand)) - behind
        if isinstance(operand, int):
            return self.at(operand, axis if axis >= 0 else None)
        values = self.operand(operand)
        return np.squeeze(values, axis) if isinstance(operand, str) and axis >= 0 else values

    def concat(self, node: Any) -> BatchedValue | None:
        for number in node.values:
            axis, shape = self._axes[number], self.old.shapes[number]
            if axis is not None and axis != node.axis:
                operands = [self._counted(operand, len(shape) - axis) for operand in node.inputs]
                return self.copy(node, operands, axis=node.axis - (axis < node.axis)), axis
        return None

    def gather(self, node: Any) -> BatchedValue | None:
        data, indices = node.inputs
        if isinstance(data, int):
            axis = self._axes[data]
            if axis is not None and axis != node.axis:
                count = len(self._shape_of(indices))
                made = self.copy(
                    node, [self.made[data], self._full(indices)], axis=node.axis - (axis < node.axis)
                )  # fmt: skip
                return made, axis if axis < node.axis else axis + count - 1
        if isinstance(indices, int):
            axis = self._axes[indices]
            if axis is not None:
                return self.copy(node, [self._full(data), self.made[indices]]), node.axis + axis
        return None


def _own_dimensions(remover: _Remover, node: Any) -> int:
    """Return how many of the last dimensions an operator treats in its own way."""
    if isinstance(node, ops.Linear):
        return 1
    if isinstance(node, ops.Conv | ops.ConvTranspose):
        return len(remover.old.tensors[node.weight].shape) - 1
    return len(node.size) if isinstance(node, ops.Resize) else len(node.kernel)


def _less(values: Sequence[Any], axis: int | None) -> tuple[Any, ...]:
    """Return values without the one of an axis."""
    return tuple(value for place, value in enumerate(values) if place != axis)


_HANDLERS: dict[type[Node], Callable[[_Remover, Any], BatchedValue | None]] = {
    **dict.fromkeys((ops.ReLU, ops.Unary, ops.Quantize), _Remover.elementwise),
    **dict.fromkeys((ops.Linear, ops.Conv, ops.ConvTranspose, ops.MaxPool, ops.AvgPool, ops.Resize), _Remover.leading),
    **dict.fromkeys((ops.Reduce, ops.Normalize), _Remover.over_axes),
    **dict.fromkeys((ops.Tile, ops.Pad), _Remover.each_dimension),
    **dict.fromkeys((ops.Add, ops.Binary, ops.Where, ops.MatMul), _Remover.broadcast),
    ops.Softmax: _Remover.softmax, ops.Slice: _Remover.slice, ops.Transpose: _Remover.transpose,
    ops.Reshape: _Remover.reshape,
    ops.Concat: _Remover.concat, ops.Gather: _Remover.gather,
}  # fmt: skip
