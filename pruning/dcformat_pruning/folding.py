"""Batch norm folded into the layer before it: the same function in eval mode, with one tensor pair less."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dcformat_pruning.wiring import UnsupportedModuleError, trace

Norm = nn.BatchNorm1d | nn.BatchNorm2d


@torch.no_grad()
def fold_batch_norm(module: nn.Module) -> list[str]:
    """Fold each batch norm that directly follows a Linear or Conv2d into it, in place.

    The norm is replaced by `nn.Identity`; the layer gets a bias if it had none. Weights are changed in place,
    so an optimiser's parameters stay; pruned weights stay zero. A norm that follows anything else is left as
    it is.

    Returns
    -------
    list of str
        The norms that were folded.

    Raises
    ------
    UnsupportedModuleError
        The module cannot be traced, or a norm has no running statistics; names it.
    """
    parts = dict(module.named_modules())
    graph = trace(module)
    calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    folded = []
    for node in graph.nodes:
        norm = parts.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            continue
        before = node.args[0]
        layer = parts.get(str(before.target)) if before.op == "call_module" else None
        once = calls.count(str(node.target)) == 1 and calls.count(str(before.target)) == 1
        if isinstance(layer, nn.Linear | nn.Conv2d) and once and len(before.users) == 1:
            scale, shift = affine(str(node.target), norm)
            # Adding zero makes the negative zeros that a negative scale leaves positive: pruned stays pruned.
            layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.ndim - 1))).add_(0.0)
            bias = shift if layer.bias is None else layer.bias * scale + shift
            if layer.bias is None:
                layer.bias = nn.Parameter(bias)
            else:
                layer.bias.copy_(bias)
            folded.append(str(node.target))
    for name in folded:
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, nn.Identity())
    return folded


def affine(name: str, norm: Norm) -> tuple[Tensor, Tensor]:
    """Return the scale and shift of a batch norm in eval mode, ``(features,)`` each.

    Raises
    ------
    UnsupportedModuleError
        It keeps no running statistics.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise UnsupportedModuleError(f"{name}: expected a batch norm with running statistics, found one without")
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach()
    shift = -norm.running_mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach()
    return scale, shift
