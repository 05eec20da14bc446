"""Castellano's criterion for units, and the removal of units so that the other weights make up for them.

Castellano, Fanelli and Pelillo 1997, "An Iterative Pruning Algorithm for Feedforward Neural Networks".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dcformat_pruning.criteria.base import Data, Scores, finite, scored_layers
from dcformat_pruning.criteria.obs import hessians, refit
from dcformat_pruning.criteria.weight_inputs import input_energies, multiplied_weights
from dcformat_pruning.masks import PruningError
from dcformat_pruning.unit_readers import unit_readers


@dataclass(frozen=True, slots=True)
class Castellano:
    """``sum_i w_hi^2 * sum_mu y_h(mu)^2``: the contribution of unit h to the net inputs i of its readers.

    It scores only units whose readers are all Linear or Conv2d layers; see `unit_readers`. `remove_and_refit`
    removes units and solves the readers' other weights so that their net inputs change least.
    """

    name: str = "Castellano"

    def scores(self, module: nn.Module, data: Data) -> Scores:
        """Return a score for each unit, float32 ``(out,)``. See `Criterion.scores`."""
        layers = scored_layers(module)
        energy = input_energies(module, multiplied_weights(module), data)
        out: Scores = {}
        for producer, readers in unit_readers(module).readers.items():
            units = layers[f"{producer}.weight"].weight.shape[0]
            total: Tensor = torch.zeros(units, dtype=torch.float64)
            for reader in readers:
                layer = layers[f"{reader}.weight"]
                pull = layer.weight.detach().double().flatten(1).square().sum(0) * energy[f"{reader}.weight"][0]
                total = total.to(pull.device) + pull.view(units, -1).sum(1)
            out[f"{producer}.weight"] = total.float()
        return finite(out)


@torch.no_grad()
def remove_and_refit(module: nn.Module, data: Data, units: Mapping[str, Tensor]) -> None:
    """Remove units, in place, and solve their readers' other weights so that net inputs change least.

    The new weights are the least-squares solution over `data`. If there are several, they are the one of least norm,
    to which Castellano's conjugate gradients converge. Layers are treated in the module's order.

    Parameters
    ----------
    units : mapping of str to Tensor
        Parameter name to bool ``(out,)``; False removes the unit.

    Raises
    ------
    PruningError
        The units of a layer are read by something other than Linear or Conv2d layers; the message names the layer.
    """
    layers = scored_layers(module)
    readers = unit_readers(module).readers
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
                # Weights that are already zero stay zero, so that current masks still hold.
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
    max_removals: int | None = None,
) -> dict[str, int]:
    """Repeatedly remove the unit with the lowest score while the module is good, in place and without retraining.

    Parameters
    ----------
    good : callable
        Takes the module after a removal. The first removal after which it returns False is undone, and is the last.
    max_removals : int, optional
        The maximum number of removals; unlimited by default.

    Returns
    -------
    dict of str to int
        Parameter name to the number of units left in the layer.

    Raises
    ------
    PruningError
        See `Criterion.scores`.
    """
    alive = {name: torch.ones(len(s), dtype=torch.bool) for name, s in Castellano().scores(module, data).items()}
    removed = 0
    while max_removals is None or removed < max_removals:
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
