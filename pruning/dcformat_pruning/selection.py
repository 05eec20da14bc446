"""From scores to masks: who stays, by number, share, percentile or sensitivity; weights, rows, units, pixels.

All functions take scores by parameter name (lowest pruned first) and an optional mapping of masks that are in
force: a pruned weight never comes back, and shares and percentiles are of the alive ones.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from dcformat_pruning.criteria.base import Data, Scores, batches, evaluating, hooked, scored_layers
from dcformat_pruning.masks import PrunedAwayWarning, PruningError, largest
from dcformat_pruning.wiring import Layer, Wiring, wiring

MaskMap = dict[str, Tensor]


def keep_globally(scores: Mapping[str, Tensor], keep: int, alive: Mapping[str, Tensor] | None = None) -> MaskMap:
    """Keep the `keep` best of all layers together: exactly that many, the earlier of equals first.

    Raises
    ------
    PruningError
        `keep` is not between 1 and the number of alive weights.

    Warns
    -----
    PrunedAwayWarning
        A layer keeps nothing.
    """
    masks = _alive(scores, alive)
    total = sum(int(mask.sum()) for mask in masks.values())
    if not 0 < keep <= total:
        raise PruningError(f"expected to keep 1 to {total} weights, found {keep}")
    flat = torch.cat([_ranked(score, masks[name]).flatten() for name, score in scores.items()])
    parts = torch.split(largest(flat, keep), [score.numel() for score in scores.values()])
    return _warned({name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)})


def keep_in_layers(
    scores: Mapping[str, Tensor], keep: Mapping[str, int], alive: Mapping[str, Tensor] | None = None
) -> MaskMap:
    """Keep each layer's best: ``keep[name]`` of them.

    Raises
    ------
    PruningError
        A name without scores, or a number that is not between 1 and the layer's alive weights; names the
        layer.
    """
    masks = _alive(scores, alive)
    out: MaskMap = {}
    for name, number in keep.items():
        if name not in scores:
            raise PruningError(f"{name}: expected a layer with scores, found none of that name")
        here = int(masks[name].sum())
        if not 0 < number <= here:
            raise PruningError(f"{name}: expected to keep 1 to {here} weights, found {number}")
        out[name] = largest(_ranked(scores[name], masks[name]), number)
    return out


def keep_in_rows(scores: Mapping[str, Tensor], densities: Mapping[str, float]) -> MaskMap:
    """Keep the best of each output row, all rows equally many, as Wanda does.

    Parameters
    ----------
    densities : mapping of str to float
        Parameter name to the share of each row that stays, above 0 and at most 1; at least one weight a row.

    Raises
    ------
    PruningError
        A name without scores, or a density outside (0, 1]; names the layer.
    """
    out: MaskMap = {}
    for name, density in densities.items():
        if name not in scores:
            raise PruningError(f"{name}: expected a layer with scores, found none of that name")
        rows = scores[name].flatten(1)
        keep = max(1, round(checked_density(name, density) * rows.shape[1]))
        order = torch.sort(rows, dim=1, descending=True, stable=True).indices[:, :keep]
        mask = torch.zeros_like(rows, dtype=torch.bool).scatter_(1, order, True)
        out[name] = mask.view_as(scores[name])
    return out


def percentile_masks(
    scores: Mapping[str, Tensor],
    percentile: float,
    *,
    layerwise: bool = False,
    alive: Mapping[str, Tensor] | None = None,
) -> MaskMap:
    """Prune what scores below a percentile of the alive scores, over all layers or in each (the article)."""
    if not 0 <= percentile < 100:
        raise PruningError(f"percentile: expected at least 0 and below 100, found {percentile}")
    masks = _alive(scores, alive)
    found = {name: score[masks[name]] for name, score in scores.items()}
    if layerwise:
        limits = {name: _percentile(part, percentile) for name, part in found.items()}
    else:
        limits = dict.fromkeys(scores, _percentile(torch.cat(list(found.values())), percentile))
    return _warned({name: masks[name] & (score >= limits[name]) for name, score in scores.items()})


def sensitivity_masks(
    scores: Mapping[str, Tensor],
    s: float,
    *,
    spread: Mapping[str, float] | None = None,
    alive: Mapping[str, Tensor] | None = None,
) -> MaskMap:
    """Prune what scores below ``s`` times a standard deviation, layer by layer.

    Parameters
    ----------
    s : float
        The article's: 2, and up to 4.
    spread : mapping of str to float, optional
        Each layer's standard deviation. Default: that of its alive scores, as the article does for TF-IDF;
        Han 2015 takes the *weights'* instead: `weight_spread`.
    """
    if not (s >= 0 and math.isfinite(s)):
        raise PruningError(f"sensitivity: expected a number of at least 0, found {s}")
    masks = _alive(scores, alive)
    out: MaskMap = {}
    for name, score in scores.items():
        found = score[masks[name]]
        if spread is not None:
            limit = s * spread[name]
        else:
            limit = s * float(found.double().std(correction=0)) if found.numel() else 0.0
        out[name] = masks[name] & (score >= limit)
    return _warned(out)


def weight_spread(module: nn.Module) -> dict[str, float]:
    """Return the standard deviation of each layer's weights, signs and all (Han 2015)."""
    layers = scored_layers(module)
    return {name: float(layer.weight.detach().double().std(correction=0)) for name, layer in layers.items()}


