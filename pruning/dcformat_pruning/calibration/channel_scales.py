"""Gives the channels of a compressed network the means and variances that they have in the dense one.

This is what batch norms that are estimated again would do, as in REPAIR (Jordan et al., 2022, arXiv 2211.08403). A file
holds the factors as a scale for each row of a matrix, whose elements are multiples of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dcformat.graph import Node
from dcformat_pruning.calibration.layers import UsedTensor
from dcformat_pruning.calibration.torch_network import TorchNetwork
from dcformat_pruning.calibration.walk import Batches

#: The step between the multiples that a tensor holds: one for all, or a tensor that broadcasts to its shape.
Steps = Mapping[str, float | Tensor]

#: The largest factor of a channel, or of its inverse.
_MOST = 4.0
#: A channel whose variance is at most this share of its mean square is constant but for rounding errors.
_CONSTANT = 1e-9
#: Scales are multiples of this fraction of the next power of two, so that a file stores them in few bytes. Coarser ones
#: took back most of what they gave.
_FRACTION = 256


@torch.no_grad()
def rescaled(
    dense: TorchNetwork,
    compressed: TorchNetwork,
    layers: Sequence[tuple[int, UsedTensor, str]],
    batches: Batches,
    steps: Steps,
) -> tuple[dict[str, Tensor], dict[str, float | Tensor]]:
    """Return the weights and biases that give each channel its mean and variance in the dense network, and all steps.

    Layers are corrected in order, each for the results of those before. A channel that is constant, in either network,
    keeps its weights.

    Parameters
    ----------
    dense, compressed : TorchNetwork
    layers : sequence of (int, UsedTensor, str)
        The layers to correct: the number of the node, its weights, which no other node reads, and its bias.
    batches : sequence of sequence of Tensor
        The calibration inputs.
    steps : mapping of str to float or Tensor
        The steps of the compressed tensors; a layer whose weights or bias have none is left as it is.

    Returns
    -------
    tensors : dict of str to Tensor
        The new weights and biases by name, float32, in the shapes of the old ones.
    steps : dict of str to float or Tensor
        `steps`, where those of corrected weights are tensors ``(rows, 1, ...)``.
    """
    found: dict[str, Tensor] = {}
    grids = dict(steps)
    corrected = {number: (layer, bias) for number, layer, bias in layers if {layer.name, bias} <= steps.keys()}
    values = [dict(enumerate(batch)) for batch in batches], [dict(enumerate(batch)) for batch in batches]
    inputs = len(batches[0])
    for number, node in enumerate(dense.graph.nodes):
        for network, own in zip((dense, compressed), values, strict=True):
            for batch in own:
                batch[inputs + number] = network.node(number, batch, network.tensors)
        if number in corrected:
            layer, bias = corrected[number]
            wanted, made = (_moments(layer, node, [batch[inputs + number] for batch in own]) for own in values)
            weight, offset = compressed.tensors[layer.name], compressed.tensors[bias]
            step = torch.as_tensor(steps[layer.name])
            scale = _rounded(step * _factors(wanted[1], made[1]))
            grids[layer.name] = scale.view(-1, *[1] * (weight.ndim - 1))
            means = wanted[0] - scale / step * (made[0] - offset.double())
            found[layer.name] = torch.round(weight / step) * grids[layer.name]
            found[bias] = (torch.round(means / steps[bias]) * steps[bias]).float()
            compressed = compressed.with_tensors(found)
            for batch in values[1]:
                batch[inputs + number] = compressed.node(number, batch, compressed.tensors)
        for own in values:
            for batch in own:
                for value in dense.finished(number):
                    del batch[value]
    return found, grids


def _moments(layer: UsedTensor, node: Node, results: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return each channel's mean and variance, float64 ``(channels,)``; a channel that is constant has variance 0."""
    sums, squares, count = torch.zeros(()), torch.zeros(()), 0
    for y in results:
        rows = layer.results(node, y)[:: layer.parts].double()
        sums, squares = sums + rows.sum(1).reshape(-1), squares + rows.square().sum(1).reshape(-1)
        count += rows.shape[1]
    mean, square = sums / count, squares / count
    variance = square - mean.square()
    return mean, torch.where(variance > _CONSTANT * square, variance, 0.0)


def _factors(wanted: Tensor, made: Tensor) -> Tensor:
    """Return the factors that turn one variance into another, 1 for constants."""
    varies = (wanted > 0) & (made > 0)
    return torch.where(varies, (wanted / made.clamp_min(1e-300)).sqrt().clamp(1 / _MOST, _MOST), 1.0)


def _rounded(scales: Tensor) -> Tensor:
    """Return scales as float32 numbers with few bits."""
    mantissas, exponents = torch.frexp(scales)
    return torch.ldexp(torch.round(mantissas * _FRACTION) / _FRACTION, exponents).float()
