"""Weight sharing while training: the network computes with shared values, and full-precision weights behind them learn.

Each weight has a latent one. The optimiser's step, which starts at the shared value, is added to the latent weight, so
that small steps add up until the weight moves to another cluster. This is the straight-through estimator (Bengio,
Léonard and Courville 2013; Courbariaux, Bengio and David 2015) with a trained codebook in place of fixed levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from dcformat_pruning.sharing.clustered_layer import ClusteredLayer, clustered_layers
from dcformat_pruning.sharing.tied import SharedWeights


class StraightThroughSharing:
    """A constraint under which the nonzero weights of each layer have few distinct values; zeros stay zero.

    In the first part of the training, a weight gets the cluster that is best for its latent weight after each step, and
    a centroid is the mean of the latent weights of its members (a step of k-means). Then weights keep their clusters,
    and the centroids train; see `SharedWeights`.

    Parameters
    ----------
    clusters : mapping of str to int
        Parameter name to the number of clusters, which are found for the current weights.
    rate : float
        The price of a bit, as a share of the mean square of the weights; see `share`. Clusters that do not pay for
        their bits disappear. The default finds the clusters with the least squared error.
    until : float
        Share of the training after which weights keep their clusters, 0 to 1.

    Raises
    ------
    PruningError
        A parameter is unknown, or has fewer distinct nonzero weights than clusters; the message names it.
    """

    def __init__(
        self, module: nn.Module, clusters: Mapping[str, int], rate: float = 0.0, *, until: float = 0.5
    ) -> None:
        self._module, self._names, self._until = module, list(clusters), until
        self._tied: SharedWeights | None = None
        self._layers = clustered_layers(module, clusters, rate, _Layer)

    def before_step(self, progress: float) -> None:
        """Leave the gradients to the latent weights; once weights keep their clusters, sum them over each cluster."""
        if self._tied is None and progress >= self._until:
            self._tied = SharedWeights.from_values(self._module, self._names)
        if self._tied is not None:
            self._tied.before_step(progress)

    def after_step(self, progress: float) -> None:
        """Move the latent weights by the step, then the clusters and centroids."""
        if self._tied is not None:
            self._tied.after_step(progress)
        else:
            for layer in self._layers:
                layer.take_step()


class _Layer(ClusteredLayer):
    """A clustered layer with a latent weight behind each alive one."""

    def __init__(self, parameter: nn.Parameter, clusters: int, rate: float) -> None:
        super().__init__(parameter, clusters, rate)
        self._latent = self._members()
        self._price = rate
        self._write()

    @torch.no_grad()
    def take_step(self) -> None:
        self._latent += self._members() - self._codebook[self._codes]
        self._assign()
        self._codebook = self._means(self._latent, self._codes)
        self._write()

    def _assign(self) -> None:
        """Give each weight the code with the least squared error plus price of its bits."""
        counts = torch.bincount(self._codes, minlength=len(self._codebook))
        bits = torch.log2(len(self._codes) / counts.clamp_min(1))
        prices = self._price * self._latent.square().mean() * bits
        chosen, edges = _intervals(self._codebook.tolist(), prices.tolist())
        self._codebook = self._codebook[chosen]
        self._codes = torch.bucketize(self._latent, self._latent.new_tensor(edges))

    def _write(self) -> None:
        self._parameter.detach().copy_(self._scattered(self._codebook[self._codes]))


def _intervals(centroids: Sequence[float], prices: Sequence[float]) -> tuple[list[int], list[float]]:
    """Return the centroids that are best for some value, and the values at which the best one changes.

    The cost of a centroid is a parabola, ``(x - centroid)^2 + price``. Parabolas of the same width cross once, so their
    lower envelope is found from left to right with a stack.
    """
    chosen: list[int] = []
    edges: list[float] = []
    for new in sorted(range(len(centroids)), key=lambda i: (centroids[i], prices[i])):
        while chosen:
            last = chosen[-1]
            gap = centroids[new] - centroids[last]
            if gap == 0:  # The one before it costs no more.
                break
            edge = (centroids[new] + centroids[last]) / 2 + (prices[new] - prices[last]) / (2 * gap)
            if not edges or edge > edges[-1]:
                edges.append(edge)
                chosen.append(new)
                break
            edges.pop()
            chosen.pop()
        else:
            chosen.append(new)
    return chosen, edges
