"""Operators that move elements, and interpolation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import Concat, Gather, Pad, Resize, Shape, Slice, Tile, Transpose
from dcformat_runtime.input_rows import InputError
from dcformat_runtime.weight_matrices import Floats

if TYPE_CHECKING:
    from dcformat_runtime.numpy_backend.node_evaluation import NumpyOperand


def transpose(node: Transpose, x: Floats) -> Floats:
    """Return the dimensions in another order."""
    return x.transpose(0, *(axis + 1 for axis in node.order))


def slice_(node: Slice, x: Floats) -> Floats:
    """Return some positions along a dimension."""
    return x.take(node.start + node.step * np.arange(node.size), axis=node.axis + 1)


def pad(node: Pad, x: Floats) -> Floats:
    """Return the operand with more positions around it."""
    pads = [(0, 0), *zip(node.before, node.after, strict=True)]
    mode: Any = node.mode
    more = {"constant_values": node.value} if node.mode == "constant" else {}
    return np.asarray(np.pad(x, pads, mode=mode, **more), np.float32)


def tile(node: Tile, x: Floats) -> Floats:
    """Return the operand repeated along each dimension."""
    return np.tile(x, (1, *node.repeats))


def concat(node: Concat, operands: Sequence[NumpyOperand], tensors: Mapping[str, Floats], out_shape: Shape) -> Floats:
    """Return the operands joined along a dimension; tensors are the same for the whole batch."""
    batch = next(len(operand.array) for operand in operands if operand.batched)
    arrays = [o.array if o.batched else np.broadcast_to(o.array, (batch, *o.array.shape)) for o in operands]
    return np.concatenate(arrays, axis=node.axis + 1)


def gather(node: Gather, operands: Sequence[NumpyOperand], tensors: Mapping[str, Floats], out_shape: Shape) -> Floats:
    """Return the entries that the indices choose; refuse indices out of range."""
    data, indices = operands
    length = data.array.shape[node.axis + data.batched]
    chosen = _indices(indices.array, length)
    if not data.batched:
        out = data.array.take(chosen, axis=node.axis)  # (*before, batch, *indices, *behind)
        return np.moveaxis(out, node.axis, 0)
    if not indices.batched:
        return data.array.take(chosen, axis=node.axis + 1)
    return np.stack([row.take(at, axis=node.axis) for row, at in zip(data.array, chosen, strict=True)])


def _indices(found: Floats, length: int) -> npt.NDArray[np.int64]:
    """Return indices from 0 to ``length - 1``."""
    if not (found == np.floor(found)).all() or found.min(initial=0) < -length or found.max(initial=0) >= length:
        raise InputError(f"index: expected whole numbers from {-length} to {length - 1}, found others")
    chosen = found.astype(np.int64)
    return np.where(chosen < 0, chosen + length, chosen)


def resize(node: Resize, x: Floats) -> Floats:
    """Interpolate the last dimensions, one after another."""
    count = len(node.size)
    for i in range(count):
        axis = x.ndim - count + i
        at = node.positions(i, x.shape[axis])
        if node.mode == "nearest":
            x = x.take(np.clip(at, 0, x.shape[axis] - 1).astype(np.int64), axis=axis)
            continue
        low = np.floor(at)
        share = (at - low).astype(np.float32).reshape(-1, *(1,) * (x.ndim - axis - 1))
        first, second = (np.clip(low + k, 0, x.shape[axis] - 1).astype(np.int64) for k in (0, 1))
        x = np.asarray(x.take(first, axis=axis) * (1 - share) + x.take(second, axis=axis) * share, np.float32)
    return x
