"""Weight sharing in portions while training: the weights that are still free make up for those already shared.

Incremental network quantisation (Zhou et al. 2017) with trained codebooks: of each layer the weights nearest to their
centroid are tied to it first, the rest go on training, and so on until all are tied. Centroids move by the summed
gradients of their members (Han 2015, section 3.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from dcformat_pruning.clustering import exact_kmeans
from dcformat_pruning.masks import PruningError

#: (progress, share of each layer's weights that is tied from then on)
SCHEDULE = ((0.0, 0.5), (0.25, 0.75), (0.45, 0.9), (0.65, 1.0))


class IncrementalSharing:
    """A constraint that ends with each layer's nonzero weights on few values; zeros stay zero.

    Parameters
    ----------
    clusters : mapping of str to int
        Parameter name to the number of clusters, found exactly on the weights as they are.
    schedule : sequence of (float, float)
        Rising progress and shares; the last share is 1.

    Raises
    ------
    PruningError
        Naming the layer: unknown, or with fewer distinct nonzero weights than clusters.
    """

    def __init__(
        self,
        module: nn.Module,
        clusters: Mapping[str, int],
        schedule: Sequence[tuple[float, float]] = SCHEDULE,
    ) -> None:
        parameters = dict(module.named_parameters())
        self._layers = []
        for name, count in clusters.items():
            if name not in parameters:
                raise PruningError(f"{name}: expected a parameter of the module, found none of that name")
            try:
                self._layers.append(_Layer(parameters[name], count))
            except PruningError as error:
                raise PruningError(f"{name}: {error}") from error
        self._due = list(schedule)
        self._extend(0.0)

    def before_step(self, progress: float) -> None:
        """Sum the gradients of tied weights over their clusters and silence those of pruned weights."""
        for layer in self._layers:
            layer.sum_gradients()

    def after_step(self, progress: float) -> None:
        """Move the centroids with their members, and tie more weights when it is time."""
        for layer in self._layers:
            layer.tie()
        self._extend(progress)

    def _extend(self, progress: float) -> None:
        while self._due and progress >= self._due[0][0]:
            _, share = self._due.pop(0)
            for layer in self._layers:
                layer.extend(share)


class _Layer:
    """One parameter's alive weights, their centroids, and which of them are tied (label -1: free)."""

    def __init__(self, parameter: nn.Parameter, clusters: int) -> None:
        self._parameter = parameter
        weights = parameter.detach().flatten()
        self._alive = torch.nonzero(weights).flatten()
        found = exact_kmeans(weights[self._alive].cpu().numpy(), clusters)
        self._book = torch.from_numpy(found.centroids).to(weights)
        self._labels = torch.full_like(self._alive, -1)

    @torch.no_grad()
    def extend(self, share: float) -> None:
        """Tie the free weights nearest to a centroid until `share` of all are tied."""
        weights = self._parameter.detach().flatten()[self._alive]
        free = torch.nonzero(self._labels < 0).flatten()
        count = round(share * len(weights)) - (len(weights) - len(free))
        if count > 0:
            distance, nearest = (weights[free, None] - self._book).abs().min(1)
            chosen = torch.argsort(distance, stable=True)[:count]
            self._labels[free[chosen]] = nearest[chosen]
        self._write(weights)

    def sum_gradients(self) -> None:
        gradient = self._parameter.grad
        if gradient is None:
            return
        members = gradient.flatten()[self._alive]
        tied = self._labels >= 0
        labels = self._labels[tied]
        members[tied] = self._book.new_zeros(len(self._book)).index_add_(0, labels, members[tied])[labels]
        gradient.copy_(self._scattered(members))

    @torch.no_grad()
    def tie(self) -> None:
        weights = self._parameter.detach().flatten()[self._alive]
        tied = self._labels >= 0
        labels = self._labels[tied]
        counts = torch.bincount(labels, minlength=len(self._book))
        sums = torch.zeros_like(self._book).index_add_(0, labels, weights[tied])
        self._book = torch.where(counts > 0, sums / counts.clamp_min(1), self._book)
        self._write(weights)

    def _write(self, weights: Tensor) -> None:
        tied = self._labels >= 0
        weights[tied] = self._book[self._labels[tied]]
        self._parameter.detach().copy_(self._scattered(weights))

    def _scattered(self, members: Tensor) -> Tensor:
        """Return a tensor of the parameter's shape with `members` where it is alive."""
        flat = members.new_zeros(self._parameter.numel())
        flat[self._alive] = members
        return flat.view(self._parameter.shape)
