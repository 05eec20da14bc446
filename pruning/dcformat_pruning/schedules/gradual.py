"""Gradual pruning: the number of alive weights falls along a cubic while the network trains (Zhu and Gupta 2017).

`GradualPruning` takes any criterion and recomputes it at each pruning. `GradualBalanced` weighs magnitude by the
sensitivity of the loss and needs no extra passes over the data.

Optimal brain damage ranks a weight by ``w^2 F``, where F is the diagonal of the Fisher matrix; magnitude pruning ranks
it by ``w^2``. Magnitude ignores the scales of layers and units, which a ReLU network may trade between them. A Fisher
matrix that is measured for each weight is noisy and costs passes over the data. `GradualBalanced` therefore
factors F into rows and columns, as Adafactor does (Shazeer and Stern 2018), and takes it from the gradients that
training computes anyway.

A file has a size, not a number of weights: a weight among other nonzeros takes fewer bits than one on its own. With
`cost_power`, `GradualBalanced` ranks weights by what they are worth for each bit, as rate-distortion optimisation does
(Sullivan and Wiegand 1998).
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn

from dcformat_pruning.criteria import Criterion, Data
from dcformat_pruning.masks import Masks, PrunedAwayWarning, PruningError, largest
from dcformat_pruning.schedules.entry_costs import entry_bits
from dcformat_pruning.selection import keep_globally


def _checked_start(masks: Masks, keep: int) -> int:
    """Return the number of alive weights; raise `PruningError` unless `keep` of them can be kept."""
    start = sum(masks.alive.values())
    if not 0 < keep <= start:
        raise PruningError(f"expected to keep 1 to {start} weights, found {keep}")
    return start


def _on_cubic(start: int, keep: int, left: float) -> int:
    """Return the number of alive weights due when the share `left` of the pruning is still to come."""
    return round(keep + (start - keep) * left**3)


def _below_largest(scores: Tensor, count: int) -> float:
    """Return a number that about the `count` largest scores exceed."""
    return float(torch.kthvalue(scores, len(scores) - count).values) if count < len(scores) else -1.0


class GradualPruning:
    """A constraint that prunes gradually by any criterion; a pruned weight stays pruned.

    Parameters
    ----------
    masks : Masks
        The weights that may be alive. The constraint updates them as it prunes.
    criterion : Criterion
        Recomputed on `data` at each pruning.
    keep : int
        Number of alive weights at the end.
    until : float
        Share of the training over which the prunings are spread evenly.
    events : int
        Number of prunings.

    Raises
    ------
    PruningError
        `keep` is not between 1 and the number of alive weights.
    """

    def __init__(
        self,
        module: nn.Module,
        masks: Masks,
        criterion: Criterion,
        data: Data,
        keep: int,
        *,
        until: float = 0.8,
        events: int = 20,
    ) -> None:
        self._module, self._masks, self._criterion, self._data = module, masks, criterion, data
        self._keep, self._until, self._events, self._done = keep, until, events, 0
        self._start = _checked_start(masks, keep)

    def before_step(self, progress: float) -> None:
        """Zero the gradients of pruned weights."""
        self._masks.before_step(progress)

    def after_step(self, progress: float) -> None:
        """Prune if a pruning is due, and write the zeros again."""
        self._masks.apply()
        due = min(self._events, math.floor(self._events * progress / self._until + 1e-9))
        if due > self._done:
            self._done = due
            keep = _on_cubic(self._start, self._keep, 1 - due / self._events)
            scores = self._criterion.scores(self._module, self._data)
            chosen = {name: scores[name] for name in self._masks.masks}
            self._masks.set(keep_globally(chosen, keep, self._masks.masks))
            self._masks.apply()


class GradualBalanced:
    """A constraint that prunes gradually by magnitude, weighted by how sensitive the loss is to each weight.

    The score of a weight is ``|w| F^power / bits^cost_power`` with ``F = mean_row(g^2) mean_column(g^2) / mean(g^2)``.
    The means run over the squared gradients of the weight's row, column and layer, pruned weights included, and decay
    over the steps. The bits are those of `entry_costs.entry_bits`. Every few steps, a new threshold keeps the number
    of weights that the cubic gives.

    Pruned weights start each step at zero, but keep their gradients and their place in the optimiser's memory. They
    come back when a single step lifts their score above the threshold; with Adam, that takes a steady gradient.

    Parameters
    ----------
    masks : Masks
        The weights that may be alive; those pruned at first stay pruned. The constraint updates the masks.
    keep : int
        Number of alive weights at the end.
    start, until : float
        Shares of the training between which the number of alive weights falls.
    freeze : float
        Share of the training after which the masks no longer change.
    every : int
        Number of steps between two thresholds.
    power : float
        Weight of the loss's sensitivity: 0 gives magnitude, 0.5 optimal brain damage.
    cost_power : float
        Weight of the bits that a nonzero takes in the file: 0 ignores them; 0.5 ranks by the sensitivity per bit,
        because the loss grows with the square of ``|w| F^0.5``.
    floor : float
        Each layer keeps at least this share of its uniform part of the weights, and at least one weight; 0 lets a layer
        lose all. A network in which all paths lead through such a layer knows nothing.
    begin : int, optional
        Number of alive weights from which the cubic falls; by default, those that are alive in the masks. A smaller
        number lets weights that an earlier pruning removed come back in place of others.

    Raises
    ------
    PruningError
        `keep` is not between 1 and the number of alive weights, or ``0 <= start < until <= freeze <= 1`` does not hold.

    Warns
    -----
    PrunedAwayWarning
        A layer has no weights left when the masks freeze.
    """

    #: Decay of the mean squared gradients per step, as in Adam.
    _MEMORY = 0.999

    def __init__(
        self,
        module: nn.Module,
        masks: Masks,
        keep: int,
        *,
        start: float = 0.1,
        until: float = 0.6,
        freeze: float = 0.95,
        every: int = 20,
        power: float = 0.5,
        cost_power: float = 0.0,
        floor: float = 0.0,
        begin: int | None = None,
    ) -> None:
        parameters = dict(module.named_parameters())
        self._weights = {name: parameters[name] for name in masks.masks}
        self._masks, self._keep, self._power, self._cost_power = masks, keep, power, cost_power
        self._allowed = {name: mask.clone() for name, mask in masks.masks.items()}
        self._start, self._until, self._freeze, self._every = start, until, freeze, every
        self._steps, self._frozen = 0, False
        self._thresholds: list[float] = []
        alive = _checked_start(masks, keep)
        self._count = alive if begin is None else max(keep, min(begin, alive))
        # A layer keeps at least this many weights.
        self._floors = [
            min(count, max(1, math.ceil(floor * keep / alive * count))) if floor else 0
            for count in masks.alive.values()
        ]
        if not 0 <= start < until <= freeze <= 1:
            raise PruningError(f"expected 0 <= start < until <= freeze <= 1, found {start}, {until} and {freeze}")
        self._squares: dict[str, tuple[Tensor, Tensor]] = {}
        self._factors: dict[str, Tensor] = {}

    def before_step(self, progress: float) -> None:
        """Record all gradients; once the masks are frozen, zero those of pruned weights."""
        if self._frozen:
            self._masks.before_step(progress)
            return
        for name, weight in self._weights.items():
            if weight.grad is not None:
                self._observe(name, weight.grad)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Set the masks by the current scores, and write the zeros again."""
        self._steps += 1
        if not self._frozen and progress > self._start and self._squares:
            if progress >= self._freeze:
                self._frozen = True
                lifted = [self._lifted(*pair) for pair in zip(self._scores(fresh=True), self._floors, strict=True)]
                self._set(largest(torch.cat(lifted), self._keep))
                self._warn_of_empty_layers()
            else:
                if not self._thresholds or self._steps % self._every == 0:
                    self._thresholds = self._next_thresholds(progress)
                above = [score > limit for score, limit in zip(self._scores(), self._thresholds, strict=True)]
                self._set(torch.cat(above))
        self._masks.apply()

    def _warn_of_empty_layers(self) -> None:
        for name, count in self._masks.alive.items():
            if not count:
                warnings.warn(f"{name}: the whole layer is pruned away", PrunedAwayWarning, stacklevel=4)

    @staticmethod
    def _lifted(score: Tensor, floor: int) -> Tensor:
        """Return a layer's scores with infinity for the weights that the layer must keep."""
        return score.masked_fill(largest(score, floor), math.inf) if floor else score

    def _next_thresholds(self, progress: float) -> list[float]:
        """Return the score that an alive weight exceeds, for each layer."""
        left = max(0.0, (self._until - progress) / (self._until - self._start))
        keep = _on_cubic(self._count, self._keep, left)
        layers = self._scores(fresh=True)
        scores = torch.cat([self._lifted(*pair) for pair in zip(layers, self._floors, strict=True)])
        limit = float(torch.kthvalue(scores, len(scores) - keep).values) if keep < len(scores) else -1.0
        return [
            min(limit, _below_largest(score, floor)) if floor else limit
            for score, floor in zip(layers, self._floors, strict=True)
        ]

    def _observe(self, name: str, gradient: Tensor) -> None:
        square = gradient.flatten(1).square()
        rows, columns = square.mean(1), square.mean(0)
        if name in self._squares:
            rows = torch.lerp(rows, self._squares[name][0], self._MEMORY)
            columns = torch.lerp(columns, self._squares[name][1], self._MEMORY)
        self._squares[name] = rows, columns

    def _scores(self, *, fresh: bool = False) -> list[Tensor]:
        """Return each parameter's scores, flat; -1 for weights that must stay pruned. `fresh` updates F and bits."""
        scores = []
        for name, weight in self._weights.items():
            if name not in self._squares:  # The loss does not depend on the parameter.
                scores.append(torch.zeros_like(weight).flatten())
                continue
            if fresh or name not in self._factors:
                rows, columns = self._squares[name]
                mean = rows.mean().clamp_min(torch.finfo(rows.dtype).tiny)
                factors = (rows[:, None] * (columns / mean)) ** self._power
                if self._cost_power:
                    factors /= entry_bits(self._masks.masks[name]) ** self._cost_power
                self._factors[name] = factors.view_as(weight)
            score = weight.detach().abs() * self._factors[name]
            scores.append(score.masked_fill_(~self._allowed[name], -1.0).flatten())
        return scores

    def _set(self, alive: Tensor) -> None:
        parts = torch.split(alive, [w.numel() for w in self._weights.values()])
        named = zip(self._weights.items(), parts, strict=True)
        self._masks.set({name: part.view_as(weight) for (name, weight), part in named})
