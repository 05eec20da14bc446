"""Weight sharing in portions while training: weights that are still free make up for those that are tied.

This is incremental network quantisation (Zhou et al. 2017) with trained codebooks. In each layer, the weights nearest
to a centroid are tied to it first, while the others continue to train; more follow, until all are tied. Centroids move
by the summed gradients of their members (Han, Mao and Dally 2016, section 3.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from dcformat_pruning.sharing.clustered_layer import ClusteredLayer, clustered_layers

#: Pairs of progress, 0 to 1, and the share of each layer's weights that is tied from then on.
SCHEDULE = ((0.0, 0.5), (0.25, 0.75), (0.45, 0.9), (0.65, 1.0))


class IncrementalSharing:
    """A constraint after which the nonzero weights of each layer have few distinct values; zeros stay zero.

    Parameters
    ----------
    clusters : mapping of str to int
        Parameter name to the number of clusters, which are found for the current weights.
    rate : float
        The price of a bit, as a share of the mean square of the weights; see `share`. Clusters that do not pay for
        their bits disappear. The default finds the clusters with the least squared error.
    schedule : sequence of (float, float)
        Pairs of progress and share, both rising; the last share is 1.

    Raises
    ------
    PruningError
        A parameter is unknown, or has fewer distinct nonzero weights than clusters; the message names it.
    """

    def __init__(
        self,
        module: nn.Module,
        clusters: Mapping[str, int],
        rate: float = 0.0,
        schedule: Sequence[tuple[float, float]] = SCHEDULE,
    ) -> None:
        self._layers = clustered_layers(module, clusters, rate, _Layer)
        self._due = list(schedule)
        self._extend(0.0)

    def before_step(self, progress: float) -> None:
        """Sum the gradients of tied weights over their clusters, and zero those of pruned weights."""
        for layer in self._layers:
            layer.sum_gradients()

    def after_step(self, progress: float) -> None:
        """Move the centroids with their members, and tie more weights when they are due."""
        for layer in self._layers:
            layer.tie()
        self._extend(progress)

    def _extend(self, progress: float) -> None:
        while self._due and progress >= self._due[0][0]:
            _, share = self._due.pop(0)
            for layer in self._layers:
                layer.extend(share)


class _Layer(ClusteredLayer):
    """A clustered layer whose codes are -1 for weights that are still free."""

    def __init__(self, parameter: nn.Parameter, clusters: int, rate: float) -> None:
        super().__init__(parameter, clusters, rate)
        self._codes = torch.full_like(self._alive, -1)

    @torch.no_grad()
    def extend(self, share: float) -> None:
        """Tie the free weights nearest to a centroid until `share` of all weights is tied."""
        weights = self._members()
        free = torch.nonzero(self._codes < 0).flatten()
        count = round(share * len(weights)) - (len(weights) - len(free))
        if count > 0:
            distance, nearest = (weights[free, None] - self._codebook).abs().min(1)
            chosen = torch.argsort(distance, stable=True)[:count]
            self._codes[free[chosen]] = nearest[chosen]
        self._write(weights)

    def sum_gradients(self) -> None:
        gradient = self._parameter.grad
        if gradient is None:
            return
        members = gradient.flatten()[self._alive]
        tied = self._codes >= 0
        codes = self._codes[tied]
        members[tied] = self._codebook.new_zeros(len(self._codebook)).index_add_(0, codes, members[tied])[codes]
        gradient.copy_(self._scattered(members))

    @torch.no_grad()
    def tie(self) -> None:
        weights = self._members()
        tied = self._codes >= 0
        self._codebook = self._means(weights[tied], self._codes[tied])
        self._write(weights)

    def _write(self, weights: Tensor) -> None:
        tied = self._codes >= 0
        weights[tied] = self._codebook[self._codes[tied]]
        self._parameter.detach().copy_(self._scattered(weights))
