"""Operators that choose elements by indices, and those that become such a choice because their indices are constant."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph import Shape
from dcformat_interop.graph_builder import BuilderOperand, Value
from dcformat_interop.lowering.unsupported import Unsupported
from dcformat_interop.onnx_import.constant_folding import evaluate
from dcformat_interop.onnx_import.items import OnnxCall, OnnxItem, lowers

Array = npt.NDArray[Any]


#: Maximum number of positions whose products are computed one by one.
_MAX_PRODUCTS = 256


def taken(call: OnnxCall, value: Value, places: Array) -> Value:
    """Return the elements of a value at places in its flattened form, in the shape of `places`."""
    flat = call.builder.reshape(value, (prod(value.shape),))
    return call.builder.gather(flat, places, 0, f"{call.name}.places")


def _places(call: OnnxCall, shape: Shape) -> Array:
    call.take(prod(shape))
    return np.arange(prod(shape)).reshape(shape)


@lowers("Gather")
def _gather(call: OnnxCall) -> Value:
    axis, b = call.axis(call.attr("axis", 0)), call.builder
    length = call.shape()[axis]
    indices = call.item(1)
    if indices.array is None:
        return b.gather(call.operand(0), call.operand(1), axis, call.tensor_name(0))
    _check_indices(indices.array, length)
    chosen, value = indices.array % length, call.value()
    rest = (*value.shape[:axis], *chosen.shape, *value.shape[axis + 1 :])
    found = _as_range(chosen)
    if found is not None:
        return b.reshape(b.slice(value, axis, found.start, len(found), found.step), rest)
    return b.gather(value, chosen, axis, call.tensor_name(1))


def _as_range(chosen: Array) -> range | None:
    """Return the range that constant indices are, if they are evenly spaced."""
    flat = chosen.reshape(-1)
    if flat.size == 0:
        raise Unsupported("with an empty result")
    step = int(flat[1] - flat[0]) if flat.size > 1 else 1
    found = range(int(flat[0]), int(flat[0]) + step * flat.size, step) if step else None
    return found if found is not None and np.array_equal(flat, np.array(found)) else None


def _check_indices(indices: Array, length: int) -> None:
    if indices.size and not (-length <= indices.min() and indices.max() < length):
        raise ValueError(f"indices: expected {-length} to {length - 1}, found {indices.min()} to {indices.max()}")


@lowers("GatherElements")
def _gather_elements(call: OnnxCall) -> Value:
    axis, shape = call.axis(call.attr("axis", 0)), call.shape()
    indices = call.item(1).array
    if indices is None:
        return _gather_computed(call, axis)
    _check_indices(indices, shape[axis])
    places = _part(_places(call, shape), indices.shape, axis)
    return taken(call, call.value(), np.take_along_axis(places, indices % shape[axis], axis))


def _gather_computed(call: OnnxCall, axis: int) -> Value:
    """Choose from the flattened data: an index becomes the place where it would find its element."""
    b, shape, indices = call.builder, call.shape(), call.value(1)
    call.take(prod(indices.shape))
    zeros = np.zeros(indices.shape, np.int64)
    firsts = np.take_along_axis(_part(_places(call, shape), indices.shape, axis), zeros, axis)
    counted = b.where(b.binary("less", indices, 0.0), b.add(indices, float(shape[axis])), indices)
    places = b.add(b.binary("mul", counted, float(prod(shape[axis + 1 :]))), firsts, name=f"{call.name}.places")
    return b.gather(b.reshape(call.value(), (prod(shape),)), places, 0)


def _part(places: Array, shape: Shape, axis: int) -> Array:
    return places[tuple(slice(None) if i == axis else slice(size) for i, size in enumerate(shape))]


@lowers("GatherND")
def _gather_nd(call: OnnxCall) -> Value:
    indices = call.item(1).array
    if indices is not None:
        return taken(call, call.value(), _evaluate(call, _places(call, call.shape()), indices))
    b, shape, found, kept = call.builder, call.shape(), call.value(1), call.attr("batch_dims", 0)
    if prod(shape[:kept]) != 1:
        raise Unsupported("with batches and indices that the network computes")
    data, found = b.reshape(call.value(), shape[kept:]), b.reshape(found, found.shape[kept:])
    chosen = _chosen(call, data, found)
    return b.reshape(chosen, (1,) * kept + chosen.shape)


def _chosen(call: OnnxCall, data: Value, found: Value) -> Value:
    """Return the parts of `data` at places that the network computes."""
    b, shape = call.builder, data.shape
    depth = found.shape[-1]
    sizes = np.array(shape[:depth])
    counted = b.where(b.binary("less", found, 0.0), b.add(found, sizes, name=f"{call.name}.sizes"), found)
    strides = np.array([prod(sizes[place + 1 :]) for place in range(depth)])
    places = b.reduce("sum", b.binary("mul", counted, strides, f"{call.name}.strides"), [len(found.shape) - 1])
    return b.gather(b.reshape(data, (prod(shape[:depth]), *shape[depth:])), places, 0)


def _evaluate(call: OnnxCall, *arrays: Array) -> Array:
    """Return the result of an operator on places instead of elements."""
    from onnx import helper

    names = [f"x{number}" for number in range(len(arrays))]
    op_type = "ScatterElements" if call.op_type == "Scatter" else call.op_type  # its name until operator set 11
    node = helper.make_node(op_type, names, ["y"], **call.attributes)
    (places,) = evaluate(node, arrays, max(call.opset, 11))
    assert places is not None
    return places


@lowers("ScatterElements", "ScatterND", "Scatter")
def _scatter(call: OnnxCall) -> Value:
    """Lower to a choice between the elements of the data and those of the updates, if the indices are constant."""
    if not call.is_constant(1):
        raise Unsupported("with indices that the network computes")
    if call.attr("reduction", "none") != "none":
        raise Unsupported(f"with the reduction {call.attr('reduction')!r}")
    b, shape, updates = call.builder, call.shape(), call.shape(2)
    own = _places(call, shape)
    call.take(prod(updates))
    theirs = np.arange(prod(updates)).reshape(updates) + own.size
    places = _evaluate(call, own, call.const(1, "indices"), theirs)
    operands = [
        b.reshape(operand, (prod(operand.shape),)) if isinstance(operand, Value) else np.reshape(operand, -1)
        for operand in (call.operand(0), call.operand(2))
    ]
    return taken(call, b.concat(operands, 0, call.tensor_name(0)), places)


@lowers("Compress")
def _compress(call: OnnxCall) -> Value:
    chosen = np.flatnonzero(call.const(1, "a condition"))
    if not chosen.size:
        raise Unsupported("with an empty result")
    axis = call.attr("axis")
    if axis is None:
        return taken(call, call.value(), chosen)
    return call.builder.gather(call.value(), chosen, call.axis(axis), f"{call.name}.places")


@lowers("ReverseSequence")
def _reverse_sequence(call: OnnxCall) -> Value:
    places = _evaluate(call, _places(call, call.shape()), call.const(1, "lengths"))
    return taken(call, call.value(), places)


@lowers("OneHot")
def _one_hot(call: OnnxCall) -> OnnxItem:
    b, indices = call.builder, call.value()
    depth = int(call.const(1, "a depth").reshape(-1)[0])
    off, on = (float(value) for value in call.const(2, "values").reshape(-1))
    rank = len(indices.shape) + 1
    axis = call.axis(call.attr("axis", -1), rank)
    expanded = b.reshape(indices, (*indices.shape[:axis], 1, *indices.shape[axis:]))
    shape = [-1 if i == axis else 1 for i in range(rank)]
    call.take(depth)
    positions = np.arange(depth).reshape(shape)
    found = b.add(
        b.binary("equal", expanded, positions, "positions"),
        b.binary("equal", expanded, positions - depth, "positions"),
    )
    scaled = found if (off, on) == (0, 1) else b.add(b.binary("mul", found, on - off), off)
    return OnnxItem(call.dtype(2), scaled)


@lowers("Trilu")
def _trilu(call: OnnxCall) -> Value:
    shape, k = call.shape(), int(call.const(1, "a diagonal").reshape(())) if call.has(1) else 0
    if len(shape) < 2:
        raise ValueError(f"input: expected at least 2 dimensions, found {shape}")
    call.take(prod(shape[-2:]))
    kept = np.triu(np.ones(shape[-2:]), k) if call.attr("upper", 1) else np.tril(np.ones(shape[-2:]), k)
    return call.builder.where(kept, call.value(), 0.0, f"{call.name}.triangle")


@lowers("CumSum")
def _cum_sum(call: OnnxCall) -> Value:
    """Lower to a product with a triangular matrix of ones."""
    axis = call.axis(int(call.const(1, "an axis").reshape(())))
    size = call.shape()[axis]
    call.take(size * size)
    ones = np.tril(np.ones((size, size)), -1 if call.attr("exclusive", 0) else 0)
    return along(call, call.value(), axis, ones.T if call.attr("reverse", 0) else ones, "sums")


@lowers("CumProd")
def _cum_prod(call: OnnxCall) -> Value:
    """Lower to a product for each position."""
    b, x = call.builder, call.value()
    axis = call.axis(int(call.const(1, "an axis").reshape(())))
    size, exclusive = x.shape[axis], bool(call.attr("exclusive", 0))
    if size > _MAX_PRODUCTS:
        raise Unsupported(f"over {size} positions")
    parts: list[BuilderOperand] = [b.slice(x, axis, place, 1) for place in range(size)]
    parts = parts[::-1] if call.attr("reverse", 0) else parts
    ones = np.ones([1 if i == axis else length for i, length in enumerate(x.shape)], np.float32)
    products: list[BuilderOperand] = [ones] if exclusive else [parts[0]]
    for part in parts[0 if exclusive else 1 : size - exclusive]:
        products.append(part if products[-1] is ones else b.binary("mul", products[-1], part))
    return b.concat(products[::-1] if call.attr("reverse", 0) else products, axis)


def along(call: OnnxCall, value: Value, axis: int, matrix: Array, name: str) -> Value:
    """Return the product of a matrix with a value along one of its dimensions."""
    from dcformat.graph import Linear

    b, order = call.builder, [i for i in range(len(value.shape)) if i != axis] + [axis]
    product = b.emit(Linear, (b.transpose(value, order),), weight=call.tensor(matrix, f"{call.name}.{name}"))
    return b.transpose(product, np.argsort(order).tolist())
