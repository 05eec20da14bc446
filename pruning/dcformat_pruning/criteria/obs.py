"""Optimal Brain Surgeon layer by layer: scores, and updates of the remaining weights that make up for pruned ones.

A change ``D`` of a layer's weights costs ``sum over rows of D H D^T``, where ``H = X^T X / N`` over the inputs X of the
layer (OBC: Frantar and Alistarh 2022). Pruning weight q of a row costs ``w_q^2 / [H^-1]_qq`` once the other weights
have moved by ``-w_q / [H^-1]_qq * H^-1[:, q]`` (Hassibi and Stork 1993).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dcformat_pruning.criteria.base import Data, Scores, finite
from dcformat_pruning.criteria.weight_inputs import (
    Multiplied,
    WeightInputs,
    check_used,
    multiplied_weights,
    visit_inputs,
)
from dcformat_pruning.masks import PruningError, largest

#: Maximum number of float64 values in the systems of equations that are solved together.
_MAX_FLOATS = 1 << 24

#: An eigenvalue of H below this share of the largest is a rounding error of float64 sums of float32 products.
_SINGULAR = 1e-11


@dataclass(frozen=True, slots=True)
class Obs:
    """``w_q^2 / [H^-1]_qq`` (Hassibi and Stork 1993).

    Attributes
    ----------
    damping : float
        Share of the mean of H's diagonal to add to the diagonal, because inputs that are always zero make H singular.
    """

    damping: float = 0.01
    name: str = "OBS"

    def scores(self, module: nn.Module, data: Data) -> Scores:
        """Return the scores. See `Criterion.scores`."""
        weights = multiplied_weights(module)
        out: Scores = {}
        for name, hessian in hessians(module, data, self.damping).items():
            own = weights[name]
            inverse = torch.linalg.inv(hessian).diagonal(dim1=1, dim2=2)
            square = own.matrix(own.weight.detach()).double().square()
            out[name] = (square / inverse[:, None]).view(own.weight.shape).float()
        return finite(out)


def hessians(module: nn.Module, data: Data, damping: float = 0.01) -> Scores:
    """Return ``X^T X / N`` of each weight's inputs with `damping` (see `Obs`), float64 ``(groups, columns, columns)``.

    Raises
    ------
    PruningError
        See `Criterion.scores`.
    """
    weights = multiplied_weights(module)
    found: Scores = {}
    count: dict[str, Tensor] = {}

    def visit(name: str, rows: WeightInputs) -> None:
        x = rows.x.double()
        found[name] = found.get(name, 0) + x.transpose(1, 2) @ x
        count[name] = count.get(name, 0) + rows.counts

    visit_inputs(module, weights, data, visit)
    check_used(weights, found)
    for name in weights:
        hessian = found[name] / count[name][..., None]
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        extra = damping * diagonal.mean(1, keepdim=True)
        # If a layer's input is always zero, any H fits; the identity has an inverse.
        diagonal += torch.where(extra > 0, extra, float(damping > 0))
        found[name] = hessian
    return finite({name: found[name] for name in weights})


@torch.no_grad()
def refit(weight: Tensor, hessian: Tensor, mask: Tensor) -> Tensor:
    """Return the weights under `mask` whose outputs are closest to those of `weight`, in the least-squares sense.

    Parameters
    ----------
    weight : Tensor
        ``(rows, columns)``.
    hessian : Tensor
        float64 ``(columns, columns)``, positive semidefinite.
    mask : Tensor
        bool in the weight's shape; False prunes.

    Returns
    -------
    Tensor
        In the shape and dtype of `weight`.
    """
    target = weight.double() @ hessian
    out = torch.zeros_like(target)
    for rows, columns, systems in _systems(hessian, mask):
        out[rows[:, None], columns] = _solve(systems, target[rows].gather(1, columns))
    return out.to(weight.dtype)


def _systems(hessian: Tensor, mask: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield H restricted to the alive columns of each row, several rows of equally many at a time.

    Yields
    ------
    tuple of Tensor
        Rows ``(n,)``, their alive columns ``(n, size)``, and the restricted matrices ``(n, size, size)``.
    """
    count = mask.sum(1)
    for size in torch.unique(count).tolist():
        rows = torch.nonzero(count == size).flatten()
        step = max(1, _MAX_FLOATS // max(1, size * size))
        for start in range(0, len(rows) if size else 0, step):
            part = rows[start : start + step]
            columns = mask[part].nonzero()[:, 1].view(len(part), size)
            yield part, columns, hessian[columns[:, :, None], columns[:, None, :]]


def _solve(systems: Tensor, targets: Tensor) -> Tensor:
    """Solve symmetric systems; if one of them is (nearly) singular, return the solutions of least norm."""
    factor, failed = torch.linalg.cholesky_ex(systems)
    pivots = factor.diagonal(dim1=1, dim2=2).square()
    if not bool(failed.any()) and bool((pivots.amin(1) > _SINGULAR * pivots.amax(1)).all()):
        solved: Tensor = torch.cholesky_solve(targets[..., None], factor)
        return solved[..., 0]
    inverse: Tensor = torch.linalg.pinv(systems, hermitian=True, rtol=_SINGULAR)
    return (inverse @ targets[..., None])[..., 0]


@torch.no_grad()
def prune_layer(weight: Tensor, hessian: Tensor, keep: int, rounds: int = 12) -> tuple[Tensor, Tensor]:
    """Prune a layer to `keep` weights by their OBS scores, and move the remaining weights to make up for it.

    Parameters
    ----------
    weight : Tensor
        ``(rows, columns)``.
    hessian : Tensor
        float64 ``(columns, columns)``, positive definite.
    keep : int
        Number of weights to keep.
    rounds : int
        Number of prunings. Scores are recomputed for each, and the number of weights falls geometrically. With as many
        rounds as weights to prune, this is the greedy algorithm of OBC (Frantar and Alistarh 2022, section 4).

    Returns
    -------
    tuple of Tensor
        The weights in the shape and dtype of `weight`, and the mask: bool, True where a weight was kept.

    Raises
    ------
    PruningError
        `keep` is not between 1 and the number of weights.
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
    """Return the diagonal of the inverse of H restricted to the alive columns of each row; 1 for pruned weights."""
    out = torch.ones(mask.shape, dtype=torch.float64, device=mask.device)
    if bool(mask.all()):
        shared: Tensor = torch.linalg.inv(hessian).diagonal()
        return out * shared
    for rows, columns, systems in _systems(hessian, mask):
        out[rows[:, None], columns] = torch.linalg.inv(systems).diagonal(dim1=1, dim2=2)
    return out


@torch.no_grad()
def sparsegpt_layer(weight: Tensor, hessian: Tensor, keep: int, block: int = 128) -> tuple[Tensor, Tensor]:
    """Prune a layer column by column, passing errors on to the right (SparseGPT: Frantar and Alistarh 2023, section 3).

    Parameters, results and errors are those of `prune_layer`. The mask is chosen in blocks of `block` columns, and each
    block keeps its share of `keep`. All rows share one factorisation, so this scales to wide layers; `prune_layer` is
    more exact.
    """
    rows, columns = weight.shape
    if not 0 < keep <= weight.numel():
        raise PruningError(f"expected to keep 1 to {weight.numel()} weights, found {keep}")
    # Row i of this factor is the update of the columns from i on, once the columns before i are fixed.
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


#: Takes a weight matrix, its Hessian and the number of weights to keep; returns the new weights and the mask.
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
    """Prune layers one after another with compensating updates, in place.

    The inputs of each layer come from the layers that were pruned before it, as in SparseGPT.

    Parameters
    ----------
    keep : mapping of str to int
        Parameter name to the number of weights to keep.
    damping : float
        See `Obs`.
    method : callable
        `prune_layer` or `sparsegpt_layer`.

    Returns
    -------
    dict of str to Tensor
        The masks: parameter name to bool in the parameter's shape.

    Raises
    ------
    PruningError
        A name is unknown, or a layer has fewer weights than are to be kept; the message names it.
    """
    masks: dict[str, Tensor] = {}
    for name, own in _checked_weights(module, keep).items():
        hessian = hessians(module, data, damping)[name]
        weight = own.matrix(own.weight)
        share, rest = divmod(keep[name], len(weight))
        if not share:
            raise PruningError(
                f"{name}: expected at least a weight for each of {len(weight)} groups, found {keep[name]}"
            )
        parts = [method(weight[g], hessian[g], share + (g < rest)) for g in range(len(weight))]
        own.weight.copy_(torch.stack([w for w, _ in parts]).view_as(own.weight))
        masks[name] = torch.stack([m for _, m in parts]).view_as(own.weight)
    return masks


def _checked_weights(module: nn.Module, keep: Mapping[str, int]) -> dict[str, Multiplied]:
    """Return the named weights in the module's order, or raise `PruningError` if one cannot keep what it should."""
    weights = multiplied_weights(module)
    for name, number in keep.items():
        if name not in weights:
            raise PruningError(f"{name}: expected a weight that multiplies inputs, found none of that name")
        if not 0 < number <= weights[name].weight.numel():
            raise PruningError(f"{name}: expected to keep 1 to {weights[name].weight.numel()}, found {number}")
    return {name: own for name, own in weights.items() if name in keep}
