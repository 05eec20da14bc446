"""The meaning of each name in an ONNX graph, and the view of a node that a lowering gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.graph import Node, Shape
from dcformat_interop.graph_builder import BuilderOperand, GraphBuilder, Value
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.tensors import Budget

Array = npt.NDArray[Any]


class Real(NamedTuple):
    """The numbers that quantised integers stand for."""

    value: Value
    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True, eq=False)
class OnnxItem:
    """A name's meaning: a value of the graph or a constant array, and the dtype that it has in ONNX.

    `name` is that of the tensor from which a constant comes. `real` holds the numbers for which the integers in `value`
    stand, so that nothing is lost if the next operator needs them.
    """

    dtype: np.dtype[Any]
    value: Value | None = None
    array: Array | None = None
    name: str = ""
    real: Real | None = None

    @property
    def shape(self) -> Shape:
        """The shape in ONNX, including the batch."""
        if self.value is not None:
            return self.value.shape
        assert self.array is not None
        return self.array.shape


def constant(values: npt.ArrayLike, name: str = "") -> OnnxItem:
    """Return the item of a constant."""
    array = np.asarray(values)
    return OnnxItem(array.dtype, None, array, name)


#: The beginning of PyTorch's names for tensors that it numbers.
_NUMBERED = ("onnx::", "val_")

#: The roles of most operators' second and third inputs.
_ROLES = {1: "weight", 2: "bias"}

#: The result of a lowering for each output: a value or constant with the dtype of the first input, or an item.
OnnxResult = Value | Array | OnnxItem
OnnxLowering = Callable[["OnnxCall"], "OnnxResult | Sequence[OnnxResult | None]"]

#: The lowering of each operator, by domain and type.
LOWERINGS: dict[tuple[str, str], OnnxLowering] = {}


def lowers(*op_types: str, domain: str = "") -> Callable[[OnnxLowering], OnnxLowering]:
    """Register a function as the lowering of some operators."""

    def register(function: OnnxLowering) -> OnnxLowering:
        for op_type in op_types:
            LOWERINGS[domain, op_type] = function
        return function

    return register


@dataclass(frozen=True, slots=True, eq=False)
class OnnxCall:
    """A node to lower: its inputs, its attributes, and the builder to which its operators go."""

    op_type: str
    name: str
    opset: int
    inputs: Sequence[OnnxItem | None]
    attributes: Mapping[str, Any]
    outputs: Sequence[str]
    builder: GraphBuilder
    budget: Budget

    def attr(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or a default."""
        return self.attributes.get(name, default)

    def has(self, number: int) -> bool:
        """Return whether an optional input is there."""
        return number < len(self.inputs) and self.inputs[number] is not None

    def wants(self, number: int) -> bool:
        """Return whether something may read an output."""
        return number < len(self.outputs) and bool(self.outputs[number])

    def item(self, number: int) -> OnnxItem:
        """Return an input that must be there."""
        found = self.inputs[number] if number < len(self.inputs) else None
        if found is None:
            raise Unsupported(f"without its input {number}")
        return found

    def shape(self, number: int = 0) -> Shape:
        """Return an input's shape."""
        return self.item(number).shape

    @property
    def rank(self) -> int:
        """The rank of the first input."""
        return len(self.shape())

    def dtype(self, number: int = 0) -> np.dtype[Any]:
        """Return an input's dtype in ONNX."""
        return self.item(number).dtype

    @property
    def whole(self) -> bool:
        """Whether the first input holds whole numbers."""
        return self.dtype().kind in "iu"

    def value(self, number: int = 0) -> Value:
        """Return an input as a value."""
        operand = self.operand(number)
        if isinstance(operand, Value):
            return operand
        return self.builder.materialize(operand, self.tensor_name(number))

    def operand(self, number: int) -> BuilderOperand:
        """Return an input as a value or an array."""
        item = self.item(number)
        if item.value is not None:
            return item.value
        assert item.array is not None
        return item.array

    def is_constant(self, number: int) -> bool:
        """Return whether an input is constant."""
        return self.item(number).array is not None

    def const(self, number: int, what: str) -> Array:
        """Return a constant input, and refuse one that is computed."""
        array = self.item(number).array
        if array is None:
            raise Unsupported(f"with {what} that the network computes")
        return array

    def ints(self, number: int, what: str) -> list[int]:
        """Return a constant input as a list of whole numbers."""
        return [int(value) for value in self.const(number, what).reshape(-1)]

    def ints_of(self, name: str, number: int, since: int) -> list[int] | None:
        """Return whole numbers that were an attribute before an operator set, and an input since; None if absent."""
        if self.opset < since:
            found = self.attr(name)
            return None if found is None else list(found)
        return self.ints(number, f"{name}") if self.has(number) else None

    def axis(self, axis: int, rank: int | None = None) -> int:
        """Return an axis counted from the front; raise `ValueError` if there is no such axis."""
        rank = self.rank if rank is None else rank
        if not -rank <= axis < rank:
            raise ValueError(f"axis: expected {-rank} to {rank - 1}, found {axis}")
        return axis % rank if rank else 0

    def axes(self, axes: Sequence[int], rank: int | None = None) -> list[int]:
        """Return axes counted from the front, ascending."""
        return sorted(self.axis(axis, rank) for axis in axes)

    def tensor_name(self, number: int, role: str = "") -> str:
        """Return a name for the tensor made from an input: its own, or one derived from the node's."""
        if self.is_named(number):
            return self.item(number).name
        return f"{self.name}.{role or _ROLES.get(number, number)}"

    def is_named(self, number: int) -> bool:
        """Return whether an input comes from a tensor whose name means something."""
        name = self.item(number).name
        return bool(name) and not name.startswith(_NUMBERED)

    def take(self, elements: int) -> None:
        """Count an array of whole numbers before it is made; its size comes from the file."""
        self.budget.take(8 * elements, f"node {self.name!r} ({self.op_type})")

    def emit(self, kind: type[Node], *operands: BuilderOperand, name: str = "", **attributes: Any) -> Value:
        """Add an operator."""
        return self.builder.emit(kind, operands, name or f"{self.name}.constant", **attributes)

    def tensor(self, array: Array, name: str) -> str:
        """Store a tensor."""
        return self.builder.tensor(array, name)

    def as_dtype(self, result: Value | Array, dtype: npt.DTypeLike) -> OnnxItem:
        """Return a result that has another dtype than the first input."""
        if isinstance(result, Value):
            return OnnxItem(np.dtype(dtype), result)
        return constant(np.asarray(result).astype(dtype))
