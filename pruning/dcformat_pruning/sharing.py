"""Weight sharing: each layer's nonzero weights take few distinct values (Han 2015, section 3).

Zero is never a cluster: a pruned weight stays exactly zero. Clusters are ascending, as the file wants its
codebooks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dcformat_pruning.clustering import Clustering, entropy_kmeans, exact_kmeans, kmeans
from dcformat_pruning.compact import chain
from dcformat_pruning.masks import PruningError


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


#: How to find clusters: Deep Compression's k-means by its initialisation, the exact optimum, or with a price on bits.
METHODS = ("linear", "density", "random", "exact", "entropy")


@torch.no_grad()
def share(
    module: nn.Module, clusters: Mapping[str, int], method: str = "linear", *, seed: int = 0, rate: float = 0.0
) -> None:
    """Replace the nonzero weights of each named parameter by its own centroids, in place.

    Parameters
    ----------
    clusters : mapping of str to int
        Parameter name to the number of clusters; zero is not one of them.
    method : {'linear', 'density', 'random', 'exact', 'entropy'}
        See `dcformat_pruning.clustering`: k-means from three starts, `exact_kmeans`, or `entropy_kmeans`.
    rate : float
        For 'entropy': the price of a bit, as a share of the values' mean square.

    Raises
    ------
    PruningError
        Naming the layer: unknown, without nonzero weights, or with fewer distinct ones than clusters.
    """
    parameters = _parameters(module, clusters)
    for name, count in clusters.items():
        weight = parameters[name]
        alive = weight != 0
        try:
            found = cluster(weight[alive].cpu().numpy(), count, method, seed=seed, rate=rate)
        except PruningError as error:
            raise PruningError(f"{name}: {error}") from error
        write_shared(weight, alive, found)


@torch.no_grad()
def share_across(
    module: nn.Module, names: Sequence[str], clusters: int, method: str = "exact", *, rate: float = 0.0
) -> None:
    """Replace the nonzero weights of all named parameters by the centroids of one common codebook, in place.

    Layers of different scale share badly: call `balance_scales` first.

    Raises
    ------
    PruningError
        An unknown name, or fewer distinct nonzero weights than clusters.
    """
    parameters = _parameters(module, names)
    alive = [parameters[name] != 0 for name in names]
    parts = [parameters[name][mask].cpu().numpy() for name, mask in zip(names, alive, strict=True)]
    try:
        found = cluster(np.concatenate(parts), clusters, method, rate=rate)
    except PruningError as error:
        raise PruningError(f"{', '.join(names)}: {error}") from error
    ends = np.cumsum([len(part) for part in parts])[:-1]
    for name, mask, labels in zip(names, alive, np.split(found.labels, ends), strict=True):
        write_shared(parameters[name], mask, Clustering(found.centroids, labels))


@torch.no_grad()
def balance_scales(module: nn.Sequential) -> dict[str, float]:
    """Give the nonzero weights of all layers the same root mean square, in place; the logits stay the same.

    A positive factor passes through ReLU and max pooling: what one layer's weights and bias are multiplied by,
    the next layer's weights are divided by. The layers' geometric mean stays.

    Returns
    -------
    dict of str to float
        What each layer's weights were multiplied by.

    Raises
    ------
    TypeError
        The module is not a chain that `dcformat_pruning.compact.chain` knows.
    PruningError
        A layer without nonzero weights.
    """
    layers = chain(module)
    sizes = {}
    for name, layer in layers:
        alive = layer.weight[layer.weight != 0]
        if not alive.numel():
            raise PruningError(f"{name}.weight: expected nonzero weights, found none")
        sizes[name] = float(alive.double().square().mean().sqrt())
    common = float(np.exp(np.mean(np.log(list(sizes.values())))))
    factors, product = {}, 1.0
    for name, layer in layers:
        factors[name] = common / sizes[name]
        product *= factors[name]
        layer.weight.mul_(factors[name])
        layer.bias.mul_(product)
    return factors


def cluster(
    values: npt.NDArray[np.float32], clusters: int, method: str, *, seed: int = 0, rate: float = 0.0
) -> Clustering:
    """Cluster values by one of `METHODS`; `rate` is a share of their mean square."""
    if method not in METHODS:
        raise PruningError(f"method: expected one of {', '.join(METHODS)}, found {method!r}")
    if method == "exact":
        return exact_kmeans(values, clusters)
    if method == "entropy":
        scale = float(np.mean(np.square(values, dtype=np.float64))) if values.size else 0.0
        return entropy_kmeans(values, clusters, rate * scale)
    return kmeans(values, clusters, method, seed=seed)


@torch.no_grad()
def write_shared(weight: Tensor, alive: Tensor, clustering: Clustering) -> None:
    """Write each alive weight's float32 centroid; one that would be zero takes the smallest normal."""
    book = clustering.centroids.astype(np.float32)
    book[book == 0] = np.finfo(np.float32).tiny
    weight[alive] = torch.from_numpy(book[clustering.labels]).to(weight.device)


@torch.no_grad()
def quantise_biases(module: nn.Module, levels: int) -> None:
    """Round each layer's biases to multiples of a step, in place: their largest magnitude is `levels` steps.

    Parameters
    ----------
    levels : int
        At least 1; a bias smaller than half a step becomes zero.
    """
    if levels < 1:
        raise PruningError(f"levels: expected at least 1, found {levels}")
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1 and name.endswith("bias"):
            step = parameter.abs().max() / levels
            if step > 0:
                parameter.copy_((parameter / step).round() * step)


def _parameters(module: nn.Module, names: Iterable[str]) -> dict[str, nn.Parameter]:
    parameters = dict(module.named_parameters())
    for name in names:
        if name not in parameters:
            raise PruningError(f"{name}: expected a parameter of the module, found none of that name")
    return parameters
