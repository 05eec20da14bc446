"""A layer whose nonzero weights are clustered while the network trains: what the ways of sharing have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from dcformat_pruning.masks import PruningError
from dcformat_pruning.sharing.shared_codebooks import cluster, parameters_named


class ClusteredLayer:
    """The alive weights of a parameter, their codebook, and their codes.

    Parameters
    ----------
    parameter : nn.Parameter
    clusters : int
        Number of clusters, which are found for the current weights.
    rate : float
        The price of a bit; see `share`. 0 finds the clusters with the least squared error.

    Raises
    ------
    PruningError
        There are fewer distinct nonzero weights than clusters.
    """

    def __init__(self, parameter: nn.Parameter, clusters: int, rate: float) -> None:
        self._parameter = parameter
        weights = parameter.detach().flatten()
        self._alive = torch.nonzero(weights).flatten()
        found = cluster(weights[self._alive].cpu().numpy(), clusters, "entropy" if rate else "exact", rate=rate)
        self._codebook = torch.from_numpy(found.centroids).to(weights)
        self._codes = torch.from_numpy(found.codes).to(weights.device)

    def _members(self) -> Tensor:
        """Return a copy of the alive weights."""
        return self._parameter.detach().flatten()[self._alive]

    def _scattered(self, members: Tensor) -> Tensor:
        """Return a tensor in the parameter's shape with `members` at the alive weights and zero elsewhere."""
        flat = members.new_zeros(self._parameter.numel())
        flat[self._alive] = members
        return flat.view(self._parameter.shape)

    def _means(self, members: Tensor, codes: Tensor) -> Tensor:
        """Return the mean of the members of each cluster, and the centroid of a cluster without members."""
        counts = torch.bincount(codes, minlength=len(self._codebook))
        sums = torch.zeros_like(self._codebook).index_add_(0, codes, members)
        return torch.where(counts > 0, sums / counts.clamp_min(1), self._codebook)


_Layer = TypeVar("_Layer", bound=ClusteredLayer)


def clustered_layers(
    module: nn.Module, clusters: Mapping[str, int], rate: float, make: Callable[[nn.Parameter, int, float], _Layer]
) -> list[_Layer]:
    """Make a layer of each named parameter.

    Raises
    ------
    PruningError
        A parameter is unknown, or has fewer distinct nonzero weights than clusters; the message names it.
    """
    parameters = parameters_named(module, clusters)
    layers = []
    for name, count in clusters.items():
        try:
            layers.append(make(parameters[name], count, rate))
        except PruningError as error:
            raise PruningError(f"{name}: {error}") from error
    return layers
