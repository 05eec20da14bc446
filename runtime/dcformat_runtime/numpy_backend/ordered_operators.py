"""The operators of `deterministic=True` in NumPy, which add every sum in the order that all backends keep.

A sum starts with the bias; products are rounded to float32, then added in the order of the weight's columns. These
operators are slower than the others of this package, and are an oracle for the kernels' exact form.
"""

from __future__ import annotations

import numpy as np

from dcformat.graph import AvgPool, Conv
from dcformat_runtime.numpy_backend import windows
from dcformat_runtime.weight_matrices import Floats, Sparse


def linear(x: Floats, weight: Sparse, bias: Floats) -> Floats:
    """Return ``x @ weight.T + bias``; each step adds the k-th entries of all rows, with k ascending."""
    counts, indices = np.diff(weight.indptr), weight.indices
    out = np.repeat((bias + np.float32(0))[None], len(x), axis=0)
    for k in range(int(counts.max(initial=0))):
        rows = np.flatnonzero(counts > k)
        entry = weight.indptr[rows] + k
        out[:, rows] += x[:, indices[entry]] * weight.values[entry]
    return out


def conv(x: Floats, weight: Sparse, bias: Floats, node: Conv) -> Floats:
    """Return the 2-D cross-correlation, one entry of the weight after another."""
    out_channels, channels, *kernel = weight.shape
    indices = weight.indices
    x = windows.padded(x, node.padding, node.padding_end)
    view = windows.sliding(x, (kernel[0], kernel[1]), node.stride, node.dilation)
    out = np.empty((len(x), out_channels, *view.shape[2:4]), np.float32)
    out[:] = (bias + np.float32(0))[:, None, None]
    for o in range(out_channels):
        first = o // (out_channels // node.groups) * channels
        for p in range(weight.indptr[o], weight.indptr[o + 1]):
            channel, ky, kx = np.unravel_index(int(indices[p]), weight.shape[1:])
            out[:, o] += view[:, first + channel, :, :, ky, kx] * weight.values[p]
    return out


def avg_pool(x: Floats, node: AvgPool) -> Floats:
    """Return the mean over windows, summed row by row."""
    view = windows.pool_windows(node, x, 0.0)
    total = np.zeros(view.shape[:4], np.float32)
    for ky in range(node.kernel[0]):
        for kx in range(node.kernel[1]):
            total += view[..., ky, kx]
    return np.asarray(total / windows.pool_counts(node, x.shape, total.shape), np.float32)


def global_avg_pool(x: Floats) -> Floats:
    """Return the mean over height and width, in four interleaved sums; the first takes the remainder."""
    flat = x.reshape(*x.shape[:2], -1)
    n = flat.shape[2]
    sums = [np.zeros(flat.shape[:2], np.float32) for _ in range(4)]
    for p in range(n):
        sums[p % 4 if p < n - n % 4 else 0] += flat[:, :, p]
    return np.asarray(((sums[0] + sums[1]) + (sums[2] + sums[3])) / np.float32(n), np.float32)


def softmax(x: Floats) -> Floats:
    """Return ``exp(x) / sum(exp(x))``, shifted by the maximum; features are added in order."""
    values = _exp(x.max(axis=-1, keepdims=True).astype(np.float64) - x).astype(np.float32)
    total = np.zeros(len(x), np.float32)
    for f in range(x.shape[1]):
        total += values[:, f]
    return np.asarray(values / total[:, None], np.float32)


def _exp(x: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return ``exp(-x)`` for ``x >= 0`` by the same steps as the kernel."""
    halvings = (np.minimum(x, 104.0) * 1.4426950408889634 + 0.5).astype(np.int64)
    r = halvings * 0.6931471805599453 - x
    total = np.ones(x.shape)
    for k in range(11, 0, -1):
        total = 1.0 + total * r / k
    return np.where(x < 104.0, np.ldexp(total, -halvings), 0.0)
