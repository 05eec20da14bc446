"""Operators that move elements. Most of them only change the recorded order of dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.layout import MAX_RANK
from dcformat_interop.graph_builder import Value
from dcformat_interop.tflite_import.calls import TfliteCall, TfliteResult, aligned, lowers
from dcformat_interop.tflite_import.items import TfliteItem, of_array, of_value, reshaped, settled

Array = npt.NDArray[Any]


@lowers("RESHAPE", moves_only=True)
def _reshape(call: TfliteCall) -> TfliteItem:
    wanted = call.ints(1, "a shape") if call.has(1) else list(call.options["new_shape"])
    if not wanted and not call.has(1):
        wanted = list(call.results[0].shape)
    count, known = prod(call.shape()), prod(size for size in wanted if size != -1)
    if wanted.count(-1) == 1 and known and count % known == 0:
        wanted[wanted.index(-1)] = count // known
    if len(wanted) > MAX_RANK or any(size < 0 for size in wanted) or prod(wanted) != count:
        raise ValueError(f"shape: expected one of {count} elements, found {wanted}")
    return _in_shape(call, wanted)


def _in_shape(call: TfliteCall, shape: Sequence[int]) -> TfliteItem:
    """Return the first input in another shape."""
    item = call.item()
    if item.array is not None:
        made = of_array(item.array.reshape(shape), item.name)
        return replace(made, fits=item.fits)
    return reshaped(call.builder, item, tuple(shape))


@lowers("SQUEEZE", moves_only=True)
def _squeeze(call: TfliteCall) -> TfliteItem:
    shape = call.shape()
    axes = {call.axis(axis) for axis in call.options["squeeze_dims"]}
    axes = axes or {axis for axis, size in enumerate(shape) if size == 1}
    if any(shape[axis] != 1 for axis in axes):
        raise ValueError(f"squeeze_dims: expected dimensions of size 1 of {shape}, found {sorted(axes)}")
    return _in_shape(call, [size for axis, size in enumerate(shape) if axis not in axes])


@lowers("EXPAND_DIMS", moves_only=True)
def _expand_dims(call: TfliteCall) -> TfliteItem:
    axes = call.ints(1, "an axis")
    if len(axes) != 1:
        raise ValueError(f"axis: expected one, found {len(axes)}")
    shape = list(call.shape())
    shape.insert(call.axis(axes[0], len(shape) + 1), 1)
    return _in_shape(call, shape)


@lowers("TRANSPOSE", moves_only=True)
def _transpose(call: TfliteCall) -> TfliteItem:
    order = [call.axis(axis) for axis in call.ints(1, "an order")]
    if sorted(order) != list(range(call.rank)):
        raise ValueError(f"order: expected each of {call.rank} dimensions once, found {order}")
    item = call.item()
    if item.array is not None:
        return of_array(item.array.transpose(order), item.name)
    view = settled(call.builder, item)
    assert view.value is not None
    return of_value(view.value, [view.axes[axis] for axis in order])


@lowers("CONCATENATION", moves_only=True)
def _concatenation(call: TfliteCall) -> TfliteItem:
    count = len(call.items)
    axis = call.axis(call.options["axis"])
    items = [call.item(number) for number in range(count)]
    if any(len(item.shape) != call.rank for item in items):
        raise ValueError(f"inputs: expected {call.rank} dimensions each, found {[item.shape for item in items]}")
    arrays = [item.array for item in items if item.array is not None]
    if len(arrays) == count:
        call.reserve([sum(array.size for array in arrays)])
        return of_array(np.concatenate(arrays, axis))
    operands, axes = aligned(call, range(count))
    full = [
        operand if isinstance(operand, Value) or np.ndim(operand) == call.rank else np.reshape(operand, [1] * call.rank)
        for operand in operands
    ]
    return of_value(call.builder.concat(full, axes[axis], call.name(_first_constant(call))), axes)


def _first_constant(call: TfliteCall) -> int:
    return next((number for number in range(len(call.items)) if call.is_constant(number)), 0)


@lowers("PACK", moves_only=True)
def _pack(call: TfliteCall) -> TfliteItem:
    rank, count = call.rank + 1, len(call.items)
    axis = call.axis(call.options["axis"], rank)
    items = [call.item(number) for number in range(count)]
    if any(item.shape != items[0].shape for item in items):
        raise ValueError(f"inputs: expected equal shapes, found {[item.shape for item in items]}")
    arrays = [item.array for item in items if item.array is not None]
    if len(arrays) == count:
        call.reserve([sum(array.size for array in arrays)])
        return of_array(np.stack(arrays, axis))
    shape = [*items[0].shape[:axis], 1, *items[0].shape[axis:]]
    operands = [
        np.reshape(item.array, shape) if item.array is not None else call.builder.reshape(call.value(number), shape)
        for number, item in enumerate(items)
    ]
    return of_value(call.builder.concat(operands, axis, call.name(_first_constant(call))))


@lowers("PAD", "PADV2", "MIRROR_PAD", moves_only=True)
def _pad(call: TfliteCall) -> TfliteItem:
    amounts = np.array(call.ints(1, "padding"), np.int64)
    if amounts.size != 2 * call.rank or amounts.min(initial=0) < 0:
        raise ValueError(f"padding: expected {call.rank} pairs of at least 0, found {amounts.tolist()}")
    pairs = amounts.reshape(-1, 2)
    view, b = call.view(), call.builder
    assert view.value is not None
    order = [view.axes.index(place) for place in range(call.rank)]
    before, after = ([int(pairs[axis, side]) for axis in order] for side in (0, 1))
    if call.op_type == "MIRROR_PAD":
        if call.options["mode"] not in (0, 1):
            raise ValueError(f"mode: expected 0 or 1, found {call.options['mode']}")
        if call.options["mode"] == 1:
            return of_value(_symmetric(call, view.value, before, after), view.axes)
        return of_value(b.pad(view.value, before, after, "reflect"), view.axes)
    value = call.const(2, "a value for padding") if call.op_type == "PADV2" else np.zeros(1)
    if value.size != 1:
        raise ValueError(f"value for padding: expected one, found {value.size}")
    return of_value(b.pad(view.value, before, after, "constant", float(value.reshape(()))), view.axes)


def _symmetric(call: TfliteCall, x: Value, before: Sequence[int], after: Sequence[int]) -> Value:
    """Return a value padded with its own elements, the edge included, in reverse."""
    b = call.builder
    for axis, (first, last) in enumerate(zip(before, after, strict=True)):
        size = x.shape[axis]
        if max(first, last) > size:
            raise ValueError(f"padding: expected at most {size}, found {max(first, last)}")
        parts = [b.slice(x, axis, first - 1, first, -1)] if first else []
        parts.append(x)
        parts += [b.slice(x, axis, size - 1, last, -1)] if last else []
        x = b.concat(parts, axis)
    return x


@lowers("TILE", "BROADCAST_TO", moves_only=True)
def _tile(call: TfliteCall) -> TfliteItem:
    counts, shape = call.ints(1, "repeats"), list(call.shape())
    if call.op_type == "BROADCAST_TO":
        shape = [1] * (len(counts) - len(shape)) + shape
        if len(shape) != len(counts) or any(have not in (1, size) for have, size in zip(shape, counts, strict=True)):
            raise ValueError(f"shape: expected one to which {call.shape()} broadcasts, found {counts}")
        counts = [size // have for size, have in zip(counts, shape, strict=True)]
    if len(counts) != len(shape) or min(counts, default=1) < 1:
        raise ValueError(f"repeats: expected {len(shape)} of at least 1, found {counts}")
    array = call.item().array
    if array is not None:
        call.reserve([count * length for count, length in zip(counts, shape, strict=True)])
        return of_array(np.tile(array.reshape(shape), counts), call.item().name)
    view = settled(call.builder, reshaped(call.builder, call.view(), tuple(shape)))
    assert view.value is not None
    return of_value(
        call.builder.tile(view.value, [counts[view.axes.index(place)] for place in range(len(counts))]), view.axes
    )  # fmt: skip


@lowers("REVERSE_V2", moves_only=True)
def _reverse(call: TfliteCall) -> TfliteItem:
    view = call.view()
    assert view.value is not None
    value = view.value
    for axis in call.ints(1, "axes"):
        place = view.axes[call.axis(axis)]
        value = call.builder.slice(value, place, value.shape[place] - 1, value.shape[place], -1)
    return of_value(value, view.axes)


@lowers("SPACE_TO_DEPTH", "DEPTH_TO_SPACE", moves_only=True)
def _blocks(call: TfliteCall) -> TfliteResult:
    block, b = call.options["block_size"], call.builder
    if call.rank != 4 or block < 1:
        raise ValueError(f"input and block_size: expected 4 dimensions and at least 1, found {call.shape()}, {block}")
    batch, height, width, channels = call.shape()
    if call.op_type == "SPACE_TO_DEPTH":
        if height % block or width % block:
            raise ValueError(f"input: expected a height and width divisible by {block}, found {call.shape()}")
        parts = b.reshape(call.value(), (batch, height // block, block, width // block, block, channels))
        deep = b.transpose(parts, (0, 1, 3, 2, 4, 5))
        return b.reshape(deep, (batch, height // block, width // block, block * block * channels))
    if channels % (block * block):
        raise ValueError(f"input: expected channels divisible by {block * block}, found {channels}")
    depth = channels // (block * block)
    parts = b.reshape(call.value(), (batch, height, width, block, block, depth))
    return b.reshape(b.transpose(parts, (0, 1, 3, 2, 4, 5)), (batch, height * block, width * block, depth))


@lowers("SPACE_TO_BATCH_ND", moves_only=True)
def _space_to_batch(call: TfliteCall) -> TfliteResult:
    """Give the batch an element for each position in blocks of the dimensions behind it."""
    block, edges = _blocks_and_edges(call)
    b, count = call.builder, len(block)
    none = [0] * (call.rank - count - 1)
    x = b.pad(call.value(), [0, *edges[:, 0].tolist(), *none], [0, *edges[:, 1].tolist(), *none])
    batch, sizes, rest = x.shape[0], x.shape[1 : count + 1], x.shape[count + 1 :]
    if any(size % length for size, length in zip(sizes, block, strict=True)):
        raise ValueError(f"input: expected sizes divisible by {block}, found {x.shape}")
    places = [size // length for size, length in zip(sizes, block, strict=True)]
    split = b.reshape(x, [batch, *(n for pair in zip(places, block, strict=True) for n in pair), *rest])
    order = [*range(2, 2 * count + 1, 2), 0, *range(1, 2 * count, 2), *range(2 * count + 1, len(split.shape))]
    return b.reshape(b.transpose(split, order), [batch * prod(block), *places, *rest])


@lowers("BATCH_TO_SPACE_ND", moves_only=True)
def _batch_to_space(call: TfliteCall) -> TfliteResult:
    block, edges = _blocks_and_edges(call)
    b, count, shape = call.builder, len(block), call.shape()
    batch, places, rest = shape[0] // prod(block), shape[1 : count + 1], shape[count + 1 :]
    sizes = [size * length for size, length in zip(places, block, strict=True)]
    if shape[0] % prod(block) or any(size <= cut for size, cut in zip(sizes, edges.sum(1).tolist(), strict=True)):
        raise ValueError(f"input: expected blocks of {block} and more than the edges, found {shape}")
    split = b.reshape(call.value(), [*block, batch, *places, *rest])
    pairs = (n for axis in range(count) for n in (count + 1 + axis, axis))
    order = [count, *pairs, *range(2 * count + 1, len(split.shape))]
    x = b.reshape(b.transpose(split, order), [batch, *sizes, *rest])
    for axis, (first, last) in enumerate(edges.tolist(), 1):
        x = b.slice(x, axis, first, x.shape[axis] - first - last)
    return x


def _blocks_and_edges(call: TfliteCall) -> tuple[list[int], Array]:
    """Return the sizes of blocks, and the numbers added or cut off before and after each dimension."""
    block, edges = call.ints(1, "a block"), np.array(call.ints(2, "edges"), np.int64)
    if not 1 <= len(block) < call.rank or min(block) < 1 or edges.size != 2 * len(block) or edges.min() < 0:
        found = f"{block} and {edges.tolist()} for {call.rank} dimensions"
        raise ValueError(f"block and edges: expected sizes of at least 1, and pairs of at least 0, found {found}")
    return block, edges.reshape(-1, 2)
