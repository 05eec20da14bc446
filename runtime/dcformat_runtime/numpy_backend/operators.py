"""NumPy versions of every operator: the oracles of the tests, and the arithmetic of the NumPy backend.

They take and return float32 arrays ``(batch, channels, height, width)`` or ``(batch, features)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from dcformat.graph import AvgPool2d, Conv2d, MaxPool2d, Pair
from dcformat_runtime.network import Floats

#: Maximum number of floats that im2col makes at a time, from as many images as fit.
_BLOCK = 1 << 22


def linear(x: Floats, weight: Floats, bias: Floats) -> Floats:
    """Return ``x @ weight.T + bias`` for x ``(batch, in)`` and weight ``(out, in)``."""
    out: Floats = x @ weight.T
    out += bias
    return out


def conv2d(x: Floats, weight: Floats, bias: Floats, node: Conv2d) -> Floats:
    """Return the 2-D cross-correlation, by im2col and one dense product for each group."""
    n = x.shape[0]
    channels, *kernel = weight.shape[1:]
    view = windows(x, (kernel[0], kernel[1]), node.stride, node.padding, node.dilation)
    height, width = view.shape[2:4]
    out = np.empty((n, weight.shape[0], height, width), np.float32)
    columns = channels * kernel[0] * kernel[1]
    step = max(1, _BLOCK // (columns * height * width))
    per_group = weight.shape[0] // node.groups
    for group in range(node.groups):
        rows = slice(group * per_group, (group + 1) * per_group)
        matrix = weight[rows].reshape(per_group, columns)
        part = view[:, group * channels : (group + 1) * channels]
        for start in range(0, n, step):
            block = part[start : start + step].transpose(0, 1, 4, 5, 2, 3).reshape(-1, columns, height * width)
            out[start : start + step, rows] = np.matmul(matrix, block).reshape(-1, per_group, height, width)
    out += bias[:, None, None]
    return out


def max_pool2d(x: Floats, node: MaxPool2d) -> Floats:
    """Return the maximum over windows; padding counts as minus infinity."""
    return np.asarray(pool_windows(x, node, -np.inf).max(axis=(4, 5)), np.float32)


def avg_pool2d(x: Floats, node: AvgPool2d) -> Floats:
    """Return the mean over windows; padding counts as zeros or not at all, by PyTorch's rule for windows at edges."""
    total = pool_windows(x, node, 0.0).sum(axis=(4, 5), dtype=np.float32)
    return np.asarray(total / pool_shares(x.shape, total.shape, node), np.float32)


def pool_shares(source: Sequence[int], out: Sequence[int], node: AvgPool2d) -> Floats:
    """Return the divisor of each window's sum, ``(out_h, out_w)``; the shapes include the batch."""
    counts = [
        window_counts(
            source[2 + i], out[2 + i], node.kernel[i], node.stride[i], node.padding[i], node.count_include_pad
        )
        for i in (0, 1)
    ]
    return np.asarray(np.outer(counts[0], counts[1]), np.float32)


def window_counts(size: int, out: int, kernel: int, stride: int, padding: int, include_pad: bool) -> list[int]:
    """Return the number of elements that each window of an average pool counts along one axis."""
    counts = []
    for k in range(out):
        start = k * stride - padding
        end = min(start + kernel, size + padding)
        counts.append(end - start if include_pad else min(end, size) - max(start, 0))
    return counts


def global_avg_pool(x: Floats) -> Floats:
    """Return the mean over height and width."""
    return np.asarray(x.mean(axis=(2, 3), dtype=np.float32), np.float32)


def global_max_pool(x: Floats) -> Floats:
    """Return the maximum over height and width."""
    return np.asarray(x.max(axis=(2, 3)), np.float32)


def relu(x: Floats) -> Floats:
    """Compute ``max(x, 0)`` in place."""
    return np.maximum(x, np.float32(0), out=x)


def add(values: Sequence[Floats]) -> Floats:
    """Return the sum of values with the same shape, added from left to right."""
    out: Floats = values[0] + values[1]
    for value in values[2:]:
        out += value
    return out


def softmax(x: Floats) -> Floats:
    """Return ``exp(x) / sum(exp(x))`` over the last axis, shifted by the maximum so that nothing overflows."""
    shifted = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), np.float32)


def windows(x: Floats, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Floats:
    """Return a view ``(n, c, out_h, out_w, kernel_h, kernel_w)`` of the zero-padded input."""
    if any(padding):
        x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    view = sliding_window_view(x, spans, axis=(2, 3))
    return view[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def pool_windows(x: Floats, node: MaxPool2d | AvgPool2d, fill: float) -> Floats:
    """Return the windows of a pool; in ceil mode the input is extended so that the last window is whole."""
    pads = [(0, 0), (0, 0)]
    for size, padding, kernel, stride in zip(x.shape[2:], node.padding, node.kernel, node.stride, strict=True):
        span = size + 2 * padding - kernel
        out = -(-span // stride) if node.ceil_mode else span // stride
        if node.ceil_mode and out * stride >= size + padding:
            out -= 1
        pads.append((padding, padding + max(0, out * stride - span)))
    x = np.pad(x, pads, constant_values=fill) if any(map(any, pads)) else x
    return windows(x, node.kernel, node.stride, (0, 0), (1, 1))
