"""Computes in NumPy the same integers as a C program in fixed point.

The test program compares the two, and the error of fixed point is measured here.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import AvgPool, Conv, Graph, MaxPool, Node, Pad, Reduce, Shape, Softmax
from dcformat.records import replace
from dcformat_runtime.c_export.fixed_network import FixedNetwork
from dcformat_runtime.c_export.fixed_point import Code
from dcformat_runtime.c_export.steps import FusedStep
from dcformat_runtime.numpy_backend.node_evaluation import NumpyOperand, evaluate
from dcformat_runtime.numpy_backend.windows import pool_counts, pool_windows, sliding

Ints = npt.NDArray[np.int64]


def run(network: FixedNetwork, graph: Graph, steps: Sequence[FusedStep], shapes: Sequence[Shape], inputs: Ints) -> Ints:
    """Return the stored integers of the network's output, for stored integers ``(batch, *shape)`` of its input."""
    values: dict[int, Ints] = {0: inputs}
    for step in steps:
        operands = [values[value] for value in step.sources]
        values[step.target] = _run_step(network, step, operands, shapes[step.target])
    return values[graph.outputs[0].value]


def _run_step(network: FixedNetwork, step: FusedStep, operands: list[Ints], shape: Shape) -> Ints:
    code, source, node = network.codes[step.target], network.codes[step.sources[0]], step.node
    if step.number in network.limits:
        return _integers(np.clip(operands[0], *network.limits[step.number]))
    if step.kind == "elementwise" and step.number in network.tables:
        return network.tables[step.number][operands[0]].astype(np.int64)
    if step.kind in ("alias", "elementwise"):
        return operands[0].reshape(-1, *shape)
    if step.kind in ("linear", "conv"):
        return _run_layer(network, step, operands[0])
    if step.kind == "add":
        first, second = network.sums[step.number].multipliers
        other = network.codes[step.sources[1]]
        total = (operands[0] - source.zero) * first + (operands[1] - other.zero) * second
        shift = network.sums[step.number].shift
        return _integers(np.clip(((total + ((1 << shift) >> 1)) >> shift) + code.zero, *code.limits(*step.limits)))
    match node:
        case MaxPool():
            return _integers(_pool_windows(node, operands[0], -(1 << 20)).max(axis=_last(len(node.kernel))))
        case AvgPool():
            sums = _pool_windows(node, operands[0] - source.zero, 0).sum(axis=_last(len(node.kernel)))
            return source.zero + _quotient(sums, pool_counts(node, operands[0].shape, sums.shape).astype(np.int64))
        case Reduce():
            axes = tuple(axis + 1 for axis in node.axes)
            if node.function == "max":
                return _integers(operands[0].max(axis=axes).reshape(-1, *shape))
            count = prod(operands[0].shape[axis] for axis in axes)
            return source.zero + _quotient((operands[0] - source.zero).sum(axis=axes), np.int64(count)).reshape(
                -1, *shape
            )
        case Softmax():
            return _softmax(network.tables[step.number].astype(np.int64), operands[0])
    moved = evaluate(_with_zero(node, source), [NumpyOperand(x.astype(np.float32), True) for x in operands], {}, shape)
    return moved.astype(np.int64)


def _with_zero(node: Node, code: Code) -> Node:
    """Return a `Pad` whose value is an integer."""
    return replace(node, value=float(code.limits(node.value, node.value)[0])) if isinstance(node, Pad) else node


def _run_layer(network: FixedNetwork, step: FusedStep, x: Ints) -> Ints:
    layer, code, source = network.layers[step.number], network.codes[step.target], network.codes[step.sources[0]]
    node = step.node
    weight = np.asarray(layer.weight.numbers, np.int64)
    bias = np.asarray(layer.bias.numbers, np.int64) << layer.bias.shift
    x = x - source.zero
    if isinstance(node, Conv):
        sums = _conv(node, weight, network.kernels[step.number], x) + bias.reshape(-1, *(1,) * len(node.stride))
        row_axis = -len(node.stride) - 1
    else:
        sums, row_axis = x @ weight.T + bias, -1
    if step.pool is not None:
        sums = (
            _tiles(step.pool, sums).max(axis=(-3, -1))
            if len(step.pool.kernel) == 2
            else _tiles(step.pool, sums).max(-1)
        )
    if not layer.scales:
        return sums
    each = [1] * sums.ndim
    each[row_axis] = len(layer.scales)
    multiplier = np.array([s & 0x7FFF for s in layer.scales]).reshape(each)
    shift = np.array([s >> 16 for s in layer.scales]).reshape(each)
    high = (sums >> 16) * multiplier + ((sums & 0xFFFF) * multiplier >> 16)
    scaled = (high + ((1 << shift) >> 1)) >> shift
    return _integers(np.clip(scaled + code.zero, *code.limits(*step.limits)))


def _conv(node: Conv, weight: Ints, kernel: Shape, x: Ints) -> Ints:
    spatial = len(node.stride)
    pads = [(0, 0)] * (x.ndim - spatial) + list(zip(node.padding, node.padding_end, strict=True))
    x = np.pad(x, pads)
    channels = x.shape[-spatial - 1] // node.groups
    view = np.asarray(sliding(x.astype(np.float32), kernel, node.stride, node.dilation), np.int64)
    rows = len(weight) // node.groups
    lead = view.ndim - 2 * spatial - 1
    parts = []
    for group in range(node.groups):
        part = view[(slice(None),) * lead + (slice(group * channels, (group + 1) * channels),)]
        part = np.moveaxis(part, lead, lead + spatial)  # (..., *positions, channels, *kernel)
        part = part.reshape(*part.shape[: lead + spatial], -1)
        parts.append(np.moveaxis(part @ weight[group * rows : (group + 1) * rows].T, -1, lead))
    return np.concatenate(parts, axis=lead)


def _pool_windows(node: MaxPool | AvgPool, x: Ints, fill: int) -> Ints:
    """Return the windows of a pool; every integer here is exact as float32."""
    return np.asarray(pool_windows(node, x.astype(np.float32), float(fill)), np.int64)


def _tiles(node: MaxPool, x: Ints) -> Ints:
    """Return the windows of a pool that lie side by side: each spatial dimension becomes two."""
    spatial = len(node.kernel)
    counts = [size // kernel for size, kernel in zip(x.shape[-spatial:], node.kernel, strict=True)]
    inner: Any = (..., *(slice(0, n * k) for n, k in zip(counts, node.kernel, strict=True)))
    cut = x[inner]
    sizes = (size for pair in zip(counts, node.kernel, strict=True) for size in pair)
    return _integers(cut.reshape(*x.shape[:-spatial], *sizes))


def _last(count: int) -> tuple[int, ...]:
    """Return the last `count` axes."""
    return tuple(range(-count, 0))


def _integers(x: npt.NDArray[Any]) -> Ints:
    return np.asarray(x, np.int64)


def _quotient(sums: Ints, count: Any) -> Ints:
    return np.asarray(np.sign(sums) * ((2 * np.abs(sums) + count) // (2 * count)), np.int64)


def _softmax(table: Ints, x: Ints) -> Ints:
    below = x.max(axis=-1, keepdims=True) - x
    shares = np.where(below < len(table), table[np.minimum(below, len(table) - 1)], 0)
    total = shares.sum(axis=-1, keepdims=True)
    return _integers(np.minimum((256 * shares + total // 2) // total, 255))
