"""Rewrites of a network that keep its function and make its file smaller.

The order of hidden units is free, and so is a positive factor between a unit and the layer that reads it through a
ReLU. This freedom saves hundreds of bytes in a small file. A new order of units changes the order of sums, so outputs
may differ by rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from dcformat.codecs import Mode
from dcformat.codecs.payload_writer import write_payload
from dcformat.dense import from_dense
from dcformat.graph import (
    AvgPool,
    Conv,
    Flatten,
    Graph,
    Linear,
    MaxPool,
    Node,
    Reduce,
    ReLU,
    Shape,
)
from dcformat.model import Model, Tensor
from dcformat.records import record, replace

Array = npt.NDArray[Any]

#: Operators that treat each channel by itself and commute with its positive factors, and reductions that do.
_UNIT_WISE = (ReLU, MaxPool, AvgPool, Flatten)
_REDUCTIONS = ("mean", "max", "sum", "min")
_Layer = Linear | Conv


@record
class _Link:
    """Two layers: one makes units that only the other reads."""

    producer: _Layer
    consumer: _Layer

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors that change with the units."""
        return (*self.producer.tensors, self.consumer.weight)


def reorder_units(model: Model, mode: Mode = "tiny") -> Model:
    """Return the network with its hidden units in the order that takes the fewest bytes, out of a few plausible ones.

    It tries these orders for each pair of layers until nothing improves: the current order; by the number of a unit's
    incoming or outgoing weights; by bias; by the positions of a unit's weights; and each unit next to the most similar
    one.

    Parameters
    ----------
    model : Model
        A model with a graph. Grouped convolutions and values that several operators read stay unchanged.
    mode : {'fast', 'small', 'tiny'}
        The mode in which the file will be written.
    """
    if model.graph is None:
        return model
    tensors = dict(model.tensors)
    links = list(_links(model.graph, tensors))
    for _ in range(3):
        changed = False
        for link in links:
            best = {name: tensors[name] for name in link.names}
            size = _bytes(best, mode)
            for order in _orders(link, tensors):
                candidate = _permuted(link, tensors, order)
                if (found := _bytes(candidate, mode)) < size:
                    best, size, changed = candidate, found, True
            tensors.update(best)
        if not changed:
            break
    return replace(model, tensors=tensors)


def fold_scales(model: Model, mode: Mode = "tiny") -> Model:
    """Return the network with hidden units scaled by powers of two where that takes fewer bytes.

    A unit's incoming weights and bias are multiplied so that their largest magnitude is in [1, 2), and its outgoing
    weights are divided by the same factor. Powers of two change no mantissa, so the function stays the same bit for
    bit; a unit is left alone if a number would leave the range of float32. This helps float weights without a codebook,
    because their exponents become more alike.
    """
    if model.graph is None:
        return model
    tensors = dict(model.tensors)
    for link in _links(model.graph, tensors):
        before = {name: tensors[name] for name in link.names}
        if any(t.dtype != "float32" for t in before.values()):
            continue
        scaled = _scaled(link, tensors)
        if _bytes(scaled, mode) < _bytes(before, mode):
            tensors.update(scaled)
    return replace(model, tensors=tensors)


def _links(graph: Graph, tensors: Mapping[str, Tensor]) -> Iterator[_Link]:
    """Yield the pairs of layers whose units only they use: no other operator reads them, and no output gives them."""
    first = len(graph.inputs)
    shapes = graph.shapes({name: tensor.shape for name, tensor in tensors.items()})
    readers: dict[int, list[int | None]] = {output.value: [None] for output in graph.outputs}
    shared: dict[str, int] = {}
    for number, node in enumerate(graph.nodes):
        for value in node.values:
            readers.setdefault(value, []).append(number)
        for name in node.tensors:
            shared[name] = shared.get(name, 0) + 1
    for number, node in enumerate(graph.nodes):
        value = first + number
        if not _has_units(node, shapes[first + number]):
            continue
        while (reader := _only(readers, value)) is not None and _is_unit_wise(graph.nodes[reader]):
            value = first + reader
        following = None if reader is None else graph.nodes[reader]
        if following is None or not _has_units(following, shapes[value]):
            continue
        link = _Link(node, following)
        if all(shared[name] == 1 for name in link.names) and all(tensors[n].size for n in link.names):
            yield link


def _only(readers: Mapping[int, Sequence[int | None]], value: int) -> int | None:
    """Return the operator that alone reads a value, or None."""
    found = readers.get(value, ())
    return found[0] if len(found) == 1 else None


