"""Linear layers, convolutions, and products of matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from dcformat.graph import Conv, ConvTranspose, Linear, MatMul, Shape
from dcformat_runtime.numpy_backend.windows import padded, sliding
from dcformat_runtime.weight_matrices import Floats

if TYPE_CHECKING:
    from dcformat_runtime.numpy_backend.node_evaluation import NumpyOperand

#: Maximum number of floats of windows that a convolution copies at a time.
_BLOCK = 1 << 22


def linear(node: Linear, operands: Sequence[NumpyOperand], tensors: Mapping[str, Floats], out_shape: Shape) -> Floats:
    """Return ``x @ weight.T + bias``."""
    out: Floats = operands[0].array @ tensors[node.weight].T
    return out if node.bias is None else out + tensors[node.bias]


def matmul(node: MatMul, operands: Sequence[NumpyOperand], tensors: Mapping[str, Floats], out_shape: Shape) -> Floats:
    """Return the product of two matrices, or of many whose leading dimensions broadcast."""
    arrays = []
    for operand in operands:
        array, missing = operand.array, len(out_shape) - operand.rank
        if operand.batched and missing:
            array = array.reshape(len(array), *(1,) * missing, *array.shape[1:])
        arrays.append(array)
    return np.asarray(np.matmul(*arrays), np.float32)


def conv(node: Conv, operands: Sequence[NumpyOperand], tensors: Mapping[str, Floats], out_shape: Shape) -> Floats:
    """Return the cross-correlation, one dense product for each group."""
    weight = tensors[node.weight]
    spatial = weight.ndim - 2
    x = operands[0].array
    x = padded(x.reshape(-1, *x.shape[-spatial - 1 :]), node.padding, node.padding_end)
    view = sliding(x, weight.shape[2:], node.stride, node.dilation)  # (n, channels, *positions, *kernel)
    positions, columns = view.shape[2 : 2 + spatial], prod(weight.shape[1:])
    out = np.empty((len(x), weight.shape[0], prod(positions)), np.float32)
    rows, channels = weight.shape[0] // node.groups, weight.shape[1]
    step = max(1, _BLOCK // max(1, columns * prod(positions)))
    order = (0, 1, *range(2 + spatial, 2 + 2 * spatial), *range(2, 2 + spatial))
    for group in range(node.groups):
        matrix = weight[group * rows : (group + 1) * rows].reshape(rows, columns)
        part = view[:, group * channels : (group + 1) * channels].transpose(order)
        for start in range(0, len(x), step):
            block = part[start : start + step].reshape(-1, columns, prod(positions))
            out[start : start + step, group * rows : (group + 1) * rows] = matrix @ block
    if node.bias is not None:
        out += tensors[node.bias][:, None]
    return out.reshape(-1, *out_shape)


def conv_transpose(
    node: ConvTranspose, operands: Sequence[NumpyOperand], tensors: Mapping[str, Floats], out_shape: Shape
) -> Floats:
    """Add each input element's multiple of the kernel to the output."""
    weight = tensors[node.weight]
    per_group, *kernel = weight.shape[1:]
    spatial = len(kernel)
    x = operands[0].array
    x = x.reshape(-1, *x.shape[-spatial - 1 :])
    size, channels = x.shape[2:], x.shape[1] // node.groups
    whole = [  # before the padding is cut off
        length + before + after
        for length, before, after in zip(out_shape[-spatial:], node.padding, node.padding_end, strict=True)
    ]
    out = np.zeros((len(x), per_group * node.groups, *whole), np.float32)
    for group in range(node.groups):
        part = x[:, group * channels : (group + 1) * channels].reshape(len(x), channels, prod(size))
        rows = slice(group * per_group, (group + 1) * per_group)
        matrices = weight[group * channels : (group + 1) * channels]
        for offset in np.ndindex(*kernel):
            product = matrices[(slice(None), slice(None), *offset)].T @ part
            window = tuple(
                slice(at * d, at * d + (count - 1) * s + 1, s)
                for at, d, count, s in zip(offset, node.dilation, size, node.stride, strict=True)
            )
            out[(slice(None), rows, *window)] += product.reshape(len(x), per_group, *size)
    inner: Any = (
        ...,
        *(slice(at, at + length) for at, length in zip(node.padding, out_shape[-spatial:], strict=True)),
    )
    out = np.asarray(out[inner], np.float32)
    if node.bias is not None:
        out = out + tensors[node.bias].reshape(-1, *(1,) * spatial)
    return out.reshape(-1, *out_shape)
