"""The parts of a recipe: its stages in order, and the context that a stage may use.

A stage takes the module that the stage before it left, changes it, and is saved when done. Masks and codebooks are not
saved, because they are the zeros and the equal values of the weights.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from dcformat.codecs import Mode
from dcformat.model import Model
from dcformat_pruning.data import Augmentation, Images, Pool, TrainingData
from dcformat_pruning.meter import Meter
from dcformat_pruning.training import Constraint, TrainingPlan, fit

#: Estimated work of making an augmented copy of the images, and of a teacher's targets for a copy; see `Stage.cost`.
_AUGMENT, _TEACH = 2.0, 4.0


@dataclass(slots=True)
class StageContext:
    """What a stage may use.

    Attributes
    ----------
    data : TrainingData
        The training and validation images, on the run's device.
    seed : int
        The seed of the run.
    stage : str
        The name of the stage that runs.
    meter : Meter or None
        Reports progress.
    epoch_scale : float
        The epochs that the caller asked for, as a multiple of the recipe's epochs.
    carried : dict of str to Tensor
        Tensors that a stage leaves for later ones besides the module, such as a teacher's weights; saved with it.
    pools : dict
        Augmented images that stages have in common, by augmentation, number of copies, and whether they have a
        teacher's targets. A run that is resumed makes the same pools again.
    """

    data: TrainingData
    seed: int
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
        """Return a stage's epochs, scaled to the number that the caller asked for; at least one."""
        return max(1, round(planned * self.epoch_scale))

    def pool(self, augmentation: Augmentation, copies: int, teacher: nn.Module | None = None) -> Pool:
        """Return augmented images, with the teacher's targets if there is a teacher; a short run has fewer copies."""
        copies = max(2, min(copies, round(copies * self.epoch_scale)))
        plain, taught = (augmentation, copies, False), (augmentation, copies, True)
        if plain not in self.pools:
            shown = self._preparing("augmented images", _AUGMENT * copies)
            self.pools[plain] = Pool.make(self.data.train, augmentation, copies, self.seed, shown)
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
        images: Images | Pool | None = None,
    ) -> None:
        """Train with the run's data, seed and progress; see `training.fit`."""
        fit(
            module,
            self.data.train if images is None else images,
            replace(plan, epochs=self.epochs(plan.epochs)),
            seed=self.stage_seed,
            constraints=constraints,
            stage=self.stage,
            progress=self.meter,
        )


#: Trains, prunes or shares weights in place.
StageFunction = Callable[[nn.Sequential, StageContext], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a recipe.

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
    """

    name: str
    run: StageFunction
    epochs: int = 0
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class StageReport:
    """The result of a stage.

    Attributes
    ----------
    stage : str
    accuracy : float
        On the validation images, 0 to 1.
    weights : int
        Number of nonzero weights.
    seconds : float
    """

    stage: str
    accuracy: float
    weights: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """Stages in order, and how to write the result.

    Attributes
    ----------
    stages : sequence of Stage
        The first stage trains the dense network.
    mode : {'fast', 'small', 'tiny'}
        The writer's mode.
    notes : mapping of str to str
        Further metadata of the model.
    finish : callable or None
        Rewrites the model without changing its function, for instance by reordering hidden units.
    cost : float
        Time that an epoch takes; see `Stage`.
    """

    stages: Sequence[Stage]
    mode: Mode
    notes: Mapping[str, str] = field(default_factory=dict)
    finish: Callable[[Model], Model] | None = None
    cost: float = 1.0

    @property
    def epochs(self) -> int:
        """Training epochs of all stages together."""
        return sum(stage.epochs for stage in self.stages)