def checked_density(name: str, density: float) -> float:
    """Return `density`, or raise `PruningError` naming the layer unless it is in (0, 1]."""
    if not 0 < density <= 1:
        raise PruningError(f"{name}: expected a density above 0 and at most 1, found {density}")
    return density


def uniform_budget(module: nn.Module, density: float) -> dict[str, int]:
    """Give every layer the same density; at least one weight each."""
    layers = scored_layers(module)
    return {
        name: max(1, round(checked_density(name, density) * layer.weight.numel())) for name, layer in layers.items()
    }


def magnitude_budget(module: nn.Module, keep: int) -> dict[str, int]:
    """Give every layer what one global magnitude threshold would leave it; at least one weight each."""
    layers = scored_layers(module)
    scores = {name: layer.weight.detach().abs() for name, layer in layers.items()}
    return ranked_budget(scores, keep)


def lamp_budget(module: nn.Module, keep: int) -> dict[str, int]:
    """Give every layer what LAMP would (Lee 2021): w^2 over the sum of its layer's squares from w^2 up."""
    scores: Scores = {}
    for name, layer in scored_layers(module).items():
        squares = layer.weight.detach().double().square().flatten()
        ordered, order = torch.sort(squares)
        above = ordered.flip(0).cumsum(0).flip(0)
        score = torch.empty_like(squares)
        score[order] = torch.where(above > 0, ordered / above, 0.0)
        scores[name] = score.view_as(layer.weight)
    return ranked_budget(scores, keep)


