"""Lottery tickets: train, prune, and rewind the remaining weights (Frankle and Carbin 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dcformat_pruning.criteria import Criterion, Data, Magnitude
from dcformat_pruning.masks import Masks, PruningError
from dcformat_pruning.schedules.rounds import Retraining, one_shot
from dcformat_pruning.selection import all_alive


class Rewind:
    """A constraint that remembers the weights at one point of the training, for `lottery_ticket`.

    Parameters
    ----------
    at : float
        Share of the training, 0 to 1, after which to remember the weights; 0 means the initial weights.

    Attributes
    ----------
    state : dict of str to Tensor
        Copies of the parameters at that point; until then, of the initial parameters.
    """

    def __init__(self, module: nn.Module, at: float) -> None:
        self._parameters = dict(module.named_parameters())
        self._at, self._done = at, False
        self.state = self._copy()

    def before_step(self, progress: float) -> None:
        """Leave the gradients unchanged."""

    def after_step(self, progress: float) -> None:
        """Remember the weights once the point is reached."""
        if not self._done and self._at > 0 and progress >= self._at:
            self.state, self._done = self._copy(), True

    @torch.no_grad()
    def restore(self) -> None:
        """Write the remembered values into the module."""
        for name, parameter in self._parameters.items():
            parameter.copy_(self.state[name])

    def _copy(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self._parameters.items()}


def lottery_ticket(
    module: nn.Module,
    retraining: Retraining,
    *,
    keep: int,
    rate: float = 0.2,
    rewind: float = 0.0,
    criterion: Criterion | None = None,
    data: Data = (),
) -> Masks:
    """Find a winning ticket in rounds of training, pruning and rewinding, in place (Frankle and Carbin 2019).

    The last round ends with training, so that the module is a trained network with `keep` weights.

    Parameters
    ----------
    module : nn.Module
        A freshly initialised network.
    retraining : Retraining
        How each round trains; all rounds use the same seed.
    keep : int
        Number of weights in the last round.
    rate : float
        Share of the alive weights that each round prunes, above 0 and below 1; the last round may prune fewer.
    rewind : float
        Share of the first training after which the values to rewind to are taken; 0 means the initial values.
    criterion : Criterion, optional
        Ranks the weights of all layers together; magnitude by default.
    data : Data
        The images that the criterion looks at; magnitude needs none.

    Returns
    -------
    Masks
        The masks of the ticket.

    Raises
    ------
    PruningError
        `rate` is outside (0, 1), or `keep` is not between 1 and the number of weights; see also `one_shot`.
    """
    masks = all_alive(module)
    keeps = _falling(sum(masks.alive.values()), keep, rate)
    early = Rewind(module, rewind)
    retraining.fit(module, 1, retraining.seed, masks, early)
    for number, alive in enumerate(keeps, start=2):
        masks = one_shot(module, criterion or Magnitude(), data, alive, alive=masks.masks)
        early.restore()
        masks.apply()
        retraining.fit(module, number, retraining.seed, masks)
    return masks


def _falling(alive: int, keep: int, rate: float) -> list[int]:
    """Return the number of weights of each round after the first; the last number is `keep`."""
    if not 0 < rate < 1:
        raise PruningError(f"rate: expected above 0 and below 1, found {rate}")
    if not 0 < keep <= alive:
        raise PruningError(f"expected to keep 1 to {alive} weights, found {keep}")
    keeps = []
    while alive > keep:
        alive = max(keep, round(alive * (1 - rate)))
        keeps.append(alive)
    return keeps
