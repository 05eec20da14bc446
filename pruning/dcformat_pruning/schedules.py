"""When weights go: at once, step by step with retraining between, or while training, with regrowth or a penalty.

What works while training is a `Constraint` of `training.fit`; the rest are plain functions that call it.
`GradualMagnitude`, the gradual cubic schedule by magnitude, lives with the masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dcformat_pruning.criteria import Criterion, Data, Magnitude, scored_layers
from dcformat_pruning.data import Images, Pool
from dcformat_pruning.masks import GradualMagnitude, Masks, PruningError, largest
from dcformat_pruning.selection import MaskMap, keep_globally
from dcformat_pruning.training import Plan, Progress, fit

__all__ = [
    "DropAndGrow",
    "GradualMagnitude",
    "GradualPruning",
    "Penalty",
    "Rewind",
    "iterative",
    "lottery_ticket",
    "one_shot",
]


def one_shot(
    module: nn.Module,
    criterion: Criterion,
    data: Data,
    keep: int,
    select: Callable[[dict[str, Tensor], int, MaskMap], MaskMap] = keep_globally,
    alive: MaskMap | None = None,
) -> Masks:
    """Score once and prune to `keep` weights, in place.

    Parameters
    ----------
    select : callable
        Takes scores, `keep` and the masks in force, and returns masks; default: the best of all layers.

    Raises
    ------
    PruningError
        See `Criterion.scores` and the selection.
    """
    masks = Masks(module, select(criterion.scores(module, data), keep, alive or {}))
    masks.apply()
    return masks


def iterative(
    module: nn.Module,
    criterion: Criterion,
    data: Data,
    keeps: Sequence[int],
    images: Images | Pool,
    plan: Plan,
    *,
    seed: int,
    progress: Progress | None = None,
) -> Masks:
    """Prune and retrain in turns, in place (Han 2015): each number of `keeps` in order, `plan` after each.

    Raises
    ------
    PruningError
        The numbers do not fall, or see `one_shot`.
    """
    if not keeps or list(keeps) != sorted(keeps, reverse=True):
        raise PruningError(f"keeps: expected falling numbers of weights, found {list(keeps)}")
    masks: Masks | None = None
    for round_number, keep in enumerate(keeps):
        masks = one_shot(module, criterion, data, keep, alive=None if masks is None else masks.masks)
        fit(
            module,
            images,
            plan,
            seed=seed + round_number,
            constraints=(masks,),
            stage=f"round {round_number + 1}",
            progress=progress,
        )
    assert masks is not None
    return masks


class GradualPruning:
    """Gradual pruning by any criterion: the number of alive weights falls along a cubic (Zhu and Gupta 2017).

    Parameters
    ----------
    criterion : Criterion
        Computed anew on `data` at each of `events` prunings, spread evenly over the first `until` of
        training.
    keep : int
        Alive weights at the end.
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
        self._start = sum(masks.alive.values())
        if not 0 < keep <= self._start:
            raise PruningError(f"expected to keep 1 to {self._start} weights, found {keep}")

    def before_step(self, progress: float) -> None:
        """Silence the gradients of pruned weights."""
        self._masks.before_step(progress)

    def after_step(self, progress: float) -> None:
        """Prune as far as the schedule has come, and put zeros back."""
        self._masks.apply()
        due = min(self._events, math.floor(self._events * progress / self._until + 1e-9))
        if due > self._done:
            self._done = due
            left = (1 - due / self._events) ** 3
            keep = round(self._keep + (self._start - self._keep) * left)
            scores = self._criterion.scores(self._module, self._data)
            chosen = {name: scores[name] for name in self._masks.masks}
            self._masks.set(keep_globally(chosen, keep, self._masks.masks))
            self._masks.apply()