def _has_units(node: Node, shape: Shape) -> TypeGuard[_Layer]:
    """Return whether a node is a layer of units: the first dimension of the `shape` that it reads or makes."""
    if isinstance(node, Linear):
        return len(shape) == 1
    return isinstance(node, Conv) and node.groups == 1 and len(shape) == len(node.stride) + 1


def _is_unit_wise(node: Node) -> bool:
    return isinstance(node, _UNIT_WISE) or (
        isinstance(node, Reduce) and node.function in _REDUCTIONS and 0 not in node.axes
    )


def _bytes(tensors: Mapping[str, Tensor], mode: Mode) -> int:
    return sum(len(write_payload(tensor, mode)) for tensor in tensors.values())


def _by_unit(weight: Tensor, units: int) -> Array:
    """View the reading layer's weight as (outputs, units, the rest)."""
    return weight.to_dense().reshape(weight.shape[0], units, -1)


def _orders(link: _Link, tensors: Mapping[str, Tensor]) -> Iterator[Array]:
    weight = tensors[link.producer.weight]
    units = weight.shape[0]
    alive = weight.to_dense().reshape(units, -1) != 0
    read = (_by_unit(tensors[link.consumer.weight], units) != 0).sum(axis=(0, 2))
    count = alive.sum(axis=1)
    keys = [-count, -read, -(count + read)]
    if link.producer.bias is not None:
        bias = tensors[link.producer.bias].to_dense().astype(np.float64)
        keys += [bias, np.abs(bias)]
    for key in keys:
        for second in (-count, -read):
            order = np.lexsort((second, key))
            yield order
            yield order[::-1]
    yield np.lexsort(alive.T[::-1])
    yield _chained(alive)


def _chained(alive: Array) -> Array:
    """Return an order that starts with the fullest row and continues with the row most similar to the last one."""
    rows = alive.astype(np.float32)
    size = rows.sum(axis=1)
    common = rows @ rows.T
    likeness = common / np.maximum(size[:, None] + size[None, :] - common, 1)
    left = np.ones(len(rows), bool)
    order = [int(size.argmax())]
    left[order[0]] = False
    for _ in range(len(rows) - 1):
        following = int(np.where(left, likeness[order[-1]] + size * 1e-6, -1).argmax())
        left[following] = False
        order.append(following)
    return np.array(order)


def _rebuilt(tensor: Tensor, values: Array) -> Tensor:
    """Return a tensor with new values, and with a codebook only if the given tensor has one."""
    made = from_dense(tensor.name, np.ascontiguousarray(values), tensor.dtype, tensor.scale, exact=True)
    if tensor.codebook is not None or made.codebook is None:
        return made
    return replace(made, data=made.values(), codebook=None)


def _permuted(link: _Link, tensors: Mapping[str, Tensor], order: Array) -> dict[str, Tensor]:
    weight, consumer = tensors[link.producer.weight], tensors[link.consumer.weight]
    out = {weight.name: _rebuilt(weight, weight.to_dense()[order])}
    if link.producer.bias is not None:
        bias = tensors[link.producer.bias]
        out[bias.name] = _rebuilt(bias, bias.to_dense()[order])
    columns = _by_unit(consumer, weight.shape[0])[:, order]
    out[consumer.name] = _rebuilt(consumer, columns.reshape(consumer.shape))
    return out


def _scaled(link: _Link, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    weight, consumer = tensors[link.producer.weight], tensors[link.consumer.weight]
    units = weight.shape[0]
    rows = weight.to_dense().reshape(units, -1)
    columns = _by_unit(consumer, units)
    bias = tensors[link.producer.bias].to_dense() if link.producer.bias is not None else np.zeros(units, np.float32)
    largest = np.abs(rows).max(axis=1)
    steps = np.where(largest > 0, -np.frexp(largest)[1] + 1, 0)
    new_rows, new_bias = np.ldexp(rows, steps[:, None]), np.ldexp(bias, steps)
    new_columns = np.ldexp(columns, -steps[None, :, None])
    exact = (
        (np.ldexp(new_rows, -steps[:, None]) == rows).all(axis=1)
        & (np.ldexp(new_bias, -steps) == bias)
        & (np.ldexp(new_columns, steps[None, :, None]) == columns).all(axis=(0, 2))
    )
    new_rows[~exact], new_bias[~exact], new_columns[:, ~exact] = rows[~exact], bias[~exact], columns[:, ~exact]
    out = {
        weight.name: _rebuilt(weight, new_rows.reshape(weight.shape)),
        consumer.name: _rebuilt(consumer, new_columns.reshape(consumer.shape)),
    }
    if link.producer.bias is not None:
        out[link.producer.bias] = _rebuilt(tensors[link.producer.bias], new_bias)
    return out
