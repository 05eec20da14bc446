"""Divides a graph into segments that the kernels run, and nodes between them.

A segment is a run of nodes that reads one value and whose last node makes the only value that others read. It is a
network of its own, of the operators and ranks that `network` takes. Values with leading dimensions run as if these were
part of the batch, and values with one spatial dimension as images of one line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TypeVar

from dcformat.graph import (
    AvgPool,
    Concat,
    Conv,
    Flatten,
    Graph,
    Linear,
    MaxPool,
    Node,
    Pad,
    Reduce,
    Shape,
    Softmax,
)
from dcformat.model import Tensor
from dcformat.records import record, replace
from dcformat_runtime.network import runs
from dcformat_runtime.weight_matrices import Matrix

Weight = TypeVar("Weight", Matrix, Tensor)

#: A segment that has not come down to one value after this many nodes is abandoned.
_LOOKAHEAD = 256


@record
class Segment:
    """Nodes `start` to `stop - 1` of a graph as a network of their own.

    It reads value `source` and makes value `target`. Of each input, `lead` (a product of dimensions) images are run.
    `lines`: the names of the weights whose kernels need a second dimension.
    """

    start: int
    stop: int
    source: int
    target: int
    lead: int
    graph: Graph
    lines: tuple[str, ...]

    @property
    def values(self) -> tuple[int, ...]:
        """The values that the segment reads."""
        return (self.source,)


class _View:
    """How a segment sees values: without their first dimensions `lead`, and with a height of 1 if there are `lines`."""

    def __init__(self, lead: Shape, lines: bool) -> None:
        self.lead, self.lines = lead, lines

    def shape(self, shape: Shape) -> Shape | None:
        """Return what a segment sees of a shape; None if it cannot be part of the segment."""
        if shape[: len(self.lead)] != self.lead:
            return None
        rest = shape[len(self.lead) :]
        if len(rest) == 1 and not self.lines:
            return rest
        if len(rest) == 2 and self.lines:
            return (rest[0], 1, rest[1])
        return rest if len(rest) == 3 and not self.lines else None

    def node(self, node: Node, shapes: Sequence[Shape], out: Shape) -> Node | None:
        """Return a node as a layer of a network for these shapes; None if it cannot be one."""
        seen = [self.shape(shape) for shape in shapes]
        known = [shape for shape in seen if shape is not None]
        joins = isinstance(node, (Flatten, Reduce)) and not self.lead and not self.lines
        made = out if joins else self.shape(out)
        if made is None or len(known) < len(seen):
            return None
        if isinstance(node, Softmax) and node.axis is not None:
            return None
        if isinstance(node, Concat):
            if node.axis != len(self.lead):
                return None
            node = replace(node, axis=0)
        elif isinstance(node, (Flatten, Reduce)) and not joins:
            return None
        elif isinstance(node, (Conv, MaxPool, AvgPool)):
            if len(node.stride) != 2 - self.lines:
                return None
            if self.lines:
                ones = {"kernel": 1, "stride": 1, "dilation": 1, "padding": 0, "padding_end": 0}
                fields = {name: (size, *getattr(node, name)) for name, size in ones.items() if hasattr(node, name)}
                node = replace(node, **fields)
        return node if runs(node, known, made) else None


def seen_by(segment: Segment, tensors: Mapping[str, Weight]) -> dict[str, Weight]:
    """Return the weights and biases of a segment with the shapes that it sees."""
    seen = {name: tensors[name] for node in segment.graph.nodes for name in node.tensors}
    for name in segment.lines:
        out, channels, width = seen[name].shape
        seen[name] = replace(seen[name], shape=(out, channels, 1, width))
    return seen


def evenly_padded(graph: Graph, shapes: Sequence[Shape]) -> tuple[Graph, Sequence[Shape]]:
    """Return the graph with a `Pad` before each window whose padding differs at both ends, and the values' shapes."""
    pads = [_pad_before(node, shapes) for node in graph.nodes]
    if not any(pads):
        return graph, shapes
    first = len(graph.inputs)
    padded = list(shapes[:first])
    numbers = list(range(first))  # for each value of `graph`, its number in the result
    nodes: list[Node] = []
    for original, pad, shape in zip(graph.nodes, pads, shapes[first:], strict=True):
        node = replace(original, inputs=tuple(numbers[v] if isinstance(v, int) else v for v in original.inputs))
        if pad is not None and isinstance(node, Conv | MaxPool | AvgPool):
            nodes.append(replace(pad, inputs=node.inputs))
            padded.append(pad.output_shape([padded[node.values[0]]], {}))
            none = (0,) * len(node.padding)
            node = replace(node, inputs=(first + len(nodes) - 1,), padding=none, padding_end=none)
        nodes.append(node)
        padded.append(shape)
        numbers.append(first + len(nodes) - 1)
    outputs = tuple(replace(output, value=numbers[output.value]) for output in graph.outputs)
    return Graph(graph.inputs, tuple(nodes), outputs, graph.preprocessing), padded


