"""Converts the graph to bytes and back (spec, "Graph"); `graph_attributes` has the attributes of the operators."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from dcformat import layout
from dcformat.cursor import Cursor, check_text, text, varint
from dcformat.errors import EncodingError, GraphError, LimitError, ShapeError
from dcformat.graph import GRU, LSTM, Conv, ConvTranspose, Graph, Linear, Node, Operand, Output, Port, Preprocessing
from dcformat.graph.graph import PORT_DTYPES
from dcformat.graph.node import Shape
from dcformat.graph_attributes import (
    ATTRIBUTES,
    OPERATORS,
    OperatorContext,
    defaults,
    read_attributes,
    read_real,
    write_attributes,
    write_real,
)

_IDS = {kind: number for number, kind in OPERATORS.items()}
#: The first byte of an operator: its id, then flags (the operands are written out, a bias, the attributes).
OPERATOR_MASK, WIRED, BIAS, GIVEN = 31, 32, 64, 128
#: The first byte of a graph: this flag, or the rank of the only input.
PORTS = 8
#: Maximum number of values back.
_MAX_BACK = 2 * layout.MAX_NODES
#: The kind of a written operand, in its two low bits, if the operator takes tensors or constants.
VALUE, TENSOR, CONSTANT = 0, 1, 2
#: The tensors of operators with weights, except the bias.
WEIGHTS: dict[type[Node], tuple[str, ...]] = {
    Linear: ("weight",), Conv: ("weight",), ConvTranspose: ("weight",),
    LSTM: ("weight", "recurrent_weight"), GRU: ("weight", "recurrent_weight"),
}  # fmt: skip


def write_graph(graph: Graph, names: Sequence[str]) -> bytes:
    """Return the bytes of a graph that `Graph.shapes` accepts; `names` are the file's tensors, in order.

    Raises
    ------
    GraphError, LimitError
        An operator is unknown, or a number has no place in the format.
    """
    if len(graph.nodes) > layout.MAX_NODES:
        raise LimitError("operators", got=len(graph.nodes), expected=f"at most {layout.MAX_NODES}")
    plain = _is_plain(graph)
    out = bytearray()
    if plain:
        out += _write_shape(graph.inputs[0].shape)
    else:
        out += bytes((PORTS,)) + _write_ports("inputs", graph.inputs, len(graph.nodes) + len(graph.inputs))
    out += _write_preprocessing(graph.preprocessing)
    out += varint(len(graph.nodes))
    scope = OperatorContext(names)
    for number, node in enumerate(graph.nodes):
        out += _write_node(number, number + len(graph.inputs), node, scope)
    if not plain:
        out += _write_ports("outputs", graph.outputs, len(graph.nodes) + len(graph.inputs))
    return bytes(out)


def read_graph(cursor: Cursor, tensors: Mapping[str, Shape]) -> Graph:
    """Read a graph; `Graph.shapes` validates the connections of its nodes, and their shapes.

    Parameters
    ----------
    cursor : Cursor
    tensors : mapping of str to tuple of int
        The shapes of the file's tensors, in order.
    """
    head = cursor.u8("interface of the graph")
    if head > PORTS:
        raise EncodingError("interface of the graph", got=head, expected=f"at most {PORTS}")
    inputs: tuple[Port, ...] = (
        _read_inputs(cursor) if head == PORTS else (Port(_read_sizes(cursor, head, "input shape")),)
    )
    rule = _read_preprocessing(cursor)
    scope, count = OperatorContext(tensors), cursor.varint("operators", layout.MAX_NODES)
    nodes = tuple(_read_node(cursor, number, number + len(inputs), scope, tensors) for number in range(count))
    values = len(inputs) + len(nodes)
    outputs = _read_outputs(cursor, values) if head == PORTS else (Output(values - 1),)
    graph = Graph(inputs, nodes, outputs, rule)
    if head == PORTS and _is_plain(graph):
        raise EncodingError("interface of the graph", got="the usual one spelled out", expected="the shortest form")
    return graph


# --- inputs and outputs -----------------------------------------------------------------------------------------


def _is_plain(graph: Graph) -> bool:
    """Whether a graph has one input and one output, the last value, with the usual names, dtypes and batch axes."""
    last = len(graph.inputs) + len(graph.nodes) - 1
    return (
        len(graph.inputs) == 1 and graph.inputs == (Port(graph.inputs[0].shape),) and graph.outputs == (Output(last),)
    )


def _write_ports(what: str, ports: Sequence[Port] | Sequence[Output], values: int) -> bytes:
    if len(ports) > layout.MAX_PORTS:
        raise LimitError(what, got=len(ports), expected=f"at most {layout.MAX_PORTS}")
    out = bytearray(varint(len(ports)))
    for port in ports:
        check_text(f"name of {what}", port.name, layout.MAX_NAME_BYTES, 1)
        out += text(port.name)
        out.append(PORT_DTYPES.index(port.dtype) | (0 if port.batch_axis is None else port.batch_axis + 1) << 4)
        out += varint(values - 1 - port.value) if isinstance(port, Output) else _write_shape(port.shape)
    return bytes(out)


def _read_port(cursor: Cursor, what: str) -> tuple[str, str, int | None]:
    """Read what inputs and outputs share: the name, dtype and batch axis."""
    name = cursor.text(f"name of {what}", layout.MAX_NAME_BYTES, 1)
    kind = cursor.u8(f"dtype of {what}")
    if kind & 15 >= len(PORT_DTYPES) or kind >> 4 > layout.MAX_RANK + 1:
        raise EncodingError(f"dtype of {what} {name!r}", got=kind, expected="a known dtype and dimension")
    return name, PORT_DTYPES[kind & 15], (kind >> 4) - 1 if kind >> 4 else None


def _read_inputs(cursor: Cursor) -> tuple[Port, ...]:
    ports = []
    for _ in range(cursor.varint("inputs", layout.MAX_PORTS)):
        name, dtype, batch_axis = _read_port(cursor, "an input")
        rank = cursor.u8(f"rank of input {name!r}")
        if rank > layout.MAX_RANK:
            raise EncodingError(f"rank of input {name!r}", got=rank, expected=f"at most {layout.MAX_RANK}")
        ports.append(Port(_read_sizes(cursor, rank, f"shape of input {name!r}"), name, dtype, batch_axis))
    return tuple(ports)


def _read_outputs(cursor: Cursor, values: int) -> tuple[Output, ...]:
    outputs = []
    for _ in range(cursor.varint("outputs", layout.MAX_PORTS)):
        name, dtype, batch_axis = _read_port(cursor, "an output")
        outputs.append(Output(_back(cursor, f"value of output {name!r}", values), name, dtype, batch_axis))
    return tuple(outputs)


def _write_shape(shape: Shape) -> bytes:
    return bytes((len(shape),)) + b"".join(map(varint, shape))


def _read_sizes(cursor: Cursor, rank: int, what: str) -> Shape:
    return tuple(cursor.varint(what, layout.MAX_ELEMENTS) for _ in range(rank))


def _write_preprocessing(rule: Preprocessing | None) -> bytes:
    if rule is None:
        return varint(0)
    if len(rule.mean) > layout.MAX_ATTRIBUTE:
        raise LimitError("preprocessing", got=len(rule.mean), expected=f"at most {layout.MAX_ATTRIBUTE} values")
    mean, std = _shared_by_channels(rule.mean), _shared_by_channels(rule.std)
    if len(mean) != len(std):
        mean, std = rule.mean, rule.std
    return varint(len(mean)) + struct.pack(f"<{2 * len(mean)}f", *mean, *std)


def _read_preprocessing(cursor: Cursor) -> Preprocessing | None:
    count = cursor.varint("preprocessing", layout.MAX_ATTRIBUTE)
    if not count:
        return None
    values = struct.unpack(f"<{2 * count}f", cursor.take(8 * count, "preprocessing"))
    rule = Preprocessing(values[:count], values[count:])
    if count > 1 and len(_shared_by_channels(rule.mean)) == len(_shared_by_channels(rule.std)) == 1:
        raise EncodingError("preprocessing", got=f"{count} equal pairs", expected="one for all channels")
    return rule


def _shared_by_channels(values: tuple[float, ...]) -> tuple[float, ...]:
    """Return the one value that all channels share as a float32, or the values unchanged if they differ."""
    return values[:1] if len({struct.pack("<f", value) for value in values}) == 1 else values


# --- operators --------------------------------------------------------------------------------------------------


def _write_node(number: int, values: int, node: Node, scope: OperatorContext) -> bytes:
    """Return an operator's bytes; `values` values come before its own."""
    kind, what = type(node), f"node {number} ({node.kind})"
    if kind not in _IDS:
        raise GraphError(f"node {number}", got=kind.__name__, expected="a known operator")
    if len(node.inputs) > layout.MAX_INPUTS:
        raise LimitError(f"{what} inputs", got=len(node.inputs), expected=f"at most {layout.MAX_INPUTS}")
    wired = node.inputs != (values - 1,)
    weights = [name for field in (*WEIGHTS.get(kind, ()), "bias") if (name := getattr(node, field, None)) is not None]
    attributes = write_attributes(what, kind, [getattr(node, field) for field in ATTRIBUTES.get(kind, ())], scope)
    usual = defaults(kind, len(node.stride) if isinstance(node, (Conv, ConvTranspose)) else 0)
    given = usual is None or attributes != write_attributes(what, kind, usual, scope)
    out = bytearray((_IDS[kind] | WIRED * wired | BIAS * (len(weights) > len(WEIGHTS.get(kind, ()))) | GIVEN * given,))
    if wired:
        out += b"" if node.arity is not None else varint(len(node.inputs))
        for operand in node.inputs:
            out += _write_operand(what, operand, values, kind, scope)
    for name in weights:
        out += varint(scope.number(name))
    return bytes(out + attributes if given else out)


