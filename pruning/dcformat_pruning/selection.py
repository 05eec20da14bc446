"""Turns scores into masks: it chooses weights, rows, units or pixels by number, share, percentile or threshold.

The functions take a mapping of parameter names to scores; the lowest scores are pruned first. Most of them also take
the current masks: a weight that they prune stays pruned, and numbers and percentiles refer to the alive weights.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from dcformat_pruning.criteria.base import Data, WeightedLayer, batches, evaluating, hooked, scored_layers
from dcformat_pruning.masks import Masks, PrunedAwayWarning, PruningError, largest
from dcformat_pruning.unit_readers import unit_readers

MaskMap = dict[str, Tensor]


def all_alive(module: nn.Module) -> Masks:
    """Return masks of all weights that criteria score, which prune nothing."""
    layers = scored_layers(module)
    return Masks(module, {name: torch.ones_like(layer.weight, dtype=torch.bool) for name, layer in layers.items()})


def keep_globally(scores: Mapping[str, Tensor], keep: int, alive: Mapping[str, Tensor] | None = None) -> MaskMap:
    """Keep exactly the `keep` weights with the highest scores over all layers, the earlier of equal ones.

    Parameters
    ----------
    scores : mapping of str to Tensor
        Parameter name to scores.
    alive : mapping of str to Tensor, optional
        The current masks.

    Returns
    -------
    dict of str to Tensor
        Parameter name to bool in the shape of its scores.

    Raises
    ------
    PruningError
        `keep` is not between 1 and the number of alive weights.

    Warns
    -----
    PrunedAwayWarning
        A layer keeps no weight.
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
    """Keep the ``keep[name]`` weights with the highest scores in each layer.

    Raises
    ------
    PruningError
        A name has no scores, or a number is not between 1 and the number of the layer's alive weights; the message
        names the layer.
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
    """Keep the same number of weights in each output row, those with the highest scores (Wanda: Sun et al. 2023).

    Parameters
    ----------
    densities : mapping of str to float
        Parameter name to the share of each row to keep, above 0 and at most 1. Each row keeps at least one weight.

    Raises
    ------
    PruningError
        A name has no scores, or a density is outside (0, 1]; the message names the layer.
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
    """Prune the weights whose scores are below a percentile of the alive scores.

    This is one of the two thresholds in V. Rakivnenko, "Deep Compression, 2015: How Much More Can We Squeeze in
    2025?", Towards AI, 2025.

    Parameters
    ----------
    percentile : float
        At least 0 and below 100; interpolated linearly between scores.
    layerwise : bool
        Take the percentile of each layer's scores, instead of the scores of all layers together.

    Raises
    ------
    PruningError
        The percentile is out of range.
    """
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
    """Prune the weights whose scores are below ``s`` times a standard deviation, layer by layer.

    Parameters
    ----------
    s : float
        At least 0. The article by Rakivnenko (2025; see `percentile_masks`) uses 2 to 4.
    spread : mapping of str to float, optional
        Parameter name to standard deviation. The default is the standard deviation of the alive scores, which the
        article uses for TF-IDF. Han et al. (2015) use the deviation of the *weights* instead; see `weight_spread`.

    Raises
    ------
    PruningError
        `s` is negative or not finite.
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
    """Return the standard deviation of each layer's signed weights (Han et al. 2015, section 3)."""
    layers = scored_layers(module)
    return {name: float(layer.weight.detach().double().std(correction=0)) for name, layer in layers.items()}


def checked_density(name: str, density: float) -> float:
    """Return `density`, or raise a `PruningError` that names the layer if it is outside (0, 1]."""
    if not 0 < density <= 1:
        raise PruningError(f"{name}: expected a density above 0 and at most 1, found {density}")
    return density


def uniform_budget(module: nn.Module, density: float) -> dict[str, int]:
    """Return how many weights each layer keeps at the same density in all layers; at least one."""
    layers = scored_layers(module)
    return {
        name: max(1, round(checked_density(name, density) * layer.weight.numel())) for name, layer in layers.items()
    }


def magnitude_budget(module: nn.Module, keep: int) -> dict[str, int]:
    """Return how many weights each layer keeps under one global threshold on magnitude; at least one."""
    layers = scored_layers(module)
    scores = {name: layer.weight.detach().abs() for name, layer in layers.items()}
    return ranked_budget(scores, keep)


