"""Runs a model's graph in PyTorch, value by value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy

import numpy as np
import numpy.typing as npt
import torch
from dcformat_runtime.as_floats import to_float32
from torch import Tensor

from dcformat.graph import Operand as NodeOperand
from dcformat.model import Model
from dcformat_pruning.calibration.torch_operators import NodeCall, TorchOperand, Watch, evaluate

Floats = npt.NDArray[np.float32]


class TorchNetwork:
    """A graph with its tensors as float32 arrays of PyTorch.

    Attributes
    ----------
    tensors : dict of str to torch.Tensor
        The tensors that operators read; a caller may replace their values.
    """

    def __init__(self, model: Model) -> None:
        assert model.graph is not None
        self.graph = model.graph
        self.shapes = self.graph.shapes({name: tensor.shape for name, tensor in model.tensors.items()})
        names = {name for node in self.graph.nodes for name in node.tensors}
        self.tensors = {
            name: torch.from_numpy(to_float32(tensor, tensor.to_dense(), infinite=True).copy())
            for name, tensor in model.tensors.items()
            if name in names
        }
        self._last = {value: number for number, node in enumerate(self.graph.nodes) for value in node.values}
        self._kept = {output.value for output in self.graph.outputs}

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> TorchNetwork:
        """Return the same graph with other tensors."""
        other = copy(self)
        other.tensors = {**self.tensors, **tensors}
        return other

    def run(self, inputs: Sequence[Tensor], watch: Watch | None = None) -> list[Tensor]:
        """Return the outputs, each ``(batch, *shape)``, of the inputs, each float32 ``(batch, *shape)``."""
        values = dict(enumerate(inputs))
        for number in range(len(self.graph.nodes)):
            values[len(inputs) + number] = self.node(number, values, self.tensors, watch)
            for value in self.finished(number):
                del values[value]
        return [values[output.value] for output in self.graph.outputs]

    def node(
        self, number: int, values: Mapping[int, Tensor], tensors: Mapping[str, Tensor], watch: Watch | None = None
    ) -> Tensor:
        """Return the value that a node makes from values and tensors."""
        node, target = self.graph.nodes[number], len(self.graph.inputs) + number
        operands = [_operand(operand, values, tensors) for operand in node.inputs]
        own = {name: tensors[name] for name in node.tensors}
        return evaluate(NodeCall(node, operands, own, self.shapes[target], watch))

    def finished(self, number: int) -> list[int]:
        """Return the values that nothing reads after a node."""
        values = set(self.graph.nodes[number].values)
        return [value for value in values if self._last[value] == number and value not in self._kept]


def _operand(operand: NodeOperand, values: Mapping[int, Tensor], tensors: Mapping[str, Tensor]) -> TorchOperand:
    if isinstance(operand, int):
        return TorchOperand(values[operand], True)
    if isinstance(operand, str):
        return TorchOperand(tensors[operand], False)
    return TorchOperand(torch.tensor(operand, dtype=torch.float32), False)
