"""Operators that treat each element alike, and those that combine the elements along some dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dcformat.graph import Add, Binary, Normalize, Quantize, Reduce, ReLU, Requantize, Shape, Softmax, Unary, Where
from dcformat_interop.onnx_export.graph_writer import GraphWriter, OnnxValue, lead

_UNARY = {
    "neg": "Neg", "abs": "Abs", "sign": "Sign", "floor": "Floor", "ceil": "Ceil", "round": "Round", "sqrt": "Sqrt",
    "exp": "Exp", "log": "Log", "erf": "Erf", "sigmoid": "Sigmoid", "tanh": "Tanh", "sin": "Sin", "cos": "Cos",
}  # fmt: skip
_BINARY = {"sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow", "minimum": "Min", "maximum": "Max"}
_COMPARISONS = {"equal": "Equal", "less": "Less", "less_equal": "LessOrEqual"}
_REDUCTIONS = {
    "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin", "prod": "ReduceProd", "argmax": "ArgMax",
    "argmin": "ArgMin",
}  # fmt: skip

#: The integers to which QuantizeLinear converts every number in range.
_QUANTIZED = {(-128, 127): np.int8, (0, 255): np.uint8}


def relu(writer: GraphWriter, node: ReLU, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write ReLU."""
    return str(writer.emit("Relu", operands[0].name))


def unary(writer: GraphWriter, node: Unary, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write a function of one operand."""
    return str(writer.emit(_UNARY[node.function], operands[0].name))


def add(writer: GraphWriter, node: Add, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write a sum."""
    names = [writer.aligned(operand, len(out)) for operand in operands]
    return str(writer.emit("Add" if len(names) == 2 else "Sum", *names))


def binary(writer: GraphWriter, node: Binary, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write a function of two operands; comparisons give 0 and 1."""
    names = [writer.aligned(operand, len(out)) for operand in operands]
    if node.function in _BINARY:
        return str(writer.emit(_BINARY[node.function], *names))
    return _as_float(writer, writer.emit(_COMPARISONS[node.function], *names))


def where(writer: GraphWriter, node: Where, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write a choice."""
    from onnx import TensorProto

    condition, *chosen = [writer.aligned(operand, len(out)) for operand in operands]
    return str(writer.emit("Where", writer.emit("Cast", condition, to=TensorProto.BOOL), *chosen))


def quantize(writer: GraphWriter, node: Quantize, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write QuantizeLinear and DequantizeLinear if the range is all of int8 or uint8, else the same steps."""
    x, scale = operands[0].name, writer.constant(np.float32(node.scale))
    dtype = _QUANTIZED.get((node.low, node.high))
    if dtype is not None:
        zero = writer.constant(dtype(node.zero_point))
        return str(writer.emit("DequantizeLinear", writer.emit("QuantizeLinear", x, scale, zero), scale, zero))
    low, high, zero = (writer.constant(np.float32(n)) for n in (node.low, node.high, node.zero_point))
    steps = writer.emit("Add", writer.emit("Round", writer.emit("Div", x, scale)), zero)
    return str(writer.emit("Mul", writer.emit("Sub", writer.emit("Clip", steps, low, high), zero), scale))


def requantize(writer: GraphWriter, node: Requantize, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write the steps of Requantize."""
    x, scale = (writer.aligned(operand, len(out)) for operand in operands)
    given, wanted, low, high = (
        writer.constant(np.float32(n)) for n in (node.input_scale, node.output_scale, node.low, node.high)
    )
    factor = writer.emit("Div", writer.emit("Mul", given, scale), wanted)
    return str(writer.emit("Clip", writer.emit("Round", writer.emit("Mul", x, factor)), low, high))


def softmax(writer: GraphWriter, node: Softmax, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write Softmax."""
    axis = len(out) - 1 if node.axis is None else node.axis
    return str(writer.emit("Softmax", operands[0].name, axis=axis + lead(operands)))


def reduce(writer: GraphWriter, node: Reduce, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write a reduction."""
    x, keep = operands[0].name, int(node.keepdims)
    axes = [axis + lead(operands) for axis in node.axes]
    if node.function == "sum":
        return str(writer.emit("ReduceSum", x, writer.integers(axes), keepdims=keep))
    operator = _REDUCTIONS[node.function]
    if node.function.startswith("arg"):
        return _as_float(writer, writer.emit(operator, x, axis=axes[0], keepdims=keep))
    return str(writer.emit(operator, x, axes=axes, keepdims=keep))


def normalize(writer: GraphWriter, node: Normalize, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write a norm by its definition, for any axes."""
    x, axes = operands[0].name, [axis + lead(operands) for axis in node.axes]
    if node.centered:
        x = writer.emit("Sub", x, writer.emit("ReduceMean", x, axes=axes, keepdims=1))
    variance = writer.emit("ReduceMean", writer.emit("Mul", x, x), axes=axes, keepdims=1)
    root = writer.emit("Sqrt", writer.emit("Add", variance, writer.constant(np.float32(node.epsilon))))
    return str(writer.emit("Div", x, root))


def _as_float(writer: GraphWriter, name: str) -> str:
    from onnx import TensorProto

    return str(writer.emit("Cast", name, to=TensorProto.FLOAT))
