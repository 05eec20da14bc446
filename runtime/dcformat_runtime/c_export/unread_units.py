"""Finds the hidden units on which no output depends, and removes them from the weights.

Pruning leaves whole rows and columns of weights without entries: half the units of a small LeNet-5 are never
read. A program that does not compute them needs less memory and less time. Every other element keeps its bits, because
the sums of a layer skip zeros anyway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dcformat import graph as ops
from dcformat.graph import Graph, Node, Shape
from dcformat.graph.unit_axes import unit_axis
from dcformat_runtime.weight_matrices import Floats

Flags = npt.NDArray[np.bool_]


def without_unread_units(graph: Graph, shapes: Sequence[Shape], tensors: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return the dense tensors without the rows that no output depends on, and without the columns that read them.

    Parameters
    ----------
    graph : Graph
        A network of one output. It also describes the network of the returned tensors.
    shapes : sequence of tuple of int
        The shape of every value.
    tensors : mapping of str to ndarray
        The float32 elements of all tensors that the graph uses.
    """
    units = _Units(graph, shapes, tensors)
    trimmed = dict(tensors)
    for number, node in enumerate(graph.nodes, len(graph.inputs)):
        if isinstance(node, (ops.Linear, ops.Conv)) and units.can_trim(node, number):
            rows, columns = units.read(number), units.read(node.values[0])
            trimmed[node.weight] = tensors[node.weight][rows][:, columns]
            if node.bias is not None:
                trimmed[node.bias] = tensors[node.bias][rows]
    return trimmed


class _Units:
    """The units of each value that are read.

    A unit is an index of a value's first dimension. Values that must keep the same units, such as the operand and
    the result of a ReLU, form a group; `needed` has the flags of each group by the number of its first value.
    """

    def __init__(self, graph: Graph, shapes: Sequence[Shape], tensors: Mapping[str, Floats]) -> None:
        self._shapes, self._tensors = shapes, tensors
        self._uses = Counter(name for node in graph.nodes for name in node.tensors)
        self._group = list(range(len(shapes)))
        numbered = list(enumerate(graph.nodes, len(graph.inputs)))
        for number, node in numbered:
            if self._keeps_units(node, number):
                for value in node.values:
                    self._join(value, number)
        self._needed = {
            root: np.zeros(min(self._count(v) for v, r in enumerate(self._group) if r == root), bool)
            for root in set(self._group)
        }
        for value in (*range(len(graph.inputs)), *(output.value for output in graph.outputs)):
            self._need_all(value)
        for number, node in numbered:
            if not (self._keeps_units(node, number) or self.can_trim(node, number)):
                for value in (*node.values, number):
                    self._need_all(value)
        layers = [(number, node) for number, node in numbered if self.can_trim(node, number)]
        while self._spread(layers):
            pass
        for flags in self._needed.values():
            flags[0] |= not flags.any()  # a value has at least one element

    def read(self, value: int) -> Flags:
        """Return a flag for each index of a value's first dimension."""
        flags = self._needed[self._group[value]]
        return np.repeat(flags, self._count(value) // len(flags))

    def can_trim(self, node: Node, number: int) -> bool:
        """Return whether rows and columns can be removed from the weight of a node that makes a value."""
        rank = len(self._shapes[node.values[0]])
        if isinstance(node, ops.Linear):
            alone = rank == 1
        else:
            alone = isinstance(node, ops.Conv) and node.groups == 1 and rank == self._tensors[node.weight].ndim - 1
        return alone and all(self._uses[name] == 1 for name in node.tensors)

    def _keeps_units(self, node: Node, number: int) -> bool:
        """Return whether each unit of a result depends on the same unit of the operands alone."""
        first = dict.fromkeys(node.values, 0)
        return not node.tensors and unit_axis(node, number, self._shapes, first) == 0

    def _count(self, value: int) -> int:
        return self._shapes[value][0] if self._shapes[value] else 1

    def _join(self, first: int, second: int) -> None:
        kept, joined = sorted((self._group[first], self._group[second]))
        self._group = [kept if root == joined else root for root in self._group]

    def _need_all(self, value: int) -> None:
        self._needed[self._group[value]][:] = True

    def _spread(self, layers: Sequence[tuple[int, Node]]) -> bool:
        """Mark the units that layers read for the rows marked so far; return whether there are more than before."""
        more = False
        for number, node in reversed(layers):
            assert isinstance(node, (ops.Linear, ops.Conv))
            weight = self._tensors[node.weight][self.read(number)]
            columns = np.moveaxis(weight, 1, 0).reshape(weight.shape[1], -1).any(axis=1)
            flags = self._needed[self._group[node.values[0]]]
            found = columns.reshape(len(flags), -1).any(axis=1) & ~flags
            flags |= found
            more |= bool(found.any())
        return more