class DropAndGrow:
    """RigL (Evci 2020): every `every` steps each layer swaps its smallest weights for dead ones with large gradients.

    The number of alive weights of each layer stays. Grown weights start at zero and, unlike in the paper,
    take part in the same step's update, with the gradient that chose them.

    Parameters
    ----------
    masks : Masks
        The sparse start; give this constraint instead of the masks, not beside them.
    fraction : float
        Share of a layer's alive weights that is swapped at first; falls along a half cosine to zero at
        `until`.
    every : int
    until : float
        The share of training after which nothing is swapped.
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
        """Swap weights when it is time, by the gradients as they are; then silence those of dead weights."""
        self._steps += 1
        if self._steps % self._every == 0 and progress < self._until:
            share = self._fraction / 2 * (1 + math.cos(math.pi * progress / self._until))
            self._masks.set({name: self._swapped(name, share) for name in self._masks.masks})
            self._masks.apply()
        self._masks.before_step(progress)

    def after_step(self, progress: float) -> None:
        """Put the zeros back."""
        self._masks.apply()

    @torch.no_grad()
    def _swapped(self, name: str, share: float) -> Tensor:
        weight, mask = self._parameters[name], self._masks.masks[name]
        alive = int(mask.sum())
        count = min(round(share * alive), mask.numel() - alive)
        if not count or weight.grad is None:
            return mask
        kept = largest(weight.abs().masked_fill(~mask, -1.0), alive - count)
        return kept | largest(weight.grad.abs().masked_fill(mask, -1.0), count)


class Penalty:
    """A penalty on the weights (biases excepted) that pulls them to zero while training, as a gradient.

    Parameters
    ----------
    kind : {'l1', 'l2', 'hoyer-square'}
        ``sum |w|``; ``sum w^2 / 2``, coupled to the gradient; or ``(sum |w|)^2 / sum w^2`` of each layer,
        which does not care for scale and spares the large weights (DeepHoyer, Yang 2020).
    strength : float
    """

    def __init__(self, module: nn.Module, kind: str, strength: float) -> None:
        if kind not in ("l1", "l2", "hoyer-square"):
            raise PruningError(f"penalty: expected l1, l2 or hoyer-square, found {kind!r}")
        self._weights = [layer.weight for layer in scored_layers(module).values()]
        self._kind, self._strength = kind, strength

    @torch.no_grad()
    def before_step(self, progress: float) -> None:
        """Add the penalty's gradient."""
        for weight in self._weights:
            if weight.grad is not None:
                weight.grad.add_(self._gradient(weight), alpha=self._strength)

    def after_step(self, progress: float) -> None:
        """Leave the weights as they are."""

    def _gradient(self, weight: Tensor) -> Tensor:
        if self._kind == "l2":
            return weight
        if self._kind == "l1":
            return weight.sign()
        total, squares = weight.abs().sum(), weight.square().sum().clamp(min=1e-30)
        return 2 * total / squares * (weight.sign() - weight * (total / squares))


class Rewind:
    """Keeps the weights as they were once `at` of training was done, for `lottery_ticket`.

    Attributes
    ----------
    state : dict of str to Tensor
        The parameters then; those at the time of making before that.
    """

    def __init__(self, module: nn.Module, at: float) -> None:
        self._parameters = dict(module.named_parameters())
        self._at, self._done = at, False
        self.state = self._copy()

    def before_step(self, progress: float) -> None:
        """Leave the gradients as they are."""

    def after_step(self, progress: float) -> None:
        """Keep the weights, once, when it is time."""
        if not self._done and self._at > 0 and progress >= self._at:
            self.state, self._done = self._copy(), True

    @torch.no_grad()
    def restore(self) -> None:
        """Write the kept values into the module."""
        for name, parameter in self._parameters.items():
            parameter.copy_(self.state[name])

    def _copy(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self._parameters.items()}


def lottery_ticket(
    module: nn.Module,
    images: Images | Pool,
    plan: Plan,
    *,
    keep: int,
    rate: float = 0.2,
    rewind: float = 0.0,
    seed: int = 0,
    criterion: Criterion | None = None,
    data: Data = (),
    progress: Progress | None = None,
) -> Masks:
    """Find a winning ticket (Frankle and Carbin 2019), in place: train, prune, rewind the survivors, again.

    Parameters
    ----------
    module : nn.Module
        Freshly initialised.
    keep : int
        Alive weights of the last round, which is trained and not rewound.
    rate : float
        Share of the alive weights that goes each round; the last round takes what is left to take.
    rewind : float
        Share of the first training after which the values to rewind to are kept; 0: the initial ones.
    criterion : Criterion, optional
        Default: magnitude, all layers together.

    Raises
    ------
    PruningError
        A rate outside (0, 1), or see `one_shot`.
    """
    if not 0 < rate < 1:
        raise PruningError(f"rate: expected above 0 and below 1, found {rate}")
    weights = {name: layer.weight for name, layer in scored_layers(module).items()}
    alive = sum(weight.numel() for weight in weights.values())
    if not 0 < keep <= alive:
        raise PruningError(f"expected to keep 1 to {alive} weights, found {keep}")
    masks = Masks(module, {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()})
    kept = Rewind(module, rewind)
    number = 0
    while True:
        number += 1
        constraints = (masks, kept) if number == 1 else (masks,)
        stage = f"round {number}"
        fit(module, images, plan, seed=seed, constraints=constraints, stage=stage, progress=progress)
        if alive == keep:
            return masks
        alive = max(keep, round(alive * (1 - rate)))
        masks = one_shot(module, criterion or Magnitude(), data, alive, alive=masks.masks)
        kept.restore()
        masks.apply()
