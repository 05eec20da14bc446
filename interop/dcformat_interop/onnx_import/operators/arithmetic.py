"""Sums, products, and other arithmetic with broadcasting, for floats and for whole numbers."""

from __future__ import annotations

from functools import reduce
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat_interop.graph_builder import BuilderOperand, Value
from dcformat_interop.lowering.composed import logical_not, truncated
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.onnx_import.items import OnnxCall, OnnxItem, constant, lowers

Array = npt.NDArray[Any]

#: The functions of two operands that ONNX has, as `BINARY` calls them.
_BINARY = {"Sub": "sub", "Mul": "mul", "Pow": "pow", "Min": "minimum", "Max": "maximum"}


def _is(call: OnnxCall, number: int, wanted: float) -> bool:
    """Return whether an input is a constant with this value that broadcasting does not enlarge the result by."""
    item = call.item(number)
    other = call.shape(1 - number)
    if item.array is None or item.array.dtype.kind not in "fiu" or not (item.array == wanted).all():
        return False
    return np.broadcast_shapes(item.shape, other) == other and not call.builder.keeps(item.array, item.name)


@lowers("Add", "Sum")
def _add(call: OnnxCall) -> Value | OnnxItem:
    if len(call.inputs) == 1:
        return call.item(0)
    if len(call.inputs) == 2:
        for number in range(2):
            if _is(call, number, 0):
                return call.item(1 - number)
    operands = [call.operand(number) for number in range(len(call.inputs))]
    if len(operands) == 2:
        for mask, other in (operands, operands[::-1]):
            if isinstance(other, Value) and not isinstance(mask, Value) and np.isinf(mask).any():
                return _masked(call, other, np.asarray(mask))
    return call.builder.add(*operands, name=_constant_name(call))


def _masked(call: OnnxCall, x: Value, mask: Array) -> Value:
    """Return the sum of a value and a constant with infinities, which a tensor cannot hold."""
    b, name = call.builder, _constant_name(call)
    finite = np.where(np.isinf(mask), 0, mask)
    total = b.add(x, finite, name=name) if finite.any() else x
    for infinity in (np.inf, -np.inf):
        if (mask == infinity).any():
            total = b.where((mask == infinity).astype(np.float32), infinity, total, name)
    return total


@lowers("Sub", "Mul", "Min", "Max")
def _binary(call: OnnxCall) -> Value | OnnxItem:
    if call.op_type in ("Sub", "Mul") and _is(call, 1, 0 if call.op_type == "Sub" else 1):
        return call.item(0)
    if call.op_type == "Mul" and _is(call, 0, 1):
        return call.item(1)
    operands = [call.operand(number) for number in range(len(call.inputs))]
    if len(operands) == 1:
        return call.item(0)
    values = [operand for operand in operands if isinstance(operand, Value)]
    constants = [operand for operand in operands if not isinstance(operand, Value)]
    if len(operands) > 2:  # a value first, so that no operator has constants alone
        operands = [*values, *constants]
    name = _constant_name(call)
    return _as_value(reduce(lambda a, b: call.builder.binary(_BINARY[call.op_type], a, b, name), operands))


@lowers("Pow")
def _pow(call: OnnxCall) -> Value | OnnxItem:
    base = call.operand(0)
    exponent = call.item(1).array
    if exponent is not None and exponent.size == 1 and isinstance(base, Value) and exponent.ndim <= call.rank:
        power = float(exponent.reshape(()))
        if power == 1:
            return call.item(0)
        if power == 2:
            return call.builder.binary("mul", base, base)
        if power == 0.5:
            return call.builder.unary("sqrt", base)
    result = call.builder.binary("pow", base, call.operand(1), _constant_name(call))
    return truncated(call.builder, result) if call.whole else result


@lowers("Div")
def _div(call: OnnxCall) -> Value | OnnxItem:
    if _is(call, 1, 1):
        return call.item(0)
    quotient = call.builder.binary("div", call.operand(0), call.operand(1), _constant_name(call))
    return truncated(call.builder, quotient) if call.whole else quotient


