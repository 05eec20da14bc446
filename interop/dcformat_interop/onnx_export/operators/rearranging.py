"""Operators that move elements, and interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import Concat, Flatten, Gather, Pad, Reshape, Resize, Shape, Slice, Tile, Transpose
from dcformat_interop.onnx_export.graph_writer import GraphWriter, OnnxValue, has_batch, lead


def reshape(writer: GraphWriter, node: Reshape | Flatten, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write Reshape, or Flatten of a batch."""
    (x,) = operands
    if isinstance(node, Flatten) and x.batched and x.shape:
        return str(writer.emit("Flatten", x.name, axis=1))
    return writer.reshaped(x.name, out, x.batched)


def transpose(writer: GraphWriter, node: Transpose, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write Transpose."""
    shift = lead(operands)
    if not out and not shift:
        return str(writer.emit("Identity", operands[0].name))
    return str(writer.emit("Transpose", operands[0].name, perm=[*range(shift), *(a + shift for a in node.order)]))


def slice_(writer: GraphWriter, node: Slice, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write Slice."""
    (x,) = operands
    end = node.start + node.size * node.step
    if end < 0:  # which would count from the end
        end = -x.shape[node.axis] - 1
    numbers = (node.start, end, node.axis + lead(operands), node.step)
    return str(writer.emit("Slice", x.name, *(writer.integers([number]) for number in numbers)))


def pad(writer: GraphWriter, node: Pad, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write Pad."""
    none = (0,) * lead(operands)
    pads = writer.integers([*none, *node.before, *none, *node.after])
    if node.mode != "constant":
        return str(writer.emit("Pad", operands[0].name, pads, mode=node.mode))
    return str(writer.emit("Pad", operands[0].name, pads, writer.constant(np.float32(node.value)), mode="constant"))


def tile(writer: GraphWriter, node: Tile, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write Tile."""
    repeats = (1,) * lead(operands) + tuple(node.repeats)
    return str(writer.emit("Tile", operands[0].name, writer.integers(repeats)))


def concat(writer: GraphWriter, node: Concat, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write Concat; tensors are repeated for the batch."""
    if has_batch(operands):
        operands = [writer.expanded(operand) for operand in operands]
    return str(writer.emit("Concat", *(operand.name for operand in operands), axis=node.axis + lead(operands)))


def gather(writer: GraphWriter, node: Gather, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write Gather, or GatherND if each input of a batch has data and indices of its own."""
    from onnx import TensorProto

    data, indices = operands
    chosen = writer.emit("Cast", indices.name, to=TensorProto.INT64)
    axis, count = node.axis, len(indices.shape)
    if not indices.batched:
        return str(writer.emit("Gather", data.name, chosen, axis=axis + data.batched))
    if not data.batched:
        made = writer.emit("Gather", data.name, chosen, axis=axis)  # (*before, batch, *indices, *behind)
        order = [axis, *range(axis), *range(axis + 1, len(out) + 1)]
    else:
        front = [0, axis + 1, *(a for a in range(1, len(data.shape) + 1) if a != axis + 1)]
        entries = writer.emit("Transpose", data.name, perm=front)
        each = writer.emit("Unsqueeze", chosen, writer.integers([count + 1]))
        made = writer.emit("GatherND", entries, each, batch_dims=1)  # (batch, *indices, *before, *behind)
        order = [0, *range(count + 1, count + 1 + axis), *range(1, count + 1), *range(count + 1 + axis, len(out) + 1)]
    return str(made) if order == sorted(order) else str(writer.emit("Transpose", made, perm=order))


def resize(writer: GraphWriter, node: Resize, operands: Sequence[OnnxValue], out: Shape) -> str:
    """Write Resize where its scales give these sizes, and otherwise choose by index, one dimension after another.

    ONNX computes sizes from scales, or scales from sizes; the runtimes know Resize of two dimensions.
    """
    (x,), count = operands, len(node.size)
    shape = x.shape[-count:]
    known = count <= 2 and x.batched and len(x.shape) == count + 1 and all(
        size == floor(length * np.float32(scale)) == floor(length * float(np.float32(scale)))  # runtimes do either
        for size, length, scale in zip(node.size, shape, node.scale, strict=True)
    )  # fmt: skip
    if known:
        scales = writer.constant(np.array([1, 1, *node.scale], np.float32))
        attributes: dict[str, Any] = {"mode": node.mode, "coordinate_transformation_mode": node.coordinates}
        if node.mode == "nearest":
            attributes["nearest_mode"] = node.rounding
        return str(writer.emit("Resize", x.name, "", scales, **attributes))
    name = x.name
    for i in range(count):
        name = _resized(writer, node, name, i, x)
    return name


def _resized(writer: GraphWriter, node: Resize, name: str, i: int, x: OnnxValue) -> str:
    """Interpolate the `i`-th of the last dimensions."""
    axis = len(x.shape) - len(node.size) + i
    length = x.shape[axis]
    at = node.positions(i, length)

    def chosen(places: npt.NDArray[np.float64]) -> str:
        indices = writer.integers(np.clip(places, 0, length - 1).astype(np.int64).tolist())
        return str(writer.emit("Gather", name, indices, axis=axis + x.batched))

    if node.mode == "nearest":
        return chosen(at)
    low = np.floor(at)
    share = (at - low).astype(np.float32).reshape(-1, *(1,) * (len(x.shape) - axis - 1))
    parts = [
        writer.emit("Mul", chosen(low), writer.constant(1 - share)),
        writer.emit("Mul", chosen(low + 1), writer.constant(share)),
    ]
    return str(writer.emit("Add", *parts))
