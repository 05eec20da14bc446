"""Criteria that look at the inputs or outputs of layers: they need a forward pass, but no labels."""

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
    input_energies,
    per_column,
    positions,
    scored_layers,
    visit_inputs,
)
from dcformat_pruning.masks import PruningError
from dcformat_pruning.tracing import Layer


@dataclass(frozen=True, slots=True)
class TfIdf:
    """``|w|^a * TF^b * IDF^c``: a weight's magnitude, times how loud its input is, times how rarely it is present.

    The article calls it "NeuronRank": V. Rakivnenko, "Deep Compression, 2015: How Much More Can We Squeeze in 2025?",
    Towards AI, 2025.

    For input ``j`` of a layer over N samples (patches for a convolution), ``TF_j = mean |x_j|``, ``DF_j`` is the number
    of samples with ``|x_j| > tau``, and ``IDF_j = max(0, ln((N + smooth) / (DF_j + smooth)) + add)``.

    Attributes
    ----------
    weight_power, tf_power, idf_power : float
        The exponents a, b and c.
    tau : float
        An input counts as present when its absolute value exceeds this. When pixels are normalised to mean 0, every
        pixel is present and the IDF says nothing; score a network that takes pixels in [0, 1].
    smooth, add : float
        See the formula for the IDF.

    Raises
    ------
    PruningError
        `smooth` is not positive, or `tau` is negative.
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
    """``|w_ij| * ||x_j||_2`` (Sun et al. 2023, section 3); meant to rank within each row, see `keep_in_rows`."""

    name: str = "Wanda"

    def scores(self, module: nn.Module, data: Data) -> Scores:
        """Return the products. See `Criterion.scores`."""
        layers = scored_layers(module)
        squares = input_energies(module, layers, data)
        return finite(
            {
                name: layers[name].weight.detach().abs() * per_column(layers[name], squares[name].sqrt())
                for name in _seen(layers, squares)
            }
        )


@dataclass(frozen=True, slots=True)
class Apoz:
    """The share of a unit's outputs that is *not* zero: one minus the average percentage of zeros (Hu et al. 2016).

    An output counts as zero if a ReLU right behind the layer would make it zero, so fold batch norms first. The outputs
    of the last layer are logits; do not choose units by its scores.
    """

    name: str = "APoZ"

    def scores(self, module: nn.Module, data: Data) -> Scores:
        """Return a score for each unit, float32 ``(out,)``. See `Criterion.scores`."""
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


def _seen(layers: dict[str, Layer], figures: dict[str, int] | dict[str, Tensor]) -> list[str]:
    """Return the names of the layers; raise `PruningError` if the forward pass left one out."""
    for name in layers:
        if name not in figures or (isinstance(figures[name], int) and not figures[name]):
            raise PruningError(f"{name}: expected a layer that the forward pass uses, found it unused")
    return list(layers)
