"""Operators that combine the elements along some dimensions; axis i of a node is dimension i + 1 behind the batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from dcformat.graph import Normalize, Reduce, Softmax
from dcformat_runtime.weight_matrices import Floats

_REDUCTIONS: dict[str, Any] = {"mean": np.mean, "max": np.max, "sum": np.sum, "min": np.min, "prod": np.prod}


def reduce(node: Reduce, x: Floats) -> Floats:
    """Return a reduction over some dimensions."""
    axes = tuple(axis + 1 for axis in node.axes)
    if node.function in _REDUCTIONS:
        return np.asarray(_REDUCTIONS[node.function](x, axis=axes, keepdims=node.keepdims), np.float32)
    search = np.argmax if node.function == "argmax" else np.argmin
    return np.asarray(search(x, axis=axes[0], keepdims=node.keepdims), np.float32)


def softmax(node: Softmax, x: Floats) -> Floats:
    """Return ``exp(x) / sum(exp(x))``, shifted by the maximum so that nothing overflows."""
    axis = -1 if node.axis is None else node.axis + 1
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True), np.float32)


def normalize(node: Normalize, x: Floats) -> Floats:
    """Return ``(x - mean) / sqrt(variance + epsilon)``, with sums in float64."""
    axes = tuple(axis + 1 for axis in node.axes)
    wide = x.astype(np.float64)
    if node.centered:
        wide = wide - wide.mean(axis=axes, keepdims=True)
    variance = np.mean(wide * wide, axis=axes, keepdims=True)
    return np.asarray(wide / np.sqrt(variance + np.float32(node.epsilon)), np.float32)
