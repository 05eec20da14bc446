"""Linear layers, convolutions, products of matrices, and pools."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dcformat.graph import AvgPool, Conv, ConvTranspose, Linear, MatMul, MaxPool, Shape
from dcformat_interop.onnx_export.graph_writer import GraphWriter, OnnxValue, flattened, restored


def linear(writer: GraphWriter, node: Linear, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write Gemm for rows of a batch, and MatMul otherwise."""
    (x,), weight = operands, writer.tensor(node.weight)
    biases = [] if node.bias is None else [writer.tensor(node.bias)]
    if x.batched and len(x.shape) == 1:
        return str(writer.emit("Gemm", x.name, weight, *biases, transB=1))
    product = writer.emit("MatMul", x.name, writer.emit("Transpose", weight, perm=[1, 0]))
    return str(writer.emit("Add", product, *biases)) if biases else str(product)


def matmul(writer: GraphWriter, node: MatMul, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write MatMul."""
    return str(writer.emit("MatMul", *(writer.aligned(operand, len(out)) for operand in operands)))


def conv(writer: GraphWriter, node: Conv, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write Conv."""
    kept = 1 + len(node.stride)
    made = writer.emit(
        "Conv", flattened(writer, operands[0], kept), *map(writer.tensor, node.tensors), strides=node.stride,
        pads=(*node.padding, *node.padding_end), dilations=node.dilation, group=node.groups,
    )  # fmt: skip
    return restored(writer, made, operands[0], kept, out)


def conv_transpose(writer: GraphWriter, node: ConvTranspose, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write ConvTranspose; runtimes refuse an output_padding of a stride or more, so zeros are added instead."""
    kept = 1 + len(node.stride)
    ends = [cut - more for cut, more in zip(node.padding_end, node.output_padding, strict=True)]
    missing = [max(0, -end) for end in ends]
    whole = all(more < stride for more, stride in zip(missing, node.stride, strict=True))
    weight, *biases = map(writer.tensor, node.tensors)
    made = writer.emit(
        "ConvTranspose", flattened(writer, operands[0], kept), weight, *(biases if whole else []),
        strides=node.stride, pads=(*node.padding, *(max(0, end) for end in ends)), dilations=node.dilation,
        group=node.groups, output_padding=missing if whole else [0] * len(missing),
    )  # fmt: skip
    if not whole:
        made = writer.emit("Pad", made, writer.integers([*(0,) * (kept + 3), *missing]))
        if biases:
            made = writer.emit("Add", made, writer.reshaped(biases[0], (1,) * len(missing)))
    return restored(writer, made, operands[0], kept, out)


def max_pool(writer: GraphWriter, node: MaxPool, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write MaxPool."""
    return _pool(writer, "MaxPool", node, operands[0], out)


def avg_pool(writer: GraphWriter, node: AvgPool, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write AveragePool; a factor follows where windows reach beyond the padding, which counts in no mean."""
    made = _pool(writer, "AveragePool", node, operands[0], out, count_include_pad=int(node.count_include_pad))
    if not node.count_include_pad:
        return made
    factors = np.ones(())
    for i, size in enumerate(operands[0].shape[-len(node.kernel) :]):
        starts = np.arange(out[i - len(node.kernel)]) * node.stride[i] - node.padding[i]
        counts = np.minimum(starts + node.kernel[i], size + node.padding_end[i]) - starts
        factors = factors[..., None] * (node.kernel[i] / counts)
    if (factors == 1).all():
        return made
    return str(writer.emit("Mul", made, writer.constant(factors.astype(np.float32))))


def _pool(
    writer: GraphWriter, operator: str, node: MaxPool | AvgPool, x: OnnxValue, out: Shape, **attributes: int
) -> str:
    """Write a pool without ceil_mode, which runtimes understand in different ways.

    Its padding reaches just to the end of the last window.
    """
    count = len(node.kernel)
    sizes, lengths = x.shape[-count:], out[-count:]
    ends = [
        max(0, (lengths[i] - 1) * node.stride[i] + node.kernel[i] - sizes[i] - node.padding[i]) for i in range(count)
    ]
    made = writer.emit(
        operator, flattened(writer, x, 1 + count), kernel_shape=node.kernel, strides=node.stride,
        pads=(*node.padding, *ends), **attributes,
    )  # fmt: skip
    return restored(writer, made, x, 1 + count, out)
