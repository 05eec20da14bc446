"""Quantised operators: they compute with the numbers that integers stand for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import Quantize
from dcformat_interop.graph_builder import BuilderOperand, Value
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.onnx_import.items import OnnxCall, OnnxItem, Real, constant, lowers
from dcformat_interop.onnx_import.operators.matrices import product, turned
from dcformat_interop.onnx_import.operators.weighted import convolution

Array = npt.NDArray[Any]

_RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535),
           "int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}  # fmt: skip


def _along(operand: BuilderOperand, axis: int, rank: int) -> BuilderOperand:
    """Return a scale or zero point for each position along an axis in a shape that broadcasts."""
    if isinstance(operand, Value):
        if operand.shape:
            raise Unsupported("with scales that the network computes for each channel")
        return operand
    array = np.asarray(operand)
    return array.reshape(()) if array.size == 1 else array.reshape([-1 if i == axis else 1 for i in range(rank)])


def dequantized(call: OnnxCall, number: int, scale: int, zero_point: int, axis: int = 1) -> OnnxItem:
    """Return the numbers that an input stands for, with its scale and zero point, which are inputs too."""
    item, b, rank = call.item(number), call.builder, len(call.shape(number))
    zero = call.operand(zero_point) if call.has(zero_point) else np.zeros((), np.int32)
    factor = _along(call.operand(scale), axis, rank)
    offset = _along(zero, axis, rank)
    if item.array is not None:
        if isinstance(factor, Value) or isinstance(offset, Value):
            raise Unsupported("with a scale that the network computes")
        whole = np.asarray(item.array, np.int64) - np.asarray(offset, np.int64)
        numbers = whole.astype(np.float32) * np.asarray(factor, np.float32)
        b.note_steps(numbers, np.asarray(factor, np.float32).reshape(-1))
        return OnnxItem(np.dtype(np.float32), None, numbers, item.name)
    real = item.real
    if real is not None and _same(real, factor, offset):
        return OnnxItem(np.dtype(np.float32), real.value)
    value = call.value(number)
    if isinstance(offset, Value) or np.any(offset):
        value = b.binary("sub", value, offset, f"{call.name}.zero_point")
    return OnnxItem(np.dtype(np.float32), b.binary("mul", value, factor, f"{call.name}.scale"))


def _same(real: Real, factor: BuilderOperand, offset: BuilderOperand) -> bool:
    if isinstance(factor, Value) or isinstance(offset, Value) or np.size(factor) != 1 or np.size(offset) != 1:
        return False
    return real.scale == float(np.float32(factor)) and real.zero_point == int(np.asarray(offset).reshape(()))


def quantized(
    call: OnnxCall, value: Value, scale: int, zero_point: int, axis: int = 1, dtype: str = "uint8"
) -> OnnxItem:
    """Return integers for a value, with a scale and zero point that are inputs; the latter decides the dtype."""
    b, zero = call.builder, call.operand(zero_point) if call.has(zero_point) else None
    kind = np.dtype(dtype) if zero is None else call.dtype(zero_point)
    if kind.name not in _RANGES:
        raise Unsupported(f"to {kind.name}")
    low, high = _RANGES[kind.name]
    factor = _along(call.operand(scale), axis, len(value.shape))
    offset = _along(np.zeros((), np.int32) if zero is None else zero, axis, len(value.shape))
    if not isinstance(factor, Value) and not isinstance(offset, Value) and np.size(factor) == np.size(offset) == 1:
        number, point = float(np.float32(factor)), int(np.asarray(offset).reshape(()))
        real = b.emit(Quantize, (value,), scale=number, zero_point=point, low=low, high=high)
        # The quotient is within a millionth of a whole number.
        whole = b.unary("round", b.binary("div", real, number))
        shifted = b.add(whole, float(point)) if point else whole
        return OnnxItem(kind, shifted, real=Real(real, number, point))
    whole = b.unary("round", b.binary("div", value, factor, f"{call.name}.scale"))
    shifted = b.add(whole, offset, name=f"{call.name}.zero_point")
    return OnnxItem(kind, b.binary("minimum", b.binary("maximum", shifted, float(low)), float(high)))


@lowers("QuantizeLinear")
@lowers("QuantizeLinear", domain="com.microsoft")
def _quantize_linear(call: OnnxCall) -> OnnxItem:
    import onnx

    if call.attr("block_size", 0):
        raise Unsupported("with a scale for each block")
    wanted = call.attr("output_dtype", 0)
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(wanted)).name if wanted else "uint8"
    if all(call.is_constant(number) for number in range(len(call.inputs))):
        return _quantized_constant(call, dtype)
    return quantized(call, call.value(), 1, 2, _axis(call), dtype)


def _quantized_constant(call: OnnxCall, dtype: str) -> OnnxItem:
    zero = call.const(2, "a zero point") if call.has(2) else np.zeros((), dtype)
    if zero.dtype.name not in _RANGES:
        raise Unsupported(f"to {zero.dtype.name}")
    axis, rank = _axis(call), call.rank
    steps = np.rint(call.const(0, "values") / _along(call.const(1, "a scale"), axis, rank))
    shifted = steps + np.asarray(_along(zero, axis, rank), np.float32)
    return constant(np.clip(shifted, *_RANGES[zero.dtype.name]).astype(zero.dtype), call.item(0).name)


@lowers("DequantizeLinear")
@lowers("DequantizeLinear", domain="com.microsoft")
def _dequantize_linear(call: OnnxCall) -> OnnxItem:
    axis, size = _axis(call), call.attr("block_size", 0)
    if not size:
        return dequantized(call, 0, 1, 2, axis)
    array = call.item(0).array
    if array is None:
        raise Unsupported("with a scale for each block")
    length = array.shape[axis]
    scale, zero = (
        np.repeat(call.const(number, "a scale"), size, axis).take(range(length), axis) if call.has(number) else 0
        for number in (1, 2)
    )
    whole = np.asarray(array, np.int64) - np.asarray(zero, np.int64)
    return constant(whole.astype(np.float32) * np.asarray(scale, np.float32), call.item(0).name)


def _axis(call: OnnxCall) -> int:
    """Return the axis of the scales, which has no meaning if there is one scale for all."""
    return call.axis(call.attr("axis", 1)) if call.rank and call.shape(1) not in ((), (1,)) else 0


@lowers("QLinearConv")
def _qlinear_conv(call: OnnxCall) -> OnnxItem:
    x, weight = _value(call, dequantized(call, 0, 1, 2)), dequantized(call, 3, 4, 5, 0)
    if weight.array is None:
        raise Unsupported("with weights that the network computes")
    bias = None
    if call.has(8):
        # In float64: the products of scales are not rounded before the integers are scaled.
        factor = np.asarray(call.const(1, "a scale"), np.float64) * np.asarray(call.const(4, "scales"), np.float64)
        bias = (call.const(8, "a bias") * factor).astype(np.float32)
    shifted = replace(call, inputs=[call.inputs[0], call.inputs[3], call.inputs[8] if call.has(8) else None])
    return quantized(call, convolution(shifted, x, weight.array, bias), 6, 7)


@lowers("QLinearMatMul")
def _qlinear_matmul(call: OnnxCall) -> OnnxItem:
    ranks = len(call.shape(0)), len(call.shape(3))
    x, y = dequantized(call, 0, 1, 2, ranks[0] - 2), dequantized(call, 3, 4, 5, ranks[1] - 1)
    return quantized(call, _product(call, x, y, 3), 6, 7)


@lowers("MatMulInteger")
def _matmul_integer(call: OnnxCall) -> OnnxItem:
    x, y = _centered(call, 0, 2, call.rank - 2), _centered(call, 1, 3, len(call.shape(1)) - 1)
    return OnnxItem(np.dtype(np.int32), _product(call, x, y, 1))


@lowers("ConvInteger")
def _conv_integer(call: OnnxCall) -> OnnxItem:
    x, weight = _centered(call, 0, 2, 1), _centered(call, 1, 3, 0)
    if weight.array is None:
        raise Unsupported("with weights that the network computes")
    shifted = replace(call, inputs=call.inputs[:2])
    return OnnxItem(np.dtype(np.int32), convolution(shifted, _value(call, x), weight.array, None))


def _centered(call: OnnxCall, number: int, zero_point: int, axis: int) -> OnnxItem:
    """Return an input minus its zero point."""
    item = call.item(number)
    if not call.has(zero_point):
        return item
    zero = _along(call.operand(zero_point), axis, len(item.shape))
    if item.array is not None and not isinstance(zero, Value):
        return OnnxItem(
            np.dtype(np.int32), None, np.asarray(item.array, np.int32) - np.asarray(zero, np.int32), item.name
        )
    if not isinstance(zero, Value) and not np.any(zero):
        return item
    return OnnxItem(
        np.dtype(np.int32), call.builder.binary("sub", call.operand(number), zero, f"{call.name}.zero_point")
    )


def _value(call: OnnxCall, item: OnnxItem) -> Value:
    if item.value is not None:
        return item.value
    assert item.array is not None
    return call.builder.materialize(item.array)


def _operands(*items: OnnxItem) -> list[BuilderOperand]:
    """Return items as values or arrays."""
    found = [item.value if item.value is not None else item.array for item in items]
    return [operand for operand in found if operand is not None]


def _product(call: OnnxCall, x: OnnxItem, y: OnnxItem, number: int) -> Value:
    left, right = _operands(x, y)
    return product(call.builder, left, right, (call.tensor_name(0), call.tensor_name(number)))


@lowers("QLinearAdd", "QLinearMul", domain="com.microsoft")
def _qlinear_binary(call: OnnxCall) -> OnnxItem:
    x, y = dequantized(call, 0, 1, 2), dequantized(call, 3, 4, 5)
    left, right = _operands(x, y)
    b, name = call.builder, call.tensor_name(3)
    made = b.add(left, right, name=name) if call.op_type == "QLinearAdd" else b.binary("mul", left, right, name)
    return quantized(call, made, 6, 7)


@lowers("QLinearSigmoid", "QLinearLeakyRelu", "QLinearGlobalAveragePool", domain="com.microsoft")
def _qlinear_unary(call: OnnxCall) -> OnnxItem:
    from dcformat_interop.lowering.composed import leaky

    b, x = call.builder, _value(call, dequantized(call, 0, 1, 2))
    if call.op_type == "QLinearSigmoid":
        made = b.unary("sigmoid", x)
    elif call.op_type == "QLinearLeakyRelu":
        made = leaky(b, x, float(call.attr("alpha", 0.01)))
    else:
        last = call.attr("channels_last", 0)
        made = b.reduce("mean", x, range(1, call.rank - 1) if last else range(2, call.rank), keepdims=True)
    return quantized(call, made, 3, 4)


@lowers("QGemm", domain="com.microsoft")
def _qgemm(call: OnnxCall) -> OnnxItem | Value:
    b, x, y = (
        call.builder,
        dequantized(call, 0, 1, 2, 0),
        dequantized(call, 3, 4, 5, 0 if call.attr("transB", 0) else 1),
    )
    left, right = _operands(x, y)
    left = turned(b, left) if call.attr("transA", 0) else left
    right = turned(b, right) if call.attr("transB", 0) else right
    alpha = call.attr("alpha", 1.0)
    result = product(b, left, right, (call.tensor_name(0), call.tensor_name(3)))
    result = result if alpha == 1 else b.binary("mul", result, alpha)
    if call.has(6):
        scales = np.asarray(call.const(1, "a scale"), np.float64) * np.asarray(call.const(4, "scales"), np.float64)
        result = b.add(result, (call.const(6, "a bias") * alpha * scales).astype(np.float32), name=call.tensor_name(6))
    return quantized(call, result, 7, 8) if call.has(7) else OnnxItem(np.dtype(np.float32), result)


@lowers("QLinearConcat", domain="com.microsoft")
def _qlinear_concat(call: OnnxCall) -> OnnxItem:
    parts = [
        _value(call, dequantized(call, number, number + 1, number + 2)) for number in range(2, len(call.inputs), 3)
    ]
    axis = call.axis(call.attr("axis"), len(parts[0].shape))
    return quantized(call, call.builder.concat(parts, axis), 0, 1)
