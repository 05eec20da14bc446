"""Ranking layers by their sensitivity: each layer is pruned alone, by magnitude, without retraining."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from dcformat_pruning.criteria import Magnitude, scored_layers
from dcformat_pruning.data import Images
from dcformat_pruning.masks import Masks
from dcformat_pruning.selection import keep_in_layers
from dcformat_pruning.training import evaluate

#: Densities to which layers are pruned alone.
DENSITIES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01)


@dataclass(frozen=True, slots=True)
class LayerSensitivity:
    """The cost of pruning a layer alone.

    Attributes
    ----------
    layer : str
        The parameter's name.
    weights : int
        Number of weights of the layer.
    accuracies : mapping of float to float
        Density to accuracy on the validation images, both 0 to 1.
    """

    layer: str
    weights: int
    accuracies: Mapping[float, float]

    def needed(self, dense: float, loss: float = 0.01) -> float:
        """Return the smallest density that costs at most `loss`, as all larger ones do; 1 if there is none.

        Parameters
        ----------
        dense : float
            Accuracy of the dense network, 0 to 1.
        loss : float
            Accuracy that may be lost, 0 to 1.
        """
        best = 1.0
        for density in sorted(self.accuracies, reverse=True):
            if self.accuracies[density] < dense - loss:
                break
            best = density
        return best


def rank_layers(module: nn.Module, validation: Images) -> tuple[float, list[LayerSensitivity]]:
    """Prune copies of each layer alone; return the dense accuracy, and the layers from the most sensitive on.

    Layers are ordered by the density that they need to lose at most a percentage point, then by their mean accuracy.
    """
    dense = evaluate(module, validation)
    found = []
    for name, layer in scored_layers(module).items():
        accuracies = {}
        for density in DENSITIES:
            pruned = copy.deepcopy(module)
            keep = {name: max(1, round(density * layer.weight.numel()))}
            Masks(pruned, keep_in_layers(Magnitude().scores(pruned), keep)).apply()
            accuracies[density] = evaluate(pruned, validation)
        found.append(LayerSensitivity(name, layer.weight.numel(), accuracies))
    return dense, sorted(found, key=lambda s: (-s.needed(dense), sum(s.accuracies.values())))
