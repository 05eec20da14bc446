"""Criteria that look at what flows through the layers: a forward pass, no labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dcformat_pruning.criteria.base import (
    Data,
    Scores,
    batches,
    evaluating,
    finite,
    hooked,
    per_column,
    positions,
    scored_layers,
    visit_inputs,
)
from dcformat_pruning.masks import PruningError
from dcformat_pruning.wiring import Layer, wiring


@dataclass(frozen=True, slots=True)
class TfIdf:
    """``|w|^a * TF^b * IDF^c``: how loud an input is, times how rare (the 2025 article, "NeuronRank").

    For input ``j`` of a layer over N samples (for a convolution: patches): ``TF_j = mean |x_j|``, ``DF_j``
    the count of ``|x_j| > tau``, ``IDF_j = max(0, ln((N + smooth) / (DF_j + smooth)) + add)``.

    Attributes
    ----------
    weight_power, tf_power, idf_power : float
        The exponents a, b, c.
    tau : float
        Above it an input counts as present. On inputs normalised to mean 0 every pixel is present and the IDF
        says nothing: score a network that takes pixels in [0, 1].
    smooth, add : float
    """

    weight_power: float = 1.0
    tf_power: float = 1.0
    idf_power: float = 1.0
    tau: float = 0.05
    smooth: float = 1.0
    add: float = 1.0
    name: str = "TF-IDF"

    def __post_init__(self) -> None:
        if self.smooth <= 0 or self.tau < 0:
            raise PruningError(f"TF-IDF: expected smooth > 0 and tau >= 0, found {self.smooth} and {self.tau}")

    def scores(self, module: nn.Module, data: Data) -> Scores:
        """Return the products. See `Criterion.scores`."""
        layers = scored_layers(module)
        loud: dict[str, Tensor] = {}
        present: dict[str, Tensor] = {}
        count = dict.fromkeys(layers, 0)

        def visit(name: str, x: Tensor) -> None:
            x = x.abs()
            count[name] += x.shape[1]
            loud[name] = loud.get(name, 0) + x.sum(1, dtype=torch.float64)
            present[name] = present.get(name, 0) + (x > self.tau).sum(1)

        visit_inputs(module, layers, data, visit)
        out: Scores = {}
        for name in _seen(layers, count):
            layer = layers[name]
            rarity = torch.log((count[name] + self.smooth) / (present[name] + self.smooth)) + self.add
            factor = (loud[name] / count[name]) ** self.tf_power * rarity.clamp(min=0) ** self.idf_power
            out[name] = layer.weight.detach().abs() ** self.weight_power * per_column(layer, factor)
        return finite(out)


@dataclass(frozen=True, slots=True)
class Wanda:
    """``|w_ij| * ||x_j||_2``; meant to be ranked within each output row, see `keep_in_rows` (Sun 2023)."""

    name: str = "Wanda"

    def scores(self, module: nn.Module, data: Data) -> Scores:
        """Return the products. See `Criterion.scores`."""
        layers = scored_layers(module)
        squares: dict[str, Tensor] = {}

        def visit(name: str, x: Tensor) -> None:
            squares[name] = squares.get(name, 0) + x.double().square().sum(1)

        visit_inputs(module, layers, data, visit)
        return finite(
            {
                name: layers[name].weight.detach().abs() * per_column(layers[name], squares[name].sqrt())
                for name in _seen(layers, squares)
            }
        )


@dataclass(frozen=True, slots=True)
class Apoz:
    """A unit's share of outputs that are *not* zero: one minus the average percentage of zeros (Hu 2016).

    An output counts as zero if a ReLU directly behind the layer would make it so; fold batch norm first. The
    last layer's outputs are logits: leave its scores out when choosing.
    """

    name: str = "APoZ"

    def scores(self, module: nn.Module, data: Data) -> Scores:
        """Return a score for each unit, ``(out,)``. See `Criterion.scores`."""
        layers = scored_layers(module)
        alive: dict[str, Tensor] = {}
        count = dict.fromkeys(layers, 0)

        def hook(name: str, layer: Layer, _: Tensor, output: Tensor) -> None:
            spread = positions(layer, output).flatten(0, 1)
            count[name] += spread.shape[0]
            alive[name] = alive.get(name, 0) + (spread > 0).sum(0).flatten()

        with torch.no_grad(), evaluating(module), hooked(layers, hook):
            for x, _ in batches(data):
                module(x)
        return {name: (alive[name] / count[name]).float() for name in _seen(layers, count)}


@dataclass(frozen=True, slots=True)
class Castellano:
    """``sum_i w_hi^2 * sum_mu y_h(mu)^2``: a unit h's part in the net inputs i (Castellano 1997).

    Only units whose readers are Linear or Conv2d layers are scored (see `wiring`). After removal the readers'
    other weights are solved to keep their net inputs: `dcformat_pruning.units.remove_and_refit`.
    """

    name: str = "Castellano"

    def scores(self, module: nn.Module, data: Data) -> Scores:
        """Return a score for each unit, ``(out,)``. See `Criterion.scores`."""
        layers = scored_layers(module)
        energy: dict[str, Tensor] = {}

        def visit(name: str, x: Tensor) -> None:
            energy[name] = energy.get(name, 0) + x.double().square().sum(1)

        visit_inputs(module, layers, data, visit)
        out: Scores = {}
        for producer, readers in wiring(module).readers.items():
            units = layers[f"{producer}.weight"].weight.shape[0]
            total: Tensor = torch.zeros(units, dtype=torch.float64)
            for reader in readers:
                layer = layers[f"{reader}.weight"]
                pull = layer.weight.detach().double().flatten(1).square().sum(0) * energy[f"{reader}.weight"][0]
                total = total.to(pull.device) + pull.view(units, -1).sum(1)
            out[f"{producer}.weight"] = total.float()
        return finite(out)


def _seen(layers: dict[str, Layer], figures: dict[str, int] | dict[str, Tensor]) -> list[str]:
    """Return the layers' names; raise if the forward pass left one out."""
    for name in layers:
        if name not in figures or (isinstance(figures[name], int) and not figures[name]):
            raise PruningError(f"{name}: expected a layer that the forward pass uses, found it unused")
    return list(layers)
