"""Recurrent layers: one direction of an LSTM or a GRU over a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from dcformat.errors import ShapeError
from dcformat.graph.node import Node, Shape, check_tensor_shape, weight_shape
from dcformat.records import record


@record
class _Recurrent(Node):
    """`inputs` are the sequence ``(steps, features)``, and optionally the first states, which are 0 by default.

    `weight` is ``(gates * units, features)``, `recurrent_weight` ``(gates * units, units)``, and both biases
    ``(gates * units,)``. With `reverse`, the last step comes first; results stay in the places of their steps.
    """

    weight: str
    recurrent_weight: str
    bias: str | None = None
    recurrent_bias: str | None = None
    reverse: bool = False
    gates: ClassVar[int] = 0
    states: ClassVar[int] = 0
    arity: ClassVar[int | None] = None
    least_arity: ClassVar[int] = 1

    @property
    def tensors(self) -> tuple[str, ...]:
        names = (self.weight, self.recurrent_weight, self.bias, self.recurrent_bias)
        return tuple(name for name in names if name is not None)

    def output_shape(self, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        rows, features = weight_shape(self, self.weight, tensors, 2)
        units = rows // self.gates
        if rows % self.gates:
            raise ShapeError(f"{self.kind} weight {self.weight!r}", got=(rows, features), expected="equal gates")
        check_tensor_shape(self, self.recurrent_weight, tensors, (rows, units))
        check_tensor_shape(self, self.bias, tensors, (rows,))
        check_tensor_shape(self, self.recurrent_bias, tensors, (rows,))
        sequence, *states = inputs
        if len(sequence) != 2 or sequence[1] != features:
            raise ShapeError(f"{self.kind} input", got=sequence, expected=("steps", features))
        if states and states != [(units,)] * self.states:
            raise ShapeError(f"{self.kind} first states", got=tuple(states), expected=((units,),) * self.states)
        return (sequence[0], units * self.states)


@record
class LSTM(_Recurrent):
    """Gates in the order input, forget, cell, output.

    ``i, f, o = sigmoid(...)``, ``g = tanh(...)``, ``c = f * c + i * g``, ``h = o * tanh(c)``. A step's result is h,
    then c: ``(steps, 2 * units)``.
    """

    kind: ClassVar[str] = "lstm"
    gates: ClassVar[int] = 4
    states: ClassVar[int] = 2


@record
class GRU(_Recurrent):
    """Gates in the order reset, update, new.

    ``r, z = sigmoid(...)``, ``h = (1 - z) * n + z * h``, and ``n = tanh(W x + b + r * (R h + rb))`` with `reset_after`,
    or ``n = tanh(W x + b + R (r * h) + rb)`` without. A step's result is h: ``(steps, units)``.
    """

    reset_after: bool = True
    kind: ClassVar[str] = "gru"
    gates: ClassVar[int] = 3
    states: ClassVar[int] = 1
