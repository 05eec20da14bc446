"""Criteria that look at the inputs or outputs of layers: they need a forward pass, but no labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dcformat_pruning.criteria.base import (
    Data,
    Scores,
    WeightedLayer,
    batches,
    evaluating,
    finite,
    hooked,
    positions,
    scored_layers,
)
from dcformat_pruning.criteria.weight_inputs import (
    WeightInputs,
    check_used,
    input_energies,
    multiplied_weights,
    visit_inputs,
)
from dcformat_pruning.masks import PruningError
from dcformat_pruning.objectives import run


@dataclass(frozen=True, slots=True)
class TfIdf:
    """``|w|^a * TF^b * IDF^c``: a weight's magnitude, times its input's mean strength, times that input's rarity.

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
        weights = multiplied_weights(module)
        loud: dict[str, Tensor] = {}
        present: dict[str, Tensor] = {}
        count: dict[str, Tensor] = {}

        def visit(name: str, rows: WeightInputs) -> None:
            x = rows.x.abs()
            count[name] = count.get(name, 0) + rows.counts
            loud[name] = loud.get(name, 0) + x.sum(1, dtype=torch.float64)
            present[name] = present.get(name, 0) + (x > self.tau).sum(1)

        visit_inputs(module, weights, data, visit)
        check_used(weights, count)
        out: Scores = {}
        for name, own in weights.items():
            rarity = torch.log((count[name] + self.smooth) / (present[name] + self.smooth)) + self.add
            factor = (loud[name] / count[name]) ** self.tf_power * rarity.clamp(min=0) ** self.idf_power
            out[name] = own.weight.detach().abs() ** self.weight_power * own.per_column(factor)
        return finite(out)


@dataclass(frozen=True, slots=True)
class Wanda:
    """``|w_ij| * ||x_j||_2`` (Sun et al. 2023, section 3); meant to rank within each row, see `keep_in_rows`."""

    name: str = "Wanda"

    def scores(self, module: nn.Module, data: Data) -> Scores:
        """Return the products. See `Criterion.scores`."""
        weights = multiplied_weights(module)
        squares = input_energies(module, weights, data)
        check_used(weights, squares)
        return finite(
            {name: own.weight.detach().abs() * own.per_column(squares[name].sqrt()) for name, own in weights.items()}
        )


@dataclass(frozen=True, slots=True)
class Apoz:
    """The share of a unit's outputs that is *not* zero: one minus the average percentage of zeros (Hu et al. 2016).

    An output counts as zero if a ReLU directly after the layer would make it zero, so fold batch norms first. The
    outputs of the last layer are logits; do not choose units by its scores.
    """

    name: str = "APoZ"

    def scores(self, module: nn.Module, data: Data) -> Scores:
        """Return a score for each unit, float32 ``(out,)``. See `Criterion.scores`."""
        layers = scored_layers(module)
        alive: dict[str, Tensor] = {}
        count = dict.fromkeys(layers, 0)

        def hook(name: str, layer: WeightedLayer, _: Tensor, output: Tensor) -> None:
            spread = positions(layer, output).flatten(0, 1)
            count[name] += spread.shape[0]
            alive[name] = alive.get(name, 0) + (spread > 0).sum(0).flatten()

        with torch.no_grad(), evaluating(module), hooked(layers, hook):
            for x, _ in batches(data):
                run(module, x)
        check_used(layers, alive)
        return {name: (alive[name] / count[name]).float() for name in layers}
