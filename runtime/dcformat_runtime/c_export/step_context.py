"""The context that the writers of steps share: the network, the weights, and the text written so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dcformat.errors import GraphError
from dcformat.graph import Shape
from dcformat_runtime.c_export.fixed_network import FixedNetwork
from dcformat_runtime.c_export.tensor_data import TensorData, TensorFields
from dcformat_runtime.weight_matrices import Floats

#: The greatest number that a field of one byte or of two bytes holds.
BYTE, HALF = 255, 65535


@dataclass
class Written:
    """The needs of a program's steps: parts, constants, statements, and the sizes of the decoder's arrays."""

    parts: list[str] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    padded: bool = False
    row_entries: int = 0
    weight_models: int = 0
    bias_models: int = 0
    entries: int = 0
    sums_out: bool = False

    def need(self, *parts: str) -> None:
        """Note that the program needs these parts, in this order."""
        self.parts += [part for part in parts if part not in self.parts]


class StepContext:
    """Where steps are written.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        Dense float32 weights.
    shapes : sequence of tuple of int
        The shape of every value.
    place : callable
        Returns the C expression for the memory of a value.
    data : TensorData
        Receives the weights.
    fixed : FixedNetwork or None
        The integers, for fixed point.

    Attributes
    ----------
    written : Written
    added : dict of (str, int) to TensorFields
        The weights in `data`, by name and by the number of their step.
    """

    def __init__(
        self, tensors: Mapping[str, Floats], shapes: Sequence[Shape], place: Callable[[int], str], data: TensorData,
        fixed: FixedNetwork | None,
    ) -> None:  # fmt: skip
        self.written = Written(sums_out=fixed is not None and fixed.sums_out)
        self.tensors, self.shapes, self.place, self.data, self.fixed = tensors, shapes, place, data, fixed
        self.added: dict[tuple[str, int], TensorFields] = {}

    def constant(self, kind: str, name: str, fields: Sequence[tuple[str, str]]) -> None:
        """Add the constant that describes a step."""
        lines = [f"    .{key} = {value}," for key, value in fields]
        self.written.constants.append("\n".join([f"static const {kind} {name} = {{", *lines, "};"]))

    def say(self, *lines: str) -> None:
        """Add statements."""
        self.written.statements += lines


def fitting(number: int, limit: int, name: str) -> str:
    """Return the text of a number; raise `GraphError` if it exceeds the limit of its field."""
    if number > limit:
        raise GraphError(f"{name} for C", got=number, expected=f"at most {limit}")
    return str(number)
