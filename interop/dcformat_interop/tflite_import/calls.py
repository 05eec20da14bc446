"""The view of an operator that a lowering gets, and the list of all lowerings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.graph import Node, Shape
from dcformat_interop.graph_builder import BuilderOperand, GraphBuilder, Value
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.tensors import Budget
from dcformat_interop.tflite_import.constant_tensors import BYTES_PER_ELEMENT
from dcformat_interop.tflite_import.items import (
    Axes,
    TfliteItem,
    identity,
    of_array,
    of_value,
    plain,
    reshaped,
    settled,
    stored,
)
from dcformat_interop.tflite_import.loading import OperatorInfo, TfliteTensor

Array = npt.NDArray[Any]


#: The result of a lowering for each output: an item, a value in the tensor's order, or a constant.
TfliteResult = TfliteItem | Value | Array
TfliteLowering = Callable[["TfliteCall"], "TfliteResult | list[TfliteResult]"]


class Registered(NamedTuple):
    """A lowering.

    Attributes
    ----------
    function : callable
    moves_only : bool
        Whether every element of the results is one of the inputs.
    """

    function: TfliteLowering
    moves_only: bool


#: The lowering of each operator.
LOWERINGS: dict[str, Registered] = {}


def lowers(*op_types: str, moves_only: bool = False) -> Callable[[TfliteLowering], TfliteLowering]:
    """Register a function as the lowering of some operators."""

    def register(function: TfliteLowering) -> TfliteLowering:
        LOWERINGS.update(dict.fromkeys(op_types, Registered(function, moves_only)))
        return function

    return register


@dataclass(frozen=True, slots=True, eq=False)
class TfliteCall:
    """An operator to lower: its inputs, its options, and the builder that receives its lowered form.

    Attributes
    ----------
    info : OperatorInfo
    items : sequence of TfliteItem or None
        The inputs; None for those that are left out.
    tensors : sequence of TfliteTensor or None
        Their descriptions in the file.
    results : sequence of TfliteTensor
        The descriptions of the outputs in the file.
    builder : GraphBuilder
    budget : Budget
        Counts the bytes of constants.
    """

    info: OperatorInfo
    items: Sequence[TfliteItem | None]
    tensors: Sequence[TfliteTensor | None]
    results: Sequence[TfliteTensor]
    builder: GraphBuilder
    budget: Budget

    @property
    def op_type(self) -> str:
        """The operator's name."""
        return self.info.op_type

    @property
    def options(self) -> Mapping[str, Any]:
        """The operator's options."""
        return self.info.options

    @property
    def rank(self) -> int:
        """The rank of the first input."""
        return len(self.shape())

    def has(self, number: int) -> bool:
        """Return whether an optional input is there."""
        return number < len(self.items) and self.items[number] is not None

    def item(self, number: int = 0) -> TfliteItem:
        """Return an input that must be there."""
        found = self.items[number] if number < len(self.items) else None
        if found is None:
            raise ValueError(f"inputs: expected one of number {number}, found none")
        return found

    def tensor(self, number: int = 0) -> TfliteTensor:
        """Return the description in the file of an input that must be there."""
        self.item(number)
        found = self.tensors[number]
        assert found is not None
        return found

    def shape(self, number: int = 0) -> Shape:
        """Return an input's shape."""
        return self.item(number).shape

    def is_constant(self, number: int) -> bool:
        """Return whether an input is constant."""
        return self.item(number).array is not None

    def is_whole(self, number: int = 0) -> bool:
        """Return whether an input holds whole numbers, which stand for nothing else."""
        info = self.tensor(number)
        return info.quantization is None and np.dtype(info.dtype).kind in "iu"

    def view(self, number: int = 0) -> TfliteItem:
        """Return an input as a value with its dimensions in any order."""
        item = self.item(number)
        if item.array is not None:
            return replace(of_value(self.builder.materialize(item.array, self.name(number))), fits=item.fits)
        return settled(self.builder, item)

    def value(self, number: int = 0) -> Value:
        """Return an input as a value with its dimensions in the tensor's order."""
        return plain(self.builder, self.view(number))

    def stored(self, number: int, axes: Axes) -> Value:
        """Return an input as a value with its dimensions stored at `axes`."""
        if len(self.shape(number)) != len(axes):
            raise ValueError(f"input {number}: expected {len(axes)} dimensions, found {self.shape(number)}")
        return stored(self.builder, self.view(number), axes)

    def operand(self, number: int) -> BuilderOperand:
        """Return an input as a value with its dimensions in the tensor's order, or as an array."""
        array = self.item(number).array
        return self.value(number) if array is None else array

    def const(self, number: int, what: str) -> Array:
        """Return a constant input, and refuse one that is computed."""
        array = self.item(number).array
        if array is None:
            raise Unsupported(f"with {what} that the network computes")
        return array

    def weight(self, number: int, rank: int) -> Array:
        """Return constant weights that must have some rank and elements."""
        array = self.const(number, "weights")
        if array.ndim != rank or not array.size:
            raise ValueError(f"weights: expected {rank} dimensions, none of 0, found {array.shape}")
        return array

    def ints(self, number: int, what: str) -> list[int]:
        """Return a constant input as a list of whole numbers."""
        array = self.const(number, what)
        if array.dtype.kind not in "iu":
            raise ValueError(f"{what}: expected whole numbers, found {array.dtype}")
        return [int(value) for value in array.reshape(-1)]

    def reserve(self, shape: Sequence[int]) -> None:
        """Count a constant that is about to be made; raise `UnfitError` if it takes too much memory."""
        if any(size < 0 for size in shape):
            raise ValueError(f"shape: expected sizes of at least 0, found {list(shape)}")
        self.budget.take(BYTES_PER_ELEMENT * prod(shape), self.info.what)

    def axis(self, axis: int, rank: int | None = None) -> int:
        """Return an axis counted from the front; raise `ValueError` if there is no such axis."""
        rank = self.rank if rank is None else rank
        if not -rank <= axis < rank:
            raise ValueError(f"axis: expected {-rank} to {rank - 1}, found {axis}")
        return axis % rank

    def name(self, number: int) -> str:
        """Return a name for the tensor made from an input: that of its layer, or of the operator."""
        return self.item(number).name or self.op_type.lower()

    def emit(self, kind: type[Node], *operands: BuilderOperand, **attributes: Any) -> Value:
        """Add an operator; a constant operand gets the name of the last input."""
        return self.builder.emit(kind, operands, self.name(len(operands) - 1), **attributes)

    def parameters(self, weight: Array, number: int, bias: int) -> dict[str, str | None]:
        """Store weights, which come from input `number`, and the bias, if an input is one."""
        layer = self.name(number)
        values = self.const(bias, "a bias").reshape(-1) if self.has(bias) else np.zeros(1)
        return {
            "weight": self.builder.tensor(weight, f"{layer}.weight"),
            "bias": self.builder.tensor(values, f"{layer}.bias") if values.any() else None,
        }


