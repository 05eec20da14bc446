"""Conversion of the graph to bytes and back (spec, "Graph")."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from dcformat import layout
from dcformat.cursor import Cursor, varint
from dcformat.errors import EncodingError, GraphError, LimitError
from dcformat.graph import (
    Add,
    AvgPool2d,
    Concat,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    Graph,
    Linear,
    MaxPool2d,
    Node,
    Pair,
    Preprocessing,
    ReLU,
    Softmax,
)

#: Operator ids. Spec, "Graph".
OPERATORS: dict[int, type[Node]] = {
    1: Linear, 2: Conv2d, 3: ReLU, 4: MaxPool2d, 5: AvgPool2d, 6: GlobalAvgPool, 7: GlobalMaxPool,
    8: Flatten, 9: Add, 10: Concat, 11: Softmax,
}  # fmt: skip
_IDS = {kind: number for number, kind in OPERATORS.items()}
#: The first byte of an operator: its id, then flags (the inputs are written out, a bias, the attributes).
OPERATOR_MASK, WIRED, BIAS, ATTRIBUTES = 31, 32, 64, 128

CONV_DEFAULTS = (1, 1, 0, 0, 1, 1, 1)
POOL_DEFAULTS = (2, 2, 2, 2, 0, 0, 0)
CEIL, LEAVE_OUT_PAD = 1, 2


def write_graph(graph: Graph, names: Sequence[str]) -> bytes:
    """Return a validated graph's bytes; `names` are the file's tensors, in order."""
    index = {name: i for i, name in enumerate(names)}
    out = bytearray((len(graph.input_shape),))
    for size in graph.input_shape:
        out += varint(size)
    if rule := graph.preprocessing:
        mean, std = _shared_by_channels(rule.mean), _shared_by_channels(rule.std)
        if len(mean) != len(std):
            mean, std = rule.mean, rule.std
        out += varint(len(mean)) + struct.pack(f"<{2 * len(mean)}f", *mean, *std)
    else:
        out += varint(0)
    out += varint(len(graph.nodes))
    for number, node in enumerate(graph.nodes):
        out += _write_node(number, node, index)
    return bytes(out)


def _shared_by_channels(values: tuple[float, ...]) -> tuple[float, ...]:
    """Return the one value that all channels share as a float32, or the values unchanged if they differ."""
    return values[:1] if len({struct.pack("<f", value) for value in values}) == 1 else values


def _write_node(number: int, node: Node, index: dict[str, int]) -> bytes:
    values, defaults = attributes_of(node)
    wired = node.inputs != (number,)
    head = _IDS[type(node)] | WIRED * wired | ATTRIBUTES * (values != defaults)
    tensors = [index[name] for name in node.tensors]
    out = bytearray((head | BIAS * (len(tensors) == 2),))
    if wired:
        if node.arity is None:
            out += varint(len(node.inputs))
        for value in node.inputs:
            out += varint(number - value)
    for value in (*tensors, *(values if values != defaults else ())):
        out += varint(value)
    return bytes(out)


def attributes_of(node: Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return a node's attributes as numbers, and their defaults, which files leave out."""
    if isinstance(node, Conv2d):
        return (*node.stride, *node.padding, *node.dilation, node.groups), CONV_DEFAULTS
    if isinstance(node, MaxPool2d | AvgPool2d):
        flags = CEIL * node.ceil_mode
        if isinstance(node, AvgPool2d) and not node.count_include_pad:
            flags |= LEAVE_OUT_PAD
        return (*node.kernel, *node.stride, *node.padding, flags), POOL_DEFAULTS
    return (), ()


def read_graph(cursor: Cursor, names: Sequence[str]) -> Graph:
    """Read a graph; `Graph.shapes` validates the connections of its nodes, and their shapes."""
    rank = cursor.u8("rank of the input")
    if rank not in (1, 3):
        raise EncodingError("rank of the input", got=rank, expected="1 or 3")
    shape = tuple(cursor.varint("input shape", layout.MAX_ELEMENTS) for _ in range(rank))
    count = cursor.varint("preprocessing", layout.MAX_ATTRIBUTE)
    rule = None
    if count:
        values = struct.unpack(f"<{2 * count}f", cursor.take(8 * count, "preprocessing"))
        rule = Preprocessing(values[:count], values[count:])
        if count > 1 and len(_shared_by_channels(rule.mean)) == len(_shared_by_channels(rule.std)) == 1:
            raise EncodingError("preprocessing", got=f"{count} equal pairs", expected="one for all channels")
    nodes = [_read_node(cursor, number, names) for number in range(cursor.varint("operators", layout.MAX_NODES))]
    return Graph(shape, tuple(nodes), rule)


