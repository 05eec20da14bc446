"""Comparisons, logic, and choices. Truth values are 1 and 0."""

from __future__ import annotations

from dcformat_interop.graph_builder import Value
from dcformat_interop.lowering.composed import logical_not
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.onnx_import.items import OnnxCall, OnnxItem, lowers


@lowers("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
def _compare(call: OnnxCall) -> OnnxItem:
    a, b = call.operand(0), call.operand(1)
    if call.op_type.startswith("Greater"):
        a, b = b, a
    function = {"Equal": "equal", "Less": "less", "Greater": "less"}.get(call.op_type, "less_equal")
    return call.as_dtype(call.builder.binary(function, a, b, call.tensor_name(1)), bool)


@lowers("Not")
def _not(call: OnnxCall) -> Value:
    return logical_not(call.builder, call.value())


@lowers("And", "Or", "Xor")
def _logic(call: OnnxCall) -> OnnxItem:
    b, x, y = call.builder, call.operand(0), call.operand(1)
    name = call.tensor_name(1)
    if call.op_type == "Xor":
        return call.as_dtype(logical_not(b, b.binary("equal", x, y, name)), bool)
    return call.as_dtype(b.binary("mul" if call.op_type == "And" else "maximum", x, y, name), bool)


@lowers("Where")
def _where(call: OnnxCall) -> OnnxItem:
    result = call.builder.where(call.operand(0), call.operand(1), call.operand(2), call.tensor_name(0))
    return call.as_dtype(result, call.dtype(1))


@lowers("IsNaN")
def _is_nan(call: OnnxCall) -> OnnxItem:
    x = call.value()
    return call.as_dtype(logical_not(call.builder, call.builder.binary("equal", x, x)), bool)


@lowers("IsInf")
def _is_inf(call: OnnxCall) -> OnnxItem:
    b, x = call.builder, call.value()
    # Only infinities are above the greatest finite number.
    signs = [sign for sign, name in ((-1.0, "detect_negative"), (1.0, "detect_positive")) if call.attr(name, 1)]
    if not signs:
        return call.as_dtype(b.binary("less", b.unary("abs", x), 0.0), bool)
    tested = b.unary("abs", x) if len(signs) == 2 else b.binary("mul", x, signs[0])
    return call.as_dtype(b.binary("less", 3.4028234663852886e38, tested), bool)


@lowers("BitwiseNot")
def _bitwise_not(call: OnnxCall) -> Value:
    if call.dtype().kind != "i":
        raise Unsupported("on unsigned numbers")
    return call.builder.binary("sub", -1.0, call.value())