@lowers("Mod")
def _mod(call: OnnxCall) -> Value:
    """Lower to ``a - b * q``; the quotient q is rounded down, or towards zero with `fmod`."""
    b, x, y, name = call.builder, call.operand(0), call.operand(1), _constant_name(call)
    quotient = b.binary("div", x, y, name)
    if call.whole and not call.attr("fmod", 0):
        return b.binary("sub", x, b.binary("mul", y, b.unary("floor", quotient), name), name)
    whole = truncated(b, quotient)
    # An infinite divisor leaves a number unchanged.
    rest = b.where(whole, b.binary("sub", x, b.binary("mul", y, whole, name), name), x, name)
    if call.attr("fmod", 0):
        return rest
    return b.where(b.binary("less", b.binary("mul", rest, y, name), 0.0), b.add(rest, y, name=name), rest, name)


@lowers("Mean")
def _mean(call: OnnxCall) -> Value | OnnxItem:
    count = len(call.inputs)
    if count == 1:
        return call.item(0)
    total = call.builder.add(*(call.operand(number) for number in range(count)), name=_constant_name(call))
    return call.builder.binary("mul", total, 1 / count)


@lowers("Neg", "Abs", "Sign", "Floor", "Ceil", "Round", "Sqrt", "Exp", "Log", "Erf", "Sigmoid", "Tanh", "Sin", "Cos")
def _unary(call: OnnxCall) -> Value | OnnxItem:
    if call.whole and call.op_type in ("Floor", "Ceil", "Round"):
        return call.item(0)
    return call.builder.unary(call.op_type.lower(), call.value())


@lowers("Reciprocal")
def _reciprocal(call: OnnxCall) -> Value:
    return call.builder.binary("div", 1.0, call.value())


@lowers("Clip")
def _clip(call: OnnxCall) -> Value | OnnxItem:
    """Lower to `minimum` and `maximum`; bounds beyond the range of float32 have no effect."""
    result = call.item(0)
    largest = float(np.finfo(np.float32).max)
    for number, function in ((1, "maximum"), (2, "minimum")):
        bound: BuilderOperand | None
        if call.opset < 11:
            bound = call.attr("min" if number == 1 else "max")
        else:
            bound = call.operand(number) if call.has(number) else None
        if bound is None:
            continue
        if not isinstance(bound, Value):
            limit = float(np.asarray(bound, np.float64).reshape(()))
            beyond = limit <= -largest if number == 1 else limit >= largest
            if beyond or (call.whole and abs(limit) >= 1 << 24):
                continue
            bound = limit
        value = result.value if result.value is not None else call.value()
        result = OnnxItem(call.dtype(), _bounded(call, value, bound, function))
    return result


def _bounded(call: OnnxCall, x: Value, bound: BuilderOperand, function: str) -> Value:
    from dcformat.graph import ReLU

    if function == "maximum" and not isinstance(bound, Value) and bound == 0:
        return call.emit(ReLU, x)
    return call.builder.binary(function, x, bound)


@lowers("Cast", "CastLike")
def _cast(call: OnnxCall) -> OnnxItem:
    import onnx

    dtype = (
        call.dtype(1) if call.op_type == "CastLike" else np.dtype(onnx.helper.tensor_dtype_to_np_dtype(call.attr("to")))
    )
    array = call.item(0).array
    if array is not None:
        return constant(array.astype(dtype), call.item(0).name)
    source, value = call.dtype(), call.value()
    if dtype.kind == "b" and source.kind != "b":
        return OnnxItem(dtype, logical_not(call.builder, call.builder.binary("equal", value, 0.0)))
    if dtype.kind in "iu" and source.kind not in "iub":
        return OnnxItem(dtype, truncated(call.builder, value))
    if dtype.kind not in "iufb" and dtype.name != "bfloat16":
        raise Unsupported(f"to {dtype.name}")
    return OnnxItem(dtype, value)


@lowers("Identity", "Dropout", "StopGradient")
def _identity(call: OnnxCall) -> list[OnnxItem]:
    if call.op_type == "Dropout" and call.has(2) and call.const(2, "a training mode").any():
        raise Unsupported("in training mode")
    if not call.wants(1):
        return [call.item(0)]
    call.take(prod(call.shape()))
    return [call.item(0), constant(np.ones(call.shape(), bool))]


def _constant_name(call: OnnxCall) -> str:
    names = (call.item(number).name for number in range(len(call.inputs)) if call.has(number) and call.is_named(number))
    return next(names, f"{call.name}.constant")


def _as_value(operand: BuilderOperand) -> Value:
    assert isinstance(operand, Value)
    return operand