def _read_node(cursor: Cursor, number: int, names: Sequence[str]) -> Node:
    head = cursor.u8("operator")
    kind = OPERATORS.get(head & OPERATOR_MASK)
    if kind is None:
        raise EncodingError("operator", got=head & OPERATOR_MASK, expected="a known operator's id")
    inputs = _read_inputs(cursor, number, kind) if head & WIRED else (number,)
    if (inputs == (number,)) == bool(head & WIRED):
        raise EncodingError(f"node {number} inputs", got="the default spelled out", expected="the shortest form")
    weights: tuple[str | None, ...] = ()
    if kind in (Linear, Conv2d):
        weight = _tensor(cursor, names)
        weights = (weight, _tensor(cursor, names) if head & BIAS else None)
    elif head & BIAS:
        raise EncodingError(f"node {number}", got="a bias", expected=f"none for {kind.kind}")
    node: Node = _build(cursor, number, kind, inputs, weights, bool(head & ATTRIBUTES))
    return node


def _read_inputs(cursor: Cursor, number: int, kind: type[Node]) -> tuple[int, ...]:
    count = kind.arity
    if count is None:
        count = cursor.varint("inputs", layout.MAX_INPUTS)
    back = [cursor.varint("input", layout.MAX_NODES) for _ in range(count)]
    if back and max(back) > number:
        raise GraphError(f"node {number} input", got=number - max(back), expected=f"0 to {number}")
    return tuple(number - step for step in back)


def _tensor(cursor: Cursor, names: Sequence[str]) -> str:
    index = cursor.varint("tensor of an operator", layout.MAX_TENSORS)
    if index >= len(names):
        raise GraphError("tensor of an operator", got=index, expected=f"less than {len(names)}")
    return names[index]


def _build(
    cursor: Cursor,
    number: int,
    kind: type[Any],
    inputs: tuple[int, ...],
    weights: tuple[str | None, ...],
    spelled: bool,
) -> Any:
    pooling = kind in (MaxPool2d, AvgPool2d)
    if not pooling and kind is not Conv2d:
        if spelled:
            raise EncodingError(f"node {number}", got="attributes", expected=f"none for {kind.kind}")
        return kind(inputs, *weights)
    defaults = POOL_DEFAULTS if pooling else CONV_DEFAULTS
    v: tuple[int, ...] = defaults
    if spelled:
        v = tuple(cursor.varint("attribute", layout.MAX_ATTRIBUTE) for _ in defaults)
        if v == defaults:
            raise EncodingError(f"node {number}", got="the defaults spelled out", expected="the shortest form")
    pairs: tuple[Pair, ...] = ((v[0], v[1]), (v[2], v[3]), (v[4], v[5]))
    if not pooling:
        return kind(inputs, *weights, *pairs, v[6])
    max_flags = CEIL | (LEAVE_OUT_PAD if kind is AvgPool2d else 0)
    if v[6] > max_flags:
        raise EncodingError(f"node {number} flags", got=v[6], expected=f"at most {max_flags}")
    flags = (bool(v[6] & CEIL), *(() if kind is MaxPool2d else (not v[6] & LEAVE_OUT_PAD,)))
    return kind(inputs, *pairs, *flags)


def check_graph(graph: Graph) -> None:
    """Raise unless every number of a graph fits the format; `Graph.shapes` validates the rest."""
    if len(graph.nodes) > layout.MAX_NODES:
        raise LimitError("operators", got=len(graph.nodes), expected=f"at most {layout.MAX_NODES}")
    if (rule := graph.preprocessing) is not None and len(rule.mean) > layout.MAX_ATTRIBUTE:
        raise LimitError("preprocessing", got=len(rule.mean), expected=f"at most {layout.MAX_ATTRIBUTE} values")
    for number, node in enumerate(graph.nodes):
        if type(node) not in _IDS:
            raise GraphError(f"node {number}", got=type(node).__name__, expected="a known operator")
        if len(node.inputs) > layout.MAX_INPUTS:
            raise LimitError(f"node {number} inputs", got=len(node.inputs), expected=f"at most {layout.MAX_INPUTS}")
        values, _ = attributes_of(node)
        if values and max(values) > layout.MAX_ATTRIBUTE:
            raise LimitError(f"node {number}", got=max(values), expected=f"at most {layout.MAX_ATTRIBUTE}")
