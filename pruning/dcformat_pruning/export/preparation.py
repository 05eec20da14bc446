"""Prepares a user's module for export: a copy in eval mode, with plain tensors."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

from dcformat_pruning.masks import fold_torch_prune
from dcformat_pruning.tracing import place, reason, unsupported


def prepare(module: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return two copies of a module in float32 on the CPU in eval mode: one to export, and one to compare with.

    Wrappers (DataParallel, DistributedDataParallel, `torch.compile`) are removed from both, and masks of
    `torch.nn.utils.prune` are folded. The first copy has the results of parametrisations, and of the old `weight_norm`
    and `spectral_norm`, as weights; the second computes them in each call.

    Raises
    ------
    UnsupportedModuleError
        The module is TorchScript, or has tensors that float32 on the CPU cannot hold; the message names the part.
    PruningError
        A mask has values other than zero and one; the message names the parameter.
    """
    if not isinstance(module, nn.Module):
        raise unsupported("the module", "an nn.Module", type(module).__name__, "pass the module, not its state_dict")
    _check(module)
    own = copied(_unwrapped(module))
    for part in list(own.modules()):
        for name, child in list(part._modules.items()):
            if child is not None and child is not _unwrapped(child):
                setattr(part, name, _unwrapped(child))
    own.eval()
    fold_torch_prune(own)
    own._apply(_plain)  # type: ignore[no-untyped-call]
    reference = copied(own)
    _bake(own)
    return own, reference


def copied(module: nn.Module) -> nn.Module:
    """Copy a module with the hooks of `torch.nn.utils`.

    Weights that hooks computed are not leaves of the autograd graph, which `copy.deepcopy` refuses; they are detached.

    Raises
    ------
    UnsupportedModuleError
        Something in the module cannot be copied.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:  # copying runs the user's code, which may raise anything
        raise unsupported(
            place("", type(module)),
            "a module that copy.deepcopy can copy",
            reason(error),
            "keep what cannot be copied (open files, locks, results of calls) outside the module",
        ) from error


def _unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside wrappers that change where or how it runs, but not its results."""
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif type(module).__name__ == "OptimizedModule":  # from torch.compile; importing the class takes seconds
            module = module.get_submodule("_orig_mod")
        else:
            return module


def _check(module: nn.Module) -> None:
    """Refuse TorchScript, and tensors that float32 on the CPU cannot hold exactly."""
    for path, part in module.named_modules():
        where = place(path, type(part))
        if isinstance(part, torch.jit.ScriptModule):
            raise unsupported(where, "a module in Python", "TorchScript", "pass the module that it was compiled from")
        own = {**part._parameters, **part._buffers}
        for name, tensor in own.items():
            if tensor is not None:
                _check_tensor(where, name, tensor)


def _check_tensor(where: str, name: str, tensor: Tensor) -> None:
    if is_lazy(tensor):
        raise unsupported(f"{where}, {name}", "initialised parameters", "lazy ones", "call the module on an input")
    if tensor.is_meta:
        raise unsupported(f"{where}, {name}", "values", "a tensor on the meta device", "load the weights first")
    if tensor.layout != torch.strided:
        raise unsupported(f"{where}, {name}", "a dense tensor", tensor.layout, "replace it with its to_dense()")
    if tensor.is_quantized or type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        raise unsupported(f"{where}, {name}", "a plain tensor", type(tensor).__name__, "de-quantise or unwrap it")
    if tensor.is_complex():
        raise unsupported(f"{where}, {name}", "real values", tensor.dtype, "export a network of real numbers")
    if tensor.dtype == torch.float64 and not torch.equal(tensor.float().double().nan_to_num(), tensor.nan_to_num()):
        raise unsupported(f"{where}, {name}", "values that float32 holds", "float64", "call float() on the module")


def _plain(tensor: Tensor) -> Tensor:
    """Return a contiguous copy of a tensor on the CPU; floating-point values become float32."""
    values = tensor.detach().cpu().resolve_neg()
    return (values.float() if values.is_floating_point() else values).contiguous()


def _bake(module: nn.Module) -> None:
    """Replace parametrisations, and the old `weight_norm` and `spectral_norm`, by the weights that they compute."""
    for part in module.modules():
        for hook in list(part._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(part, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(part, hook.name)
        if parametrize.is_parametrized(part):
            _bake_parametrized(part)


def _bake_parametrized(part: nn.Module) -> None:
    """Replace all parametrisations of a module.

    `remove_parametrizations` would change the class, which all copies of the module share.
    """
    lists: Any = part.parametrizations
    values = {name: getattr(part, name).detach() for name in lists}
    part.__class__ = type(part).__bases__[0]
    del part._modules["parametrizations"]
    for name, value in values.items():
        part.register_parameter(name, nn.Parameter(value))
