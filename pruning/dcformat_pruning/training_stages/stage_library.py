"""The stages of compression: training, gradual pruning, weight sharing and rounding."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from dcformat_pruning.data import Augmentation
from dcformat_pruning.export.folding import fold_batch_norm
from dcformat_pruning.feeds import Feed
from dcformat_pruning.masks import (
    Masks,
    PruningError,
    Zeroed,
    all_weights,
    magnitude_masks,
    nonzero_weights,
    weight_names,
)
from dcformat_pruning.schedules import GradualBalanced
from dcformat_pruning.sharing import (
    IncrementalSharing,
    SharedWeights,
    StraightThroughSharing,
    quantise_biases,
    round_weights,
    share,
)
from dcformat_pruning.shrinking import is_chain, remove_dead_units, shrink, working_copy
from dcformat_pruning.tracing import UnsupportedModuleError
from dcformat_pruning.training import Constraint, TrainingPlan
from dcformat_pruning.training_stages.stage import Stage, StageContext

#: Gives the training data of a stage.
FeedSource = Callable[[StageContext], Feed]

#: How weights come to share values while the network trains.
SharingMethod = Literal["straight-through", "portions"]

SHARING_METHODS: Mapping[SharingMethod, Callable[[nn.Module, Mapping[str, int], float], Constraint]] = {
    "straight-through": StraightThroughSharing,
    "portions": IncrementalSharing,
}


def plain(context: StageContext) -> Feed:
    """Return the training data unchanged."""
    return context.train


def pool(augmentation: Augmentation, copies: int) -> FeedSource:
    """Return a source of images with `copies` augmented copies of each."""
    return lambda context: context.pool(augmentation, copies)


def train(plan: TrainingPlan, source: FeedSource = plain, name: str = "train") -> Stage:
    """Return a stage that trains all weights."""

    def run(module: nn.Module, context: StageContext) -> None:
        context.fit(module, plan, data=source(context))

    return Stage(name, run, plan.epochs)


def prune_gradually(
    plan: TrainingPlan,
    keep: int,
    alive: Mapping[str, Tensor] | None = None,
    power: float = 0.5,
    cost_power: float = 0.0,
    floor: float = 0.0,
    name: str = "prune",
) -> Stage:
    """Return a stage that prunes while the network trains.

    A chain (see `dcformat_pruning.shrinking`) trains without its dead units, which do not come back. In any other
    module all weights compete, those that an earlier stage pruned included.

    Parameters
    ----------
    keep : int
        Number of weights at the end.
    alive : mapping of str to Tensor, optional
        Masks of all trainable weights; those that they prune do not come back.
    power, cost_power, floor : float
        See `GradualBalanced`.
    """
    balanced = partial(GradualBalanced, power=power, cost_power=cost_power, floor=floor)

    def run(module: nn.Module, context: StageContext) -> None:
        # The pruning changes its masks, and those of the caller must not change.
        masks = all_weights(module) if alive is None else Masks(module, {n: m.clone() for n, m in alive.items()})
        masks.apply()
        if isinstance(module, nn.Sequential) and is_chain(module) and not context.in_place:
            _check_nonzero(module)
            small = shrink(module)
            masks = Masks.from_zeros(small.module)
            kept = min(keep, sum(masks.alive.values()))
            pruning = balanced(small.module, masks, kept)
            context.fit(small.module, plan, pruning)
            small.expand(module)
            remove_dead_units(module)
        else:
            begin = nonzero_weights(module)
            pruning = balanced(module, masks, keep, begin=begin)
            context.fit(module, plan, pruning)

    return Stage(name, run, plan.epochs)


def _check_nonzero(module: nn.Module) -> None:
    for name in weight_names(module):
        if not bool((module.get_parameter(name) != 0).any()):
            raise PruningError(f"{name}: expected nonzero weights before pruning, found none")


def prune(densities: Mapping[str, float]) -> Stage:
    """Return a stage that prunes once by magnitude.

    Parameters
    ----------
    densities : mapping of str to float
        Parameter name to the share of its weights to keep.
    """

    def run(module: nn.Module, context: StageContext) -> None:
        Masks(module, magnitude_masks(module, densities)).apply()

    return Stage("prune", run)


def retrain(plan: TrainingPlan, source: FeedSource = plain) -> Stage:
    """Return a stage that trains the weights that are not zero."""

    def run(module: nn.Module, context: StageContext) -> None:
        context.fit(module, plan, Masks.from_zeros(module), data=source(context))

    return Stage("retrain", run, plan.epochs)


def finetune(plan: TrainingPlan, source: FeedSource = plain, name: str = "fine-tune") -> Stage:
    """Return a stage that trains the centroids: equal weights stay equal, and zeros stay zero."""

    def run(module: nn.Module, context: StageContext) -> None:
        _train_centroids(module, context, plan, source)

    return Stage(name, run, plan.epochs)


def _train_centroids(
    module: nn.Module, context: StageContext, plan: TrainingPlan, source: FeedSource, *, biases: bool = True
) -> None:
    """Train the centroids of the network without its dead units, and its biases if `biases` is set."""
    small = working_copy(module, in_place=context.in_place)
    trained = [p for p in small.module.parameters() if p.requires_grad and p.ndim <= 1 and not biases]
    for parameter in trained:
        parameter.requires_grad_(False)
    shared = SharedWeights.from_values(small.module, weight_names(small.module))
    context.fit(small.module, plan, shared, data=source(context))
    for parameter in trained:
        parameter.requires_grad_(True)
    small.expand(module)


def share_each(clusters: Mapping[str, int], method: str) -> Stage:
    """Return a stage that shares the weights of each named parameter; see `dcformat_pruning.sharing.share`."""

    def run(module: nn.Module, context: StageContext) -> None:
        share(module, clusters, method)

    return Stage("share", run)


def share_while_training(
    plan: TrainingPlan,
    clusters: int,
    *,
    method: SharingMethod,
    rate: float = 0.0,
    name: str = "share",
) -> Stage:
    """Return a stage after which each layer's weights have few values, found as the network trains.

    Parameters
    ----------
    clusters : int
        Number of values in a layer; fewer where a layer has fewer distinct weights.
    method : {'straight-through', 'portions'}
        `StraightThroughSharing` or `IncrementalSharing`.
    rate : float
        The price of a bit; see these.
    """

    def run(module: nn.Module, context: StageContext) -> None:
        small = working_copy(module, in_place=context.in_place)
        counts = codebook_sizes(small.module, clusters)
        empty = [name for name in weight_names(small.module) if name not in counts]
        sharing = SHARING_METHODS[method](small.module, counts, rate)
        context.fit(small.module, plan, sharing, Zeroed(small.module, empty))
        small.expand(module)

    return Stage(name, run, plan.epochs)


def quantise_and_finetune(plan: TrainingPlan, bits: int, levels: int, *, name: str = "settle") -> Stage:
    """Return a stage that rounds the biases, trains the centroids to make up for it, and rounds the centroids.

    Parameters
    ----------
    bits : int
        Significant bits of a centroid; see `round_weights`.
    levels : int
        Number of steps from zero to the largest bias; see `quantise_biases`.
    """

    def run(module: nn.Module, context: StageContext) -> None:
        quantise_biases(module, levels)
        _train_centroids(module, context, plan, plain, biases=False)
        round_weights(module, bits)

    # The name seeds the stage, so another name would give other bytes.
    return Stage(name, run, plan.epochs)


def codebook_sizes(module: nn.Module, clusters: int) -> dict[str, int]:
    """Return the number of values for each weight that is not all zero: `clusters`, or as many as it has."""
    counts = {}
    for name in weight_names(module):
        weight = module.get_parameter(name).detach()
        if distinct := len(torch.unique(weight[weight != 0])):
            counts[name] = min(clusters, distinct)
    return counts


def folded(stage: Stage) -> Stage:
    """Return a stage that first folds batch norms into layers: to fold them later would split codebooks."""

    def run(module: nn.Module, context: StageContext) -> None:
        fold_norms(module)
        stage.run(module, context)

    return replace(stage, run=run, rebuild=fold_norms)


def fold_norms(module: nn.Module) -> None:
    """Fold batch norms where the module can be traced; the export keeps the others unchanged."""
    with contextlib.suppress(UnsupportedModuleError):
        fold_batch_norm(module)
