"""Penalties that pull weights towards zero while a network trains."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dcformat_pruning.criteria import scored_layers
from dcformat_pruning.masks import PruningError


class Penalty:
    """A constraint that adds the gradient of a penalty on the weights (not the biases) before each step.

    Parameters
    ----------
    kind : {'l1', 'l2', 'hoyer-square'}
        The penalty of each layer: ``sum |w|``; ``sum w^2 / 2``; or ``(sum |w|)^2 / sum w^2``, which does not depend on
        the layer's scale and spares large weights (DeepHoyer: Yang et al. 2020).
    strength : float
        Factor of the penalty in the loss.

    Raises
    ------
    PruningError
        The kind is unknown; see also `scored_layers`.
    """

    def __init__(self, module: nn.Module, kind: str, strength: float) -> None:
        if kind not in ("l1", "l2", "hoyer-square"):
            raise PruningError(f"penalty: expected l1, l2 or hoyer-square, found {kind!r}")
        self._weights = [layer.weight for layer in scored_layers(module).values()]
        self._kind, self._strength = kind, strength

    @torch.no_grad()
    def before_step(self, progress: float) -> None:
        """Add the gradient of the penalty."""
        for weight in self._weights:
            if weight.grad is not None:
                weight.grad.add_(self._gradient(weight), alpha=self._strength)

    def after_step(self, progress: float) -> None:
        """Leave the weights unchanged."""

    def _gradient(self, weight: Tensor) -> Tensor:
        if self._kind == "l2":
            return weight
        if self._kind == "l1":
            return weight.sign()
        total, squares = weight.abs().sum(), weight.square().sum().clamp(min=1e-30)
        return 2 * total / squares * (weight.sign() - weight * (total / squares))