def as_item(result: TfliteResult) -> TfliteItem:
    """Return the result of a lowering as an item."""
    if isinstance(result, TfliteItem):
        return result
    return of_value(result) if isinstance(result, Value) else of_array(result)


def aligned(call: TfliteCall, numbers: Sequence[int]) -> tuple[list[BuilderOperand], Axes]:
    """Return inputs that broadcast, with their dimensions stored in one order, and that order.

    Constants have as many dimensions as the values, so that their order can follow.
    """
    items = [item if item.array is not None else settled(call.builder, item) for item in map(call.item, numbers)]
    rank = max(len(item.shape) for item in items)
    values = [item for item in items if item.value is not None and len(item.shape) == rank]
    moved = [item for item in values if item.axes != identity(rank)]
    axes = moved[0].axes if moved else identity(rank)
    order = [axes.index(place) for place in range(rank)]
    operands: list[BuilderOperand] = []
    for item in items:
        shape = (*(1,) * (rank - len(item.shape)), *item.shape)
        if item.array is None:
            operands.append(stored(call.builder, _of_rank(call.builder, item, shape), axes))
        elif item.array.size == 1:
            operands.append(item.array.reshape(()) if any(len(i.shape) == rank for i in values) else item.array)
        elif item.shape == shape and axes == identity(rank):
            operands.append(item.array)  # the builder knows an array that it has stored
        else:
            operands.append(item.array.reshape(shape).transpose(order))
    return operands, axes


def _of_rank(builder: GraphBuilder, item: TfliteItem, shape: Shape) -> TfliteItem:
    return item if item.shape == shape else settled(builder, reshaped(builder, item, shape))
