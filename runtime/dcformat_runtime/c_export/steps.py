"""Joins the nodes of a graph into the steps of a C program.

A step is a node, with the max pool, limits and (in fixed point) quantisation that follow it. It also says in which
order the runtime's deterministic mode adds the sums of that node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from dcformat import graph as ops
from dcformat.errors import GraphError
from dcformat.graph import Graph, Node, Shape
from dcformat.graph.node import as_float32
from dcformat_runtime.network import takes_rows
from dcformat_runtime.segments import Segment, divide, evenly_padded

#: The kinds of steps by their first node.
_KINDS: dict[type[Node], str] = {
    ops.Linear: "linear", ops.Conv: "conv", ops.MaxPool: "max_pool", ops.AvgPool: "mean_pool", ops.Reduce: "reduce",
    ops.Softmax: "softmax", ops.ReLU: "elementwise", ops.Unary: "elementwise", ops.Binary: "elementwise",
    ops.Quantize: "elementwise",
    ops.Flatten: "alias", ops.Reshape: "alias", ops.Concat: "move", ops.Pad: "move", ops.Slice: "move",
    ops.Transpose: "move",
}  # fmt: skip
#: Kinds whose results pass through a finishing function, which can limit and quantise them.
_FINISHED = ("linear", "conv", "add")


@dataclass(frozen=True)
class FusedStep:
    """A node and the nodes that join it.

    Attributes
    ----------
    kind : str
        One of the kinds of this module.
    node : Node
        The first node; its operands are those of the step.
    number : int
        The number of that node.
    target : int
        The value that the last node makes.
    pool : MaxPool or None
        The max pool that joins a convolution.
    limits : tuple of float
        The range to which results are limited.
    quantize : Quantize or None
        The quantisation of the results (fixed point only).
    functions : tuple of Node
        In an elementwise step in fixed point: the functions of one value that follow, which one table computes.
    segment : bool
        Whether the runtime computes the node in a segment, where means and softmax have another order of sums.
    """

    kind: str
    node: Node
    number: int
    target: int
    pool: ops.MaxPool | None = None
    limits: tuple[float, float] = (-inf, inf)
    quantize: ops.Quantize | None = None
    functions: tuple[Node, ...] = ()
    segment: bool = False

    @property
    def sources(self) -> tuple[int, ...]:
        """The values that the step reads."""
        return self.node.values


def find_steps(graph: Graph, tensors: Mapping[str, Shape], fixed: bool) -> list[FusedStep]:
    """Return the steps of a graph in execution order.

    Parameters
    ----------
    graph : Graph
    tensors : mapping of str to tuple of int
        The shape of every tensor.
    fixed : bool
        Whether the program computes in fixed point, where a `Quantize` is part of the step that makes its operand.

    Raises
    ------
    GraphError
        The network has several inputs or outputs, or an operator that the export does not have.
    """
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        found = f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs"
        raise GraphError("export of C", got=found, expected="a network with one input and one output")
    shapes = graph.shapes(tensors)
    readers = _readers(graph, len(shapes))
    segments = _in_segments(graph, shapes)
    steps: list[FusedStep] = []
    joined: set[int] = set()
    for number, node in enumerate(graph.nodes):
        if number in joined:
            continue
        step = FusedStep(_kind(node, number), node, number, number + 1, segment=number in segments)
        while (reader := readers[step.target]) is not None:
            longer = _join(step, graph.nodes[reader], reader, fixed)
            if longer is None:
                break
            joined.add(reader)
            step = longer
        steps.append(step)
    return steps


def _kind(node: Node, number: int) -> str:
    if isinstance(node, ops.Add):
        return "add" if len(node.inputs) == len(node.values) == 2 else "elementwise"
    if type(node) not in _KINDS:
        raise GraphError(f"node {number}", got=node.kind, expected="an operator that `export c` has")
    return _KINDS[type(node)]


def _readers(graph: Graph, values: int) -> list[int | None]:
    """Return for each value the number of its only reader; None if there are several, or if it is an output."""
    counts, last = [0] * values, [0] * values
    for number, node in enumerate(graph.nodes):
        for value in node.values:
            counts[value] += 1
            last[value] = number
    counts[graph.outputs[0].value] += 2
    return [last[value] if counts[value] == 1 else None for value in range(values)]


def _join(step: FusedStep, node: Node, number: int, fixed: bool) -> FusedStep | None:
    """Return the step with `node` at its end; None if they cannot be joined."""
    if fixed and step.kind == "elementwise" and is_function(step.node) and is_function(node):
        return replace(step, target=number + 1, functions=(*step.functions, node))
    if step.kind not in _FINISHED or step.quantize is not None:
        return None
    limits = limits_of(node, step.limits)
    if limits is not None:
        return replace(step, target=number + 1, limits=limits)
    if isinstance(node, ops.Quantize) and fixed:
        return replace(step, target=number + 1, quantize=node)
    if isinstance(node, ops.MaxPool) and step.kind == "conv" and step.pool is None and _tiles(node):
        return replace(step, target=number + 1, pool=node)
    return None


def is_function(node: Node) -> bool:
    """Return whether a node computes a function of one value."""
    known = isinstance(node, (ops.ReLU, ops.Unary, ops.Binary, ops.Quantize, ops.Add))
    return known and len(node.values) == 1 and not any(isinstance(operand, str) for operand in node.inputs)


def limits_of(node: Node, limits: tuple[float, float]) -> tuple[float, float] | None:
    """Return the range to which results are limited by a node after other limits; None if the node does more."""
    low, high = limits
    bound = next((as_float32(x) for x in node.inputs if isinstance(x, float)), 0.0)
    match node:
        case ops.ReLU():
            return max(low, 0.0), max(high, 0.0)
        case ops.Binary(function="minimum") if is_function(node):
            return min(low, bound), min(high, bound)
        case ops.Binary(function="maximum") if is_function(node):
            return max(low, bound), max(high, bound)
    return None


def _tiles(node: ops.MaxPool) -> bool:
    """Return whether the windows of a pool lie side by side, so that no sum of a convolution is in two of them."""
    return node.stride == node.kernel and not (any(node.padding) or any(node.padding_end) or node.ceil_mode)


def _in_segments(graph: Graph, shapes: Sequence[Shape]) -> set[int]:
    """Return the numbers of the nodes that the runtime computes in segments."""
    if takes_rows(graph, shapes):
        return set(range(len(graph.nodes)))
    padded, inside = evenly_padded(graph, shapes)
    origin: dict[int, int] = {}  # for each node of `padded` that was not inserted, its number in `graph`
    for place, node in enumerate(padded.nodes):
        if type(node) is type(graph.nodes[len(origin)]):
            origin[place] = len(origin)
    segments = [part for part in divide(padded, inside) if isinstance(part, Segment)]
    return {origin[place] for part in segments for place in range(part.start, part.stop) if place in origin}
