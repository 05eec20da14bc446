"""Pruning schedules: when weights are removed.

`one_shot` prunes once, `iterative` prunes and retrains in turn, and `lottery_ticket` rewinds the weights between
rounds. `GradualPruning`, `GradualBalanced`, `DropAndGrow` and `Penalty` are constraints of `training.fit` that act
while a network trains.
"""

from __future__ import annotations

from dcformat_pruning.schedules.gradual import GradualBalanced, GradualPruning
from dcformat_pruning.schedules.lottery import Rewind, lottery_ticket
from dcformat_pruning.schedules.penalty import Penalty
from dcformat_pruning.schedules.regrowth import DropAndGrow
from dcformat_pruning.schedules.rounds import Retraining, iterative, one_shot

__all__ = [
    "DropAndGrow",
    "GradualBalanced",
    "GradualPruning",
    "Penalty",
    "Retraining",
    "Rewind",
    "iterative",
    "lottery_ticket",
    "one_shot",
]
