"""The stages that recipes are made of: training, gradual pruning, weight sharing and rounding."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from dcformat.codecs import Mode
from dcformat.model import Model
from dcformat.transforms import reorder_units
from dcformat_pruning.data import Augmentation, Images, Pool
from dcformat_pruning.masks import Masks, PruningError, magnitude_masks, weight_names
from dcformat_pruning.recipes.recipe import Stage, StageContext
from dcformat_pruning.schedules import GradualBalanced
from dcformat_pruning.sharing import IncrementalSharing, SharedWeights, quantise_biases, round_weights, share
from dcformat_pruning.shrinking import keep_best_units, remove_dead_units, shrink
from dcformat_pruning.training import TrainingPlan

#: Gives the training images of a stage.
Source = Callable[[StageContext], Images | Pool]


def plain(context: StageContext) -> Images | Pool:
    """Return the training images without augmentation."""
    return context.data.train


def pool(augmentation: Augmentation, copies: int) -> Source:
    """Return a source of images with `copies` augmented copies of each."""
    return lambda context: context.pool(augmentation, copies)


def train(plan: TrainingPlan, source: Source = plain) -> Stage:
    """Return a stage that trains all weights."""

    def run(module: nn.Sequential, context: StageContext) -> None:
        context.fit(module, plan, images=source(context))

    return Stage("train", run, plan.epochs)


def prune_gradually(
    plan: TrainingPlan, keep: int, source: Source, units: Mapping[str, int], until: float = 0.6, power: float = 0.5
) -> Stage:
    """Return a stage that keeps the best units, then prunes while the small network trains.

    Parameters
    ----------
    keep : int
        Number of weights at the end.
    units : mapping of str to int
        Layer name to the number of its units (or channels) to keep at first.
    until, power : float
        See `GradualBalanced`.
    """

    def run(module: nn.Sequential, context: StageContext) -> None:
        keep_best_units(module, units)
        for name in weight_names(module):
            if not bool((module.get_parameter(name) != 0).any()):
                raise PruningError(f"{name}: expected nonzero weights before pruning, found none")
        small = shrink(module)
        masks = Masks.from_zeros(small.module)
        pruning = GradualBalanced(small.module, masks, min(keep, sum(masks.alive.values())), until=until, power=power)
        context.fit(small.module, plan, pruning, images=source(context))
        small.expand(module)
        remove_dead_units(module)

    return Stage("prune", run, plan.epochs)


def prune(densities: Mapping[str, float]) -> Stage:
    """Return a stage that prunes once by magnitude.

    Parameters
    ----------
    densities : mapping of str to float
        Parameter name to the share of its weights to keep.
    """

    def run(module: nn.Sequential, context: StageContext) -> None:
        Masks(module, magnitude_masks(module, densities)).apply()

    return Stage("prune", run)


def retrain(plan: TrainingPlan, source: Source = plain) -> Stage:
    """Return a stage that trains the weights that are not zero."""

    def run(module: nn.Sequential, context: StageContext) -> None:
        context.fit(module, plan, Masks.from_zeros(module), images=source(context))

    return Stage("retrain", run, plan.epochs)


def finetune(plan: TrainingPlan, source: Source = plain, name: str = "fine-tune") -> Stage:
    """Return a stage that trains the centroids: equal weights stay equal, and zeros stay zero."""

    def run(module: nn.Sequential, context: StageContext) -> None:
        _train_centroids(module, context, plan, source)

    return Stage(name, run, plan.epochs)


def _train_centroids(
    module: nn.Sequential, context: StageContext, plan: TrainingPlan, source: Source, *, biases: bool = True
) -> None:
    """Train the centroids of the small network, and its biases if `biases` is set."""
    small = shrink(module)
    for parameter in small.module.parameters():
        parameter.requires_grad_(biases or parameter.ndim > 1)
    shared = SharedWeights.from_values(small.module, weight_names(small.module))
    context.fit(small.module, plan, shared, images=source(context))
    small.expand(module)


def share_each(clusters: Mapping[str, int], method: str) -> Stage:
    """Return a stage that shares the weights of each named parameter; see `dcformat_pruning.sharing.share`."""

    def run(module: nn.Sequential, context: StageContext) -> None:
        share(module, clusters, method)

    return Stage("share", run)


def share_in_portions(plan: TrainingPlan, clusters: int, source: Source) -> Stage:
    """Return a stage that ties each layer's weights to few values, a portion at a time, while the small network trains.

    Parameters
    ----------
    clusters : int
        Number of values in a layer; fewer where a layer has fewer distinct weights.
    """

    def run(module: nn.Sequential, context: StageContext) -> None:
        small = shrink(module)
        counts = {}
        for name in weight_names(small.module):
            weight = small.module.get_parameter(name).detach()
            counts[name] = min(clusters, len(torch.unique(weight[weight != 0])))
        context.fit(small.module, plan, IncrementalSharing(small.module, counts), images=source(context))
        small.expand(module)

    return Stage("share", run, plan.epochs)


def quantise_and_finetune(plan: TrainingPlan, bits: int, levels: int, source: Source) -> Stage:
    """Return a stage that rounds the biases, trains the centroids to make up for it, and rounds the centroids.

    Parameters
    ----------
    bits : int
        Significant bits of a centroid; see `round_weights`.
    levels : int
        Number of steps from zero to the largest bias; see `quantise_biases`.
    """

    def run(module: nn.Sequential, context: StageContext) -> None:
        quantise_biases(module, levels)
        _train_centroids(module, context, plan, source, biases=False)
        round_weights(module, bits)

    # The name seeds the stage, so another name would give other bytes.
    return Stage("settle", run, plan.epochs)


def ordered(mode: Mode) -> Callable[[Model], Model]:
    """Return a function that puts hidden units in the order that takes the fewest bytes in `mode`."""
    return lambda model: reorder_units(model, mode)
