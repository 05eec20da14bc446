"""Compresses a network layer by layer: each layer makes up for the errors of those before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dcformat_pruning.calibration.assignment import (
    DAMPING,
    Assigned,
    Factors,
    Problem,
    assign,
    factorise,
    on_support,
)
from dcformat_pruning.calibration.layers import Use, UsedTensor
from dcformat_pruning.calibration.pruning_masks import Mask
from dcformat_pruning.calibration.sensitivity import Sensitivity, Term, combined, weighted_products
from dcformat_pruning.calibration.torch_network import TorchNetwork

Batches = Sequence[Sequence[Tensor]]
Floats = npt.NDArray[np.float64]


class _Moments(NamedTuple):
    """Weighted means over the places that a layer sees: of the compressed inputs, and of the effects of their errors.

    Attributes
    ----------
    hessian : ``(groups, columns, columns)``
        Products of the compressed inputs, with themselves.
    cross : ``(groups, columns, columns)``
        Products of the inputs' errors (dense minus compressed) with the compressed inputs.
    mean, error : ``(groups, columns)``
        The compressed inputs, and their errors.
    """

    hessian: Tensor
    cross: Tensor
    mean: Tensor
    error: Tensor


class Walk:
    """Goes through a graph with two networks at once: the dense one and the compressed one.

    Parameters
    ----------
    network : TorchNetwork
    layers : sequence of UsedTensor
    sensitivity : Sensitivity
    batches : sequence of sequence of Tensor
        The calibration inputs, as `measure_sensitivity` saw them.
    masks : mapping of str to ndarray
        The weights of matrices that may differ from zero; all of those of other tensors may.
    """

    def __init__(
        self,
        network: TorchNetwork,
        layers: Sequence[UsedTensor],
        sensitivity: Sensitivity,
        batches: Batches,
        masks: Mapping[str, Mask] = MappingProxyType({}),
    ) -> None:
        self.masks = masks
        self.network, self.layers, self.sensitivity, self.batches = network, layers, sensitivity, batches
        self._biases = _biases(network)
        self._factors: dict[str, Factors] = {}

    @property
    def channels(self) -> list[tuple[int, UsedTensor, str]]:
        """The nodes that are the only readers of their weights and biases, with both."""
        products = [(layer.only_product, layer) for layer in self.layers]
        return [
            (use.number, layer, self._biases[use.number])
            for use, layer in products
            if use and use.number in self._biases
        ]

    @torch.no_grad()
    def compress(self, price: float) -> tuple[dict[str, Tensor], dict[str, float | Tensor]]:
        """Return the tensors compressed at a price, which is the error that a bit is worth, and the steps of most."""
        network, made, steps = self.network, dict[str, Tensor](), dict[str, float | Tensor]()
        dense = [dict(enumerate(batch)) for batch in self.batches]
        changed = [dict(enumerate(batch)) for batch in self.batches]
        waiting = {layer.name: layer for layer in self.layers}
        for start, end in self._stretches():
            for number in range(start, end):
                targets: dict[str, Tensor] = {}
                read = network.graph.nodes[number].tensors
                for name in sorted(read, key=lambda name: not waiting[name].uses if name in waiting else True):
                    layer = waiting.pop(name, None)
                    if layer is None:
                        continue
                    found = self._layer(layer, number, dense, changed, price, targets)
                    made[name] = layer.tensor(torch.from_numpy(found.values.astype(np.float32)))
                    if found.step is not None:
                        steps[name] = found.step
            if waiting:
                self._run(start, end, dense, network.tensors)
                self._run(start, end, changed, made)
        return made, steps

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """Return ranges of nodes, of which only the first may have a matrix that is compressed for its inputs."""
        terms = self.sensitivity.terms
        compressed = {use.number for each in self.layers if (use := each.only_product) and terms.get(each.name)}
        return pairwise([*sorted({0} | compressed), len(self.network.graph.nodes)])

    def _run(self, start: int, end: int, values: Sequence[dict[int, Tensor]], tensors: Mapping[str, Tensor]) -> None:
        """Run a stretch of nodes, batch by batch: what they make for one another exists for one batch at a time."""
        for batch in values:
            for number in range(start, end):
                batch[len(self.batches[0]) + number] = self.network.node(number, batch, tensors)
                for value in self.network.finished(number):
                    del batch[value]

    def _layer(
        self,
        layer: UsedTensor,
        number: int,
        dense: Sequence[dict[int, Tensor]],
        changed: Sequence[dict[int, Tensor]],
        price: float,
        targets: dict[str, Tensor],
    ) -> Assigned:
        """Compress a tensor that a node is the first to read; `targets` hold the desired biases."""
        target = targets.get(layer.name, self.network.tensors[layer.name])
        use, terms = layer.only_product, self.sensitivity.terms.get(layer.name, [])
        if use is None or not terms:
            return self._other(layer, target, price)
        moments = self._moments(layer, use, dense, changed)
        return self._product(layer, target, terms[0], moments, self._biases.get(number), price, targets)

    def _other(self, layer: UsedTensor, target: Tensor, price: float) -> Assigned:
        """Compress a tensor whose inputs are taken from the dense network, or that is not a matrix."""
        weights = layer.matrix(target).double().numpy()
        terms = self.sensitivity.terms.get(layer.name, [])
        if terms:
            return self._matrix(layer, weights, combined(terms), price)
        if not self.sensitivity.matters(layer.name):
            return _kept(layer, target)
        importance = self.sensitivity.elements[layer.name]
        return assign(Problem(weights, np.ones((1, 1, 1)), importance.reshape(-1).numpy()), price)

    def _matrix(self, layer: UsedTensor, weights: Floats, term: Term, price: float) -> Assigned:
        hessians, mask = term.hessian.numpy(), self.masks.get(layer.name)
        if layer.name not in self._factors:
            self._factors[layer.name] = factorise(hessians)
        if mask is not None:
            weights = on_support(weights, hessians, mask)
        return assign(Problem(weights, hessians, term.rows.numpy(), mask), price, factors=self._factors[layer.name])

    def _moments(
        self, layer: UsedTensor, use: Use, dense: Sequence[dict[int, Tensor]], changed: Sequence[dict[int, Tensor]]
    ) -> _Moments:
        node = self.network.graph.nodes[use.number]
        sums: list[Tensor | float] = [0.0] * 5
        for a, b, weights in zip(dense, changed, self.sensitivity.places[layer.name], strict=True):
            x = layer.vectors(node, b[use.value])
            off = layer.vectors(node, a[use.value]) - x
            weighted = weights[..., None].float()
            cross = ((off * weighted).transpose(1, 2) @ x).double()
            parts = (
                weighted_products(x, weights),
                cross,
                (x * weighted).sum(1).double(),
                (off * weighted).sum(1).double(),
                weights.sum(1),
            )
            sums = [total + part for total, part in zip(sums, parts, strict=True)]
        hessian, cross, mean, error, count = (torch.as_tensor(total) for total in sums)
        count = count.clamp_min(1e-300)
        matrix, vector = count[:, None, None], count[:, None]
        return _Moments(hessian / matrix, cross / matrix, mean / vector, error / vector)

    def _product(
        self,
        layer: UsedTensor,
        target: Tensor,
        term: Term,
        moments: _Moments,
        bias: str | None,
        price: float,
        targets: dict[str, Tensor],
    ) -> Assigned:
        """Compress a matrix and set the target of its bias, which makes up for the mean error."""
        groups = len(moments.hessian)
        weights = layer.matrix(target).double().reshape(groups, -1, moments.hessian.shape[-1])
        hessian, cross = moments.hessian, moments.cross
        sizes = torch.diagonal(hessian, dim1=1, dim2=2).mean(1)
        if bias is not None:
            hessian = hessian - moments.mean[:, :, None] * moments.mean[:, None]
            cross = cross - moments.error[:, :, None] * moments.mean[:, None]
        spread = torch.diagonal(hessian, dim1=1, dim2=2).mean(1).clamp_min(0)
        # Inputs that hardly vary have no spread except rounding errors, which are proportional to their size.
        damping = DAMPING * spread + 1e-6 * sizes + 1e-30
        damped = hessian + damping[:, None, None] * torch.eye(hessian.shape[-1], dtype=torch.float64)
        wanted = weights + torch.linalg.solve(damped, (weights @ cross).transpose(1, 2)).transpose(1, 2)
        made = self._matrix(layer, wanted.reshape(-1, wanted.shape[2]).numpy(), term, price)
        if bias is not None:
            values = torch.from_numpy(made.values).reshape(weights.shape)
            off = (weights @ (moments.mean + moments.error)[..., None]) - values @ moments.mean[..., None]
            off = off.reshape(layer.groups, layer.parts, -1).sum(1)
            targets[bias] = self.network.tensors[bias] + off.reshape(-1).float()
        return made


def _kept(layer: UsedTensor, target: Tensor) -> Assigned:
    """Return a tensor unchanged, because no output depends smoothly on it: a mask, say, or a table of indices."""
    values = layer.matrix(target).double().numpy()
    return Assigned(values, 0.0, 0.0, None)


def _biases(network: TorchNetwork) -> dict[int, str]:
    """Return the bias of each node that is the only reader of its bias."""
    readers: dict[str, int] = {}
    for node in network.graph.nodes:
        for name in node.tensors:
            readers[name] = readers.get(name, 0) + 1
    found = {}
    for number, node in enumerate(network.graph.nodes):
        bias = getattr(node, "bias", None)
        if bias is not None and readers[bias] == 1:
            found[number] = bias
    return found
