"""Predicts the memory and the work of a graph that `GraphEngine` runs: that of its segments, and of the nodes between.

As `memory_prediction` and `work_prediction` do for a network, this decodes nothing, and gives upper bounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

from dcformat.graph import Conv, ConvTranspose, Graph, Linear, MatMul, Node, Shape
from dcformat_runtime.compile import memory_prediction, work_prediction
from dcformat_runtime.compile.maps import REGISTER_BYTES
from dcformat_runtime.compile.memory_prediction import MemoryRow, Prediction
from dcformat_runtime.network import outline
from dcformat_runtime.segments import Segment, divide, evenly_padded, seen_by
from dcformat_runtime.weight_matrices import Matrix

#: Temporary bytes for each element of a node's operands and result: float64 copies, indices, or the batch broadcast.
_ELEMENT = 32
#: Maximum number of bytes of windows that a convolution copies at a time, beside those of one image.
_WINDOWS = 16 << 20
#: The steps of an element of an operator in NumPy, and of a call.
_STEPS, _CALL = 32, 1 << 12


class GraphPrediction(NamedTuple):
    """The memory (`memory`), and the steps to make a graph ready (`making`) and to run one input (`running`)."""

    memory: Prediction
    making: int
    running: int


def predict(
    graph: Graph, shapes: Sequence[Shape], tensors: Mapping[str, Matrix], held: int, threads: int | None, backend: str,
    exact: bool,
) -> GraphPrediction:  # fmt: skip
    """Predict the memory and the work of a graph whose values have `shapes` (`network.check_graph`).

    See `memory_prediction.predict` for the other parameters.
    """
    graph, shapes = evenly_padded(graph, shapes)
    rows = {"tensors as the file holds them": held, "layers and their operators": 0, "weights as dense float32": 0}
    call = words = making = running = 0
    used = 1
    dense: set[str] = set()
    for step in divide(graph, shapes):
        if isinstance(step, Segment):
            network = outline(step.graph, seen_by(step, tensors))
            part = memory_prediction.predict(network, 0, threads, backend, exact, None)
            for row in part.rows:
                rows[row.what] = rows.get(row.what, 0) + row.bytes
            call = max(call, step.lead * part.call)
            words, used = max(words, part.words), max(used, part.threads)
            making += work_prediction.making_steps(network)
            running += step.lead * work_prediction.steps(network, backend, exact)
        else:
            node = graph.nodes[step]
            sizes = [prod(shapes[value]) for value in node.values]
            sizes += [tensors[name].size for name in node.tensors] + [prod(shapes[len(graph.inputs) + step])]
            call = max(call, _ELEMENT * sum(sizes) + _windows(node, sizes[-1], tensors))
            dense.update(node.tensors)
            running += _CALL + _work(node, shapes, sizes, tensors)
    rows["weights as dense float32"] += sum(4 * tensors[name].size for name in dense)
    rows["layers and their operators"] += (len(graph.nodes) << 14) + REGISTER_BYTES
    making += len(graph.nodes) << 12
    call += 4 * _alive(graph, shapes)
    rows["a call with one input"] = call
    memory = [MemoryRow(what, size) for what, size in rows.items()]
    return GraphPrediction(Prediction(tuple(memory), call, used, words), making, running)


def _windows(node: Node, out: int, tensors: Mapping[str, Matrix]) -> int:
    """Return the bytes of the windows that a convolution copies."""
    if not isinstance(node, (Conv, ConvTranspose)):
        return 0
    matrix = tensors[node.weight]
    return _WINDOWS + 4 * (matrix.size // matrix.rows) * out // (matrix.rows if isinstance(node, Conv) else 1)


def _work(node: Node, shapes: Sequence[Shape], sizes: Sequence[int], tensors: Mapping[str, Matrix]) -> int:
    """Return the steps of one node outside the segments."""
    total = _STEPS * sum(sizes)
    if isinstance(node, (Conv, Linear)):
        matrix = tensors[node.weight]
        total += sizes[-1] * (matrix.size // matrix.rows)
    elif isinstance(node, ConvTranspose):
        matrix = tensors[node.weight]
        total += sizes[0] * (matrix.size // matrix.rows)
    elif isinstance(node, MatMul):
        first = node.inputs[0]
        inner = shapes[first][-1] if isinstance(first, int) else tensors[str(first)].shape[-1]
        total += sizes[-1] * inner
    elif node.tensors and hasattr(node, "recurrent_weight"):
        total += shapes[node.values[0]][0] * sum(tensors[name].size for name in node.tensors)
    return total


def _alive(graph: Graph, shapes: Sequence[Shape]) -> int:
    """Return the maximum number of elements of values that are alive at a time."""
    first = len(graph.inputs)
    last = {value: number for number, node in enumerate(graph.nodes) for value in node.values}
    kept = {output.value for output in graph.outputs}
    ends: dict[int, int] = {}
    for value, number in last.items():
        if value not in kept:
            ends[number] = ends.get(number, 0) + prod(shapes[value])
    alive = peak = sum(prod(shape) for shape in shapes[:first])
    for number in range(len(graph.nodes)):
        alive += prod(shapes[first + number])
        peak = max(peak, alive)
        alive -= ends.get(number, 0)
    return peak