def _pad_before(node: Node, shapes: Sequence[Shape]) -> Pad | None:
    if not isinstance(node, (Conv, MaxPool, AvgPool)) or node.padding == node.padding_end:
        return None
    value = 0.0
    if isinstance(node, MaxPool):
        value = float("-inf")
    elif isinstance(node, AvgPool) and not node.count_include_pad:
        return None
    if isinstance(node, (MaxPool, AvgPool)) and node.ceil_mode:
        return None
    none = (0,) * (len(shapes[node.values[0]]) - len(node.padding))
    return Pad(node.inputs, none + node.padding, none + node.padding_end, "constant", value)


def last_readers(graph: Graph) -> list[int]:
    """Return the number of the last node that reads each value: -1 for none, and a number beyond all for an output."""
    last = [-1] * (len(graph.inputs) + len(graph.nodes))
    for number, node in enumerate(graph.nodes):
        for value in node.values:
            last[value] = number
    for output in graph.outputs:
        last[output.value] = len(graph.nodes)
    return last


def divide(graph: Graph, shapes: Sequence[Shape]) -> list[Segment | int]:
    """Return segments, and the numbers of the nodes between them, in execution order.

    Parameters
    ----------
    graph : Graph
        A graph whose padding is even (`evenly_padded`).
    shapes : sequence of tuple of int
        The shape of every value.
    """
    last = last_readers(graph)
    steps: list[Segment | int] = []
    number = 0
    while number < len(graph.nodes):
        segment = _segment(graph, shapes, last, number)
        steps.append(number if segment is None else segment)
        number = number + 1 if segment is None else segment.stop
    return steps


def _segment(graph: Graph, shapes: Sequence[Shape], last: Sequence[int], start: int) -> Segment | None:
    """Return the longest segment that begins with node `start`."""
    view = _view(graph.nodes[start], shapes)
    if view is None or len(set(graph.nodes[start].values)) != 1:
        return None
    first, source = len(graph.inputs), graph.nodes[start].values[0]
    numbers = {source: 0}
    nodes: list[Node] = []
    open_values: set[int] = set()
    best = 0
    for number in range(start, len(graph.nodes)):
        node = graph.nodes[number]
        viewed = view.node(node, [shapes[value] for value in node.values], shapes[first + number])
        if viewed is None or any(value not in numbers for value in node.values) or len(nodes) > best + _LOOKAHEAD:
            break
        operands = tuple(numbers[value] if isinstance(value, int) else value for value in viewed.inputs)
        nodes.append(replace(viewed, inputs=operands))
        numbers[first + number] = len(nodes)
        open_values = {value for value in (*open_values, first + number) if last[value] > number}
        if open_values == {first + number}:
            best = len(nodes)
    del nodes[best:]
    shape = view.shape(shapes[source])
    if shape is None or not any(isinstance(node, (Linear, Conv)) for node in nodes):
        return None  # operators without weights cost less outside the kernels
    lines = {node.weight for node in nodes if view.lines and isinstance(node, Conv)}
    stop = start + best
    graph = Graph.sequential(shape, nodes)
    return Segment(start, stop, source, first + stop - 1, prod(view.lead), graph, tuple(sorted(lines)))


def _view(node: Node, shapes: Sequence[Shape]) -> _View | None:
    """Return how a segment that begins with a node sees values."""
    if not node.values:
        return None
    shape = shapes[node.values[0]]
    spatial = {Linear: 0, Softmax: 0}.get(type(node))
    if isinstance(node, Conv | MaxPool | AvgPool):
        spatial = len(node.stride)
    if spatial is None:
        return _View((), False) if len(shape) in (1, 3) else None
    return _View(shape[: len(shape) - spatial - 1], spatial == 1)