def _write_operand(what: str, operand: Operand, values: int, kind: type[Node], scope: OperatorContext) -> bytes:
    if not _is_tagged(kind):
        assert isinstance(operand, int)  # as Graph.shapes has made sure
        return varint(values - 1 - operand)
    if isinstance(operand, str):
        return varint(4 * scope.number(operand) + TENSOR)
    if isinstance(operand, int):
        return varint(4 * (values - 1 - operand) + VALUE)
    return varint(CONSTANT) + write_real(f"{what} constant", operand)


def _is_tagged(kind: type[Node]) -> bool:
    return kind.takes_tensors or kind.takes_constants


def _read_node(cursor: Cursor, number: int, values: int, scope: OperatorContext, tensors: Mapping[str, Shape]) -> Node:
    head = cursor.u8("operator")
    kind: Any = OPERATORS.get(head & OPERATOR_MASK)
    if kind is None:
        raise EncodingError("operator", got=head & OPERATOR_MASK, expected="a known operator's id")
    what = f"node {number} ({kind.kind})"
    usual: tuple[Operand, ...] = (values - 1,)
    inputs = _read_operands(cursor, what, values, kind, scope) if head & WIRED else usual
    if (inputs == usual) == bool(head & WIRED):
        raise EncodingError(f"{what} inputs", got="the default spelled out", expected="the shortest form")
    if head & BIAS and kind not in WEIGHTS:
        raise EncodingError(what, got="a bias", expected="none")
    fields: dict[str, Any] = {
        field: scope.name(f"{what} {field}", cursor.varint(f"{what} {field}", layout.MAX_TENSORS))
        for field in (*WEIGHTS.get(kind, ()), *(("bias",) if head & BIAS else ()))
    }
    scope.count = len(tensors[fields["weight"]]) - 2 if kind in (Conv, ConvTranspose) else 0
    if scope.count < 0:
        raise ShapeError(f"{what} weight", got=tensors[fields["weight"]], expected="rank 3 or 4")
    attributes = defaults(kind, scope.count)
    if head & GIVEN:
        found = read_attributes(what, kind, cursor, scope)
        if found == attributes:
            raise EncodingError(what, got="the default attributes spelled out", expected="the shortest form")
        attributes = found
    if attributes is None:
        raise EncodingError(what, got="no attributes", expected=", ".join(ATTRIBUTES[kind]))
    node: Node = kind(inputs, **fields, **dict(zip(ATTRIBUTES.get(kind, ()), attributes, strict=True)))
    return node


