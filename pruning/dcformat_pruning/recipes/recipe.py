"""A recipe: how one of the LeNets is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dcformat.codecs import Mode
from dcformat_pruning.compression import Settings
from dcformat_pruning.training_stages.stage import Stage
from dcformat_pruning.training_stages.stage_library import FeedSource

#: What the networks that `compress` makes have in common.
LENET_SETTINGS = Settings(lr=(8e-3, 2e-3, 5e-4), batch=256, sharing="portions", distill=0.0, floor=0.0, mode="tiny")


@dataclass(frozen=True, slots=True)
class RecipeGoal:
    """The network that `dcformat_pruning.compress` makes from the dense one.

    Attributes
    ----------
    keep : int
        Number of weights.
    units : mapping of str to int
        Layer name to the number of its units (or channels) to keep at first.
    source : callable
        Gives the training data.
    settings : Settings
    """

    keep: int
    units: Mapping[str, int]
    source: FeedSource
    settings: Settings


@dataclass(frozen=True, slots=True)
class Recipe:
    """Stages in order, and what follows them.

    Attributes
    ----------
    stages : sequence of Stage
        The first stage trains the dense network.
    goal : RecipeGoal or None
        The settings with which `compress` continues; None if the stages make the whole result.
    mode : {'fast', 'small', 'tiny'}
        The writer's mode.
    cost : float
        Time that an epoch takes; see `Stage`.
    """

    stages: Sequence[Stage]
    goal: RecipeGoal | None = None
    mode: Mode = "tiny"
    cost: float = 1.0

    @property
    def epochs(self) -> int:
        """Training epochs of all stages together."""
        plans = () if self.goal is None else self.goal.settings.plans()
        return sum(stage.epochs for stage in self.stages) + sum(plan.epochs for plan in plans)
