"""Gradual pruning by magnitude weighed by how much the loss cares, at no extra passes over the data.

Optimal brain damage ranks a weight by ``w^2 F`` with F the diagonal of the Fisher matrix, magnitude by ``w^2``.
Magnitude does not see that layers and units differ in scale, which a ReLU network may trade between them; a Fisher
matrix measured weight by weight is noisy and costs passes over the data. Here F is factored into rows and columns as
in Adafactor (Shazeer and Stern 2018), from the gradients that training computes anyway.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dcformat_pruning.masks import Masks, PruningError, largest


class GradualBalanced:
    """Prune while training: the number of alive weights of all layers together falls along a cubic.

    A weight's score is ``|w| F^power``, F being ``mean_row(g^2) mean_column(g^2) / mean(g^2)`` of running means of its
    layer's squared gradients, pruned weights' included. A pruned weight stays pruned.

    Parameters
    ----------
    masks : Masks
        What is alive at first; pruned weights stay so.
    keep : int
        Alive weights at the end.
    start, until : float
        Shares of training between which the number falls (Zhu and Gupta 2017).
    every : int
        Steps between two prunings.
    power : float
        0 is magnitude, 0.5 is optimal brain damage.
    """

    #: How far back squared gradients are remembered, as by Adam.
    _MEMORY = 0.999

    def __init__(
        self,
        module: nn.Module,
        masks: Masks,
        keep: int,
        *,
        start: float = 0.1,
        until: float = 0.6,
        every: int = 20,
        power: float = 0.5,
    ) -> None:
        parameters = dict(module.named_parameters())
        self._weights = {name: parameters[name] for name in masks.masks}
        self._masks, self._keep, self._power = masks, keep, power
        self._start, self._until, self._every, self._steps = start, until, every, 0
        self._count = sum(masks.alive.values())
        if not 0 < keep <= self._count:
            raise PruningError(f"expected to keep 1 to {self._count} weights, found {keep}")
        if not 0 <= start < until <= 1:
            raise PruningError(f"expected 0 <= start < until <= 1, found {start} and {until}")
        self._squares: dict[str, tuple[Tensor, Tensor]] = {}

    def before_step(self, progress: float) -> None:
        """Take note of all gradients, then silence those of pruned weights."""
        if progress <= self._until:
            for name, weight in self._weights.items():
                if weight.grad is not None:
                    self._observe(name, weight.grad)
        self._masks.before_step(progress)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Prune as far as the schedule has come, and put zeros back."""
        self._masks.apply()
        self._steps += 1
        if self._start < progress and (self._steps % self._every == 0 or progress >= 1):
            left = max(0.0, (self._until - progress) / (self._until - self._start)) ** 3
            self._prune(round(self._keep + (self._count - self._keep) * left))

    def _observe(self, name: str, gradient: Tensor) -> None:
        square = gradient.flatten(1).square()
        rows, columns = square.mean(1), square.mean(0)
        if name in self._squares:
            rows = torch.lerp(rows, self._squares[name][0], self._MEMORY)
            columns = torch.lerp(columns, self._squares[name][1], self._MEMORY)
        self._squares[name] = rows, columns

    def _prune(self, keep: int) -> None:
        alive = self._masks.masks
        if keep >= sum(int(mask.sum()) for mask in alive.values()):
            return
        scores = [self._score(name).masked_fill(~mask, -1.0).flatten() for name, mask in alive.items()]
        chosen = largest(torch.cat(scores), keep)
        parts = torch.split(chosen, [len(s) for s in scores])
        self._masks.set({name: part.view_as(alive[name]) for name, part in zip(alive, parts, strict=True)})
        self._masks.apply()

    def _score(self, name: str) -> Tensor:
        weight = self._weights[name].detach()
        rows, columns = self._squares[name]
        mean = rows.mean().clamp_min(torch.finfo(rows.dtype).tiny)
        factor = (rows[:, None] * (columns / mean)) ** self._power
        return weight.abs() * factor.view_as(weight)
