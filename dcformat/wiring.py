"""The graph as bytes and back (spec, "Graph")."""

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
_OPERATOR_MASK, _WIRED, _BIAS, _ATTRIBUTES = 31, 32, 64, 128

_CONV_DEFAULTS = (1, 1, 0, 0, 1, 1, 1)
_POOL_DEFAULTS = (2, 2, 2, 2, 0, 0, 0)
_CEIL, _LEAVE_OUT_PAD = 1, 2


def write_graph(graph: Graph, names: Sequence[str]) -> bytes:
    """Return a validated graph's bytes; `names` are the file's tensors in order."""
    index = {name: i for i, name in enumerate(names)}
    out = bytearray((len(graph.input_shape),))
    for size in graph.input_shape:
        out += varint(size)
    rule = graph.preprocessing
    out += varint(len(rule.mean) if rule else 0)
    if rule:
        out += struct.pack(f"<{2 * len(rule.mean)}f", *rule.mean, *rule.std)
    out += varint(len(graph.nodes))
    for number, node in enumerate(graph.nodes):
        out += _write_node(number, node, index)
    return bytes(out)


def _write_node(number: int, node: Node, index: dict[str, int]) -> bytes:
    values, defaults = _attributes(node)
    wired = node.inputs != (number,)
    head = _IDS[type(node)] | _WIRED * wired | _ATTRIBUTES * (values != defaults)
    tensors = [index[name] for name in node.tensors]
    out = bytearray((head | _BIAS * (len(tensors) == 2),))
    if wired:
        if node.arity is None:
            out += varint(len(node.inputs))
        for value in node.inputs:
            out += varint(number - value)
    for value in (*tensors, *(values if values != defaults else ())):
        out += varint(value)
    return bytes(out)


def _attributes(node: Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return a node's attributes as numbers, and the numbers that need not be written."""
    if isinstance(node, Conv2d):
        return (*node.stride, *node.padding, *node.dilation, node.groups), _CONV_DEFAULTS
    if isinstance(node, MaxPool2d | AvgPool2d):
        flags = _CEIL * node.ceil_mode
        if isinstance(node, AvgPool2d) and not node.count_include_pad:
            flags |= _LEAVE_OUT_PAD
        return (*node.kernel, *node.stride, *node.padding, flags), _POOL_DEFAULTS
    return (), ()


def read_graph(cursor: Cursor, names: Sequence[str]) -> Graph:
    """Read a graph; its wiring and shapes are for `Graph.shapes` to validate."""
    rank = cursor.u8("rank of the input")
    if rank not in (1, 3):
        raise EncodingError("rank of the input", got=rank, expected="1 or 3")
    shape = tuple(cursor.varint("input shape", layout.MAX_ELEMENTS) for _ in range(rank))
    count = cursor.varint("preprocessing", layout.MAX_ATTRIBUTE)
    rule = None
    if count:
        values = struct.unpack(f"<{2 * count}f", cursor.take(8 * count, "preprocessing"))
        rule = Preprocessing(values[:count], values[count:])
    nodes = [_read_node(cursor, number, names) for number in range(cursor.varint("operators", layout.MAX_NODES))]
    return Graph(shape, tuple(nodes), rule)


def _read_node(cursor: Cursor, number: int, names: Sequence[str]) -> Node:
    head = cursor.u8("operator")
    kind = OPERATORS.get(head & _OPERATOR_MASK)
    if kind is None:
        raise EncodingError("operator", got=head & _OPERATOR_MASK, expected="a known operator's id")
    inputs = _read_inputs(cursor, number, kind) if head & _WIRED else (number,)
    if (inputs == (number,)) == bool(head & _WIRED):
        raise EncodingError(f"node {number} inputs", got="the default spelled out", expected="the shortest form")
    weights: tuple[str | None, ...] = ()
    if kind in (Linear, Conv2d):
        weight = _tensor(cursor, names)
        weights = (weight, _tensor(cursor, names) if head & _BIAS else None)
    elif head & _BIAS:
        raise EncodingError(f"node {number}", got="a bias", expected=f"none for {kind.kind}")
    node: Node = _build(cursor, number, kind, inputs, weights, bool(head & _ATTRIBUTES))
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
    defaults = _POOL_DEFAULTS if pooling else _CONV_DEFAULTS
    v: tuple[int, ...] = defaults
    if spelled:
        v = tuple(cursor.varint("attribute", layout.MAX_ATTRIBUTE) for _ in defaults)
        if v == defaults:
            raise EncodingError(f"node {number}", got="the defaults spelled out", expected="the shortest form")
    pairs: tuple[Pair, ...] = ((v[0], v[1]), (v[2], v[3]), (v[4], v[5]))
    if not pooling:
        return kind(inputs, *weights, *pairs, v[6])
    most = _CEIL | (_LEAVE_OUT_PAD if kind is AvgPool2d else 0)
    if v[6] > most:
        raise EncodingError(f"node {number} flags", got=v[6], expected=f"at most {most}")
    flags = (bool(v[6] & _CEIL), *(() if kind is MaxPool2d else (not v[6] & _LEAVE_OUT_PAD,)))
    return kind(inputs, *pairs, *flags)


def check_graph(graph: Graph) -> None:
    """Raise unless every number of a graph fits the format; its wiring is for `Graph.shapes`."""
    if len(graph.nodes) > layout.MAX_NODES:
        raise LimitError("operators", got=len(graph.nodes), expected=f"at most {layout.MAX_NODES}")
    if (rule := graph.preprocessing) is not None and len(rule.mean) > layout.MAX_ATTRIBUTE:
        raise LimitError("preprocessing", got=len(rule.mean), expected=f"at most {layout.MAX_ATTRIBUTE} values")
    for number, node in enumerate(graph.nodes):
        if type(node) not in _IDS:
            raise GraphError(f"node {number}", got=type(node).__name__, expected="a known operator")
        if len(node.inputs) > layout.MAX_INPUTS:
            raise LimitError(f"node {number} inputs", got=len(node.inputs), expected=f"at most {layout.MAX_INPUTS}")
        values, _ = _attributes(node)
        if values and max(values) > layout.MAX_ATTRIBUTE:
            raise LimitError(f"node {number}", got=max(values), expected=f"at most {layout.MAX_ATTRIBUTE}")
