"""Chooses the weights that stay at a given density: by Optimal Brain Surgeon, Wanda, magnitude or chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dcformat_pruning.calibration.assignment import on_support, removal_losses
from dcformat_pruning.calibration.layers import UsedTensor
from dcformat_pruning.calibration.sensitivity import Sensitivity, combined
from dcformat_pruning.calibration.torch_network import TorchNetwork

CRITERIA = ("obs", "wanda", "magnitude", "random")

#: The rounds of gradual pruning.
_ROUNDS = 4

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def masks(
    network: TorchNetwork, layers: Sequence[UsedTensor], sensitivity: Sensitivity, density: float, criterion: str
) -> dict[str, Mask]:
    """Return the weights of each matrix that may differ from zero, as matrices.

    Together they make up the share `density` of all weights of matrices. `wanda` keeps the same share of each row, and
    the others rank the weights of all layers together.

    Parameters
    ----------
    network : TorchNetwork
    layers : sequence of UsedTensor
    sensitivity : Sensitivity
    density : float
        Above 0 and at most 1.
    criterion : {'obs', 'wanda', 'magnitude', 'random'}
    """
    rng = np.random.default_rng(0)
    scores = {
        layer.name: _scores(layer, layer.matrix(network.tensors[layer.name]).double().numpy(), sensitivity, criterion)
        if criterion != "random"
        else rng.random(tuple(layer.matrix(network.tensors[layer.name]).shape))
        for layer in layers
        if sensitivity.terms.get(layer.name)
    }
    if criterion == "wanda":
        return {name: _best(score, density) for name, score in scores.items()}
    return _best_of_all(scores, density)


def pruned(
    network: TorchNetwork, layers: Sequence[UsedTensor], sensitivity: Sensitivity, allowed: Mapping[str, Mask]
) -> dict[str, Tensor]:
    """Return the matrices without the weights that must go; those that stay make up for them, row by row."""
    found = {}
    for layer in layers:
        if layer.name in allowed:
            matrix = layer.matrix(network.tensors[layer.name]).double().numpy()
            hessians = combined(sensitivity.terms[layer.name]).hessian.numpy()
            values = on_support(matrix, hessians, allowed[layer.name])
            found[layer.name] = layer.tensor(torch.from_numpy(values).float())
    return found


def _scores(layer: UsedTensor, weights: Floats, sensitivity: Sensitivity, criterion: str) -> Floats:
    if criterion == "magnitude":
        return np.abs(weights)
    term = combined(sensitivity.terms[layer.name])
    hessians = term.hessian.numpy()
    if criterion == "wanda":
        norms = np.sqrt(np.diagonal(hessians, axis1=1, axis2=2))
        return np.asarray(np.abs(weights) * np.repeat(norms, len(weights) // len(norms), 0))
    return np.asarray(term.rows.numpy()[:, None] * removal_losses(weights, hessians))


def densities(density: float, gradual: bool) -> list[float]:
    """Return the densities of the rounds of pruning, in equal ratios if it is gradual."""
    if density == 1:
        return []
    return [density ** (k / _ROUNDS) for k in range(1, _ROUNDS + 1)] if gradual else [density]


def _best(scores: Floats, density: float) -> Mask:
    """Return the places of the highest scores of each row."""
    kept = round(density * scores.shape[1])
    mask = np.zeros(scores.shape, bool)
    np.put_along_axis(mask, np.argsort(-scores, axis=1, kind="stable")[:, :kept], True, axis=1)
    return mask


def _best_of_all(scores: Mapping[str, Floats], density: float) -> dict[str, Mask]:
    """Return the places of the highest scores of all layers."""
    if not scores:
        return {}
    together = np.concatenate([score.reshape(-1) for score in scores.values()])
    mask = np.zeros(len(together), bool)
    mask[np.argsort(-together, kind="stable")[: round(density * len(together))]] = True
    ends = np.cumsum([score.size for score in scores.values()])[:-1]
    parts = np.split(mask, ends)
    return {name: part.reshape(scores[name].shape) for name, part in zip(scores, parts, strict=True)}
