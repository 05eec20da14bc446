"""Operators that combine the elements along some dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import ClassVar

from dcformat.errors import GraphError, ShapeError
from dcformat.graph.node import Node, Shape, as_float32, check_axes
from dcformat.records import record

#: Reductions. `argmax` and `argmin` go along one dimension, and give the number of the first greatest or least element.
REDUCTIONS = ("mean", "max", "sum", "min", "prod", "argmax", "argmin")


@record
class Reduce(Node):
    """A reduction over `axes`, ascending; the dimensions stay with length 1 if `keepdims` is set."""

    function: str
    axes: tuple[int, ...]
    keepdims: bool = False
    kind: ClassVar[str] = "reduce"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        if self.function not in REDUCTIONS:
            raise GraphError("reduce function", got=repr(self.function), expected=", ".join(REDUCTIONS))
        shape = inputs[0]
        check_axes(self, self.axes, len(shape))
        if not self.axes or (self.function.startswith("arg") and len(self.axes) != 1):
            raise GraphError("reduce axes", got=self.axes, expected="one axis, or several except for argmax and argmin")
        if self.keepdims:
            return tuple(1 if axis in self.axes else size for axis, size in enumerate(shape))
        return tuple(size for axis, size in enumerate(shape) if axis not in self.axes)


@record
class Softmax(Node):
    """``exp(x) / sum(exp(x))`` along a dimension, the last if `axis` is None."""

    axis: int | None = None
    kind: ClassVar[str] = "softmax"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        rank = len(inputs[0])
        if rank == 0:
            raise ShapeError("softmax input", got=inputs[0], expected="at least one dimension")
        if self.axis is not None and not 0 <= self.axis < rank - 1:
            raise GraphError("softmax axis", got=self.axis, expected=f"0 to {rank - 2}, or None for the last")
        return inputs[0]


@record
class Normalize(Node):
    """``(x - mean) / sqrt(variance + epsilon)`` over `axes` (layer, group and instance norms).

    Unless `centered` is set, the mean counts as 0 (root mean square norm).
    """

    axes: tuple[int, ...]
    epsilon: float
    centered: bool = True
    kind: ClassVar[str] = "normalize"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        check_axes(self, self.axes, len(inputs[0]))
        if not self.axes:
            raise GraphError("normalize axes", got=self.axes, expected="at least one")
        if not 0 <= as_float32(self.epsilon) < inf:
            raise GraphError("normalize epsilon", got=self.epsilon, expected="a finite float32 number of at least 0")
        return inputs[0]
