"""The comparison of pruning schedules: LeNet-300-100, the same number of weights, and the same number of epochs.

All schedules start from the same initial network and train on the training images without augmentation. Accuracies are
on the validation images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from dcformat_pruning.criteria import Magnitude, Random, scored_layers
from dcformat_pruning.data import TrainingData
from dcformat_pruning.lenets import build
from dcformat_pruning.schedules import (
    DropAndGrow,
    GradualBalanced,
    GradualPruning,
    Penalty,
    Retraining,
    iterative,
    lottery_ticket,
    one_shot,
)
from dcformat_pruning.selection import all_alive
from dcformat_pruning.study.baselines import ARCHITECTURE
from dcformat_pruning.study.pruned_networks import weights_left
from dcformat_pruning.training import Constraint, TrainingPlan, evaluate, fit

#: Number of trainings of the schedules that prune in rounds.
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """A network that was pruned by one schedule.

    Attributes
    ----------
    seed : int
    schedule : str
    ratio : float
        Parameters of the dense network divided by those left, biases included.
    weights : int
        Number of nonzero weights, not counting biases.
    accuracy : float
        On the validation images, 0 to 1.
    """

    seed: int
    schedule: str
    ratio: float
    weights: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class _Run:
    """The inputs of a schedule: the images, the number of weights to keep, all epochs of training, and the seed."""

    data: TrainingData
    keep: int
    epochs: int
    seed: int

    def plan(self, parts: int = 1) -> TrainingPlan:
        """Return the plan for one of `parts` trainings that share the epochs."""
        return TrainingPlan(epochs=max(1, self.epochs // parts), lr=2e-3, batch=128)

    def fit(self, module: nn.Module, *constraints: Constraint, parts: int = 1) -> None:
        fit(module, self.data.train, self.plan(parts), seed=self.seed, constraints=constraints)

    def rounds(self) -> Retraining:
        return Retraining(self.data.train, self.plan(_ROUNDS), self.seed)


def _one_shot(module: nn.Module, run: _Run, *while_dense: Constraint) -> None:
    run.fit(module, *while_dense, parts=2)
    run.fit(module, one_shot(module, Magnitude(), (), run.keep), parts=2)


def _penalised(kind: str, strength: float) -> Callable[[nn.Module, _Run], None]:
    return lambda module, run: _one_shot(module, run, Penalty(module, kind, strength))


def _iterative(module: nn.Module, run: _Run) -> None:
    run.fit(module, parts=_ROUNDS)
    total = sum(layer.weight.numel() for layer in scored_layers(module).values())
    keeps = [round(total * (run.keep / total) ** (n / (_ROUNDS - 1))) for n in range(1, _ROUNDS)]
    iterative(module, Magnitude(), (), keeps, run.rounds())


def _lottery(module: nn.Module, run: _Run) -> None:
    total = sum(layer.weight.numel() for layer in scored_layers(module).values())
    # A little more than the exact rate, so that rounding does not cost another round.
    rate = 1 - (run.keep / total) ** (1 / (_ROUNDS - 1)) + 1e-4
    lottery_ticket(module, run.rounds(), keep=run.keep, rate=rate, rewind=0.1)


def _gradual(module: nn.Module, run: _Run) -> None:
    run.fit(module, GradualPruning(module, all_alive(module), Magnitude(), (), run.keep, until=0.6))


def _balanced(module: nn.Module, run: _Run) -> None:
    run.fit(module, GradualBalanced(module, all_alive(module), run.keep))


def _regrown(module: nn.Module, run: _Run) -> None:
    run.fit(module, DropAndGrow(module, one_shot(module, Random(run.seed), (), run.keep)))


def _static(module: nn.Module, run: _Run) -> None:
    run.fit(module, one_shot(module, Random(run.seed), (), run.keep))


#: Name of a schedule to a function that trains and prunes a network with it, in place.
SCHEDULES: Mapping[str, Callable[[nn.Module, _Run], None]] = {
    "one-shot": _one_shot,
    "one-shot after L1": _penalised("l1", 1e-4),
    "one-shot after Hoyer-square": _penalised("hoyer-square", 1e-4),
    "iterative": _iterative,
    "lottery ticket": _lottery,
    "gradual": _gradual,
    "gradual, balanced": _balanced,
    "drop and grow (RigL)": _regrown,
    "sparse from the start": _static,
}


def compare_schedules(
    seed: int, data: TrainingData, *, epochs: int = 8, ratio: float = 24.94, names: Sequence[str] = tuple(SCHEDULES)
) -> Iterator[ScheduleRow]:
    """Train and prune a network with each schedule; yield a row for each.

    Parameters
    ----------
    seed : int
        Seeds the initial weights and the order of the images.
    epochs : int
        Training epochs of each schedule in total. Schedules with several trainings divide them evenly, with at least
        one epoch for each.
    ratio : float
        Parameters of the dense network divided by those to keep, biases included.
    names : sequence of str
        Keys of `SCHEDULES`.

    Raises
    ------
    ValueError
        The ratio leaves fewer weights than there are layers.
    """
    for name in names:
        module = build(ARCHITECTURE, seed)
        SCHEDULES[name](module, _Run(data, weights_left(module, ratio), epochs, seed))
        weights = sum(int((layer.weight != 0).sum()) for layer in scored_layers(module).values())
        yield ScheduleRow(seed, name, ratio, weights, evaluate(module, data.validation))
