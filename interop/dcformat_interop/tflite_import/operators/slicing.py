"""Parts of tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import Shape
from dcformat_interop.graph_builder import Value
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.tflite_import.calls import TfliteCall, TfliteResult, lowers
from dcformat_interop.tflite_import.items import TfliteItem, of_array, of_value, reshaped

Array = npt.NDArray[Any]


def _part(call: TfliteCall, number: int, ranges: list[range]) -> TfliteItem:
    """Return the positions of an input that a range chooses along each dimension."""
    item = call.item(number)
    if any(len(chosen) < 1 for chosen in ranges) and item.array is None:
        raise Unsupported("with an empty result")
    if item.array is not None:
        part = item.array
        for axis, chosen in enumerate(ranges):
            part = np.take(part, list(chosen), axis)
        return of_array(part, item.name)
    view = call.view(number)
    assert view.value is not None
    value: Value = view.value
    for axis, chosen in enumerate(ranges):
        value = call.builder.slice(value, view.axes[axis], chosen.start, len(chosen), chosen.step)
    return of_value(value, view.axes)


@lowers("SLICE", moves_only=True)
def _slice(call: TfliteCall) -> TfliteItem:
    begin, size, shape = call.ints(1, "a start"), call.ints(2, "a size"), call.shape()
    if len(begin) != len(shape) or len(size) != len(shape):
        raise ValueError(f"start and size: expected {len(shape)} each, found {begin} and {size}")
    ranges = []
    for start, count, length in zip(begin, size, shape, strict=True):
        count = length - start if count == -1 else count
        if not 0 <= start <= length or not 0 <= count <= length - start:
            raise ValueError(f"start and size: expected parts of {shape}, found {begin} and {size}")
        ranges.append(range(start, start + count))
    return _part(call, 0, ranges)


@lowers("STRIDED_SLICE", moves_only=True)
def _strided_slice(call: TfliteCall) -> TfliteItem:
    begin, end, step = call.ints(1, "a start"), call.ints(2, "an end"), call.ints(3, "strides")
    if not len(begin) == len(end) == len(step) or 0 in step:
        raise ValueError(f"strides: expected {len(begin)}, none of 0, found {step}")
    if call.options["offset"]:
        end = [first + count for first, count in zip(begin, end, strict=True)]
    ranges, shape = _chosen(call, begin, end, step)
    part = _part(call, 0, ranges)
    if part.array is not None:
        return of_array(part.array.reshape(shape), part.name)
    return reshaped(call.builder, part, shape)


def _chosen(call: TfliteCall, begin: list[int], end: list[int], step: list[int]) -> tuple[list[range], Shape]:
    """Return the positions along each dimension, and the shape of the result.

    The bits of masks choose among the entries of `begin`, `end` and `step`: one stands for several dimensions
    (ellipsis), adds a dimension, takes one out, or has no start or end.
    """
    masks, sizes = call.options, call.shape()
    ranges: list[range] = []
    shape: list[int] = []
    for place, (first, last, stride) in enumerate(zip(begin, end, step, strict=True)):
        bit = 1 << place
        if masks["ellipsis_mask"] & bit:
            behind = sum(not masks["new_axis_mask"] >> later & 1 for later in range(place + 1, len(begin)))
            full = [range(size) for size in sizes[len(ranges) : max(len(sizes) - behind, len(ranges))]]
            ranges += full
            shape += map(len, full)
        elif masks["new_axis_mask"] & bit:
            shape.append(1)
        else:
            if len(ranges) >= len(sizes):
                raise ValueError(f"strides: expected at most {len(sizes)}, found more")
            length = sizes[len(ranges)]
            if masks["shrink_axis_mask"] & bit:
                start = _from_front(first, length)
                ranges.append(range(start, start + 1))
                continue
            start_at = None if masks["begin_mask"] & bit else first
            ranges.append(range(length)[start_at : None if masks["end_mask"] & bit else last : stride])
            shape.append(len(ranges[-1]))
    rest = sizes[len(ranges) :]
    return [*ranges, *map(range, rest)], (*shape, *rest)


def _from_front(place: int, length: int) -> int:
    """Return a position counted from the front; raise `ValueError` if there is none."""
    if not -length <= place < length:
        raise ValueError(f"start: expected {-length} to {length - 1}, found {place}")
    return place % length


@lowers("SPLIT", "SPLIT_V", moves_only=True)
def _split(call: TfliteCall) -> list[TfliteResult]:
    number, place = (1, 0) if call.op_type == "SPLIT" else (0, 2)
    axes, shape = call.ints(place, "an axis"), call.shape(number)
    axis = call.axis(axes[0] if axes else 0, len(shape))
    count = len(call.results)
    if call.op_type == "SPLIT":
        if not count or shape[axis] % count:
            raise ValueError(f"parts: expected a number that divides {shape[axis]}, found {count}")
        sizes = [shape[axis] // count] * count
    else:
        sizes = call.ints(1, "sizes")
        if sizes.count(-1) == 1:
            sizes[sizes.index(-1)] = shape[axis] - sum(sizes) - 1
        if len(sizes) != count or any(size < 0 for size in sizes) or sum(sizes) != shape[axis]:
            raise ValueError(f"sizes: expected {count} with a sum of {shape[axis]}, found {sizes}")
    out: list[TfliteResult] = []
    start = 0
    for size in sizes:
        ranges = [range(length) for length in shape]
        ranges[axis] = range(start, start + size)
        out.append(_part(call, number, ranges))
        start += size
    return out


@lowers("UNPACK", moves_only=True)
def _unpack(call: TfliteCall) -> list[TfliteResult]:
    shape = call.shape()
    axis = call.axis(call.options["axis"])
    if shape[axis] != len(call.results):
        raise ValueError(f"outputs: expected {shape[axis]}, found {len(call.results)}")
    kept = (*shape[:axis], *shape[axis + 1 :])
    out: list[TfliteResult] = []
    for place in range(shape[axis]):
        ranges = [range(length) for length in shape]
        ranges[axis] = range(place, place + 1)
        part = _part(call, 0, ranges)
        if part.array is not None:
            out.append(of_array(part.array.reshape(kept), part.name))
        else:
            out.append(reshaped(call.builder, part, kept))
    return out


@lowers("GATHER", moves_only=True)
def _gather(call: TfliteCall) -> TfliteResult:
    if call.options["batch_dims"]:
        raise Unsupported("with batch_dims")
    axis = call.axis(call.options["axis"])
    data, indices = call.item(0), call.item(1)
    if indices.array is not None:
        length = data.shape[axis]
        if ((indices.array < 0) | (indices.array >= length)).any():
            raise ValueError(f"indices: expected 0 to {length - 1}, found others")
        if data.array is not None:
            call.reserve([*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]])
            return of_array(np.take(data.array, indices.array, axis), data.name)
        view = call.view()
        assert view.value is not None
        if indices.array.ndim == 1:
            made = call.builder.gather(view.value, indices.array, view.axes[axis], call.name(1))
            return of_value(made, view.axes)
        return call.builder.gather(call.value(), indices.array, axis, call.name(1))
    return call.builder.gather(call.operand(0), call.value(1), axis, call.name(0))


@lowers("EMBEDDING_LOOKUP", moves_only=True)
def _embedding_lookup(call: TfliteCall) -> TfliteResult:
    return call.builder.gather(call.operand(1), call.value(0), 0, call.name(1))
