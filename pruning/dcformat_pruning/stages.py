"""What recipes are made of: stages, what a stage may use, and the stages that several recipes share.

A stage takes the module of the one before, changes it, and is saved when done. Masks and clusters are not saved: they
are the zeros and the equal values of the weights.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from dcformat.codecs.choose import Mode
from dcformat.model import Model
from dcformat.transforms import reorder_units
from dcformat_pruning.compact import Compact, narrow, tidy
from dcformat_pruning.data import Augmentation, Images, Pool, TrainingData
from dcformat_pruning.gradual import GradualBalanced
from dcformat_pruning.incremental import IncrementalSharing
from dcformat_pruning.masks import Masks, PruningError, weight_names
from dcformat_pruning.meter import Meter
from dcformat_pruning.sharing import SharedWeights, quantise_biases, round_weights, share
from dcformat_pruning.training import Constraint, Plan, fit

#: The work of making one augmented copy of the images, and of one copy's targets by a teacher (see `Stage.cost`).
_AUGMENT, _TEACH = 2.0, 4.0


@dataclass(slots=True)
class Context:
    """What a stage may use.

    Attributes
    ----------
    seed : int
        The run's; `stage_seed` differs from stage to stage, so that resuming changes nothing.
    carried : dict of str to Tensor
        What a stage leaves for later ones besides the module, saved with it: a teacher's weights.
    pools : dict
        Augmented images that stages have in common; made anew after resuming, the same.
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
        """The seed of this stage's random numbers; 32 bits, for torch's generators leave out what is above."""
        return zlib.crc32(f"{self.seed} {self.stage}".encode())

    def epochs(self, planned: int) -> int:
        """Scale a stage's epochs to what the caller asked for; at least one."""
        return max(1, round(planned * self.epoch_scale))

    def pool(self, augmentation: Augmentation, copies: int, teacher: nn.Module | None = None) -> Pool:
        """Return the augmented images, fewer copies in a short run, with the teacher's targets if one is given."""
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
        plan: Plan,
        *constraints: Constraint,
        images: Images | Pool | None = None,
    ) -> None:
        """Train with the run's data, seed and progress."""
        fit(
            module,
            self.data.train if images is None else images,
            replace(plan, epochs=self.epochs(plan.epochs)),
            seed=self.stage_seed,
            constraints=constraints,
            stage=self.stage,
            progress=self.meter,
        )


#: Trains, prunes or shares in place.
StageFunction = Callable[[nn.Sequential, Context], None]
#: Gives a stage's training images.
Source = Callable[[Context], Images | Pool]


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a recipe: `name` is shown and keys its checkpoint; `epochs` is its share of training.

    Attributes
    ----------
    cost : float or None
        The time that an epoch takes, for the estimate of what remains: 1 is one of LeNet-300-100. None: the recipe's.
    """

    name: str
    run: StageFunction
    epochs: int = 0
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class StageReport:
    """What a stage left: accuracy on the validation images (0..1), nonzero weights, seconds."""

    stage: str
    accuracy: float
    weights: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """Stages in order, and the writer's mode; the first stage makes the dense network.

    Attributes
    ----------
    finish : callable or None
        Rewrites the model without changing its function: the order of hidden units.
    cost : float
        The time that an epoch takes, see `Stage`.
    """

    stages: Sequence[Stage]
    mode: str
    notes: Mapping[str, str] = field(default_factory=dict)
    finish: Callable[[Model], Model] | None = None
    cost: float = 1.0

    @property
    def epochs(self) -> int:
        """Training epochs of all stages together."""
        return sum(stage.epochs for stage in self.stages)


def plain(context: Context) -> Images | Pool:
    """Return the training images as they are."""
    return context.data.train


def pool(augmentation: Augmentation, copies: int) -> Source:
    """Return a source of so many augmented copies."""
    return lambda context: context.pool(augmentation, copies)


def train(plan: Plan, source: Source = plain) -> Stage:
    """Train all weights."""

    def run(module: nn.Sequential, context: Context) -> None:
        context.fit(module, plan, images=source(context))

    return Stage("train", run, plan.epochs)


def prune_gradually(
    plan: Plan, keep: int, source: Source, units: Mapping[str, int], until: float = 0.6, power: float = 0.5
) -> Stage:
    """Keep the best units of each named layer, then prune to `keep` weights while training the small network.

    Parameters
    ----------
    units : mapping of str to int
        Layer name to the number of its units (or channels) that may stay.
    until : float
        The share of training after which weights are no longer pruned.
    power : float
        See `GradualBalanced`.
    """

    def run(module: nn.Sequential, context: Context) -> None:
        narrow(module, units)
        for name in weight_names(module):
            if not bool((module.get_parameter(name) != 0).any()):
                raise PruningError(f"{name}: expected nonzero weights before pruning, found none")
        small = Compact.of(module)
        masks = Masks.from_zeros(small.module)
        pruning = GradualBalanced(small.module, masks, min(keep, sum(masks.alive.values())), until=until, power=power)
        context.fit(small.module, plan, pruning, images=source(context))
        small.expand(module)
        tidy(module)

    return Stage("prune", run, plan.epochs)


def finetune(plan: Plan, source: Source = plain, name: str = "fine-tune") -> Stage:
    """Train the centroids: weights that are equal stay equal, zeros stay zero."""

    def run(module: nn.Sequential, context: Context) -> None:
        _train_centroids(module, context, plan, source)

    return Stage(name, run, plan.epochs)


def _train_centroids(
    module: nn.Sequential, context: Context, plan: Plan, source: Source, *, biases: bool = True
) -> None:
    """Train the small network's centroids, and its biases unless they are to stay as they are."""
    small = Compact.of(module)
    for parameter in small.module.parameters():
        parameter.requires_grad_(biases or parameter.ndim > 1)
    shared = SharedWeights.from_values(small.module, weight_names(small.module))
    context.fit(small.module, plan, shared, images=source(context))
    small.expand(module)


def share_each(clusters: Mapping[str, int], method: str) -> Stage:
    """Share the weights of each named parameter by itself."""

    def run(module: nn.Sequential, context: Context) -> None:
        share(module, clusters, method)

    return Stage("share", run)


def share_in_portions(plan: Plan, clusters: int, source: Source) -> Stage:
    """Tie each layer's weights to so many values, a portion at a time, while training the small network."""

    def run(module: nn.Sequential, context: Context) -> None:
        small = Compact.of(module)
        counts = {}
        for name in weight_names(small.module):
            weight = small.module.get_parameter(name).detach()
            counts[name] = min(clusters, len(torch.unique(weight[weight != 0])))
        context.fit(small.module, plan, IncrementalSharing(small.module, counts), images=source(context))
        small.expand(module)

    return Stage("share", run, plan.epochs)


def settle(plan: Plan, bits: int, levels: int, source: Source) -> Stage:
    """Round each layer's biases to so many steps either side of zero, let the centroids make up for it, round those.

    Parameters
    ----------
    bits : int
        Significant bits of a centroid.
    """

    def run(module: nn.Sequential, context: Context) -> None:
        quantise_biases(module, levels)
        _train_centroids(module, context, plan, source, biases=False)
        round_weights(module, bits)

    return Stage("settle", run, plan.epochs)


def ordered(mode: Mode) -> Callable[[Model], Model]:
    """Return a function that puts hidden units in the order that takes fewest bytes in `mode`."""
    return lambda model: reorder_units(model, mode)
