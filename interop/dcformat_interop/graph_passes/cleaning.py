"""Removes detours: operators that nothing reads, that undo each other, or whose work others can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from dcformat.graph import AvgPool, Conv, Flatten, MaxPool, Node, Pad, Reduce, Reshape, Shape, Transpose
from dcformat_interop.graph_builder import GraphBuilder, Value
from dcformat_interop.graph_passes.copying import Copier


def clean(builder: GraphBuilder, outputs: Sequence[Value]) -> tuple[GraphBuilder, list[Value]]:
    """Return the graph without detours, and its outputs.

    Chains of reshapes and chains of transposes become one operator or none, a pool over everything becomes a reduction,
    which drops the dimensions that a reshape would drop, a convolution takes over the zeros around its input, and
    operators that no output needs are left out.
    """
    copier = Copier(builder)
    shorter = _run(copier, outputs, lambda node: _shortened(copier, node))
    rest = Copier(copier.new)
    return rest.new, _run(rest, shorter, rest.copy)


def _run(copier: Copier, outputs: Sequence[Value], copied: Callable[[Node], Value]) -> list[Value]:
    """Copy everything on which the outputs depend, and return the copies of the outputs."""
    builder = copier.old
    for number, port in enumerate(builder.inputs):
        copier.made[number] = copier.new.input(port)
    wanted = copier.reachable([value.number for value in outputs])
    for number, node in enumerate(builder.nodes, len(builder.inputs)):
        if number in wanted:
            copier.made[number] = copied(node)
    return [copier.made[value.number] for value in outputs]


def _shortened(copier: Copier, node: Node) -> Value:
    """Copy an operator, or add its combination with those before it."""
    if isinstance(node, Reshape | Flatten):
        source = copier.made[node.values[0]]
        return _reshaped(copier, source, node.shape if isinstance(node, Reshape) else (-1,))
    if isinstance(node, Transpose):
        return _transposed(copier, copier.made[node.values[0]], node.order)
    if isinstance(node, MaxPool | AvgPool) and not any((*node.padding, *node.padding_end)):
        return _pooled(copier, node)
    return _convolved(copier, node) if isinstance(node, Conv) else copier.copy(node)


def _source(copier: Copier, node: Node) -> Value:
    """Return the first operand of an operator in the new graph."""
    return Value(node.values[0], copier.new.shapes[node.values[0]])


def _reshaped(copier: Copier, x: Value, shape: Shape) -> Value:
    while isinstance(before := copier.maker(x), Reshape | Flatten):
        x = _source(copier, before)
    wanted = (prod(x.shape),) if len(shape) == 1 else shape
    if isinstance(before, Reduce) and before.keepdims:
        source = _source(copier, before)
        if wanted == tuple(size for axis, size in enumerate(source.shape) if axis not in before.axes):
            return copier.new.reduce(before.function, source, before.axes)
    return copier.new.reshape(x, wanted)


def _transposed(copier: Copier, x: Value, order: Sequence[int]) -> Value:
    if isinstance(before := copier.maker(x), Transpose):
        x, order = _source(copier, before), [before.order[axis] for axis in order]
    moved = [axis for axis in order if x.shape[axis] != 1]
    if moved == sorted(moved):
        return _reshaped(copier, x, tuple(x.shape[axis] for axis in order))
    return copier.new.transpose(x, order)


def _pooled(copier: Copier, node: MaxPool | AvgPool) -> Value:
    x, count = copier.made[node.values[0]], len(node.kernel)
    if set(node.kernel) == set(node.stride) == {1}:
        return x
    if node.kernel == x.shape[-count:]:
        axes = range(len(x.shape) - count, len(x.shape))
        return copier.new.reduce("mean" if isinstance(node, AvgPool) else "max", x, axes, keepdims=True)
    return copier.copy(node)


def _convolved(copier: Copier, node: Conv) -> Value:
    x, count = copier.made[node.values[0]], len(node.padding)
    before = copier.maker(x)
    if not isinstance(before, Pad) or before.mode != "constant" or before.value != 0:
        return copier.copy(node)
    if any(before.before[:-count]) or any(before.after[:-count]):
        return copier.copy(node)
    padding = tuple(a + b for a, b in zip(node.padding, before.before[-count:], strict=True))
    behind = tuple(a + b for a, b in zip(node.padding_end, before.after[-count:], strict=True))
    return copier.copy(node, [_source(copier, before)], padding=padding, padding_end=behind)
