"""Sliding windows over one or two spatial dimensions, and pools."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from dcformat.graph import AvgPool, MaxPool, Shape
from dcformat_runtime.weight_matrices import Floats


def sliding(x: Floats, kernel: Shape, stride: Shape, dilation: Shape) -> Floats:
    """Return a view ``(..., *positions, *kernel)`` of the last dimensions of an input that is padded already."""
    count = len(kernel)
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    view = sliding_window_view(x, spans, axis=tuple(range(-count, 0)))
    steps: Any = (..., *(slice(None, None, step) for step in (*stride, *dilation)))
    return np.asarray(view[steps], np.float32)


def padded(x: Floats, before: Shape, after: Shape, fill: float = 0.0) -> Floats:
    """Return the input with padding around its last dimensions."""
    if not any(before) and not any(after):
        return x
    pads = [(0, 0)] * (x.ndim - len(before)) + list(zip(before, after, strict=True))
    return np.pad(x, pads, constant_values=fill)


def max_pool(node: MaxPool, x: Floats) -> Floats:
    """Return the maximum over windows; padding counts as minus infinity."""
    view = pool_windows(node, x, -np.inf)
    return np.asarray(view.max(axis=tuple(range(-len(node.kernel), 0))), np.float32)


def avg_pool(node: AvgPool, x: Floats) -> Floats:
    """Return the mean over windows; padding counts as zeros or not at all."""
    total = pool_windows(node, x, 0.0).sum(axis=tuple(range(-len(node.kernel), 0)), dtype=np.float32)
    return np.asarray(total / pool_counts(node, x.shape, total.shape), np.float32)


def pool_counts(node: AvgPool, source: Shape, out: Shape) -> Floats:
    """Return the divisor of each window's sum, for the last dimensions of both shapes."""
    spatial = len(node.kernel)
    counts = np.ones((), np.float32)
    for i in range(spatial):
        counts = counts[..., None] * _counts(node, i, source[i - spatial], out[i - spatial])
    return counts


def _counts(node: AvgPool, i: int, size: int, out: int) -> Floats:
    """Return the number of positions that each window counts along spatial dimension `i`."""
    start = np.arange(out) * node.stride[i] - node.padding[i]
    end = np.minimum(start + node.kernel[i], size + node.padding_end[i])
    if not node.count_include_pad:
        start, end = np.maximum(start, 0), np.minimum(end, size)
    return np.asarray(end - start, np.float32)


def pool_ends(node: MaxPool | AvgPool, shape: Shape) -> tuple[int, ...]:
    """Return the padding at the end of each dimension of a pool; in ceil mode it makes the last window whole."""
    ends = []
    for i, size in enumerate(shape[-len(node.kernel) :]):
        span = size + node.padding[i] + node.padding_end[i] - node.kernel[i]
        out = -(-span // node.stride[i]) if node.ceil_mode else span // node.stride[i]
        if node.ceil_mode and out * node.stride[i] >= size + node.padding[i]:
            out -= 1
        ends.append(node.padding_end[i] + max(0, out * node.stride[i] - span))
    return tuple(ends)


def pool_windows(node: MaxPool | AvgPool, x: Floats, fill: float) -> Floats:
    """Return the windows of a pool."""
    x = padded(x, node.padding, pool_ends(node, x.shape), fill)
    return sliding(x, node.kernel, node.stride, (1,) * len(node.kernel))
