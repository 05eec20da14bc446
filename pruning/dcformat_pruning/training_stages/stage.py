"""The stages of a run, and the context that a stage may use.

A stage takes the module that the stage before it left, changes it, and is saved when done. Masks and codebooks are not
saved, because they are the zeros and the equal values of the weights.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from dcformat.codecs import Mode
from dcformat.model import Model
from dcformat_pruning.data import Augmentation, Images, Pool
from dcformat_pruning.feeds import Feed
from dcformat_pruning.meter import Meter
from dcformat_pruning.objectives import Task
from dcformat_pruning.training import Constraint, TrainingPlan, fit

#: Estimated work of making an augmented copy of the images, and of a teacher's targets for a copy; see `Stage.cost`.
_AUGMENT, _TEACH = 2.0, 4.0


@dataclass(slots=True)
class StageContext:
    """The data and settings that a stage may use.

    Attributes
    ----------
    train : Feed
        The training data.
    validate : callable
        Takes the module, and returns its metric on the validation data; higher is better.
    seed : int
        The seed of the run.
    device : torch.device
        Where the module and the data are.
    task : Task or None
        The purpose for which the network is trained; None classifies images.
    in_place : bool
        Whether only the module itself can be trained, because the task calls no other. Otherwise a chain trains without
        its dead units, in a copy.
    teacher : nn.Module or None
        Teaches the network in stages whose plan distils.
    stage : str
        The name of the stage that runs.
    meter : Meter or None
        Reports progress.
    epoch_scale : float
        The requested epochs, as a multiple of those that were planned.
    carried : dict of str to Tensor
        Tensors that a stage leaves for later ones besides the module, such as a teacher's weights; saved with it.
    pools : dict
        Augmented images that stages have in common, by augmentation, number of copies, and whether they have a
        teacher's targets. A run that is resumed makes the same pools again.
    """

    train: Feed
    validate: Callable[[nn.Module], float]
    seed: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    task: Task | None = None
    in_place: bool = False
    teacher: nn.Module | None = None
    stage: str = ""
    meter: Meter | None = None
    epoch_scale: float = 1.0
    carried: dict[str, Tensor] = field(default_factory=dict)
    pools: dict[tuple[Augmentation, int, bool], Pool] = field(default_factory=dict)

    @property
    def stage_seed(self) -> int:
        """The seed of the stage, made from the run's seed and the stage's name, so that a resumed run has the same one.

        It has 32 bits, because PyTorch's generators ignore higher bits.
        """
        return zlib.crc32(f"{self.seed} {self.stage}".encode())

    def epochs(self, planned: int) -> int:
        """Return a stage's epochs, scaled to the requested number; at least one."""
        return max(1, round(planned * self.epoch_scale))

    def pool(self, augmentation: Augmentation, copies: int, teacher: nn.Module | None = None) -> Pool:
        """Return augmented images, with the teacher's targets if there is a teacher; a short run has fewer copies.

        Raises
        ------
        TypeError
            The training data are not `Images`.
        """
        if not isinstance(self.train, Images):
            raise TypeError(f"expected Images to augment, found {type(self.train).__name__}")
        copies = max(2, min(copies, round(copies * self.epoch_scale)))
        plain, taught = (augmentation, copies, False), (augmentation, copies, True)
        if plain not in self.pools:
            shown = self._preparing("augmented images", _AUGMENT * copies)
            self.pools[plain] = Pool.make(self.train, augmentation, copies, self.seed, shown)
        if teacher is None:
            return self.pools[plain]
        if taught not in self.pools:
            shown = self._preparing("taught images", _TEACH * copies)
            self.pools[taught] = self.pools[plain].taught(teacher, progress=shown)
        return self.pools[taught]

    def _preparing(self, unit: str, work: float) -> Callable[[int, int], None] | None:
        meter = self.meter
        return None if meter is None else lambda done, total: meter.prepare(work, unit, done, total)

    def fit(
        self,
        module: nn.Module,
        plan: TrainingPlan,
        *constraints: Constraint,
        data: Feed | None = None,
    ) -> None:
        """Train with the run's data, task, teacher, seed and progress; see `training.fit`."""
        fit(
            module,
            self.train if data is None else data,
            replace(plan, epochs=self.epochs(plan.epochs)),
            seed=self.stage_seed,
            constraints=constraints,
            teacher=self.teacher,
            task=self.task,
            stage=self.stage,
            progress=self.meter,
        )


#: Trains, prunes or shares weights in place.
StageFunction = Callable[[nn.Module, StageContext], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a run.

    Attributes
    ----------
    name : str
        Shown to the user; also names the saved stage and seeds its random numbers, so that a new name changes results.
    run : callable
        Changes the module in place.
    epochs : int
        Training epochs.
    cost : float or None
        Time that an epoch takes, for the estimate of the remaining time, as a multiple of an epoch of LeNet-300-100.
        None takes the recipe's cost.
    rebuild : callable or None
        Makes the changes of the stage to the structure of the module, before the saved weights of the stage are loaded.
    measure : callable or None
        Returns the metric and the number of bytes of the module's file; by default, only the metric is measured.
    """

    name: str
    run: StageFunction
    epochs: int = 0
    cost: float | None = None
    rebuild: Callable[[nn.Module], object] | None = None
    measure: Callable[[nn.Module, StageContext], tuple[float, int]] | None = None


@dataclass(frozen=True, slots=True)
class StageReport:
    """The result of a stage.

    Attributes
    ----------
    stage : str
    metric : float
        The metric on the validation data.
    weights : int
        Number of nonzero weights.
    seconds : float
    size : int or None
        Number of bytes of the file, if the stage makes one.
    """

    stage: str
    metric: float
    weights: int
    seconds: float
    size: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A compressed model, and the record of how it was made.

    Attributes
    ----------
    model : dcformat.Model
    module : nn.Module
        The same weights in PyTorch, in eval mode on the run's device.
    mode : {'fast', 'small', 'tiny'}
        The mode to write the model in.
    stages : tuple of StageReport
        A report for each stage, in order.
    """

    model: Model
    module: nn.Module
    mode: Mode
    stages: tuple[StageReport, ...]
