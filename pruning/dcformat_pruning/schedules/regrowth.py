"""RigL: the network is sparse from the start, and swaps weights while it trains (Evci et al. 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dcformat_pruning.masks import Masks, PruningError, largest


class DropAndGrow:
    """A constraint that swaps each layer's smallest weights for pruned weights with large gradients (RigL).

    The number of alive weights of each layer stays the same. Grown weights start at zero. Unlike in the paper, they
    take part in the step that grows them, with the gradient that chose them.

    Parameters
    ----------
    masks : Masks
        The sparse network to start from. Give `fit` this constraint in place of the masks, not both.
    fraction : float
        Share of a layer's alive weights that the first swap exchanges, above 0 and below 1. It falls along a half
        cosine to zero at `until`.
    every : int
        Number of steps between two swaps.
    until : float
        Share of the training after which the masks no longer change.

    Raises
    ------
    PruningError
        `fraction` is outside (0, 1).
    """

    def __init__(
        self, module: nn.Module, masks: Masks, fraction: float = 0.3, every: int = 100, until: float = 0.75
    ) -> None:
        if not 0 < fraction < 1:
            raise PruningError(f"fraction: expected above 0 and below 1, found {fraction}")
        self._parameters = {name: p for name, p in module.named_parameters() if name in masks.masks}
        self._masks, self._fraction, self._every, self._until = masks, fraction, every, until
        self._steps = 0

    def before_step(self, progress: float) -> None:
        """Swap weights if a swap is due, then zero the gradients of pruned weights."""
        self._steps += 1
        if self._steps % self._every == 0 and progress < self._until:
            share = self._fraction / 2 * (1 + math.cos(math.pi * progress / self._until))
            self._masks.set({name: self._swapped(name, share) for name in self._masks.masks})
            self._masks.apply()
        self._masks.before_step(progress)

    def after_step(self, progress: float) -> None:
        """Write the zeros again."""
        self._masks.apply()

    @torch.no_grad()
    def _swapped(self, name: str, share: float) -> Tensor:
        """Return a parameter's mask after a swap of `share` of its alive weights."""
        weight, mask = self._parameters[name], self._masks.masks[name]
        alive = int(mask.sum())
        count = min(round(share * alive), mask.numel() - alive)
        if not count or weight.grad is None:
            return mask
        kept = largest(weight.abs().masked_fill(~mask, -1.0), alive - count)
        return kept | largest(weight.grad.abs().masked_fill(mask, -1.0), count)
