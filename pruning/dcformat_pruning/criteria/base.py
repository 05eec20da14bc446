"""The parts that all criteria share: the layers that they score, passes over data, and layer inputs as patches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from dcformat_pruning.data import Images
from dcformat_pruning.masks import PruningError

#: A layer whose inputs and outputs a hook sees.
WeightedLayer = nn.Linear | nn.Conv1d | nn.Conv2d

#: The data that scores are computed on: images, or batches of (inputs, labels) that can be iterated again. Inputs are a
#: tensor, or a tuple or dict of tensors. The first dimension of inputs and labels is the batch.
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
        """Return a score for each weight: of any layer, or of the kinds that the criterion can score.

        Returns
        -------
        dict of str to Tensor
            Parameter name to scores in the parameter's shape. A criterion for units returns a score for each output,
            ``(out,)``.

        Raises
        ------
        PruningError
            The criterion cannot score some layers, all of which the message names; there is no data; or the scores of
            a layer are not finite.
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


def layer_weights(
    module: nn.Module, fits: Callable[[nn.Module, str], bool], expected: str
) -> dict[str, tuple[nn.Module, nn.Parameter]]:
    """Return the layers and weights, by the parameters' names, in the module's order.

    Parameters
    ----------
    fits : callable
        Takes a layer and the name of its parameter; returns whether the weight can be scored.
    expected : str
        The requirement on the weights, for errors.

    Raises
    ------
    PruningError
        Some weights do not fit, the module has masks of `torch.nn.utils.prune`, or it has no weights.
    """
    found: dict[str, tuple[nn.Module, nn.Parameter]] = {}
    others: list[str] = []
    for path, child in module.named_modules():
        for name, parameter in child.named_parameters(recurse=False):
            if parameter.ndim < 2:
                continue
            full = f"{path}.{name}" if path else name
            if name.endswith("_orig"):
                raise masks_found(full)
            if not fits(child, name):
                others.append(f"{full} ({type(child).__name__})")
                continue
            if isinstance(child, nn.Conv1d | nn.Conv2d) and child.padding_mode != "zeros":
                raise PruningError(f"{full}: expected padding with zeros, found {child.padding_mode!r}")
            found[full] = child, parameter
    if others:
        raise PruningError(f"expected weights {expected}, found {', '.join(others)}")
    if not found:
        raise PruningError(f"{type(module).__name__}: expected weights {expected}, found none")
    return found


def scored_layers(module: nn.Module) -> dict[str, WeightedLayer]:
    """Return the layers whose units are scored: parameter name of the weight to layer, in the module's order.

    Raises
    ------
    PruningError
        A parameter of rank 2 or more belongs to another kind of layer, the module has masks of
        `torch.nn.utils.prune`, or it has no layer to score.
    """
    # Attention reads the weight of its last projection without calling the layer.
    uncalled = {id(part.out_proj) for part in module.modules() if isinstance(part, nn.MultiheadAttention)}

    def fits(part: nn.Module, _: str) -> bool:
        return isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d) and id(part) not in uncalled

    found = layer_weights(module, fits, "of Linear, Conv1d and Conv2d layers")
    return {name: layer for name, (layer, _) in found.items() if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)}


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
def hooked(
    layers: Mapping[str, WeightedLayer], hook: Callable[[str, WeightedLayer, Tensor, Tensor], Tensor | None]
) -> Iterator[None]:
    """Call ``hook(name, layer, input, output)`` when a layer runs; a result that is not None replaces the output."""

    def bind(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        return lambda _, inputs, output: hook(name, layers[name], inputs[0], output)

    handles = [layer.register_forward_hook(bind(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def patches(layer: WeightedLayer, x: Tensor) -> Tensor:
    """Return a layer's input as ``(samples, positions, groups, columns)``."""
    if isinstance(layer, nn.Linear):
        return x.reshape(x.shape[0], -1, 1, layer.in_features)
    padding = layer.padding
    if isinstance(padding, str):
        x = functional.pad(x, layer._reversed_padding_repeated_twice)
        padding = (0,) * len(layer.kernel_size)
    sizes = (layer.kernel_size, layer.dilation, padding, layer.stride)
    if isinstance(layer, nn.Conv1d):  # an image of one row
        x, sizes = x.unsqueeze(2), ((1, *sizes[0]), (1, *sizes[1]), (0, *sizes[2]), (1, *sizes[3]))
    unfolded = functional.unfold(x, *sizes)
    return unfolded.view(x.shape[0], layer.groups, -1, unfolded.shape[2]).permute(0, 3, 1, 2)


def positions(layer: WeightedLayer, output: Tensor) -> Tensor:
    """Return a layer's output (or its gradient) as ``(samples, positions, groups, outputs of the group)``."""
    if isinstance(layer, nn.Linear):
        return output.reshape(output.shape[0], -1, 1, layer.out_features)
    return output.flatten(2).view(output.shape[0], layer.groups, -1, output[0, 0].numel()).permute(0, 3, 1, 2)


def finite(scores: Scores) -> Scores:
    """Return `scores`, or raise `PruningError` naming the first layer with a score that is not finite."""
    for name, score in scores.items():
        if not bool(torch.isfinite(score).all()):
            raise PruningError(f"{name}: expected finite scores, found NaN or infinity")
    return scores
