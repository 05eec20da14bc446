"""Operators that treat each element alike, and broadcast their operands as NumPy does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import ClassVar

from dcformat.errors import GraphError, ShapeError
from dcformat.graph.node import Node, Shape, as_float32, broadcast, check_rank
from dcformat.records import record

#: Functions of one operand; their numbers in a file are their places here. `round` rounds halves to even.
UNARY = (
    "neg", "abs", "sign", "floor", "ceil", "round", "sqrt", "exp", "log", "erf", "sigmoid", "tanh", "sin", "cos",
)  # fmt: skip
#: Functions of two operands. Comparisons give 1 for true and 0 for false.
BINARY = ("sub", "mul", "div", "pow", "minimum", "maximum", "equal", "less", "less_equal")


@record
class ReLU(Node):
    """``max(x, 0)``."""

    kind: ClassVar[str] = "relu"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        return inputs[0]


@record
class Unary(Node):
    """A function of each element, one of `UNARY`."""

    function: str
    kind: ClassVar[str] = "unary"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        if self.function not in UNARY:
            raise GraphError("unary function", got=repr(self.function), expected=", ".join(UNARY))
        return inputs[0]


@record
class Add(Node):
    """Sum of two or more operands."""

    kind: ClassVar[str] = "add"
    arity: ClassVar[int | None] = None
    takes_tensors: ClassVar[bool] = True
    takes_constants: ClassVar[bool] = True

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        return check_rank(self, broadcast(self, inputs))


@record
class Binary(Node):
    """A function of two operands, one of `BINARY`."""

    function: str
    kind: ClassVar[str] = "binary"
    arity: ClassVar[int | None] = 2
    takes_tensors: ClassVar[bool] = True
    takes_constants: ClassVar[bool] = True

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        if self.function not in BINARY:
            raise GraphError("binary function", got=repr(self.function), expected=", ".join(BINARY))
        return check_rank(self, broadcast(self, inputs))


@record
class Where(Node):
    """The second operand where the first is not 0, the third elsewhere."""

    kind: ClassVar[str] = "where"
    arity: ClassVar[int | None] = 3
    takes_tensors: ClassVar[bool] = True
    takes_constants: ClassVar[bool] = True

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        return check_rank(self, broadcast(self, inputs))


@record
class Quantize(Node):
    """The nearest number that a quantised integer stands for.

    ``(clip(round(x / scale) + zero_point, low, high) - zero_point) * scale``, each step rounded to float32, halves to
    even.
    """

    scale: float
    zero_point: int
    low: int
    high: int
    kind: ClassVar[str] = "quantize"

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        _check_scale("quantize scale", self.scale)
        if not -(1 << 15) <= self.low <= self.zero_point <= self.high < 1 << 16:
            raise GraphError(
                "quantize range", got=(self.low, self.zero_point, self.high),
                expected="low <= zero_point <= high, from -32768 to 65535",
            )  # fmt: skip
        return inputs[0]


@record
class Requantize(Node):
    """Whole numbers as other whole numbers: ``clip(round(x * factor), low, high)``.

    The operands are a value and scales that broadcast to its shape. The factor is ``input_scale * scale /
    output_scale``. Each step is rounded to float32, halves to even.
    """

    input_scale: float
    output_scale: float
    low: int
    high: int
    kind: ClassVar[str] = "requantize"
    arity: ClassVar[int | None] = 2
    takes_tensors: ClassVar[bool] = True
    takes_constants: ClassVar[bool] = True

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        _check_scale("requantize input_scale", self.input_scale)
        _check_scale("requantize output_scale", self.output_scale)
        if not self.low <= 0 <= self.high:
            raise GraphError("requantize range", got=(self.low, self.high), expected="low <= 0 <= high")
        if broadcast(self, inputs) != inputs[0]:
            raise ShapeError("requantize scales", got=inputs[1], expected=f"a shape that broadcasts to {inputs[0]}")
        return inputs[0]


def _check_scale(field: str, scale: float) -> None:
    if not 0 < as_float32(scale) < inf:
        raise GraphError(field, got=scale, expected="a finite float32 number above 0")
