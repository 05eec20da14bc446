"""The state of a module at one moment, structure included, so that a later change can be undone."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Snapshot:
    """The parts, parameters and buffers of a module, and copies of all values.

    Unlike a state_dict, it also restores the parts that folding changes: batch norms that were replaced, and biases
    that were added. The module keeps its parameter objects.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parts = [
            (part, dict(part._modules), dict(part._parameters), dict(part._buffers)) for part in module.modules()
        ]
        held = [*module.parameters(), *module.buffers()]
        self._values: list[tuple[Tensor, Tensor]] = [(tensor, tensor.detach().clone()) for tensor in held]

    @torch.no_grad()
    def restore(self) -> None:
        """Undo all changes since the snapshot was taken."""
        for part, modules, parameters, buffers in self._parts:
            for own, kept in ((part._modules, modules), (part._parameters, parameters), (part._buffers, buffers)):
                own.clear()
                own.update(kept)  # type: ignore[arg-type]
        for tensor, value in self._values:
            tensor.copy_(value)