def ranked_budget(scores: Mapping[str, Tensor], keep: int) -> dict[str, int]:
    """Return how many weights each layer keeps when the scores of all layers are ranked together; at least one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrunedAwayWarning)
        counts = {name: int(mask.sum()) for name, mask in keep_globally(scores, keep).items()}
    # A layer without weights would cut the network in two, so it gets a weight from the layer that keeps most.
    for name in counts:
        if not counts[name] and keep >= len(counts):
            counts[max(counts, key=lambda n: counts[n])] -= 1
            counts[name] = 1
    return counts


def unit_masks(
    module: nn.Module,
    units: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
) -> MaskMap:
    """Mask whole units or channels: their own weights, and the weights that read them.

    Parameters
    ----------
    units : mapping of str to Tensor
        Parameter name to bool ``(out,)``; False removes the unit.
    masks : mapping of str to Tensor, optional
        The current masks, which the result narrows further.

    Raises
    ------
    PruningError
        The units of a layer are read by something other than Linear or Conv2d layers, such as a sum or the output;
        the message names the layer.
    """
    layers = scored_layers(module)
    readers = unit_readers(module).readers
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
    """Choose the ``keep[name]`` units of each layer with the highest scores: booleans for `unit_masks`.

    Raises
    ------
    PruningError
        See `keep_in_layers`.
    """
    return keep_in_layers({name: scores[name] for name in scores if name in keep}, keep)


def dead_inputs(
    module: nn.Module, data: Data, threshold: float = 0.0, masks: Mapping[str, Tensor] | None = None
) -> MaskMap:
    """Mask the weights that read pixels (or channels) whose absolute value never exceeds `threshold` over `data`.

    Only layers that read the module's own input are masked; see `UnitReaders.first`.
    """
    layers = scored_layers(module)
    first = {f"{path}.weight": layers[f"{path}.weight"] for path in unit_readers(module).first}
    peak: dict[str, Tensor] = {}

    def hook(name: str, layer: WeightedLayer, x: Tensor, _: Tensor) -> None:
        units = x.abs().flatten(2).amax((0, 2)) if isinstance(layer, nn.Conv2d) else x.abs().flatten(0, -2).amax(0)
        peak[name] = torch.maximum(peak[name], units) if name in peak else units

    with torch.no_grad(), evaluating(module), hooked(first, hook):
        for x, _ in batches(data):
            module(x)
    out = _alive({name: layer.weight for name, layer in layers.items()}, masks)
    for name, loudest in peak.items():
        _units(out[name], len(loudest))[:, loudest <= threshold] = False
    return _warned(out)


def structured_first(
    module: nn.Module,
    data: Data,
    scores: Mapping[str, Tensor],
    keep: int,
    units: Mapping[str, Tensor] | None = None,
) -> MaskMap:
    """Prune dead input pixels and the given units first, then keep the `keep` best of the remaining weights.

    Parameters
    ----------
    scores : mapping of str to Tensor
        Scores of the weights.
    units : mapping of str to Tensor, optional
        As for `unit_masks`, for instance from `best_units`.
    """
    masks = dead_inputs(module, data)
    if units:
        masks = unit_masks(module, units, masks=masks)
    return keep_globally(scores, keep, masks)


def _alive(scores: Mapping[str, Tensor], alive: Mapping[str, Tensor] | None) -> MaskMap:
    """Return copies of the current masks, all True where there is none."""
    out: MaskMap = {}
    for name, score in scores.items():
        mask = None if alive is None else alive.get(name)
        out[name] = torch.ones_like(score, dtype=torch.bool) if mask is None else mask.clone()
        if out[name].shape != score.shape:
            raise PruningError(f"{name}: expected a mask of shape {tuple(score.shape)}, found {tuple(out[name].shape)}")
    return out


def _ranked(score: Tensor, mask: Tensor) -> Tensor:
    """Return the scores with minus infinity for pruned weights, which ranks them last."""
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
    """View a mask as ``(rows, units it reads, weights per unit)``; a unit has several weights after a Flatten."""
    return mask.view(mask.shape[0], units, -1)


def _warned(masks: MaskMap) -> MaskMap:
    empty: Iterable[str] = (name for name, mask in masks.items() if not bool(mask.any()))
    for name in empty:
        warnings.warn(f"{name}: the whole layer is pruned away", PrunedAwayWarning, stacklevel=3)
    return masks
