"""Operators that move elements: reshaping, slicing, joining, padding."""

from __future__ import annotations

from math import prod

import numpy as np

from dcformat_interop.graph_builder import GraphBuilder, Value
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.onnx_import.items import OnnxCall, lowers


@lowers("Reshape")
def _reshape(call: OnnxCall) -> Value:
    wanted = call.ints(1, "a shape") if call.opset >= 5 else list(call.attr("shape"))
    shape = call.shape()
    if not call.attr("allowzero", 0):
        if any(size == 0 and axis >= len(shape) for axis, size in enumerate(wanted)):
            raise ValueError(f"shape: expected 0 only for a dimension of {shape}, found {wanted}")
        wanted = [shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    if wanted.count(-1) > 1 or min(wanted, default=0) < -1:
        raise ValueError(f"shape: expected sizes and at most one -1, found {wanted}")
    rest = prod(size for size in wanted if size != -1)
    if -1 in wanted and (rest == 0 or prod(shape) % rest):
        raise ValueError(f"shape: expected one that {shape} fits, found {wanted}")
    return call.builder.reshape(call.value(), [prod(shape) // rest if size == -1 else size for size in wanted])


@lowers("Flatten")
def _flatten(call: OnnxCall) -> Value:
    axis, shape = call.attr("axis", 1), call.shape()
    axis = axis + call.rank if axis < 0 else axis
    if not 0 <= axis <= call.rank:
        raise ValueError(f"axis: expected 0 to {call.rank}, found {axis}")
    return call.builder.reshape(call.value(), (prod(shape[:axis]), prod(shape[axis:])))


@lowers("Squeeze")
def _squeeze(call: OnnxCall) -> Value:
    shape, axes = call.shape(), call.ints_of("axes", 1, 13)
    chosen = [axis for axis, size in enumerate(shape) if size == 1] if axes is None else call.axes(axes)
    if any(shape[axis] != 1 for axis in chosen):
        raise ValueError(f"axes: expected dimensions of 1 in {shape}, found {chosen}")
    return call.builder.reshape(call.value(), [size for axis, size in enumerate(shape) if axis not in chosen])


@lowers("Unsqueeze")
def _unsqueeze(call: OnnxCall) -> Value:
    axes = call.ints_of("axes", 1, 13) or []
    rank = call.rank + len(axes)
    chosen = call.axes(axes, rank)
    if len(set(chosen)) != len(chosen):
        raise ValueError(f"axes: expected different ones, found {axes}")
    sizes = iter(call.shape())
    return call.builder.reshape(call.value(), [1 if axis in chosen else next(sizes) for axis in range(rank)])


@lowers("Transpose")
def _transpose(call: OnnxCall) -> Value:
    order = call.attr("perm", range(call.rank)[::-1])
    if sorted(order) != list(range(call.rank)):
        raise ValueError(f"perm: expected each of {call.rank} dimensions once, found {list(order)}")
    return call.builder.transpose(call.value(), order)


@lowers("Concat")
def _concat(call: OnnxCall) -> Value:
    axis = call.axis(call.attr("axis", 1))
    parts = [number for number in range(len(call.inputs)) if call.shape(number)[axis]]
    if any(len(call.shape(number)) != call.rank for number in parts):
        raise ValueError(f"inputs: expected the same rank, found {[call.shape(number) for number in parts]}")
    name = next((item.name for item in call.inputs if item is not None and item.name), f"{call.name}.constant")
    return call.builder.concat([call.operand(number) for number in parts], axis, name)


@lowers("Split")
def _split(call: OnnxCall) -> list[Value]:
    axis, count = call.axis(call.attr("axis", 0)), len(call.outputs)
    sizes, length = call.ints_of("split", 1, 13), call.shape()[axis]
    if sizes is None:
        each = -(-length // call.attr("num_outputs", count))
        sizes = [min(each, length - start) for start in range(0, length, each)]
    if len(sizes) != count or sum(sizes) != length or min(sizes) < 0:
        raise ValueError(f"split: expected {count} sizes with the sum {length}, found {sizes}")
    starts = np.cumsum([0, *sizes])
    return [
        call.builder.slice(call.value(), axis, int(start), size) for start, size in zip(starts, sizes, strict=False)
    ]


@lowers("Slice")
def _slice(call: OnnxCall) -> Value:
    if call.opset < 10:
        starts, ends = list(call.attr("starts")), list(call.attr("ends"))
        axes, steps = list(call.attr("axes", range(len(starts)))), [1] * len(starts)
    else:
        starts, ends = call.ints(1, "starts"), call.ints(2, "ends")
        axes = call.ints(3, "axes") if call.has(3) else list(range(len(starts)))
        steps = call.ints(4, "steps") if call.has(4) else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise ValueError(f"starts, ends, axes, steps: expected as many of each, found {starts, ends, axes, steps}")
    value = call.value()
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = call.axis(axis)
        chosen = _positions(value.shape[axis], start, end, step)
        if not chosen:
            raise Unsupported("with an empty result")
        value = call.builder.slice(value, axis, chosen.start, len(chosen), step)
    return value


def _positions(size: int, start: int, end: int, step: int) -> range:
    """Return the positions of a slice as ONNX defines it; it differs from Python's for ends below ``-size``."""
    low, high = (0, size) if step > 0 else (-1, size - 1)
    begin = min(max(start + size if start < 0 else start, max(low, 0)), high)
    stop = min(max(end + size if end < 0 else end, low), high if step < 0 else size)
    return range(begin, stop, step)


@lowers("Expand")
def _expand(call: OnnxCall) -> Value:
    shape = np.broadcast_shapes(call.shape(), tuple(call.ints(1, "a shape")))
    return call.builder.expand(call.value(), shape)


@lowers("Tile")
def _tile(call: OnnxCall) -> Value:
    return call.builder.tile(call.value(), call.ints(1, "repeats"))


@lowers("DepthToSpace")
def _depth_to_space(call: OnnxCall) -> Value:
    n, c, h, w = call.shape()
    block = call.attr("blocksize")
    if block < 1 or c % (block * block):
        raise ValueError(f"blocksize: expected one whose square divides {c} channels, found {block}")
    depth = c // (block * block)
    if call.attr("mode", "DCR") == "DCR":
        parts, order = (n, block, block, depth, h, w), (0, 3, 4, 1, 5, 2)
    else:
        parts, order = (n, depth, block, block, h, w), (0, 1, 4, 2, 5, 3)
    b = call.builder
    return b.reshape(b.transpose(b.reshape(call.value(), parts), order), (n, depth, h * block, w * block))


@lowers("SpaceToDepth")
def _space_to_depth(call: OnnxCall) -> Value:
    n, c, h, w = call.shape()
    block = call.attr("blocksize")
    if block < 1 or h % block or w % block:
        raise ValueError(f"blocksize: expected a divisor of {h} and {w}, found {block}")
    b, parts = call.builder, (n, c, h // block, block, w // block, block)
    order = (0, 3, 5, 1, 2, 4) if call.attr("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    turned = b.transpose(b.reshape(call.value(), parts), order)
    return b.reshape(turned, (n, c * block * block, h // block, w // block))


@lowers("Pad")
def _pad(call: OnnxCall) -> Value:
    mode, value = call.attr("mode", "constant"), 0.0
    if call.opset < 11:
        pads, value = list(call.attr("pads", call.attr("paddings"))), call.attr("value", 0.0)
    else:
        pads = call.ints(1, "pads")
        if call.has(2) and call.item(2).shape != (0,):
            value = float(call.const(2, "a value").reshape(()))
    axes = call.ints(3, "axes") if call.has(3) else list(range(call.rank))
    if len(pads) != 2 * len(axes):
        raise ValueError(f"pads: expected {2 * len(axes)}, found {pads}")
    before, after = [0] * call.rank, [0] * call.rank
    for number, axis in enumerate(axes):
        before[call.axis(axis)], after[call.axis(axis)] = pads[number], pads[number + len(axes)]
    return padded(call.builder, call.value(), before, after, mode, value)


def padded(
    b: GraphBuilder, x: Value, before: list[int], after: list[int], mode: str = "constant", value: float = 0.0
) -> Value:
    """Return `x` with positions added, or cut off where `before` or `after` is negative."""
    for axis in range(len(x.shape)):
        low, high = max(-before[axis], 0), max(-after[axis], 0)
        if low or high:
            x = b.slice(x, axis, low, x.shape[axis] - low - high)
    before, after = [max(size, 0) for size in before], [max(size, 0) for size in after]
    if mode == "wrap":
        return _wrapped(b, x, before, after)
    return b.pad(x, before, after, mode, value)


def _wrapped(b: GraphBuilder, x: Value, before: list[int], after: list[int]) -> Value:
    for axis, (low, high) in enumerate(zip(before, after, strict=True)):
        size = x.shape[axis]
        if low or high:
            positions = np.arange(-low, size + high) % size
            x = b.gather(x, positions, axis, "positions")
    return x


@lowers("CenterCropPad")
def _center_crop_pad(call: OnnxCall) -> Value:
    axes = call.attr("axes")
    chosen = list(range(call.rank)) if axes is None else [call.axis(axis) for axis in axes]
    before, after = [0] * call.rank, [0] * call.rank
    for axis, size in zip(chosen, call.ints(1, "a shape"), strict=True):
        extra = size - call.shape()[axis]
        # The odd position goes to the end of a pad, and a crop begins at half of what is cut off.
        before[axis] = extra // 2 if extra >= 0 else -(-extra // 2)
        after[axis] = extra - before[axis]
    return padded(call.builder, call.value(), before, after)