def _read_operands(
    cursor: Cursor, what: str, values: int, kind: type[Node], scope: OperatorContext
) -> tuple[Operand, ...]:
    count = cursor.varint(f"{what} inputs", layout.MAX_INPUTS) if kind.arity is None else kind.arity
    if not _is_tagged(kind):
        return tuple(_back(cursor, f"{what} input", values) for _ in range(count))
    operands: list[Operand] = []
    for _ in range(count):
        number, tag = divmod(cursor.varint(f"{what} input", 4 * _MAX_BACK), 4)
        if tag == VALUE:
            operands.append(_earlier(f"{what} input", number, values))
        elif tag == TENSOR:
            operands.append(scope.name(f"{what} input", number))
        elif tag == CONSTANT and number == 0:
            operands.append(read_real(f"{what} constant", cursor))
        else:
            raise EncodingError(f"{what} input", got=4 * number + tag, expected="a value, a tensor or a constant")
    return tuple(operands)


def _back(cursor: Cursor, what: str, values: int) -> int:
    """Read a value's distance from the last of `values`, and return its number."""
    return _earlier(what, cursor.varint(what, _MAX_BACK), values)


def _earlier(what: str, back: int, values: int) -> int:
    if back >= values:
        raise GraphError(what, got=values - 1 - back, expected=f"0 to {values - 1}")
    return values - 1 - back
