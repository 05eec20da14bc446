"""Convolutions and their transposes."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy.typing as npt

from dcformat.graph import Conv, ConvTranspose, ReLU
from dcformat_interop.graph_builder import GraphBuilder, Value
from dcformat_interop.lowering.composed import hard_sigmoid, leaky
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.onnx_import.items import OnnxCall, lowers
from dcformat_interop.onnx_import.operators.rearranging import padded

Array = npt.NDArray[Any]


def spatial_padding(
    call: OnnxCall, size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return the padding before and after each spatial dimension, from `pads` or `auto_pad`."""
    count, auto = len(size), call.attr("auto_pad", "NOTSET")
    if auto == "NOTSET":
        pads = list(call.attr("pads", [0] * (2 * count)))
        if len(pads) != 2 * count:
            raise ValueError(f"pads: expected {2 * count}, found {pads}")
        return pads[:count], pads[count:]
    if auto == "VALID":
        return [0] * count, [0] * count
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"auto_pad: expected NOTSET, VALID, SAME_UPPER or SAME_LOWER, found {auto!r}")
    before, after = [], []
    for length, width, stride, dilation in zip(size, kernel, strides, dilations, strict=True):
        total = max((ceil(length / stride) - 1) * stride + (width - 1) * dilation + 1 - length, 0)
        less, more = total // 2, total - total // 2
        before.append(less if auto == "SAME_UPPER" else more)
        after.append(more if auto == "SAME_UPPER" else less)
    return before, after


def per_dimension(call: OnnxCall, name: str, count: int, default: int = 1) -> list[int]:
    """Return an attribute with a value for each spatial dimension."""
    values = list(call.attr(name, [default] * count))
    if len(values) != count:
        raise ValueError(f"{name}: expected {count} values, found {values}")
    return values


def _check_kernel(call: OnnxCall, weight: Array) -> None:
    if tuple(call.attr("kernel_shape", weight.shape[2:])) != weight.shape[2:]:
        raise ValueError(f"kernel_shape: expected {weight.shape[2:]}, found {call.attr('kernel_shape')}")


@lowers("Conv")
def _conv(call: OnnxCall) -> Value:
    weight = call.const(1, "weights")
    return convolution(call, call.value(), weight, _bias(call))


def _bias(call: OnnxCall) -> Array | None:
    """Return the bias, or None for zeros that an exporter added."""
    bias = call.const(2, "a bias") if call.has(2) else None
    return bias if bias is None or bias.any() or call.is_named(2) else None


def convolution(call: OnnxCall, x: Value, weight: Array, bias: Array | None) -> Value:
    """Return a convolution with the attributes of a node; `x` is ``(batch, channels, *spatial)``."""
    count = len(x.shape) - 2
    if weight.ndim != count + 2 or count < 1:
        raise ValueError(f"weights: expected rank {count + 2}, found shape {weight.shape}")
    _check_kernel(call, weight)
    strides, dilations = per_dimension(call, "strides", count), per_dimension(call, "dilations", count)
    before, after = spatial_padding(call, x.shape[2:], weight.shape[2:], strides, dilations)
    if min(*before, *after, 0) < 0:
        x = padded(call.builder, x, [0, 0, *before], [0, 0, *after])
        before, after = [0] * count, [0] * count
    groups = call.attr("group", 1)
    if count <= 2:
        return _emitted(call, x, weight, bias, (strides, before, after, dilations), groups)
    return _by_slices(call, x, weight, bias, (strides, before, after, dilations), groups)


WindowSizes = tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]]


def _emitted(call: OnnxCall, x: Value, weight: Array, bias: Array | None, windows: WindowSizes, groups: int) -> Value:
    strides, before, after, dilations = windows
    return call.emit(
        Conv, x, weight=call.tensor(weight, call.tensor_name(1)),
        bias=None if bias is None else call.tensor(bias.reshape(-1), call.tensor_name(2)),
        stride=tuple(strides), padding=tuple(before), padding_end=tuple(after), dilation=tuple(dilations),
        groups=groups,
    )  # fmt: skip


