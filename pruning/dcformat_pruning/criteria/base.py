"""What all criteria share: the layers they score, passes over data, layer inputs as matrices.

A layer's input is seen as rows of columns: a convolution's as the patches that its kernel is laid over, so
that column ``j`` is what the weights ``[:, j]`` of the weight matrix multiply, padding zeros included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from dcformat_pruning.data import Images
from dcformat_pruning.masks import PruningError
from dcformat_pruning.wiring import Layer

#: What scores are computed on: images, or batches of (float input, labels int64), iterated more than once.
Data = Images | Iterable[tuple[Tensor, Tensor]]

#: Images in one pass through the network.
_BATCH = 500

Scores = dict[str, Tensor]


@runtime_checkable
class Criterion(Protocol):
    """Scores weights, or whole units; the lowest are pruned first."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def scores(self, module: nn.Module, data: Data) -> Scores:
        """Return a score for each weight of every Linear and Conv2d, by parameter name.

        Returns
        -------
        dict of str to Tensor
            Of the parameter's shape; a criterion of units returns one score for each output, ``(out,)``.

        Raises
        ------
        PruningError
            A layer that is neither Linear nor Conv2d, no data, or scores that are not finite; names the
            layer.
        """


def scored_layers(module: nn.Module) -> dict[str, Layer]:
    """Return the layers to score, in the module's order, by the names of their weights.

    Raises
    ------
    PruningError
        A parameter of rank 2 or more belongs to another kind of layer, or masks of `torch.nn.utils.prune`
        stand in the way.
    """
    layers: dict[str, Layer] = {}
    for path, child in module.named_modules():
        for name, parameter in child.named_parameters(recurse=False):
            if parameter.ndim < 2:
                continue
            full = f"{path}.{name}" if path else name
            if name.endswith("_orig"):
                raise PruningError(
                    f"{full}: expected a plain weight, found masks of torch.nn.utils.prune; call fold_torch_prune first"
                )
            if not isinstance(child, nn.Linear | nn.Conv2d):
                raise PruningError(f"{full}: expected a Linear or Conv2d layer, found {type(child).__name__}")
            if isinstance(child, nn.Conv2d) and child.padding_mode != "zeros":
                raise PruningError(f"{full}: expected padding with zeros, found {child.padding_mode!r}")
            layers[full] = child
    if not layers:
        raise PruningError(f"{type(module).__name__}: expected a Linear or Conv2d layer, found none")
    return layers


def batches(data: Data) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (inputs, labels) in order.

    Raises
    ------
    PruningError
        There are none.
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
    """Put `module` in eval mode, and each part back into its own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def hooked(layers: Mapping[str, Layer], hook: Callable[[str, Layer, Tensor, Tensor], Tensor | None]) -> Iterator[None]:
    """Call ``hook(name, layer, input, output)`` as layers run; what it returns replaces the output."""

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
    """Run `data` through `module`; `visit` gets each layer's input as ``(groups, rows, columns)``."""

    def hook(name: str, layer: Layer, x: Tensor, _: Tensor) -> None:
        visit(name, patches(layer, x).flatten(0, 1).transpose(0, 1))

    with evaluating(module), hooked(layers, hook):
        for x, _ in batches(data):
            module(x)


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
    """Spread a figure of each input column, ``(groups, columns)``, over the weights that read it."""
    wide = statistic[:, None, :].expand(matrix(layer, layer.weight).shape)
    return wide.reshape(layer.weight.shape).to(layer.weight.dtype)


def finite(scores: Scores) -> Scores:
    """Return `scores`, or raise `PruningError` naming the first layer with a score that is not finite."""
    for name, score in scores.items():
        if not bool(torch.isfinite(score).all()):
            raise PruningError(f"{name}: expected finite scores, found NaN or infinity")
    return scores
