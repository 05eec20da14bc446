"""A first guess of how many weights to keep, from networks that are pruned in one step and not trained."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import nn

from dcformat.dense import from_dense
from dcformat.model import Model
from dcformat.writer import written_bytes
from dcformat_pruning.compression.compression_settings import Settings
from dcformat_pruning.compression.goals import Goal
from dcformat_pruning.compression.snapshots import Snapshot
from dcformat_pruning.export.architecture_export import to_numpy
from dcformat_pruning.masks import Masks, PrunedAwayWarning, weight_names
from dcformat_pruning.selection import keep_globally
from dcformat_pruning.sharing import quantise_biases, round_weights, share
from dcformat_pruning.training_stages.stage_library import codebook_sizes, fold_norms

#: Training roughly makes up for a loss of this share of what the network knows. A first network that is too
#: sparse costs more than one that is too dense, from which the next ones continue.
_RECOVERED = 0.05

#: Ratio of two densities that are tried.
_STEP = 0.7

#: Number of files that are made to guess the number of weights for a size.
_FILES = 3


def prune_at_once(module: nn.Module, keep: int) -> None:
    """Keep the largest weights as multiples of their layer's root mean square, in place and without training."""
    weights = {name: module.get_parameter(name).detach() for name in weight_names(module)}
    tiny = torch.finfo(torch.float32).tiny
    scores = {name: w.abs() / w.square().mean().sqrt().clamp_min(tiny) for name, w in weights.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrunedAwayWarning)
        Masks(module, keep_globally(scores, keep)).apply()


def keep_for_drop(module: nn.Module, total: int, validate: Callable[[nn.Module], float], span: float) -> int:
    """Return the number of weights with which a network that is pruned in one step loses a twentieth of `span`.

    Parameters
    ----------
    span : float
        The metric of the dense network, minus that of a network that knows nothing.
    """
    before = Snapshot(module)
    dense = validate(module)
    keep = total
    while keep > 0.005 * total:
        prune_at_once(module, max(1, round(_STEP * keep)))
        metric = validate(module)
        before.restore()
        if not dense - metric <= _RECOVERED * span:
            break
        keep = max(1, round(_STEP * keep))
    return keep


def keep_for_size(module: nn.Module, total: int, size: int, settings: Settings) -> int:
    """Return the number of weights for a file of `size` bytes, from files of networks that were not trained."""
    before = Snapshot(module)
    keep = max(1, min(total, size))
    for _ in range(_FILES):
        prune_at_once(module, keep)
        fold_norms(module)
        share(module, codebook_sizes(module, settings.clusters))
        round_weights(module, settings.bits)
        quantise_biases(module, settings.levels)
        tensors = {name: from_dense(name, to_numpy(value)) for name, value in module.named_parameters()}
        found = len(written_bytes(Model(tensors), "small"))
        before.restore()
        keep = max(1, min(total, round(keep * size / found)))
    return keep


def first_keep(
    module: nn.Module,
    goal: Goal,
    total: int,
    settings: Settings,
    validate: Callable[[nn.Module], float],
    span: float,
) -> int:
    """Return the number of weights of the first network to try; the module is not changed."""
    if goal.density is not None:
        return round(goal.density * total)
    if goal.size is not None:
        return keep_for_size(module, total, goal.size, settings)
    return keep_for_drop(module, total, validate, span)
