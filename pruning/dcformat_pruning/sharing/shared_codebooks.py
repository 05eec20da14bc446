"""Weight sharing: the nonzero weights of a layer take few distinct values (Han, Mao and Dally 2016, section 3).

Zero is never a centroid, so that a pruned weight stays exactly zero. Centroids are ascending, as the file requires of
codebooks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dcformat_pruning.masks import PruningError, weight_names
from dcformat_pruning.sharing.clustering import Clustering, entropy_kmeans, exact_kmeans, kmeans
from dcformat_pruning.shrinking import chain_layers

#: The methods of clustering: k-means by its initialisation, the exact optimum, or a trade-off of error against bits.
METHODS = ("linear", "density", "random", "exact", "entropy")


@torch.no_grad()
def share(
    module: nn.Module, clusters: Mapping[str, int], method: str = "linear", *, seed: int = 0, rate: float = 0.0
) -> None:
    """Replace the nonzero weights of each named parameter by the parameter's own centroids, in place.

    Parameters
    ----------
    clusters : mapping of str to int
        Parameter name to the number of clusters, not counting zero.
    method : {'linear', 'density', 'random', 'exact', 'entropy'}
        `kmeans` from one of three initialisations, `exact_kmeans`, or `entropy_kmeans`.
    seed : int
        Seeds the initialisation 'random'.
    rate : float
        The price of a bit for 'entropy', as a share of the mean square of the weights.

    Raises
    ------
    PruningError
        A parameter is unknown, or has fewer distinct nonzero weights than clusters; the message names it.
    """
    parameters = parameters_named(module, clusters)
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
    """Replace the nonzero weights of all named parameters by centroids of one common codebook, in place.

    Layers of different scale share badly; call `balance_scales` first. Parameters are those of `share`.

    Raises
    ------
    PruningError
        A parameter is unknown, or there are fewer distinct nonzero weights than clusters.
    """
    parameters = parameters_named(module, names)
    alive = [parameters[name] != 0 for name in names]
    parts = [parameters[name][mask].cpu().numpy() for name, mask in zip(names, alive, strict=True)]
    try:
        found = cluster(np.concatenate(parts), clusters, method, rate=rate)
    except PruningError as error:
        raise PruningError(f"{', '.join(names)}: {error}") from error
    ends = np.cumsum([len(part) for part in parts])[:-1]
    for name, mask, codes in zip(names, alive, np.split(found.codes, ends), strict=True):
        write_shared(parameters[name], mask, Clustering(found.centroids, codes))


def balance_scales(module: nn.Sequential) -> dict[str, float]:
    """Give the nonzero weights of all layers the same root mean square, in place; the logits stay the same.

    A positive factor passes through ReLU and max pooling, so that the next layer's weights can be divided by the factor
    that multiplies a layer's weights and bias. The geometric mean of the layers' root mean squares stays the same.

    Returns
    -------
    dict of str to float
        Layer name to the factor that multiplied its weights.

    Raises
    ------
    TypeError
        The module is not a chain; see `dcformat_pruning.shrinking.chain_layers`.
    PruningError
        A layer has no nonzero weights; the message names it.
    """
    layers = chain_layers(module)
    sizes = {}
    for layer in layers:
        alive = layer.weight[layer.weight != 0]
        if not alive.numel():
            raise PruningError(f"{layer.name}.weight: expected nonzero weights, found none")
        sizes[layer.name] = float(alive.double().square().mean().sqrt())
    common = float(np.exp(np.mean(np.log(list(sizes.values())))))
    factors, product = {}, 1.0
    for layer in layers:
        factors[layer.name] = common / sizes[layer.name]
        product *= factors[layer.name]
        layer.weight.mul_(factors[layer.name])
        layer.bias.mul_(product)
    return factors


def cluster(
    values: npt.NDArray[np.float32], clusters: int, method: str, *, seed: int = 0, rate: float = 0.0
) -> Clustering:
    """Cluster values by one of `METHODS`.

    Parameters
    ----------
    values : ndarray of float32
        ``(n,)``, finite.
    clusters, method, seed, rate
        See `share`.

    Raises
    ------
    PruningError
        `method` is unknown, or there are fewer distinct values than clusters.
    """
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
    """Write each alive weight's centroid as float32, in place.

    A centroid that would be zero becomes the smallest normal number instead, because zero means pruned.

    Parameters
    ----------
    weight : Tensor
        float32 of any shape.
    alive : Tensor
        bool in the shape of `weight`.
    clustering : Clustering
        Its codes belong to the alive weights, in order.
    """
    codebook = clustering.centroids.astype(np.float32)
    codebook[codebook == 0] = np.finfo(np.float32).tiny
    weight[alive] = torch.from_numpy(codebook[clustering.codes]).to(weight.device)


@torch.no_grad()
def round_weights(module: nn.Module, bits: int) -> None:
    """Round all weights to a number of significant bits, in place; codebooks then take fewer bytes.

    Equal weights stay equal.

    Parameters
    ----------
    bits : int
        1 to 24. Rounding to 6 bits changes a value by at most 1.6 %.

    Raises
    ------
    PruningError
        `bits` is out of range.
    """
    if not 1 <= bits <= 24:
        raise PruningError(f"bits: expected 1 to 24, found {bits}")
    for name in weight_names(module):
        parameter = module.get_parameter(name)
        parameter.copy_(_significant(parameter, bits))


@torch.no_grad()
def quantise_biases(module: nn.Module, levels: int) -> None:
    """Round each bias and each scale of a norm to multiples of a step, in place; its largest number is `levels` steps.

    The step has few significant bits, so that every multiple of it is exact and the file can store small integers.

    Parameters
    ----------
    levels : int
        At least 1. A number smaller than half a step becomes zero.

    Raises
    ------
    PruningError
        `levels` is below 1.
    """
    if levels < 1:
        raise PruningError(f"levels: expected at least 1, found {levels}")
    for parameter in module.parameters():
        if parameter.ndim == 1:
            step = _significant(parameter.abs().max() / levels, 8)
            if step > 0:
                parameter.copy_((parameter / step).round() * step)


def _significant(values: Tensor, bits: int) -> Tensor:
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp((mantissa * 2**bits).round() / 2**bits, exponent)


def parameters_named(module: nn.Module, names: Iterable[str]) -> dict[str, nn.Parameter]:
    """Return the parameters of a module by name; raise `PruningError` unless it has all that are named."""
    parameters = dict(module.named_parameters())
    for name in names:
        if name not in parameters:
            raise PruningError(f"{name}: expected a parameter of the module, found none of that name")
    return parameters
