"""Measures how much a network's outputs change with each number in it, from gradients at calibration inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dcformat_pruning.calibration.layers import Use, UsedTensor
from dcformat_pruning.calibration.measures import Measure
from dcformat_pruning.calibration.torch_network import TorchNetwork

#: Maximum number of elements of the Hessians of a matrix, if each row has its own.
_PER_ROW = 1 << 24


class Term(NamedTuple):
    """A part of the second derivative of the measure for a matrix: each row's importance times a Hessian.

    Attributes
    ----------
    hessian : float64 ``(groups, columns, columns)``
    rows : float64 ``(rows,)``
    """

    hessian: Tensor
    rows: Tensor


class Sensitivity(NamedTuple):
    """Second derivatives of the measure, as means over the calibration inputs.

    Attributes
    ----------
    terms : dict of str to list of Term
        For each matrix, a term for each use; layers that no output depends on have none.
    places : dict of str to list of Tensor
        For each matrix that meets inputs in one place: how much each of its inputs counts, float64 ``(groups, count)``
        for each batch.
    elements : dict of str to Tensor
        The second derivative for each element of the other tensors, float64.
    """

    terms: dict[str, list[Term]]
    places: dict[str, list[Tensor]]
    elements: dict[str, Tensor]

    def matters(self, name: str) -> bool:
        """Return whether outputs depend smoothly on a tensor."""
        return bool(self.terms.get(name)) or (name in self.elements and float(self.elements[name].sum()) > 0)


class _Sums:
    """The sums behind a term.

    Attributes
    ----------
    products : float64 ``(groups, columns, columns)``
        Sums of the products of gradients along rows.
    rows : float64 ``(rows,)``
        Sums of the rows' squared gradients.
    squares : float64 ``(groups,)``
        Sums of the squared norms of each input's products, which measure how much these vary.
    """

    def __init__(self) -> None:
        self.products: Tensor | float = 0.0
        self.rows: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def add(self, x: Tensor, g: Tensor, batch: int) -> None:
        """Add the gradients of a matrix, from inputs ``(groups, batch * places, columns)`` and results' gradients.

        The places of an input count together, because errors in a weight have the same sign at many of them.
        """
        x = x.reshape(len(x), batch, -1, x.shape[2])
        g = g.reshape(len(g), batch, -1, g.shape[2])
        found = g.transpose(2, 3) @ x  # (groups, batch, rows, columns)
        together = found.reshape(len(found), -1, found.shape[3])
        self.products = self.products + (together.transpose(1, 2) @ together).double()
        thin = found if found.shape[2] < found.shape[3] else found.transpose(2, 3)
        self.squares = self.squares + (thin @ thin.transpose(2, 3)).double().square().sum((1, 2, 3))
        self.rows = self.rows + found.double().square().sum((1, 3)).reshape(-1)

    def add_lookup(self, chosen: Tensor, squares: Tensor, rows: int) -> None:
        """Add the numbers of the chosen rows ``(count,)`` and squared gradients ``(count, columns)``."""
        self.products = self.products + torch.diag(squares.sum(0))[None]
        self.rows = self.rows + torch.zeros(rows, dtype=torch.float64).index_add(0, chosen, squares.sum(1))

    def term(self, count: int) -> Term | None:
        """Return the term for the mean over `count` inputs, or None if all gradients were 0."""
        if not isinstance(self.products, Tensor) or not float(self.products.abs().sum()) > 0:
            return None
        assert isinstance(self.rows, Tensor)
        products = shrunk(self.products / count, self.squares / count, count)
        traces = torch.diagonal(products, dim1=1, dim2=2).sum(1).clamp_min(1e-300)
        return Term(products / traces[:, None, None], self.rows / count)


def shrunk(mean: Tensor, squares: Tensor | float, count: int) -> Tensor:
    """Return means of matrices, drawn towards multiples of the identity as far as they are uncertain.

    Few inputs leave directions in which a mean of products is 0, though other inputs would not. The errors of weights
    would be moved there as if they cost nothing. The share is that of Ledoit and Wolf (2004), with the least error
    expected. It is reduced where there are more matrices than columns: no direction is 0 by chance there, and the
    identity would hide how much the columns differ.

    Parameters
    ----------
    mean : float64 ``(groups, columns, columns)``
        Means over `count` matrices.
    squares : float64 ``(groups,)``
        The means of their squared norms.
    count : int
    """
    columns = mean.shape[-1]
    norms = mean.square().sum((1, 2))
    level = torch.diagonal(mean, dim1=1, dim2=2).mean(1)
    noise = (torch.as_tensor(squares) - norms).clamp_min(0) / count
    share = (noise / (norms - columns * level.square()).clamp_min(1e-300)).clamp(0, 1)[:, None, None]
    share = share * min(1.0, columns / count)
    return (1 - share) * mean + share * level[:, None, None] * torch.eye(columns, dtype=mean.dtype)


def weighted_products(x: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum of the products of inputs: ``(groups, columns, columns)``."""
    return ((x * weights[..., None].float()).transpose(1, 2) @ x).double()


