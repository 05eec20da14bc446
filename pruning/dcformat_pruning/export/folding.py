"""Folds a batch norm into the layer before it, which computes the same function in eval mode with fewer tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from dcformat_pruning.tracing import kind_of, place, trace, unsupported

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


@torch.no_grad()
def fold_batch_norm(module: nn.Module) -> list[str]:
    """Fold each batch norm that directly follows a Linear layer or a convolution into it, in place.

    The convolutions are Conv1d, Conv2d, ConvTranspose1d and ConvTranspose2d, with or without groups.

    An export folds norms too, but folding scales every row by itself, so weights that share values must be shared after
    it: fold, then share, then export.

    `nn.Identity` replaces the norm, and the layer gets a bias if it had none. Weights are changed in place, so that an
    optimiser keeps its parameters; if another layer shares the weights, the layer gets its own copy. Pruned
    weights stay zero. A norm is not folded if it follows anything else, or a layer that has hooks or recomputes its
    weights in each call (`torch.nn.utils.weight_norm`, parametrisations). A norm whose number of features is not that
    of the layer's outputs normalises another axis, and is not folded either.

    Returns
    -------
    list of str
        The paths of the norms that were folded.

    Raises
    ------
    UnsupportedModuleError
        The module cannot be traced, or a norm has no running statistics; the message names it.
    """
    parts = dict(module.named_modules())
    folded = []
    for before, after in foldable(trace(module), parts).items():
        layer, norm = parts[str(before.target)], parts[str(after.target)]
        hooked = [*layer._forward_hooks, *layer._forward_pre_hooks, *norm._forward_hooks, *norm._forward_pre_hooks]
        if hooked or "weight" not in layer._parameters:
            continue
        weight, bias = folded_weights(str(after.target), layer, norm)
        for name, value in (("weight", weight), ("bias", bias)):
            own = layer._parameters[name]
            if own is None or _is_shared(own, parts.values()):
                setattr(layer, name, nn.Parameter(value))
            else:
                own.copy_(value)
        _replace(parts.values(), norm, nn.Identity())
        folded.append(str(after.target))
    return folded


def foldable(graph: fx.Graph, parts: Mapping[str, nn.Module]) -> dict[fx.Node, fx.Node]:
    """Return the calls of layers whose results only a batch norm reads, mapped to the call of the norm.

    Both modules are called only once, so that no other call uses the folded weights.
    """
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    found: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        if calls.count(node.target) != 1 or calls.count(before.target) != 1:
            continue
        layer: Any = parts[str(before.target)]
        norm: Any = parts[str(node.target)]
        if kind_of(layer) in _LAYERS and kind_of(norm) in _NORMS and _outputs(layer) == norm.num_features:
            found[before] = node
    return found


def _outputs(layer: Any) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def folded_weights(name: str, layer: Any, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of a layer with the batch norm after it, as new tensors in the layer's dtype.

    Parameters
    ----------
    name : str
        The path of the norm, for errors.
    layer : Linear, Conv1d, Conv2d, ConvTranspose1d or ConvTranspose2d
    norm : BatchNorm1d, BatchNorm2d or SyncBatchNorm
    """
    scale, shift = affine(name, norm)
    weight: Tensor = layer.weight.detach()
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d):  # (inputs, outputs of a group, *kernel)
        each = scale.view(layer.groups, 1, -1).expand(-1, weight.shape[0] // layer.groups, -1)
        factor = each.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))
    else:
        factor = scale.view(-1, *[1] * (weight.ndim - 1))
    # A negative scale turns pruned weights into negative zeros; adding zero makes them positive.
    product = weight.double() * factor + 0.0
    bias = shift if layer.bias is None else layer.bias.detach().double() * scale + shift
    return product.to(weight.dtype), bias.to(weight.dtype)


def affine(name: str, norm: Any) -> tuple[Tensor, Tensor]:
    """Return the scale and shift of a batch norm in eval mode, float64 ``(features,)`` each.

    Parameters
    ----------
    name : str
        The path of the norm, for errors.
    norm : BatchNorm1d, BatchNorm2d or SyncBatchNorm

    Raises
    ------
    UnsupportedModuleError
        The norm keeps no running statistics.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise unsupported(
            place(name, type(norm)),
            "a batch norm with running statistics",
            "one without",
            "without them its result depends on the batch; train it with track_running_stats=True",
        )
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return scale, shift


def _is_shared(parameter: Tensor, parts: Iterable[nn.Module]) -> bool:
    """Whether the module holds the parameter, or another one with the same memory, in more than one place."""
    memory = parameter.untyped_storage().data_ptr()
    holders = [p for part in parts for p in part._parameters.values() if p is not None]
    return sum(p.untyped_storage().data_ptr() == memory for p in holders) > 1


def _replace(parts: Iterable[nn.Module], old: nn.Module, new: nn.Module) -> None:
    """Replace a module by another under all of its names."""
    for part in list(parts):
        for name, child in list(part._modules.items()):
            if child is old:
                setattr(part, name, new)
