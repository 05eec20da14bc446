"""Criteria that use derivatives of the loss (cross-entropy): they need labels and a backward pass.

They score the weights of layers of any kind, and the units of Linear, Conv1d and Conv2d.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from dcformat_pruning.criteria.base import (
    Data,
    Scores,
    WeightedLayer,
    batches,
    evaluating,
    finite,
    hooked,
    patches,
    positions,
    scored_layers,
    scored_weights,
)
from dcformat_pruning.masks import PruningError
from dcformat_pruning.objectives import Supervised, run

#: Maximum number of floats for the gradients of single samples.
_MAX_FLOATS = 1 << 25


@dataclass(frozen=True, slots=True)
class Taylor:
    """``(g * w)^2``, or ``|g * w|``: the first-order change of the loss, averaged over batches (Molchanov et al. 2019).

    Attributes
    ----------
    units : bool
        Sum ``g * w`` over the weights and bias of each output before squaring, which gives a score for each unit.
    squared : bool
        Square ``g * w``; otherwise take its absolute value.
    """

    units: bool = False
    squared: bool = True
    name: str = "Taylor"

    def scores(self, module: nn.Module, data: Data) -> Scores:
        """Return the scores. See `Criterion.scores`."""
        total: Scores = {}
        count = 0
        groups = self._groups(module)
        with evaluating(module):
            for batch in batches(data):
                with torch.enable_grad():
                    loss = Supervised().loss(module, batch)
                    parameters = [p for group in groups.values() for p in group]
                    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                found = iter(gradients)
                for name, group in groups.items():
                    change = self._change(name, group, [next(found) for _ in group])
                    total[name] = total.get(name, 0) + (change.square() if self.squared else change.abs())
                count += 1
        return finite({name: score / count for name, score in total.items()})

    def _groups(self, module: nn.Module) -> dict[str, list[Tensor]]:
        """Return each weight, with the bias of its layer for the scores of units."""
        if not self.units:
            return {name: [weight] for name, weight in scored_weights(module).items()}
        layers = scored_layers(module).items()
        return {name: [layer.weight, *([] if layer.bias is None else [layer.bias])] for name, layer in layers}

    def _change(self, name: str, group: list[Tensor], gradients: list[Tensor | None]) -> Tensor:
        """Return ``g * w`` for each weight of a layer, or summed over each unit."""
        gradient = _proper(name, gradients[0])
        change = gradient * group[0].detach()
        if not self.units:
            return change
        unit = change.flatten(1).sum(1)
        return unit if len(group) == 1 else unit + _proper(name, gradients[1]) * group[1].detach()


@dataclass(frozen=True, slots=True)
class Fisher:
    """``1/2 * F_kk * w_k^2``, where F is the mean of squared gradients of single samples (Liu et al. 2021).

    Attributes
    ----------
    units : bool
        Score units instead, as Theis et al. (2018) do: ``1/2 * mean over samples of (sum over positions of
        a * dL/da)^2``, where ``a`` is the layer's output. A ReLU after the layer does not change the score.
    """

    units: bool = False
    name: str = "Fisher"

    def scores(self, module: nn.Module, data: Data) -> Scores:
        """Return the scores. See `Criterion.scores`."""

        def backward(outputs: Any, labels: Any) -> list[Tensor]:
            # The loss is a mean over the samples; their sum has the gradients of single samples.
            return [_samples(labels) * Supervised().loss_of(outputs, labels)]

        if not self.units:
            if _has_plain_layers(module):
                return _saliency(module, data, backward)
            return _sample_by_sample(module, data, lambda sample: [Supervised().loss(module, sample)])
        total, count = _totals(module, data, backward, lambda _, a, g: (a * g).sum(1).square().sum(0).flatten())
        return finite({name: 0.5 * total[name] / count for name in scored_layers(module)})


@dataclass(frozen=True, slots=True)
class Obd:
    """``1/2 * h_kk * w_k^2``, where h is the diagonal of the Hessian of the loss (LeCun, Denker and Solla 1989).

    The diagonal is that of the Gauss-Newton matrix, summed exactly over the classes, with a backward pass for each. It
    equals the diagonal of the Hessian if all activations are piecewise linear (ReLU, max pooling). LeCun's recursion
    also drops the terms between the units of a layer.
    """

    name: str = "OBD"

    def scores(self, module: nn.Module, data: Data) -> Scores:
        """Return the scores. See `Criterion.scores`."""

        def backward(result: Any, _: Any) -> list[Tensor]:
            # The Hessian of the cross-entropy in the logits is diag(p) - p p^T = sum_c s_c s_c^T with
            # s_c = sqrt(p_c) (e_c - p).
            output = _logits(result)
            p = functional.softmax(output.detach(), dim=1)
            unit = torch.eye(p.shape[1], device=p.device)
            return [((unit[c] - p) * p[:, c : c + 1].sqrt() * output).sum() for c in range(p.shape[1])]

        if _has_plain_layers(module):
            return _saliency(module, data, backward)
        return _sample_by_sample(module, data, lambda sample: backward(run(module, sample[0]), sample[1]))


def _has_plain_layers(module: nn.Module) -> bool:
    """Return whether all weights are those of layers whose inputs and outputs hooks can see."""
    try:
        scored_layers(module)
    except PruningError:
        return False
    return True


def _sample_by_sample(module: nn.Module, data: Data, scalars: Callable[[Any], list[Tensor]]) -> Scores:
    """Return ``1/2 * mean of squared gradients * w^2``, with a backward pass for each sample and scalar.

    Parameters
    ----------
    scalars : callable
        Takes a batch of one sample; returns the scalars whose squared gradients are summed.
    """
    weights = scored_weights(module)
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    count = 0
    with evaluating(module):
        for batch in batches(data):
            for number in range(_samples(batch)):
                sample = pytree.tree_map(lambda leaf: leaf[number : number + 1], batch)  # noqa: B023
                with torch.enable_grad():
                    found = scalars(sample)
                for scalar in found:
                    gradients = torch.autograd.grad(
                        scalar, list(weights.values()), retain_graph=scalar is not found[-1], allow_unused=True
                    )
                    for name, gradient in zip(weights, gradients, strict=True):
                        total[name] += _proper(name, gradient).square()
                count += 1
    return finite({name: 0.5 * total[name] / count * weight.detach().square() for name, weight in weights.items()})


#: Takes the outputs and the labels of a batch; returns the scalars whose gradients are wanted.
_Backward = Callable[[Any, Any], list[Tensor]]

#: Takes a layer's input, output and output gradient, ``(samples, positions, groups, ...)``; returns a figure to sum.
_Figure = Callable[[Tensor, Tensor, Tensor], Tensor]


def _saliency(module: nn.Module, data: Data, backward: _Backward) -> Scores:
    """Return ``1/2 * mean of squared gradients * w^2`` for each weight."""
    total, count = _totals(module, data, backward, lambda x, _, g: _squares(x, g))
    return finite(
        {
            name: 0.5 * total[name].reshape(layer.weight.shape) / count * layer.weight.detach().square()
            for name, layer in scored_layers(module).items()
        }
    )


def _totals(module: nn.Module, data: Data, backward: _Backward, figure: _Figure) -> tuple[Scores, int]:
    """Return the sum of `figure` for each layer over all batches and scalars, and the number of samples."""
    layers = scored_layers(module)
    total: Scores = {}
    count = 0

    def add(name: str, x: Tensor, a: Tensor, g: Tensor) -> None:
        total[name] = total.get(name, 0) + figure(x, a, g)

    with evaluating(module):
        for x, y in batches(data):
            _backward(module, layers, (x, y), backward, add)
            count += _samples(y)
    return total, count


def _samples(labels: Any) -> int:
    """Return the number of samples of a batch."""
    return len(pytree.tree_leaves(labels)[0])


def _backward(
    module: nn.Module,
    layers: Mapping[str, WeightedLayer],
    batch: tuple[Any, Any],
    backward: _Backward,
    add: Callable[[str, Tensor, Tensor, Tensor], None],
) -> None:
    """Call `add` with the name, input, output and output gradient of each layer, for each scalar of `backward`.

    The three tensors are ``(samples, positions, groups, ...)``. The calls of a layer that runs several times are
    concatenated along the positions.
    """
    inputs: dict[str, list[Tensor]] = {name: [] for name in layers}
    outputs: dict[str, list[Tensor]] = {name: [] for name in layers}

    def hook(name: str, layer: WeightedLayer, x: Tensor, output: Tensor) -> Tensor:
        inputs[name].append(patches(layer, x.detach()).clone())
        outputs[name].append(output)
        return output.clone()  # an in-place ReLU after the layer must not change the kept output

    with torch.enable_grad(), hooked(layers, hook):
        result = run(module, batch[0])
    flat = [(name, output) for name, found in outputs.items() for output in found]
    unused = next((name for name, found in outputs.items() if not found), None)
    if unused is not None:
        raise PruningError(f"{unused}: expected a layer that the forward pass uses, found it unused")
    scalars = backward(result, batch[1])
    for number, scalar in enumerate(scalars):
        keep = number + 1 < len(scalars)
        gradients = torch.autograd.grad(scalar, [output for _, output in flat], retain_graph=keep, allow_unused=True)
        paired: dict[str, list[Tensor]] = {name: [] for name in layers}
        for (name, _), gradient in zip(flat, gradients, strict=True):
            paired[name].append(positions(layers[name], _proper(name, gradient)))
        for name, layer in layers.items():
            a = torch.cat([positions(layer, output.detach()) for output in outputs[name]], 1)
            add(name, torch.cat(inputs[name], 1), a, torch.cat(paired[name], 1))


def _logits(result: Any) -> Tensor:
    """Return the output of a network, which must be logits, or raise `PruningError`."""
    if not isinstance(result, Tensor) or result.ndim != 2:
        found = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise PruningError(f"output: expected logits of shape (samples, classes), found {found}")
    return result


def _squares(x: Tensor, g: Tensor) -> Tensor:
    """Return the sum over samples of the squared weight gradient, ``(groups, outputs, columns)``."""
    samples, places = x.shape[:2]
    if places == 1:  # (g_o x_c)^2 = g_o^2 x_c^2: no gradient of a single sample is needed
        return torch.einsum("ngo,ngc->goc", g[:, 0].square(), x[:, 0].square())
    size = x.shape[2] * x.shape[3] * g.shape[3]
    step = max(1, _MAX_FLOATS // size)
    total = torch.zeros((), device=x.device)
    for start in range(0, samples, step):
        part = slice(start, start + step)
        total = total + torch.einsum("nlgo,nlgc->ngoc", g[part], x[part]).square().sum(0)
    return total


def _proper(name: str, gradient: Tensor | None) -> Tensor:
    if gradient is None:
        raise PruningError(f"{name}: expected a gradient of the loss, found that the loss does not depend on it")
    if not bool(torch.isfinite(gradient).all()):
        raise PruningError(f"{name}: expected finite gradients, found NaN or infinity")
    return gradient
