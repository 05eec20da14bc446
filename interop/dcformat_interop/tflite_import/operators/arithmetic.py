"""Arithmetic and comparisons of operands that broadcast, for floats and for whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat_interop.graph_builder import BuilderOperand, GraphBuilder, Value
from dcformat_interop.lowering.composed import logical_not, truncated
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.tflite_import.calls import TfliteCall, aligned, lowers
from dcformat_interop.tflite_import.items import TfliteItem, of_array, of_value

Array = npt.NDArray[Any]

_BINARY = {
    "SUB": "sub", "MUL": "mul", "DIV": "div", "POW": "pow", "MAXIMUM": "maximum", "MINIMUM": "minimum",
    "EQUAL": "equal", "LESS": "less", "LESS_EQUAL": "less_equal", "LOGICAL_AND": "mul", "LOGICAL_OR": "maximum",
}  # fmt: skip

#: The same functions of constants, which often compute the shapes that other operators need.
_FOLDED: dict[str, Callable[[Array, Array], Array]] = {
    "ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "MAXIMUM": np.maximum, "MINIMUM": np.minimum,
}  # fmt: skip


@lowers("ADD", *_BINARY)
def _binary(call: TfliteCall) -> TfliteItem:
    folded = _constant(call)
    if folded is not None:
        return folded
    (x, y), axes = _operands(call)
    b, name = call.builder, _name(call)
    if call.op_type == "ADD":
        return of_value(b.add(x, y, name=name), axes)
    if call.op_type == "POW" and _is(y, 2) and isinstance(x, Value):
        return of_value(b.binary("mul", x, x), axes)
    made = b.binary(_BINARY[call.op_type], x, y, name)
    return of_value(truncated(b, made) if call.op_type == "DIV" and call.is_whole() else made, axes)


def _constant(call: TfliteCall) -> TfliteItem | None:
    """Return the result for whole constants, or None if there are others."""
    items = [call.item(0), call.item(1)]
    arrays = [item.array for item in items if item.array is not None and item.array.dtype.kind in "iu"]
    if len(arrays) < 2 or call.op_type not in _FOLDED or call.tensor().quantization is not None:
        return None
    call.reserve(np.broadcast_shapes(*(array.shape for array in arrays)))
    return of_array(_FOLDED[call.op_type](*arrays), items[0].name)


def _operands(call: TfliteCall) -> tuple[list[BuilderOperand], tuple[int, ...]]:
    """Return both operands, at least one of which is a value."""
    operands, axes = aligned(call, (0, 1))
    if not any(isinstance(operand, Value) for operand in operands):
        operands[0] = call.value(0)
    return operands, axes


def _is(operand: BuilderOperand, number: float) -> bool:
    return not isinstance(operand, Value) and bool(np.size(operand) == 1 and np.all(operand == number))


def _name(call: TfliteCall) -> str:
    """Return a name for a constant operand."""
    return call.name(0 if call.is_constant(0) else 1)


@lowers("GREATER", "GREATER_EQUAL", "NOT_EQUAL")
def _reversed(call: TfliteCall) -> TfliteItem:
    (x, y), axes = _operands(call)
    b, name = call.builder, _name(call)
    if call.op_type == "NOT_EQUAL":
        return of_value(logical_not(b, b.binary("equal", x, y, name)), axes)
    return of_value(b.binary("less" if call.op_type == "GREATER" else "less_equal", y, x, name), axes)


@lowers("SQUARED_DIFFERENCE")
def _squared_difference(call: TfliteCall) -> TfliteItem:
    (x, y), axes = _operands(call)
    apart = call.builder.binary("sub", x, y, _name(call))
    return of_value(call.builder.binary("mul", apart, apart), axes)


@lowers("FLOOR_DIV", "FLOOR_MOD")
def _floor_div(call: TfliteCall) -> TfliteItem:
    (x, y), axes = _operands(call)
    b, name = call.builder, _name(call)
    whole = b.unary("floor", b.binary("div", x, y, name))
    if call.op_type == "FLOOR_DIV":
        return of_value(whole, axes)
    return of_value(b.binary("sub", x, b.binary("mul", y, whole, name), name), axes)


@lowers("ADD_N")
def _add_n(call: TfliteCall) -> TfliteItem:
    count = len(call.items)
    operands, axes = aligned(call, range(count))
    if not any(isinstance(operand, Value) for operand in operands):
        raise Unsupported("of constants")
    if count == 1:
        return call.view()
    return of_value(call.builder.add(*operands, name=call.name(count - 1)), axes)


@lowers("SELECT", "SELECT_V2")
def _select(call: TfliteCall) -> TfliteItem:
    condition = call.shape(0)
    if call.op_type == "SELECT" and len(condition) == 1 < len(call.shape(1)):
        raise Unsupported("with a condition for each row")
    (chosen, x, y), axes = aligned(call, (0, 1, 2))
    if not any(isinstance(operand, Value) for operand in (chosen, x, y)):
        chosen = call.value(0)
    return of_value(call.builder.where(chosen, x, y, call.name(1)), axes)


@lowers("L2_NORMALIZATION")
def _l2_normalization(call: TfliteCall) -> TfliteItem:
    view, b = call.view(), call.builder
    assert view.value is not None
    norm = _norm(b, view.value, view.axes[-1])
    return of_value(b.binary("div", view.value, b.binary("maximum", norm, 1e-6)), view.axes)


def _norm(b: GraphBuilder, x: Value, axis: int) -> Value:
    return b.unary("sqrt", b.reduce("sum", b.binary("mul", x, x), [axis], keepdims=True))
