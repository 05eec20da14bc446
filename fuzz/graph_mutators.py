"""Mutates a file's graph: its input, its preprocessing, its operators and their wiring."""

from __future__ import annotations

from random import Random

from dcformat import layout
from fuzz import graph_parts
from fuzz.container import File, ParseError
from fuzz.graph_parts import ATTRIBUTES, OPERANDS, TAGGED, WEIGHTS, GraphPart, Node, Part, PortPart, short
from fuzz.primitives import FLOATS, number


def change_graph(random: Random, file: File) -> None:
    """Make one to three changes to a file's graph, which is added if there is none."""
    body = file.section(layout.SECTION_GRAPH)
    try:
        ranks = [len(entry.dims) for entry in file.entries]
        graph = graph_parts.parse(body, ranks) if body else _small_graph(random, file)
    except ParseError:
        return
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        random.choice(_CHANGES)(random, file, graph)
    file.put(layout.SECTION_GRAPH, graph.body())


def _small_graph(random: Random, file: File) -> GraphPart:
    """Return a graph whose input fits the first matrix, if there is one."""
    for at, entry in enumerate(file.entries):
        if len(entry.dims) == 2:
            return short([entry.dims[1]], [Node(1, None, [at])])
        if len(entry.dims) == 4:
            return short([entry.dims[1], entry.dims[2] + 3, entry.dims[3] + 2], [Node(2, None, [at])])
    return short([random.randrange(1, 5)], [Node(3)])


def _graph_input(random: Random, file: File, graph: GraphPart) -> None:
    what = random.randrange(4)
    if what < 2 and graph.shape:
        at = random.randrange(len(graph.shape))
        graph.shape[at] = number(random, graph.shape[at])
    elif what == 2:
        graph.shape[:] = [random.choice((1, 2, 3, 8, 1 << 20)) for _ in range(random.randrange(5))]
    else:
        graph.nodes = graph.nodes[: random.randrange(len(graph.nodes) + 1)]


def _graph_floats(random: Random, file: File, graph: GraphPart) -> None:
    if random.getrandbits(1) and graph.floats:
        graph.floats[random.randrange(len(graph.floats))] = random.choice(FLOATS)
    else:
        count = random.choice((0, 1, 1, graph.shape[0] if graph.shape and graph.shape[0] < 99 else 2))
        graph.floats = [random.choice(FLOATS) for _ in range(2 * count)]


def _graph_node(random: Random, file: File, graph: GraphPart) -> None:
    if not graph.nodes:
        return
    node = random.choice(graph.nodes)
    what = random.randrange(6)
    if what == 0:
        node.op = random.randrange(32)
    elif what == 1:
        operands = _operands(random, node.op)
        node.inputs = random.choice((None, operands, operands, list[Part]((1, 0))))
    elif what == 2 and node.tensors:
        node.tensors[random.randrange(len(node.tensors))] = number(random, random.randrange(len(file.entries) + 1))
    elif what == 3:
        node.tensors = [random.randrange(len(file.entries) + 1) for _ in range(random.randrange(4))]
    elif what == 4:
        node.flags = random.choice((0, 32, 64, 128))
    else:
        values = list(node.attributes or _attributes(random, node.op))
        if values:
            at = random.randrange(len(values))
            old = values[at]
            values[at] = number(random, old) if isinstance(old, int) else random.choice(FLOATS)
        node.attributes = values if random.randrange(8) else None


def _graph_nodes(random: Random, file: File, graph: GraphPart) -> None:
    at = random.randrange(len(graph.nodes) + 1)
    what = random.randrange(5)
    if what == 0:
        graph.nodes.insert(at, _new_node(random, file))
    elif what == 1 and graph.nodes:
        del graph.nodes[at - 1]
    elif what == 2:
        random.shuffle(graph.nodes)
    elif what == 3:
        # A chain that doubles at each node, or repeats one layer.
        node = random.choice((Node(10, [0, 0]), Node(9, [0, 0]), Node(3), Node(11), _new_node(random, file)))
        graph.nodes[at:at] = [node] * random.choice((2, 5, 19, 41, 300))
    elif graph.nodes:
        graph.nodes.insert(at, random.choice(graph.nodes))


def _graph_ports(random: Random, file: File, graph: GraphPart) -> None:
    """Change an input or output; a graph with the short interface gets the long one first."""
    if graph.outputs is None:
        graph.outputs = [PortPart(b"output", 16, [0])]
    ports = random.choice((graph.inputs, graph.outputs))
    what = random.randrange(5)
    if what == 0:
        ports.append(PortPart(random.choice((b"x", b"input", b"", b"n" * 256)), random.randrange(160), [1]))
    elif not ports:
        return
    elif what == 1:
        ports.pop()
    elif what == 2:
        random.choice(ports).kind = random.choice((0, 16, 17, 23, 32, 144, random.randrange(256)))
    elif what == 3:
        random.choice(ports).name = random.choice((b"", b"input", b"output", b"\xff", b"state"))
    else:
        port = random.choice(ports)
        port.numbers = [number(random, n) for n in port.numbers]


def _new_node(random: Random, file: File) -> Node:
    op = random.randrange(1, 27)
    count = WEIGHTS.get(op, 0)
    tensors = [random.randrange(len(file.entries) + 1) for _ in range(random.choice((count, count + 1)))]
    inputs = _operands(random, op) if OPERANDS.get(op, 1) != 1 else None
    attributes = _attributes(random, op) if random.getrandbits(1) else []
    return Node(op, inputs, tensors if count else [], attributes or None)


def _operands(random: Random, op: int) -> list[Part]:
    out: list[Part] = []
    for _ in range(OPERANDS.get(op, 1) or random.randrange(4)):
        if op in TAGGED:
            out.append(random.choice((0, 0, 4, 1, 5, 2)))
            if out[-1] == 2:
                out.append(random.choice(FLOATS))
        else:
            out.append(number(random, random.randrange(2)))
    return out


def _attributes(random: Random, op: int) -> list[Part]:
    """Return attributes that an operator could have, more or less."""
    count = random.choice((1, 2, 2, 3))
    out: list[Part] = []
    for coding in ATTRIBUTES.get(op, ""):
        out += [count] if coding == "l" else []
        for _ in range(count if coding in "lef" else 1):
            out.append(random.choice(FLOATS) if coding in "rf" else random.randrange(4))
    return out


_CHANGES = (_graph_input, _graph_floats, _graph_node, _graph_node, _graph_nodes, _graph_ports)
