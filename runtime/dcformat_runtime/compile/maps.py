"""Makes one compiled pass (`kernels.map_kernel`) of consecutive nodes that treat each element alike.

A map reads arrays like its result, or arrays that broadcast to it, and only the value that it makes last is read by
others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from dcformat.graph import Conv, Graph, Linear, MatMul, Normalize, Reduce, Shape, Softmax
from dcformat.records import record
from dcformat_runtime.compile.map_builder import MapBuilder, MapCode
from dcformat_runtime.elementwise_layers import is_elementwise
from dcformat_runtime.kernels import map_functions, map_kernel
from dcformat_runtime.segments import Segment, last_readers

#: Maximum number of registers of a map, and of nodes.
REGISTERS, _NODES = 24, 64
#: The bytes of registers that a call takes.
REGISTER_BYTES = 4 * REGISTERS * map_functions.BLOCK

#: The size of an outermost dimension, which no index exceeds.
_UNBOUNDED = 1 << 62
#: Nodes whose results have memory of their own.
_COPYING = (MatMul, Linear, Conv, Softmax, Normalize, Reduce)


@record(eq=False)
class MapSource:
    """An array that a map reads: a value or a tensor, with the number of its elements (of one input, for a value).

    `like` is set if the array has the shape of the result.
    """

    operand: int | str
    size: int
    like: bool


@record(eq=False)
class Map:
    """Nodes `start` to `stop - 1` of a graph, which make value `target` in one pass.

    `sources` are the arrays that the loads of `code` number.
    """

    start: int
    stop: int
    target: int
    sources: tuple[MapSource, ...]
    code: MapCode

    @property
    def values(self) -> tuple[int, ...]:
        """The values that the map reads."""
        return tuple(source.operand for source in self.sources if isinstance(source.operand, int))


def join(
    graph: Graph, shapes: Sequence[Shape], tensors: Mapping[str, Shape], steps: Sequence[Segment | int]
) -> list[Segment | Map | int]:
    """Return the steps of `segments.divide` with maps in place of the nodes that are part of one.

    Parameters
    ----------
    graph : Graph
    shapes : sequence of tuple of int
        The shape of every value.
    tensors : mapping of str to tuple of int
        The shapes of the tensors.
    steps : sequence of Segment or int
    """
    last = last_readers(graph)
    joined: list[Segment | Map | int] = []
    stop = 0
    for place, step in enumerate(steps):
        if isinstance(step, Segment):
            joined.append(step)
        elif step >= stop:
            end = step
            while place + end - step < len(steps) and steps[place + end - step] == end:
                end += 1
            found = _longest(graph, shapes, tensors, last, step, end)
            joined.append(step if found is None else found)
            stop = step + 1 if found is None else found.stop
    return joined


def _longest(
    graph: Graph, shapes: Sequence[Shape], tensors: Mapping[str, Shape], last: Sequence[int], start: int, end: int
) -> Map | None:
    """Return the longest map that begins with node `start` and ends before node `end`, or None without one."""
    first = len(graph.inputs)
    shape = shapes[first + start]
    sources: dict[int | str, MapSource] = {}

    def dimensions(operand: int | str) -> list[tuple[int, int]]:
        own = shapes[operand] if isinstance(operand, int) else tensors[operand]
        found = _dimensions(own, shape, isinstance(operand, int))
        sources[operand] = MapSource(operand, prod(own), not found)
        return found

    builder, best = MapBuilder(dimensions), None
    for number in range(start, min(end, start + _NODES)):
        node, value = graph.nodes[number], first + number
        if shapes[value] != shape or not is_elementwise(node):
            break
        builder.add(node, value)
        alone = all(last[made] <= number for made in range(first + start, value)) and last[value] >= 0
        if alone and 0 < len(sources) <= map_kernel.SOURCES:
            code = builder.finish(value)
            if code.registers <= REGISTERS:
                best = Map(start, number + 1, value, tuple(sources.values()), code)
    return best


def overwritable(graph: Graph, steps: Sequence[Segment | Map | int]) -> frozenset[int]:
    """Return the values whose memory holds nothing else, so that the last map that reads one may overwrite it."""
    made = {step.target for step in steps if not isinstance(step, int)}
    for step in steps:
        if isinstance(step, int) and isinstance(graph.nodes[step], _COPYING):
            made.add(len(graph.inputs) + step)
        elif isinstance(step, int):
            made.difference_update(graph.nodes[step].values)
    return frozenset(made)


def _dimensions(shape: Shape, result: Shape, batched: bool) -> list[tuple[int, int]]:
    """Return the sizes and strides of an operand over a result with a batch, the innermost first, as few as possible.

    None are needed for an operand like the result. The innermost stride is 0 or 1.
    """
    sizes = (1,) * (len(result) - len(shape)) + shape
    merged: list[tuple[int, int]] = []
    stride = 1
    for size, own in zip(reversed(result), reversed(sizes), strict=True):
        if size > 1:
            _merge(merged, size, stride if own > 1 else 0)
        stride *= own
    _merge(merged, 1, stride if batched else 0)  # the batch
    merged[-1] = (_UNBOUNDED, merged[-1][1])
    return [] if len(merged) == 1 and merged[0][1] == 1 else merged


def _merge(merged: list[tuple[int, int]], size: int, stride: int) -> None:
    """Add a dimension outside the others; it joins the last one if it continues where that ends."""
    if merged and stride == merged[-1][1] * merged[-1][0]:
        merged[-1] = (merged[-1][0] * size, merged[-1][1])
    else:
        merged.append((size, stride))