def ranked_budget(scores: Mapping[str, Tensor], keep: int) -> dict[str, int]:
    """Give every layer what ranking all layers' scores together would leave it; at least one weight each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrunedAwayWarning)
        counts = {name: int(mask.sum()) for name, mask in keep_globally(scores, keep).items()}
    # A layer without a weight cuts the network: take its one weight from the largest.
    for name in counts:
        if not counts[name] and keep >= len(counts):
            counts[max(counts, key=lambda n: counts[n])] -= 1
            counts[name] = 1
    return counts


def unit_masks(
    module: nn.Module,
    units: Mapping[str, Tensor],
    wires: Wiring | None = None,
    masks: Mapping[str, Tensor] | None = None,
) -> MaskMap:
    """Mask whole units or channels: their own weights, and the weights that read them.

    Parameters
    ----------
    units : mapping of str to Tensor
        Parameter name to booleans ``(out,)``; False goes.
    masks : mapping of str to Tensor, optional
        Masks in force; the result is their intersection with the units'.

    Raises
    ------
    PruningError
        A layer whose units are read by something else than Linear or Conv2d layers (a sum, the output); names
        it.
    """
    layers = scored_layers(module)
    readers = (wires or wiring(module)).readers
    out = _alive({name: layer.weight for name, layer in layers.items()}, masks)
    for name, stay in units.items():
        path = name.removesuffix(".weight")
        if path not in readers or name not in layers:
            raise PruningError(f"{name}: expected a layer whose units only Linear or Conv2d layers read, found another")
        if stay.shape != (layers[name].weight.shape[0],) or stay.dtype != torch.bool:
            raise PruningError(f"{name}: expected {layers[name].weight.shape[0]} booleans, found {tuple(stay.shape)}")
        _rows(out[name])[~stay] = False
        for reader in readers[path]:
            _units(out[f"{reader}.weight"], len(stay))[:, ~stay] = False
    return _warned(out)


def best_units(scores: Mapping[str, Tensor], keep: Mapping[str, int]) -> dict[str, Tensor]:
    """Choose the ``keep[name]`` units of each layer that score best: booleans for `unit_masks`.

    Raises
    ------
    PruningError
        See `keep_in_layers`.
    """
    return keep_in_layers({name: scores[name] for name in scores if name in keep}, keep)


def dead_inputs(
    module: nn.Module, data: Data, least: float = 0.0, masks: Mapping[str, Tensor] | None = None
) -> MaskMap:
    """Mask the weights that read pixels (or channels) never above `least` in absolute value over `data`.

    Only layers that read the module's own input are masked; see `Wiring.first`.
    """
    layers = scored_layers(module)
    first = {f"{path}.weight": layers[f"{path}.weight"] for path in wiring(module).first}
    peak: dict[str, Tensor] = {}

    def hook(name: str, layer: Layer, x: Tensor, _: Tensor) -> None:
        units = x.abs().flatten(2).amax((0, 2)) if isinstance(layer, nn.Conv2d) else x.abs().flatten(0, -2).amax(0)
        peak[name] = torch.maximum(peak[name], units) if name in peak else units

    with torch.no_grad(), evaluating(module), hooked(first, hook):
        for x, _ in batches(data):
            module(x)
    out = _alive({name: layer.weight for name, layer in layers.items()}, masks)
    for name, loudest in peak.items():
        _units(out[name], len(loudest))[:, loudest <= least] = False
    return _warned(out)


def structured_first(
    module: nn.Module,
    data: Data,
    scores: Mapping[str, Tensor],
    keep: int,
    units: Mapping[str, Tensor] | None = None,
) -> MaskMap:
    """Dead input pixels and the chosen units go first; of the weights then left, the `keep` best stay.

    Parameters
    ----------
    scores : mapping of str to Tensor
        Of the weights.
    units : mapping of str to Tensor, optional
        As `unit_masks` takes them, for instance from `best_units`.
    """
    masks = dead_inputs(module, data)
    if units:
        masks = unit_masks(module, units, masks=masks)
    return keep_globally(scores, keep, masks)


def _alive(scores: Mapping[str, Tensor], alive: Mapping[str, Tensor] | None) -> MaskMap:
    """Return own copies of the masks in force, all True where there is none."""
    out: MaskMap = {}
    for name, score in scores.items():
        mask = None if alive is None else alive.get(name)
        out[name] = torch.ones_like(score, dtype=torch.bool) if mask is None else mask.clone()
        if out[name].shape != score.shape:
            raise PruningError(f"{name}: expected a mask of shape {tuple(score.shape)}, found {tuple(out[name].shape)}")
    return out


def _ranked(score: Tensor, mask: Tensor) -> Tensor:
    """Put pruned weights behind all others."""
    return score.double().masked_fill(~mask, -math.inf)


def _percentile(values: Tensor, percentile: float) -> float:
    if not values.numel():
        return 0.0
    ordered = torch.sort(values.flatten().double()).values
    place = percentile / 100 * (ordered.numel() - 1)
    low, high = math.floor(place), math.ceil(place)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (place - low))


def _rows(mask: Tensor) -> Tensor:
    return mask.view(mask.shape[0], -1)


def _units(mask: Tensor, units: int) -> Tensor:
    """View a mask as ``(rows, units it reads, weights for each)``: several each after a Flatten."""
    return mask.view(mask.shape[0], units, -1)


def _warned(masks: MaskMap) -> MaskMap:
    empty: Iterable[str] = (name for name, mask in masks.items() if not bool(mask.any()))
    for name in empty:
        warnings.warn(f"{name}: the whole layer is pruned away", PrunedAwayWarning, stacklevel=3)
    return masks
