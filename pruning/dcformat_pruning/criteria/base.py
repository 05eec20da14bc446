"""What all criteria share: the layers that they score, passes over data, and layer inputs as matrices.

A layer's input is treated as a matrix with a row for each sample. A convolution has a row for each patch that its
kernel covers, padding zeros included. Column ``j`` is multiplied by the weights ``[:, j]`` of the weight matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from dcformat_pruning.data import Images
from dcformat_pruning.masks import PruningError
from dcformat_pruning.objectives import run
from dcformat_pruning.tracing import Layer

#: The data that scores are computed on: images, or batches of (inputs, labels) that can be iterated again. Inputs are a
#: tensor, or a tuple or dict of tensors.
Data = Images | Iterable[tuple[Any, Any]]

#: Number of images in one pass through the network.
_BATCH = 500

Scores = dict[str, Tensor]


@runtime_checkable
class Criterion(Protocol):
    """Scores weights or whole units; those with the lowest scores are pruned first."""

    @property
    def name(self) -> str:
        """The name of the criterion in tables."""

    def scores(self, module: nn.Module, data: Data) -> Scores:
        """Return a score for each weight: of every Linear and Conv2d, or of any layer, as the criterion says.

        Returns
        -------
        dict of str to Tensor
            Parameter name to scores in the parameter's shape. A criterion for units returns a score for each output,
            ``(out,)``.

        Raises
        ------
        PruningError
            A layer is neither Linear nor Conv2d, there is no data, or scores are not finite; the message names the
            layer.
        """


def scored_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of layers of any kind: recurrent layers, attention, embeddings and all others.

    Raises
    ------
    PruningError
        The module has masks of `torch.nn.utils.prune`, or no weights.
    """
    weights = {name: parameter for name, parameter in module.named_parameters() if parameter.ndim > 1}
    for name in weights:
        if name.endswith("_orig"):
            raise masks_found(name)
    if not weights:
        raise PruningError(f"{type(module).__name__}: expected weights, found none")
    return weights


def masks_found(name: str) -> PruningError:
    """Return the error for a parameter with a mask of `torch.nn.utils.prune`."""
    return PruningError(
        f"{name}: expected a plain weight, found masks of torch.nn.utils.prune; call fold_torch_prune first"
    )


def scored_layers(module: nn.Module) -> dict[str, Layer]:
    """Return the layers that criteria score: parameter name of the weight to layer, in the module's order.

    Raises
    ------
    PruningError
        A parameter of rank 2 or more belongs to another kind of layer, the module has masks of
        `torch.nn.utils.prune`, or it has no layer to score.
    """
    layers: dict[str, Layer] = {}
    others: list[str] = []
    for path, child in module.named_modules():
        for name, parameter in child.named_parameters(recurse=False):
            if parameter.ndim < 2:
                continue
            full = f"{path}.{name}" if path else name
            if name.endswith("_orig"):
                raise masks_found(full)
            if not isinstance(child, nn.Linear | nn.Conv2d):
                others.append(f"{full} ({type(child).__name__})")
                continue
            if isinstance(child, nn.Conv2d) and child.padding_mode != "zeros":
                raise PruningError(f"{full}: expected padding with zeros, found {child.padding_mode!r}")
            layers[full] = child
    if others:
        raise PruningError(f"expected weights of Linear and Conv2d layers, found {', '.join(others)}")
    if not layers:
        raise PruningError(f"{type(module).__name__}: expected a Linear or Conv2d layer, found none")
    return layers


def batches(data: Data) -> Iterator[tuple[Any, Any]]:
    """Yield batches of (inputs, labels) in order.

    Raises
    ------
    PruningError
        There is no batch.
    """
    empty = True
    if isinstance(data, Images):
        for start in range(0, len(data), _BATCH):
            chosen = slice(start, start + _BATCH)
            yield data.floats(chosen), data.labels[chosen]
            empty = False
    else:
        for x, y in data:
            yield x, y
            empty = False
    if empty:
        raise PruningError("data: expected at least one batch, found none")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put `module` in eval mode, and restore the mode of each of its parts afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def hooked(layers: Mapping[str, Layer], hook: Callable[[str, Layer, Tensor, Tensor], Tensor | None]) -> Iterator[None]:
    """Call ``hook(name, layer, input, output)`` when a layer runs; a result that is not None replaces the output."""

    def bind(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        return lambda _, inputs, output: hook(name, layers[name], inputs[0], output)

    handles = [layer.register_forward_hook(bind(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def visit_inputs(
    module: nn.Module, layers: Mapping[str, Layer], data: Data, visit: Callable[[str, Tensor], None]
) -> None:
    """Run `data` through `module`, and call `visit` with each layer's name and input, ``(groups, rows, columns)``."""

    def hook(name: str, layer: Layer, x: Tensor, _: Tensor) -> None:
        visit(name, patches(layer, x).flatten(0, 1).transpose(0, 1))

    with evaluating(module), hooked(layers, hook):
        for x, _ in batches(data):
            run(module, x)


def input_energies(module: nn.Module, layers: Mapping[str, Layer], data: Data) -> dict[str, Tensor]:
    """Return for each layer that was run the sums of its squared inputs over `data`, float64 ``(groups, columns)``."""
    energies: dict[str, Tensor] = {}

    def visit(name: str, x: Tensor) -> None:
        energies[name] = energies.get(name, 0) + x.double().square().sum(1)

    visit_inputs(module, layers, data, visit)
    return energies


def patches(layer: Layer, x: Tensor) -> Tensor:
    """Return a layer's input as ``(samples, positions, groups, columns)``."""
    if isinstance(layer, nn.Linear):
        return x.reshape(x.shape[0], -1, 1, layer.in_features)
    padding = layer.padding
    if isinstance(padding, str):
        x = functional.pad(x, layer._reversed_padding_repeated_twice)
        padding = (0, 0)
    unfolded = functional.unfold(x, layer.kernel_size, layer.dilation, padding, layer.stride)
    return unfolded.view(x.shape[0], layer.groups, -1, unfolded.shape[2]).permute(0, 3, 1, 2)


def positions(layer: Layer, output: Tensor) -> Tensor:
    """Return a layer's output (or its gradient) as ``(samples, positions, groups, outputs of the group)``."""
    if isinstance(layer, nn.Linear):
        return output.reshape(output.shape[0], -1, 1, layer.out_features)
    return output.flatten(2).view(output.shape[0], layer.groups, -1, output[0, 0].numel()).permute(0, 3, 1, 2)


def matrix(layer: Layer, weight: Tensor) -> Tensor:
    """View a weight-shaped tensor as ``(groups, outputs of the group, columns)``."""
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def per_column(layer: Layer, statistic: Tensor) -> Tensor:
    """Give each weight the figure of the input column that it reads: ``(groups, columns)`` to the weight's shape."""
    wide = statistic[:, None, :].expand(matrix(layer, layer.weight).shape)
    return wide.reshape(layer.weight.shape).to(layer.weight.dtype)


def finite(scores: Scores) -> Scores:
    """Return `scores`, or raise `PruningError` naming the first layer with a score that is not finite."""
    for name, score in scores.items():
        if not bool(torch.isfinite(score).all()):
            raise PruningError(f"{name}: expected finite scores, found NaN or infinity")
    return scores