def measure_sensitivity(
    network: TorchNetwork,
    layers: Sequence[UsedTensor],
    batches: Sequence[Sequence[Tensor]],
    measure: Measure,
    probes: int,
) -> Sensitivity:
    """Return second derivatives of the measure at the dense network, from `probes` gradients at each batch."""
    generator = torch.Generator().manual_seed(0)
    sums = {layer.name: [_Sums() for _ in layer.uses] for layer in layers}
    places: dict[str, list[Tensor]] = {layer.name: [] for layer in layers if layer.only_product}
    elements = {layer.name: torch.zeros(layer.shape, dtype=torch.float64) for layer in layers if not layer.uses}
    for batch in batches:
        for probe in range(probes):
            found = _Gradients(network, layers, batch, measure, generator)
            for name, total in elements.items():
                total += found.of_tensor(name)
            for layer in layers:
                for use, sum_ in zip(layer.uses, sums[layer.name], strict=True):
                    weights = found.add(layer, use, sum_)
                    if weights is not None and layer.name in places:
                        places[layer.name].append(weights) if not probe else places[layer.name][-1].add_(weights)
    count = sum(len(batch[0]) for batch in batches) * probes
    terms = {name: [term for one in parts if (term := one.term(count))] for name, parts in sums.items() if parts}
    return Sensitivity(terms, places, {name: total / count for name, total in elements.items()})


class _Gradients:
    """The gradients of one probe at a batch."""

    def __init__(
        self,
        network: TorchNetwork,
        layers: Sequence[UsedTensor],
        batch: Sequence[Tensor],
        measure: Measure,
        generator: torch.Generator,
    ) -> None:
        self._graph = network.graph
        self._leaves = {name: tensor.clone().requires_grad_() for name, tensor in network.tensors.items()}
        self._pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
        watched = {use.number for layer in layers for use in layer.uses}
        self._values: dict[int, Tensor] = dict(enumerate(batch))
        for number in range(len(self._graph.nodes)):
            value = network.node(number, self._values, self._leaves, self._watch)
            self._values[len(batch) + number] = value
            if number in watched and value.requires_grad:
                value.retain_grad()
        total = measure.probe([self._values[output.value] for output in self._graph.outputs], generator)
        if total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]

    def _watch(self, name: str, x: Tensor, y: Tensor) -> None:
        y.retain_grad()
        self._pairs.setdefault(name, []).append((x, y))

    def of_tensor(self, name: str) -> Tensor | float:
        """Return the squares of the gradients of a tensor's elements."""
        gradient = self._leaves[name].grad
        return 0.0 if gradient is None else gradient.double().square()

    def add(self, layer: UsedTensor, use: Use, sums: _Sums) -> Tensor | None:
        """Add a use to its sums, and return how much each place counts, for a product."""
        if use.kind == "recurrent":
            for x, y in self._pairs.get(layer.name, ()):
                if y.grad is not None:
                    sums.add(x.detach().reshape(1, -1, x.shape[-1]), y.grad.reshape(1, -1, y.shape[-1]), len(x))
            return None
        gradient = self._values[len(self._graph.inputs) + use.number].grad
        x, node = self._values[use.value].detach(), self._graph.nodes[use.number]
        if gradient is None:
            return None
        if use.kind == "lookup":
            chosen = x.reshape(-1).to(torch.int64) % layer.shape[0]
            sums.add_lookup(chosen, _squares(gradient.reshape(-1, layer.shape[1])), layer.shape[0])
            return None
        g = layer.results(node, gradient)
        sums.add(layer.vectors(node, x), g, len(x))
        return _squares(g).mean(2)


def _squares(gradient: Tensor) -> Tensor:
    return gradient.double().square()


def combined(terms: Sequence[Term]) -> Term:
    """Return a sum of terms as one term, exactly unless Hessians for each row would take too much memory."""
    if len(terms) == 1:
        return terms[0]
    rows, columns = len(terms[0].rows), terms[0].hessian.shape[-1]
    if rows * columns * columns <= _PER_ROW:
        parts = [
            term.hessian.repeat_interleave(rows // len(term.hessian), 0) * term.rows[:, None, None] for term in terms
        ]
        return Term(torch.stack(parts).sum(0), torch.ones(rows, dtype=torch.float64))
    total = torch.stack([term.rows for term in terms]).sum(0)
    shares = [term.rows.sum() / total.sum() for term in terms]
    hessians = [term.hessian.mean(0, keepdim=True) * share for term, share in zip(terms, shares, strict=True)]
    return Term(torch.stack(hessians).sum(0), total)
