"""Copies a builder's operators to another builder; all rewrites consist of such copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dcformat.graph import Node
from dcformat_interop.graph_builder import BuilderOperand, GraphBuilder, Value

#: The attributes that name tensors.
_TENSORS = ("weight", "bias", "recurrent_weight", "recurrent_bias")


def attributes_of(node: Node) -> dict[str, Any]:
    """Return the attributes of an operator by name."""
    fields: tuple[str, ...] = type(node).__match_args__
    return {field: getattr(node, field) for field in fields if field != "inputs"}


class Copier:
    """Copies operators from a builder to a new one.

    Attributes
    ----------
    old, new : GraphBuilder
    made : dict of int to Value
        The copy of each value that was copied.
    """

    def __init__(self, old: GraphBuilder) -> None:
        self.old, self.new = old, GraphBuilder(source=old)
        self.made: dict[int, Value] = {}

    def node(self, number: int) -> Node | None:
        """Return the operator that makes a value of the old graph, or None for an input."""
        place = number - len(self.old.inputs)
        return None if place < 0 else self.old.nodes[place]

    def maker(self, value: Value) -> Node | None:
        """Return the operator that makes a value of the new graph, or None for an input."""
        place = value.number - len(self.new.inputs)
        return None if place < 0 else self.new.nodes[place]

    def operand(self, operand: int | str | float) -> BuilderOperand:
        """Return a copied value, a tensor's array, or a constant."""
        if isinstance(operand, int):
            return self.made[operand]
        return self.old.tensors[operand] if isinstance(operand, str) else operand

    def copy(self, node: Node, operands: Sequence[BuilderOperand] | None = None, **changes: Any) -> Value:
        """Add a copy of an operator, with other operands or attributes, to the new graph."""
        given = [self.operand(operand) for operand in node.inputs] if operands is None else operands
        attributes = attributes_of(node)
        for name in _TENSORS:
            stored = attributes.get(name)
            if stored is not None:
                store = self.new.integer_tensor if stored in self.old.integers else self.new.tensor
                attributes[name] = store(self.old.tensors[stored], self.old.wanted[stored])
        name = next((self.old.wanted[o] for o in node.inputs if isinstance(o, str)), "constant")
        return self.new.emit(type(node), given, name, **{**attributes, **changes})

    def reachable(self, outputs: Sequence[int]) -> set[int]:
        """Return the numbers of the old values on which `outputs` depend."""
        found, waiting = set[int](), list(outputs)
        while waiting:
            number = waiting.pop()
            if number not in found:
                found.add(number)
                node = self.node(number)
                waiting += [] if node is None else node.values
        return found
