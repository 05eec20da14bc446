"""Mutates a file's graph: its input, its preprocessing, its operators and their wiring."""

from __future__ import annotations

from random import Random

from dcformat import layout
from fuzz import container
from fuzz.container import File, GraphPart, Node, ParseError
from fuzz.primitives import FLOATS, number


def change_graph(random: Random, file: File) -> None:
    """Make one to three changes to a file's graph, which is added if there is none."""
    body = file.section(layout.SECTION_GRAPH)
    try:
        graph = container.parse_graph(body) if body else _small_graph(random, file)
    except ParseError:
        return
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        random.choice((_graph_input, _graph_floats, _graph_node, _graph_node, _graph_nodes))(random, file, graph)
    file.put(layout.SECTION_GRAPH, graph.body())


def _small_graph(random: Random, file: File) -> GraphPart:
    """Return a graph whose input fits the first matrix, if there is one."""
    for at, entry in enumerate(file.entries):
        if len(entry.dims) == 2:
            return GraphPart([entry.dims[1]], [], [Node(1, None, [at])])
        if len(entry.dims) == 4:
            return GraphPart([entry.dims[1], entry.dims[2] + 3, entry.dims[3] + 2], [], [Node(2, None, [at])])
    return GraphPart([random.randrange(1, 5)], [], [Node(3)])


def _graph_input(random: Random, file: File, graph: GraphPart) -> None:
    what = random.randrange(4)
    if what < 2 and graph.shape:
        at = random.randrange(len(graph.shape))
        graph.shape[at] = number(random, graph.shape[at])
    elif what == 2:
        graph.shape = [random.choice((1, 2, 3, 8, 1 << 20)) for _ in range(random.randrange(5))]
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
        node.op = random.randrange(16)
    elif what == 1:
        node.inputs = random.choice((None, [number(random, 1) for _ in range(random.randrange(4))], [0, 0], [1, 0]))
    elif what == 2 and node.tensors:
        node.tensors[random.randrange(len(node.tensors))] = number(random, random.randrange(len(file.entries) + 1))
    elif what == 3:
        node.tensors = [random.randrange(len(file.entries) + 1) for _ in range(random.randrange(3))]
    elif what == 4:
        node.flags = random.choice((0, 32, 64, 128))
    else:
        values = list(node.attributes or (2, 2, 2, 2, 0, 0, 0))
        at = random.randrange(len(values))
        values[at] = number(random, values[at])
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


def _new_node(random: Random, file: File) -> Node:
    op = random.randrange(1, 12)
    tensors = [random.randrange(len(file.entries) + 1) for _ in range(random.choice((1, 2)))] if op < 3 else []
    inputs = [random.randrange(3) for _ in range(2)] if op in (9, 10) else None
    attributes = [random.randrange(1, 4) for _ in range(4)] + [random.getrandbits(1) for _ in range(3)]
    return Node(op, inputs, tensors, attributes if op in (2, 4, 5) and random.getrandbits(1) else None)
