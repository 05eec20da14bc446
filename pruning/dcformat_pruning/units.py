"""Removing whole units so that what is left makes up for them (Castellano, Fanelli and Pelillo 1997)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from dcformat_pruning.criteria.activations import Castellano
from dcformat_pruning.criteria.base import Data, scored_layers
from dcformat_pruning.criteria.obs import hessians, refit
from dcformat_pruning.masks import PruningError
from dcformat_pruning.wiring import wiring


@torch.no_grad()
def remove_and_refit(module: nn.Module, data: Data, units: Mapping[str, Tensor]) -> None:
    """Remove units, in place, and solve their readers' other weights so that net inputs stay.

    The readers' weights are the least-squares solution over `data`, the one of least norm where several are
    equal, which is what Castellano's conjugate gradients converge to. Layers are treated in the module's
    order.

    Parameters
    ----------
    units : mapping of str to Tensor
        Parameter name to booleans ``(out,)``; False goes.

    Raises
    ------
    PruningError
        A layer whose units are read by something else than Linear or Conv2d layers; names it.
    """
    layers = scored_layers(module)
    readers = wiring(module).readers
    for name in [n for n in layers if n in units] + [n for n in units if n not in layers]:
        path = name.removesuffix(".weight")
        if path not in readers or name not in layers:
            raise PruningError(f"{name}: expected a layer whose units only Linear or Conv2d layers read, found another")
        stay = units[name]
        statistics = hessians(module, data, damping=0.0)
        for reader in readers[path]:
            weight = layers[f"{reader}.weight"].weight
            flat = weight.flatten(1)
            each = flat.shape[1] // len(stay)
            gone = (flat.view(len(flat), len(stay), each) != 0).any(2).any(0) & ~stay
            if bool(gone.any()):
                # Weights that were zero already stay so: a mask in force is kept.
                mask = (flat != 0) & stay.repeat_interleave(each)
                weight.copy_(refit(flat, statistics[f"{reader}.weight"][0], mask).view_as(weight))
        layer = layers[name]
        layer.weight[~stay] = 0
        if layer.bias is not None:
            layer.bias[~stay] = 0


def remove_while(
    module: nn.Module,
    data: Data,
    good: Callable[[nn.Module], bool],
    *,
    most: int | None = None,
) -> dict[str, int]:
    """Remove the lowest-scoring unit again and again, as long as `good` says so; no retraining.

    Parameters
    ----------
    good : callable
        Takes the module after a removal; the first removal that is not good is taken back.
    most : int, optional
        At most so many removals.

    Returns
    -------
    dict of str to int
        Units left in each layer.
    """
    alive = {name: torch.ones(len(s), dtype=torch.bool) for name, s in Castellano().scores(module, data).items()}
    removed = 0
    while most is None or removed < most:
        scores = Castellano().scores(module, data)
        candidates = [(float(s[alive[n]].min()), n) for n, s in scores.items() if int(alive[n].sum()) > 1]
        if not candidates:
            break
        name = min(candidates)[1]
        unit = int(scores[name].masked_fill(~alive[name].to(scores[name].device), torch.inf).argmin())
        before = {key: value.clone() for key, value in module.state_dict().items()}
        alive[name][unit] = False
        remove_and_refit(module, data, {name: alive[name].to(scores[name].device)})
        if not good(module):
            module.load_state_dict(before)
            alive[name][unit] = True
            break
        removed += 1
    return {name: int(mask.sum()) for name, mask in alive.items()}
