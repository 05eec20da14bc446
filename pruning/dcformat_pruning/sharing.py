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
from dcformat_pruning.masks import PruningError, weight_names


class SharedWeights:
    """The clusters of a module's parameters, kept equal through training: centroid fine-tuning (section 3.3).

    Before a step the gradients of a cluster's members are summed and each member gets the sum; an
    elementwise optimiser (SGD, Adam) then moves all of them alike, as it would move the centroid. After the
    step all members take the value of the first, so that no rounding can part them. Pruned weights get no
    gradient and are set to zero.

    Parameters
    ----------
    module : nn.Module
    groups : sequence of mappings of str to Tensor
        Each group has a codebook of its own. For each of its parameters int64 of its shape: the cluster, or -1
        for a weight that is zero and stays so.
    """

    def __init__(self, module: nn.Module, groups: Sequence[Mapping[str, Tensor]]) -> None:
        parameters = dict(module.named_parameters())
        self._groups = [_SharedGroup({name: parameters[name] for name in group}, group) for group in groups]

    @classmethod
    def from_values(cls, module: nn.Module, names: Sequence[str], *, across: bool = False) -> SharedWeights:
        """Take equal values as shared: what a network with shared weights looks like after loading.

        With `across` the named parameters have one codebook together, else each its own.
        """
        parameters = dict(module.named_parameters())
        values = {name: parameters[name].detach() for name in names}
        parts = [list(names)] if across else [[name] for name in names]
        groups = []
        for part in parts:
            book = torch.unique(torch.cat([values[name].flatten() for name in part]))
            book = book[book != 0]
            labels = {name: torch.searchsorted(book, values[name].contiguous()) for name in part}
            groups.append({name: label.masked_fill(values[name] == 0, -1) for name, label in labels.items()})
        return cls(module, groups)

    def before_step(self, progress: float) -> None:
        """Replace each gradient by the sum over its cluster."""
        for group in self._groups:
            group.sum_gradients()

    def after_step(self, progress: float) -> None:
        """Make the members of each cluster equal again, and the pruned weights zero."""
        for group in self._groups:
            group.tie()


class _SharedGroup:
    """Parameters with one codebook, seen as one long vector."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], labels: Mapping[str, Tensor]) -> None:
        for name, parameter in parameters.items():
            if labels[name].shape != parameter.shape:
                expected, found = tuple(parameter.shape), tuple(labels[name].shape)
                raise PruningError(f"{name}: expected labels of shape {expected}, found {found}")
        self._parameters = list(parameters.values())
        self._sizes = [p.numel() for p in self._parameters]
        device = self._parameters[0].device
        flat = torch.cat([labels[name].to(device).flatten() for name in parameters])
        self._alive = torch.nonzero(flat >= 0).flatten()
        self._labels = flat[self._alive]
        self._clusters = int(self._labels.max()) + 1 if len(self._labels) else 0
        first = torch.full((self._clusters,), len(flat), dtype=torch.int64, device=device)
        first = first.scatter_reduce(0, self._labels, self._alive, "amin")
        self._first = first.masked_fill(first == len(flat), 0)

    def sum_gradients(self) -> None:
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if len(gradients) != len(self._parameters):
            return
        flat = torch.cat([g.flatten() for g in gradients])
        sums = torch.zeros(self._clusters, dtype=flat.dtype, device=flat.device)
        sums.index_add_(0, self._labels, flat[self._alive])
        self._scatter(sums, gradients)

    @torch.no_grad()
    def tie(self) -> None:
        values = [p.detach() for p in self._parameters]
        self._scatter(torch.cat([v.flatten() for v in values])[self._first], values)

    def _scatter(self, by_cluster: Tensor, out: Sequence[Tensor]) -> None:
        flat = torch.zeros(sum(self._sizes), dtype=by_cluster.dtype, device=by_cluster.device)
        flat[self._alive] = by_cluster[self._labels]
        for tensor, part in zip(out, torch.split(flat, self._sizes), strict=True):
            tensor.copy_(part.view_as(tensor))


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
    links = chain(module)
    sizes = {}
    for link in links:
        alive = link.weight[link.weight != 0]
        if not alive.numel():
            raise PruningError(f"{link.name}.weight: expected nonzero weights, found none")
        sizes[link.name] = float(alive.double().square().mean().sqrt())
    common = float(np.exp(np.mean(np.log(list(sizes.values())))))
    factors, product = {}, 1.0
    for link in links:
        factors[link.name] = common / sizes[link.name]
        product *= factors[link.name]
        link.weight.mul_(factors[link.name])
        link.bias.mul_(product)
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
def round_weights(module: nn.Module, bits: int) -> None:
    """Round all weights to so many significant bits, in place: equal ones stay equal, codebooks take fewer bytes.

    Parameters
    ----------
    bits : int
        1 to 24; 6 move a value by 1.6 % at most.
    """
    if not 1 <= bits <= 24:
        raise PruningError(f"bits: expected 1 to 24, found {bits}")
    for name in weight_names(module):
        parameter = module.get_parameter(name)
        parameter.copy_(_significant(parameter, bits))


@torch.no_grad()
def quantise_biases(module: nn.Module, levels: int) -> None:
    """Round each layer's biases to multiples of a step, in place: their largest magnitude is `levels` steps.

    The step has few significant bits, so that every multiple is exact and the file can store small integers.

    Parameters
    ----------
    levels : int
        At least 1; a bias smaller than half a step becomes zero.
    """
    if levels < 1:
        raise PruningError(f"levels: expected at least 1, found {levels}")
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1 and name.endswith("bias"):
            step = _significant(parameter.abs().max() / levels, 8)
            if step > 0:
                parameter.copy_((parameter / step).round() * step)


def _significant(values: Tensor, bits: int) -> Tensor:
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp((mantissa * 2**bits).round() / 2**bits, exponent)


def _parameters(module: nn.Module, names: Iterable[str]) -> dict[str, nn.Parameter]:
    parameters = dict(module.named_parameters())
    for name in names:
        if name not in parameters:
            raise PruningError(f"{name}: expected a parameter of the module, found none of that name")
    return parameters