def _by_slices(call: OnnxCall, x: Value, weight: Array, bias: Array | None, windows: WindowSizes, groups: int) -> Value:
    """Lower a convolution over 3 dimensions to a sum, with a term for each position of the kernel along the first."""
    b, (strides, before, after, dilations) = call.builder, windows
    rank = len(x.shape)
    if rank > 5:
        raise Unsupported(f"over {rank - 2} dimensions")
    x = b.pad(x, [0, 0, before[0], 0, 0], [0, 0, after[0], 0, 0])
    length = (x.shape[2] - dilations[0] * (weight.shape[2] - 1) - 1) // strides[0] + 1
    terms = []
    for place in range(weight.shape[2]):
        part = b.transpose(b.slice(x, 2, place * dilations[0], length, strides[0]), (0, 2, 1, 3, 4))
        flat = (strides[1:], before[1:], after[1:], dilations[1:])
        terms.append(_emitted(call, part, weight[:, :, place], bias if place == 0 else None, flat, groups))
    return b.transpose(terms[0] if len(terms) == 1 else b.add(*terms), (0, 2, 1, 3, 4))


@lowers("ConvTranspose")
def _conv_transpose(call: OnnxCall) -> Value:
    x, weight = call.value(), call.const(1, "weights")
    count = call.rank - 2
    if weight.ndim != count + 2 or count < 1:
        raise ValueError(f"weights: expected rank {count + 2}, found shape {weight.shape}")
    if count > 2:
        raise Unsupported(f"over {count} dimensions")
    _check_kernel(call, weight)
    strides, dilations = per_dimension(call, "strides", count), per_dimension(call, "dilations", count)
    extra = per_dimension(call, "output_padding", count, 0)
    full = [
        (size - 1) * stride + (width - 1) * dilation + 1 + more
        for size, stride, width, dilation, more in zip(
            x.shape[2:], strides, weight.shape[2:], dilations, extra, strict=True
        )
    ]
    before, after = _transposed_padding(call, x, full, strides)
    bias = _bias(call)
    # Where the output is larger than all products, zeros follow.
    extra = [more + max(-cut, 0) for more, cut in zip(extra, after, strict=True)]
    return call.emit(
        ConvTranspose, x, weight=call.tensor(weight, call.tensor_name(1)),
        bias=None if bias is None else call.tensor(bias, call.tensor_name(2)),
        stride=tuple(strides), padding=tuple(before), padding_end=tuple(max(cut, 0) for cut in after),
        dilation=tuple(dilations), output_padding=tuple(extra), groups=call.attr("group", 1),
    )  # fmt: skip


def _transposed_padding(
    call: OnnxCall, x: Value, full: Sequence[int], strides: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return how many of the `full` positions of all products are cut off before and after each dimension."""
    count, wanted = len(full), call.attr("output_shape")
    auto = call.attr("auto_pad", "NOTSET")
    if wanted is None and auto in ("NOTSET", "VALID"):
        pads = list(call.attr("pads", [0] * (2 * count))) if auto == "NOTSET" else [0] * (2 * count)
        return pads[:count], pads[count:]
    if wanted is None:
        wanted = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    before, after = [], []
    for size, want in zip(full, list(wanted)[-count:], strict=True):
        less, more = max(size - want, 0) // 2, max(size - want + 1, 0) // 2
        before.append(less if auto == "SAME_UPPER" else more)
        after.append(size - want - before[-1])
    return before, after


@lowers("FusedConv", domain="com.microsoft")
def _fused_conv(call: OnnxCall) -> Value:
    weight = call.const(1, "weights")
    bias = call.const(2, "a bias") if call.has(2) else None
    result = convolution(call, call.value(), weight, bias)
    if call.has(3):
        result = call.builder.add(result, call.operand(3), name=call.tensor_name(3))
    return fused_activation(call.builder, result, call.attr("activation", ""), call.attr("activation_params", ()))


def fused_activation(b: GraphBuilder, x: Value, name: str, parameters: Sequence[float]) -> Value:
    """Return an activation that onnxruntime fused into another operator."""
    if name == "":
        return x
    if name == "Relu":
        return b.emit(ReLU, (x,))
    if name in ("Sigmoid", "Tanh"):
        return b.unary(name.lower(), x)
    if name == "LeakyRelu":
        return leaky(b, x, float(parameters[0]))
    if name == "Clip":
        return b.binary("minimum", b.binary("maximum", x, float(parameters[0])), float(parameters[1]))
    if name == "HardSigmoid":
        return hard_sigmoid(b, x, *map(float, parameters))
    raise Unsupported(f"with the activation {name!r}")
