"""Takes a graph section apart into fields that a mutator can change, and builds it again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dcformat.cursor import varint
from fuzz.container import Scan, text_field

#: The first byte of a graph whose inputs and outputs are spelled out.
LONG = 8
WIRED, BIAS, SPELLED = 32, 64, 128
#: The tensors of operators with weights, without the bias.
WEIGHTS = {1: 1, 2: 1, 17: 1, 18: 2, 19: 2}
CONVOLUTIONS = (2, 17)
#: The operands of operators that do not take exactly one; 0 stands for any number.
OPERANDS = {9: 0, 10: 0, 12: 2, 13: 3, 16: 2, 18: 0, 19: 0, 25: 2}
#: The operators whose operands may be tensors and constants.
TAGGED = (9, 10, 12, 13, 16, 25)
#: How attributes are coded: a varint (v), a float32 (r), a list of varints after its length (l), as many varints (e) or
#: floats (f) as that list has.
ATTRIBUTES = {
    2: "eeeev", 4: "leeev", 5: "leeevv", 6: "vvv", 7: "v", 10: "v", 11: "v", 12: "v", 14: "rvvv", 15: "vrv",
    17: "eeeeev", 18: "vv", 19: "vvv", 20: "l", 21: "l", 22: "vvvv", 23: "levr", 24: "l", 25: "v", 26: "lfvvv",
}  # fmt: skip

#: A varint, or raw bytes: the parts of a constant or of a float.
Part = int | bytes


def write(parts: Sequence[Part]) -> bytes:
    """Return the bytes of parts."""
    return b"".join(part if isinstance(part, bytes) else varint(part) for part in parts)


@dataclass
class Node:
    """An operator as a file holds it; if `inputs` is None, it reads the previous value."""

    op: int
    inputs: list[Part] | None = None
    tensors: list[int] = field(default_factory=list)
    attributes: list[Part] | None = None
    flags: int = 0

    def body(self) -> bytes:
        """Return the operator's bytes."""
        head = self.op & 31 | WIRED * (self.inputs is not None) | SPELLED * (self.attributes is not None) | self.flags
        if len(self.tensors) > WEIGHTS.get(self.op, 2):
            head |= BIAS
        out = bytearray((head,))
        if self.inputs is not None:
            # A constant is two parts: its tag and its number.
            count = sum(isinstance(part, int) for part in self.inputs)
            out += (varint(count) if OPERANDS.get(self.op, 1) == 0 else b"") + write(self.inputs)
        return bytes(out + write(self.tensors) + write(self.attributes or ()))


@dataclass
class PortPart:
    """An input or output: `numbers` are its dimensions, or how many values back its value is."""

    name: bytes
    kind: int
    numbers: list[int]

    def body(self, is_input: bool) -> bytes:
        """Return its bytes in the long interface."""
        rank = bytes((len(self.numbers),)) if is_input else b""
        return text_field(self.name) + bytes((self.kind & 255,)) + rank + write(self.numbers)


@dataclass
class GraphPart:
    """The graph's fields; without outputs, its interface is short, and only its input's shape is written."""

    inputs: list[PortPart]
    floats: list[bytes]
    nodes: list[Node]
    outputs: list[PortPart] | None = None

    @property
    def shape(self) -> list[int]:
        """The dimensions of the first input."""
        return self.inputs[0].numbers if self.inputs else []

    def body(self) -> bytes:
        """Return the section's body."""
        if self.outputs is None:
            out = bytearray((len(self.shape),)) + write(self.shape)
        else:
            out = bytearray((LONG,)) + varint(len(self.inputs)) + b"".join(port.body(True) for port in self.inputs)
        out += varint(len(self.floats) // 2) + b"".join(self.floats)
        out += varint(len(self.nodes)) + b"".join(node.body() for node in self.nodes)
        if self.outputs is not None:
            out += varint(len(self.outputs)) + b"".join(port.body(False) for port in self.outputs)
        return bytes(out)


def short(shape: Sequence[int], nodes: list[Node]) -> GraphPart:
    """Return a graph with the short interface."""
    return GraphPart([PortPart(b"input", 16, list(shape))], [], nodes)


def parse(body: bytes, ranks: Sequence[int]) -> GraphPart:
    """Take a graph section apart; raise `ParseError` if that fails. `ranks` are those of the tensors."""
    scan = Scan(body)
    head = scan.u8()
    if head == LONG:
        inputs = [_port(scan, True) for _ in range(scan.varint())]
    else:
        inputs = [PortPart(b"input", 16, [scan.varint() for _ in range(head)])]
    floats = [scan.take(4) for _ in range(2 * scan.varint())]
    nodes = [_node(scan, ranks) for _ in range(scan.varint())]
    outputs = [_port(scan, False) for _ in range(scan.varint())] if head == LONG else None
    return GraphPart(inputs, floats, nodes, outputs)


def _port(scan: Scan, is_input: bool) -> PortPart:
    name, kind = scan.text(), scan.u8()
    return PortPart(name, kind, [scan.varint() for _ in range(scan.u8() if is_input else 1)])


def _node(scan: Scan, ranks: Sequence[int]) -> Node:
    head = scan.u8()
    node = Node(head & 31)
    if head & WIRED:
        node.inputs = []
        for _ in range(OPERANDS.get(node.op, 1) or scan.varint()):
            node.inputs.append(scan.varint())
            if node.op in TAGGED and node.inputs[-1] == 2:
                node.inputs.append(scan.take(4))
    count = WEIGHTS.get(node.op, 0)
    if count:
        node.tensors = [scan.varint() for _ in range(count + bool(head & BIAS))]
    elif head & BIAS:
        node.flags = BIAS
    if head & SPELLED:
        first = node.tensors[0] if node.tensors else len(ranks)
        spatial = ranks[first] - 2 if node.op in CONVOLUTIONS and first < len(ranks) else 0
        node.attributes = list(_attributes(scan, ATTRIBUTES.get(node.op, ""), spatial))
    return node


def _attributes(scan: Scan, codings: str, count: int) -> Iterator[Part]:
    for coding in codings:
        if coding == "l":
            count = scan.varint()
            yield count
        for _ in range(count if coding in "lef" else 1):
            yield scan.take(4) if coding in "rf" else scan.varint()
