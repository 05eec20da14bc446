"""Gradual pruning by magnitude weighed by how much the loss cares, at no extra passes over the data.

Optimal brain damage ranks a weight by ``w^2 F`` with F the diagonal of the Fisher matrix, magnitude by ``w^2``.
Magnitude does not see that layers and units differ in scale, which a ReLU network may trade between them; a Fisher
matrix measured weight by weight is noisy and costs passes over the data. Here F is factored into rows and columns as
in Adafactor (Shazeer and Stern 2018), from the gradients that training computes anyway.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from dcformat_pruning.masks import Masks, PrunedAwayWarning, PruningError, largest


class GradualBalanced:
    """Prune while training: the number of alive weights of all layers together falls along a cubic.

    A weight's score is ``|w| F^power``, F being ``mean_row(g^2) mean_column(g^2) / mean(g^2)`` of running means of its
    layer's squared gradients, pruned weights' included. Every few steps the threshold is set so that the number due
    stays. Pruned weights start each step at zero, keep their gradients and their place in the optimiser's memory, and
    come back when a single step lifts their score above the threshold: with Adam, when their gradient is steady.

    Parameters
    ----------
    masks : Masks
        What may be alive; weights that are pruned at first stay so. Follows what is pruned.
    keep : int
        Alive weights at the end.
    start, until : float
        Shares of training between which the number falls (Zhu and Gupta 2017).
    settle : float
        The share of training after which no weight comes or goes.
    every : int
        Steps between two thresholds.
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
        settle: float = 0.95,
        every: int = 20,
        power: float = 0.5,
    ) -> None:
        parameters = dict(module.named_parameters())
        self._weights = {name: parameters[name] for name in masks.masks}
        self._masks, self._keep, self._power = masks, keep, power
        self._allowed = {name: mask.clone() for name, mask in masks.masks.items()}
        self._start, self._until, self._settle, self._every = start, until, settle, every
        self._steps, self._settled, self._threshold = 0, False, -1.0
        self._count = sum(masks.alive.values())
        if not 0 < keep <= self._count:
            raise PruningError(f"expected to keep 1 to {self._count} weights, found {keep}")
        if not 0 <= start < until <= settle <= 1:
            raise PruningError(f"expected 0 <= start < until <= settle <= 1, found {start}, {until} and {settle}")
        self._squares: dict[str, tuple[Tensor, Tensor]] = {}
        self._factors: dict[str, Tensor] = {}

    def before_step(self, progress: float) -> None:
        """Take note of all gradients; once settled, silence those of pruned weights."""
        if self._settled:
            self._masks.before_step(progress)
            return
        for name, weight in self._weights.items():
            if weight.grad is not None:
                self._observe(name, weight.grad)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Prune as far as the schedule has come, and put zeros back."""
        self._steps += 1
        if not self._settled and progress > self._start and self._squares:
            if progress >= self._settle:
                self._settled = True
                self._set(largest(torch.cat(self._scores(fresh=True)), self._keep))
                self._warn_of_empty_layers()
            else:
                if self._threshold < 0 or self._steps % self._every == 0:
                    self._threshold = self._next_threshold(progress)
                self._set(torch.cat(self._scores()) > self._threshold)
        self._masks.apply()

    def _warn_of_empty_layers(self) -> None:
        for name, count in self._masks.alive.items():
            if not count:
                warnings.warn(f"{name}: the whole layer is pruned away", PrunedAwayWarning, stacklevel=4)

    def _next_threshold(self, progress: float) -> float:
        left = max(0.0, (self._until - progress) / (self._until - self._start)) ** 3
        keep = round(self._keep + (self._count - self._keep) * left)
        scores = torch.cat(self._scores(fresh=True))
        return float(torch.kthvalue(scores, len(scores) - keep).values) if keep < len(scores) else -1.0

    def _observe(self, name: str, gradient: Tensor) -> None:
        square = gradient.flatten(1).square()
        rows, columns = square.mean(1), square.mean(0)
        if name in self._squares:
            rows = torch.lerp(rows, self._squares[name][0], self._MEMORY)
            columns = torch.lerp(columns, self._squares[name][1], self._MEMORY)
        self._squares[name] = rows, columns

    def _scores(self, *, fresh: bool = False) -> list[Tensor]:
        """Return each parameter's scores, flat, -1 where a weight may not be; `fresh` looks at the gradients anew."""
        scores = []
        for name, weight in self._weights.items():
            if fresh or name not in self._factors:
                rows, columns = self._squares[name]
                mean = rows.mean().clamp_min(torch.finfo(rows.dtype).tiny)
                self._factors[name] = ((rows[:, None] * (columns / mean)) ** self._power).view_as(weight)
            score = weight.detach().abs() * self._factors[name]
            scores.append(score.masked_fill_(~self._allowed[name], -1.0).flatten())
        return scores

    def _set(self, alive: Tensor) -> None:
        parts = torch.split(alive, [w.numel() for w in self._weights.values()])
        named = zip(self._weights.items(), parts, strict=True)
        self._masks.set({name: part.view_as(weight) for (name, weight), part in named})
