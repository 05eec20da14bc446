"""Optimal Brain Surgeon layer by layer: scores, and updates of what is left that make up for what is gone.

A layer's error after a change ``D`` of its weights is ``sum over rows of D H D^T`` with ``H = X^T X / N``
over its inputs X (Frantar's OBC). Removing one weight q of a row costs ``w_q^2 / [H^-1]_qq`` once the others
have moved by ``-w_q / [H^-1]_qq * H^-1[:, q]`` (Hassibi 1993).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dcformat_pruning.criteria.base import Data, Scores, finite, matrix, scored_layers, visit_inputs
from dcformat_pruning.masks import PruningError, largest

#: Numbers of float64 that the systems of several rows may hold at one time.
_MEMORY = 1 << 24

#: Below this share of the largest, an eigenvalue of H is rounding: float64 sums of products of float32
#: inputs.
_SINGULAR = 1e-11


@dataclass(frozen=True, slots=True)
class Obs:
    """``w_q^2 / [H^-1]_qq``.

    Attributes
    ----------
    damping : float
        Share of the mean of H's diagonal that is added to it: inputs that are always zero make H singular.
    """

    damping: float = 0.01
    name: str = "OBS"

    def scores(self, module: nn.Module, data: Data) -> Scores:
        """Return the scores. See `Criterion.scores`."""
        layers = scored_layers(module)
        out: Scores = {}
        for name, hessian in hessians(module, data, self.damping).items():
            weight = matrix(layers[name], layers[name].weight.detach()).double()
            inverse = torch.linalg.inv(hessian).diagonal(dim1=1, dim2=2)
            out[name] = (weight.square() / inverse[:, None]).view(layers[name].weight.shape).float()
        return finite(out)


def hessians(module: nn.Module, data: Data, damping: float = 0.01) -> Scores:
    """Return each layer's ``X^T X / N`` with `damping`, float64 ``(groups, columns, columns)``.

    Raises
    ------
    PruningError
        See `Criterion.scores`.
    """
    layers = scored_layers(module)
    found: Scores = {}
    count = dict.fromkeys(layers, 0)

    def visit(name: str, x: Tensor) -> None:
        x = x.double()
        found[name] = found.get(name, 0) + x.transpose(1, 2) @ x
        count[name] += x.shape[1]

    visit_inputs(module, layers, data, visit)
    for name in layers:
        if name not in found:
            raise PruningError(f"{name}: expected a layer that the forward pass uses, found it unused")
        hessian = found[name] / count[name]
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        extra = damping * diagonal.mean(1, keepdim=True)
        # A layer whose input is all zero: any H says the same, and the identity can be inverted.
        diagonal += torch.where(extra > 0, extra, float(damping > 0))
        found[name] = hessian
    return finite({name: found[name] for name in layers})


@torch.no_grad()
def refit(weight: Tensor, hessian: Tensor, mask: Tensor) -> Tensor:
    """Return the weights under `mask` that keep the rows' outputs best, in the sense of least squares.

    Parameters
    ----------
    weight : Tensor
        ``(rows, columns)``, the weights whose outputs are to be kept.
    hessian : Tensor
        ``(columns, columns)``, float64, positive definite or at least semidefinite.
    mask : Tensor
        Booleans of the weight's shape; True stays.
    """
    target = weight.double() @ hessian
    out = torch.zeros_like(target)
    count = mask.sum(1)
    for size in torch.unique(count).tolist():
        rows = torch.nonzero(count == size).flatten()
        step = max(1, _MEMORY // max(1, size * size))
        for start in range(0, len(rows) if size else 0, step):
            part = rows[start : start + step]
            columns = mask[part].nonzero()[:, 1].view(len(part), size)
            systems = hessian[columns[:, :, None], columns[:, None, :]]
            out[part[:, None], columns] = _solve(systems, target[part].gather(1, columns))
    return out.to(weight.dtype)


def _solve(systems: Tensor, targets: Tensor) -> Tensor:
    """Solve symmetric systems; where one is singular or nearly so, all get their solutions of least norm."""
    factor, failed = torch.linalg.cholesky_ex(systems)
    pivots = factor.diagonal(dim1=1, dim2=2).square()
    if not bool(failed.any()) and bool((pivots.amin(1) > _SINGULAR * pivots.amax(1)).all()):
        solved: Tensor = torch.cholesky_solve(targets[..., None], factor)
        return solved[..., 0]
    inverse: Tensor = torch.linalg.pinv(systems, hermitian=True, rtol=_SINGULAR)
    return (inverse @ targets[..., None])[..., 0]


@torch.no_grad()
def prune_layer(weight: Tensor, hessian: Tensor, keep: int, rounds: int = 12) -> tuple[Tensor, Tensor]:
    """Prune one layer to its `keep` best weights by OBS scores, moving the others; return (weights, mask).

    Parameters
    ----------
    weight : Tensor
        ``(rows, columns)``.
    hessian : Tensor
        ``(columns, columns)``, float64, positive definite.
    keep : int
    rounds : int
        Scores are computed anew between rounds, whose numbers of weights fall geometrically. As many rounds
        as weights to remove make it the greedy algorithm of OBC (Frantar 2022), one weight at a time.
    """
    total = weight.numel()
    if not 0 < keep <= total:
        raise PruningError(f"expected to keep 1 to {total} weights, found {keep}")
    mask = torch.ones_like(weight, dtype=torch.bool)
    current = weight.double()
    for number in range(1, min(rounds, total - keep) + 1):
        left = total - number if rounds >= total - keep else round(total * (keep / total) ** (number / rounds))
        score = current.square() / _inverse_diagonals(hessian, mask)
        mask = largest(score.masked_fill(~mask, -1.0), left)
        current = refit(weight, hessian, mask).double()
    return current.to(weight.dtype), mask


def _inverse_diagonals(hessian: Tensor, mask: Tensor) -> Tensor:
    """Return for each row the diagonal of the inverse of H restricted to its alive columns; 1 elsewhere."""
    out = torch.ones(mask.shape, dtype=torch.float64, device=mask.device)
    if bool(mask.all()):
        shared: Tensor = torch.linalg.inv(hessian).diagonal()
        return out * shared
    count = mask.sum(1)
    for size in torch.unique(count).tolist():
        rows = torch.nonzero(count == size).flatten()
        step = max(1, _MEMORY // max(1, size * size))
        for start in range(0, len(rows) if size else 0, step):
            part = rows[start : start + step]
            columns = mask[part].nonzero()[:, 1].view(len(part), size)
            systems = hessian[columns[:, :, None], columns[:, None, :]]
            out[part[:, None], columns] = torch.linalg.inv(systems).diagonal(dim1=1, dim2=2)
    return out


@torch.no_grad()
def sparsegpt_layer(weight: Tensor, hessian: Tensor, keep: int, block: int = 128) -> tuple[Tensor, Tensor]:
    """Prune one layer as SparseGPT does (Frantar 2023): column by column, errors passed on to the right.

    Parameters are those of `prune_layer`; the mask is chosen in blocks of `block` columns, each keeping its
    share of `keep`. One factorisation serves all rows, so it scales to wide layers; `prune_layer` is more
    exact.
    """
    rows, columns = weight.shape
    if not 0 < keep <= weight.numel():
        raise PruningError(f"expected to keep 1 to {weight.numel()} weights, found {keep}")
    # Row i of this factor holds what is needed once the columns before i are fixed.
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    current = weight.double().clone()
    mask = torch.ones_like(weight, dtype=torch.bool)
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        share = round(keep * stop / columns) - round(keep * start / columns)
        score = (current[:, start:stop] / factor.diagonal()[start:stop]).square()
        mask[:, start:stop] = largest(score, min(share, rows * (stop - start)))
        for column in range(start, stop):
            gone = ~mask[:, column]
            error = torch.where(gone, current[:, column], 0.0) / factor[column, column]
            current[:, column:] -= error[:, None] * factor[column, column:]
            current[gone, column] = 0.0
    return current.to(weight.dtype), mask


#: (weight as rows x columns, Hessian, weights to keep) to (weights, mask).
LayerMethod = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


@torch.no_grad()
def surgery(
    module: nn.Module,
    data: Data,
    keep: Mapping[str, int],
    *,
    damping: float = 0.01,
    method: LayerMethod = prune_layer,
) -> dict[str, Tensor]:
    """Prune layers one after another with compensating updates, in place; return their masks.

    Each layer is fitted on inputs that come out of the layers pruned before it, as in SparseGPT.

    Parameters
    ----------
    keep : mapping of str to int
        Weights to keep of each named parameter.
    method : callable
        `prune_layer` or `sparsegpt_layer`.

    Raises
    ------
    PruningError
        An unknown name, or a number of weights that the layer does not have; names the layer.
    """
    layers = scored_layers(module)
    for name, number in keep.items():
        if name not in layers:
            raise PruningError(f"{name}: expected a Linear or Conv2d weight of the module, found none of that name")
        if not 0 < number <= layers[name].weight.numel():
            raise PruningError(f"{name}: expected to keep 1 to {layers[name].weight.numel()}, found {number}")
    masks: dict[str, Tensor] = {}
    for name, layer in layers.items():
        if name not in keep:
            continue
        hessian = hessians(module, data, damping)[name]
        weight = matrix(layer, layer.weight)
        groups = weight.shape[0]
        share, rest = divmod(keep[name], groups)
        if not share:
            raise PruningError(f"{name}: expected at least a weight for each of {groups} groups, found {keep[name]}")
        parts = [method(weight[g], hessian[g], share + (g < rest)) for g in range(groups)]
        layer.weight.copy_(torch.stack([w for w, _ in parts]).view_as(layer.weight))
        masks[name] = torch.stack([m for _, m in parts]).view_as(layer.weight)
    return masks
