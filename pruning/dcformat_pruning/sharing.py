"""Weight sharing: each layer's nonzero weights take few distinct values (Han 2015, section 3).

Zero is never a cluster: a pruned weight stays exactly zero. Clusters are ascending, as the file wants its
codebooks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dcformat_pruning.masks import PruningError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Clustering:
    """`centroids` float64 ``(k,)`` ascending; `labels` int64 ``(n,)``, the centroid of each value."""

    centroids: Floats
    labels: npt.NDArray[np.int64]


def kmeans(
    values: npt.ArrayLike, clusters: int, init: str = "linear", *, seed: int = 0, iterations: int = 300
) -> Clustering:
    """Lloyd's algorithm in one dimension, from one of the paper's three initialisations (section 3.2).

    Parameters
    ----------
    values : array_like of float
        ``(n,)``, n at least 1, finite.
    clusters : int
        At most the number of distinct values.
    init : {'linear', 'density', 'random'}
        Evenly spaced between the smallest and largest value; evenly spaced along the cumulative
        distribution; or values drawn at random.
    seed : int
        For 'random'.

    Returns
    -------
    Clustering
        With `clusters` or fewer centroids: one that ends without values is dropped.

    Raises
    ------
    PruningError
        `clusters` below 1 or above the number of distinct values; an unknown `init`.
    """
    x = np.sort(np.asarray(values, np.float64).ravel())
    check_clusters(x, clusters)
    centroids = _initial(x, clusters, init, seed)
    sums = np.concatenate(([0.0], np.cumsum(x)))
    for _ in range(iterations):
        edges = np.searchsorted(x, (centroids[1:] + centroids[:-1]) / 2, side="right")
        bounds = np.concatenate(([0], edges, [len(x)]))
        counts = np.diff(bounds)
        means = np.diff(sums[bounds]) / np.maximum(counts, 1)
        moved = np.where(counts > 0, means, centroids)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return assign(values, centroids)


def _initial(x: Floats, clusters: int, init: str, seed: int) -> Floats:
    if init == "linear":
        return np.linspace(x[0], x[-1], clusters)
    if init == "density":
        return np.unique(np.quantile(x, (np.arange(clusters) + 0.5) / clusters))
    if init == "random":
        return np.sort(np.random.default_rng(seed).choice(np.unique(x), clusters, replace=False))
    raise PruningError(f"init: expected linear, density or random, found {init!r}")


def check_clusters(values: Floats, clusters: int) -> None:
    """Raise `PruningError` unless there are at least `clusters` distinct values, and at least one cluster."""
    if not 1 <= clusters <= len(values):
        raise PruningError(
            f"clusters: expected 1 to {len(values)} for {len(values)} values, found {clusters}"
        )
    distinct = len(np.unique(values))
    if clusters > distinct:
        raise PruningError(f"clusters: expected at most the {distinct} distinct values, found {clusters}")


def assign(values: npt.ArrayLike, centroids: npt.ArrayLike) -> Clustering:
    """Give each value to its nearest centroid (of equals the smaller); sort them, drop those unused."""
    book = np.unique(np.asarray(centroids, np.float64))
    x = np.asarray(values, np.float64).ravel()
    nearest = np.searchsorted((book[1:] + book[:-1]) / 2, x, side="left")
    used, labels = np.unique(nearest, return_inverse=True)
    return Clustering(book[used], labels.astype(np.int64))


class SharedWeights:
    """The clusters of a module's parameters, kept equal through training: centroid fine-tuning (section 3.3).

    Before a step the gradients of a cluster's members are summed and each member gets the sum; an
    elementwise optimiser (SGD, Adam) then moves all of them alike, as it would move the centroid. After the
    step all members take the value of the first, so that no rounding can part them. Pruned weights get no
    gradient and are set to zero.

    Parameters
    ----------
    module : nn.Module
    labels : mapping of str to Tensor
        For each shared parameter int64 of its shape: the cluster, or -1 for a weight that is zero and stays
        so.
    """

    def __init__(self, module: nn.Module, labels: Mapping[str, Tensor]) -> None:
        parameters = dict(module.named_parameters())
        self._layers = [_SharedLayer(name, parameters[name], label) for name, label in labels.items()]

    @classmethod
    def from_values(cls, module: nn.Module, names: list[str]) -> SharedWeights:
        """Take equal values as shared: what a network with shared weights looks like after loading."""
        parameters = dict(module.named_parameters())
        labels = {}
        for name in names:
            weight = parameters[name].detach()
            label = torch.full(weight.shape, -1, dtype=torch.int64, device=weight.device)
            alive = weight != 0
            label[alive] = torch.unique(weight[alive], return_inverse=True)[1]
            labels[name] = label
        return cls(module, labels)

    def before_step(self, progress: float) -> None:
        """Replace each gradient by the sum over its cluster."""
        for layer in self._layers:
            layer.sum_gradients()

    def after_step(self, progress: float) -> None:
        """Make the members of each cluster equal again, and the pruned weights zero."""
        for layer in self._layers:
            layer.tie()


class _SharedLayer:
    def __init__(self, name: str, parameter: nn.Parameter, labels: Tensor) -> None:
        if labels.shape != parameter.shape:
            raise PruningError(
                f"{name}: expected labels of shape {tuple(parameter.shape)}, found {tuple(labels.shape)}"
            )
        flat = labels.to(parameter.device).flatten()
        self._parameter = parameter
        self._alive = torch.nonzero(flat >= 0).flatten()
        self._labels = flat[self._alive]
        self._clusters = int(self._labels.max()) + 1 if len(self._labels) else 0
        first = torch.full((self._clusters,), len(flat), dtype=torch.int64, device=flat.device)
        self._first = first.scatter_reduce(0, self._labels, self._alive, "amin")
        self._used = self._first < len(flat)
        self._first[~self._used] = 0

    def sum_gradients(self) -> None:
        gradient = self._parameter.grad
        if gradient is None:
            return
        flat = gradient.reshape(-1)
        members = flat[self._alive]
        sums = torch.zeros(self._clusters, dtype=flat.dtype, device=flat.device)
        sums.index_add_(0, self._labels, members)
        out = torch.zeros_like(flat)
        out[self._alive] = sums[self._labels]
        gradient.copy_(out.view_as(gradient))

    @torch.no_grad()
    def tie(self) -> None:
        flat = self._parameter.detach().reshape(-1)
        centroids = flat[self._first]
        out = torch.zeros_like(flat)
        out[self._alive] = centroids[self._labels]
        self._parameter.copy_(out.view_as(self._parameter))


@torch.no_grad()
def share(module: nn.Module, clusters: Mapping[str, int], init: str = "linear", *, seed: int = 0) -> None:
    """Replace the nonzero weights of each named parameter by k-means centroids, in place.

    Parameters
    ----------
    clusters : mapping of str to int
        Parameter name to the number of clusters; zero is not one of them.

    Raises
    ------
    PruningError
        Naming the layer: unknown, without nonzero weights, or with fewer distinct ones than clusters.
    """
    parameters = dict(module.named_parameters())
    for name, count in clusters.items():
        if name not in parameters:
            raise PruningError(f"{name}: expected a parameter of the module, found none of that name")
        weight = parameters[name]
        alive = weight != 0
        values = weight[alive].cpu().numpy()
        try:
            found = kmeans(values, count, init, seed=seed)
        except PruningError as error:
            raise PruningError(f"{name}: {error}") from error
        write_shared(weight, alive, found)


@torch.no_grad()
def write_shared(weight: Tensor, alive: Tensor, clustering: Clustering) -> None:
    """Write each alive weight's float32 centroid; one that would be zero takes the smallest normal."""
    book = clustering.centroids.astype(np.float32)
    book[book == 0] = np.finfo(np.float32).tiny
    weight[alive] = torch.from_numpy(book[clustering.labels]).to(weight.device)
