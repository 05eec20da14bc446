"""Common parts of all operators: operands, shapes, and the checks of both.

Shapes leave out the batch: a graph is written for one input, and a batch runs it once for each. Values are float32,
and have at least one element.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import ClassVar

from dcformat.errors import GraphError, ShapeError
from dcformat.layout import MAX_RANK
from dcformat.records import record

Shape = tuple[int, ...]
Pair = tuple[int, int]
#: The number of a value, the name of a tensor in the file, or a constant, which a file rounds to float32.
Operand = int | str | float


@record
class Node:
    """An operator.

    `inputs` are its operands. Those of most operators are values; operators with `takes_tensors` take tensors too, and
    those with `takes_constants` constants. `arity` is their count; None: `least_arity` or more.
    """

    inputs: tuple[Operand, ...]
    kind: ClassVar[str] = ""
    arity: ClassVar[int | None] = 1
    least_arity: ClassVar[int] = 2
    takes_tensors: ClassVar[bool] = False
    takes_constants: ClassVar[bool] = False

    @property
    def values(self) -> tuple[int, ...]:
        """The numbers of the values that this node reads, in the order of its operands."""
        return tuple(operand for operand in self.inputs if isinstance(operand, int))

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the tensors that this node reads: its operands, then its weights and biases."""
        return tuple(operand for operand in self.inputs if isinstance(operand, str))

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        """Return the result's shape; raise `ShapeError` or `GraphError` if the operands or attributes do not fit.

        `inputs` has a shape for each operand, that of a constant being ``()``.
        """
        raise GraphError("operator", got=self.kind or type(self).__name__, expected="a known operator")


def weight_shape(node: Node, name: str, tensors: Mapping[str, Shape], *ranks: int) -> Shape:
    """Return the shape of a weight, which must have one of `ranks` and no dimension 0."""
    shape = tensor_shape(node, name, tensors)
    if len(shape) not in ranks or 0 in shape:
        wanted = " or ".join(map(str, ranks))
        raise ShapeError(f"{node.kind} weight {name!r}", got=shape, expected=f"rank {wanted}, no dimension 0")
    return shape


def check_tensor_shape(node: Node, name: str | None, tensors: Mapping[str, Shape], shape: Shape) -> None:
    """Raise unless a bias or another small tensor, if there is one, has the given shape."""
    if name is not None and (found := tensor_shape(node, name, tensors)) != shape:
        raise ShapeError(f"{node.kind} tensor {name!r}", got=found, expected=shape)


def tensor_shape(node: Node, name: str, tensors: Mapping[str, Shape]) -> Shape:
    """Return the shape of a tensor that must be in the file."""
    shape = tensors.get(name)
    if shape is None:
        raise GraphError(f"{node.kind}'s tensor", got=repr(name), expected="the name of a tensor in the file")
    return shape


def check_at_least(node: Node, values: Sequence[int], least: int, field: str) -> None:
    """Raise unless each of an attribute's values is at least `least`."""
    if any(value < least for value in values):
        raise GraphError(f"{node.kind} {field}", got=tuple(values), expected=f"at least {least}")


def check_count(node: Node, values: Sequence[object], count: int, field: str) -> None:
    """Raise unless an attribute has a value for each of `count` dimensions."""
    if len(values) != count:
        raise GraphError(f"{node.kind} {field}", got=tuple(values), expected=f"{count} values")


def as_float32(value: float) -> float:
    """Return a number rounded to float32; beyond its range, it becomes infinite or zero."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return inf if value > 0 else -inf


def check_axes(node: Node, axes: Sequence[int], rank: int) -> None:
    """Raise unless `axes` are ascending numbers of dimensions."""
    if any(not 0 <= axis < rank for axis in axes) or any(a >= b for a, b in pairwise(axes)):
        raise GraphError(f"{node.kind} axes", got=tuple(axes), expected=f"ascending, from 0 to {rank - 1}")


def broadcast(node: Node, shapes: Sequence[Shape]) -> Shape:
    """Return the shape to which all of `shapes` broadcast, as in NumPy."""
    rank = max(map(len, shapes))
    out = []
    for sizes in zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True):
        found = set(sizes) - {1}
        if len(found) > 1:
            raise ShapeError(f"{node.kind} operands", got=tuple(shapes), expected="shapes that broadcast")
        out.append(found.pop() if found else 1)
    return tuple(out)


def check_rank(node: Node, shape: Shape) -> Shape:
    """Raise unless a result has a rank that a value may have."""
    if len(shape) > MAX_RANK:
        raise ShapeError(f"{node.kind} result", got=shape, expected=f"at most {MAX_RANK} dimensions")
    return shape
