"""Prunes a network by a criterion to a given size, and retrains it: one plan for all criteria."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from dcformat_pruning.criteria import (
    Castellano,
    Criterion,
    Obs,
    Scores,
    Wanda,
    remove_and_refit,
    scored_layers,
    sparsegpt_layer,
    surgery,
)
from dcformat_pruning.data import Images
from dcformat_pruning.masks import Masks
from dcformat_pruning.selection import (
    best_units,
    keep_in_layers,
    keep_in_rows,
    ranked_budget,
    uniform_budget,
    unit_masks,
)
from dcformat_pruning.shrinking import shrink
from dcformat_pruning.training import TrainingPlan, fit

#: Number of training images that criteria look at.
SCORED_IMAGES = 3000


def first_images(images: Images) -> Images:
    """Return the images that criteria look at; the training images are already in random order."""
    return Images(images.pixels[:SCORED_IMAGES], images.labels[:SCORED_IMAGES])


def weights_left(module: nn.Module, ratio: float) -> int:
    """Return how many weights to keep for `ratio` times fewer parameters; biases are kept and counted.

    Raises
    ------
    ValueError
        The ratio is below 1, or leaves fewer weights than there are layers.
    """
    layers = scored_layers(module)
    total = sum(p.numel() for p in module.parameters())
    weights = sum(layer.weight.numel() for layer in layers.values())
    left = round(total / ratio) - (total - weights) if ratio >= 1 else 0
    if left < len(layers):
        raise ValueError(f"ratio: expected 1 to {total / (total - weights + 3):.0f} times fewer, found {ratio}")
    return left


def own_budget(module: nn.Module, criterion: Criterion, scores: Scores, keep: int) -> dict[str, int]:
    """Return how many weights (or units) a criterion keeps in each layer, of `keep` weights in total.

    The scores of all layers are ranked together. Wanda is ranked within each row instead, as published (Sun et al.
    2023, section 3), so that every row of every layer keeps the same share.
    """
    if are_of_units(scores):
        return unit_counts(module, keep)
    if isinstance(criterion, Wanda):
        return uniform_budget(module, keep / sum(score.numel() for score in scores.values()))
    return ranked_budget(scores, keep)


def prune(module: nn.Module, criterion: Criterion, scores: Scores, budget: Mapping[str, int], sample: Images) -> None:
    """Prune each layer to its budget, in place: weights, weights of each row (Wanda), or units.

    OBS also moves the remaining weights, as SparseGPT does, and Castellano refits the readers of removed units.

    Parameters
    ----------
    budget : mapping of str to int
        Parameter name to the number of weights (or units) to keep; see `own_budget`.
    sample : Images
        The images that OBS and Castellano fit the remaining weights to.
    """
    if isinstance(criterion, Obs):
        surgery(module, sample, budget, method=sparsegpt_layer)
    elif isinstance(criterion, Castellano):
        remove_and_refit(module, sample, best_units(scores, budget))
    elif are_of_units(scores):
        Masks(module, unit_masks(module, best_units(scores, budget))).apply()
    elif isinstance(criterion, Wanda):
        densities = {name: number / scores[name].numel() for name, number in budget.items()}
        Masks(module, keep_in_rows(scores, densities)).apply()
    else:
        Masks(module, keep_in_layers(scores, budget)).apply()


def are_of_units(scores: Scores) -> bool:
    """Whether the scores are for units, not for weights."""
    return next(iter(scores.values())).ndim == 1


def unit_counts(module: nn.Module, keep: int) -> dict[str, int]:
    """Return how many units of each hidden layer to keep, the same share of each, for at most `keep` weights."""
    layers = scored_layers(module)
    names = list(layers)
    inputs = next(iter(layers.values())).weight.shape[1]
    sizes = [layer.weight.shape[0] for layer in layers.values()]
    best = dict.fromkeys(names[:-1], 1)
    for step in range(1, 1001):
        counts = [max(1, size * step // 1000) for size in sizes[:-1]] + [sizes[-1]]
        total = sum(a * b for a, b in zip([inputs, *counts[:-1]], counts, strict=True))
        if total > keep:
            break
        best = dict(zip(names[:-1], counts[:-1], strict=True))
    return best


def retrain(module: nn.Sequential, images: Images, epochs: int, seed: int) -> None:
    """Train the remaining weights, in place.

    Parameters
    ----------
    module : nn.Sequential
        Takes pixels in [0, 1]; see `baselines.folded`. Pixels and units that are dead are left out of the training.
    """
    small = shrink(module)
    masks = Masks.from_zeros(small.module)
    plan = TrainingPlan(epochs=epochs, lr=2e-3, batch=128)
    fit(small.module, images, plan, seed=seed, constraints=(masks,), stage="retrain")
    small.expand(module)
