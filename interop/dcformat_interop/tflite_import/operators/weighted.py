"""Operators with weights: convolutions, fully connected layers, and products of matrices."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import Conv, ConvTranspose, Linear, MatMul
from dcformat_interop.graph_builder import BuilderOperand, Value
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.tflite_import.calls import TfliteCall, lowers
from dcformat_interop.tflite_import.items import CHANNELS_FIRST, TfliteItem, flattened, of_value
from dcformat_interop.tflite_import.operators.windows import SAME, padding, strides

Array = npt.NDArray[Any]


@lowers("CONV_2D", "DEPTHWISE_CONV_2D")
def _convolution(call: TfliteCall) -> TfliteItem:
    x, weight, stride = call.stored(0, CHANNELS_FIRST), call.weight(1, 4), strides(call)
    channels = x.shape[1]
    if call.op_type == "CONV_2D":
        if channels % weight.shape[3]:
            raise ValueError(f"weights: expected input channels that divide {channels}, found {weight.shape[3]}")
        groups, order = channels // weight.shape[3], (0, 3, 1, 2)
    else:
        if weight.shape[0] != 1:
            raise ValueError(f"weights: expected 1 in the first dimension, found {weight.shape}")
        groups, order = channels, (3, 0, 1, 2)
    dilation = call.options["dilation_h"], call.options["dilation_w"]
    before, behind = padding(call, x.shape[2:], weight.shape[1:3], stride, dilation)
    made = call.emit(
        Conv, x, **call.parameters(weight.transpose(order), 1, 2), stride=stride, padding=before, padding_end=behind,
        dilation=dilation, groups=groups,
    )  # fmt: skip
    return of_value(made, CHANNELS_FIRST)


@lowers("TRANSPOSE_CONV")
def _transposed_convolution(call: TfliteCall) -> TfliteItem:
    wanted, weight = call.ints(0, "an output shape"), call.weight(1, 4)
    x, stride = call.stored(2, CHANNELS_FIRST), strides(call)
    if len(wanted) != 4 or min(wanted) < 1:
        raise ValueError(f"output shape: expected 4 sizes of at least 1, found {wanted}")
    size, kernel = wanted[1:3], weight.shape[1:3]
    before, behind = padding(call, size, kernel, stride)
    extra = tuple(size[i] - ((x.shape[2 + i] - 1) * stride[i] + kernel[i] - before[i] - behind[i]) for i in range(2))
    if call.options["padding"] != SAME and min(extra) < 0:  # products beyond the result are cut off
        behind = tuple(end + max(-more, 0) for end, more in zip(behind, extra, strict=True))
        extra = tuple(max(more, 0) for more in extra)
    made = call.emit(
        ConvTranspose, x, **call.parameters(weight.transpose(3, 0, 1, 2), 1, 3), stride=stride, padding=before,
        padding_end=behind, output_padding=extra,
    )  # fmt: skip
    return of_value(made, CHANNELS_FIRST)


@lowers("FULLY_CONNECTED")
def _fully_connected(call: TfliteCall) -> Value:
    if call.options["weights_format"]:
        raise Unsupported("with shuffled weights")
    if not call.is_constant(1):
        return _computed_weights(call)
    weight, b = call.weight(1, 2), call.builder
    features, shape = weight.shape[1], call.shape()
    rows = prod(shape) // features
    if prod(shape) % features or not rows:
        raise ValueError(f"input: expected a multiple of {features} elements, found {shape}")
    if rows == 1:
        # The weights take the order in which the elements are stored.
        x, numbers = flattened(b, _unsettled(call))
        weight = weight if numbers is None else weight[:, numbers]
    else:
        x = b.reshape(call.value(), (rows, features))
    made = call.emit(Linear, x, **call.parameters(weight, 1, 2))
    return b.reshape(made, (*shape[:-1], len(weight))) if call.options["keep_num_dims"] else made


def _unsettled(call: TfliteCall) -> TfliteItem:
    """Return the first input as a value that may have to be reshaped later."""
    item = call.item()
    return item if item.array is None else call.view()


def _computed_weights(call: TfliteCall) -> Value:
    b, weight, shape = call.builder, call.value(1), call.shape()
    if len(weight.shape) != 2:
        raise ValueError(f"weights: expected 2 dimensions, found {weight.shape}")
    x = b.reshape(call.value(), (prod(shape) // weight.shape[1], weight.shape[1]))
    made = call.emit(MatMul, x, b.transpose(weight, (1, 0)))
    if call.has(2):
        made = b.add(made, call.operand(2), name=call.name(2))
    return b.reshape(made, (*shape[:-1], weight.shape[0])) if call.options["keep_num_dims"] else made


@lowers("BATCH_MATMUL")
def _batch_matmul(call: TfliteCall) -> Value:
    left, right = (
        _turned(call, operand) if call.options[option] else operand
        for operand, option in ((_left(call), "adj_x"), (call.operand(1), "adj_y"))
    )
    if isinstance(left, Value) and not isinstance(right, Value) and np.ndim(right) == 2:
        return call.emit(Linear, left, weight=call.builder.tensor(np.transpose(right), call.name(1)))
    return call.emit(MatMul, left, right)


def _left(call: TfliteCall) -> BuilderOperand:
    """Return the left matrix: one of the two must be a value."""
    return call.value(0) if call.is_constant(1) else call.operand(0)


def _turned(call: TfliteCall, operand: BuilderOperand) -> BuilderOperand:
    """Return a matrix with rows and columns exchanged."""
    if isinstance(operand, Value):
        order = list(range(len(operand.shape)))
        return call.builder.transpose(operand, [*order[:-2], order[-1], order[-2]])
    return np.swapaxes(operand, -1, -2)
