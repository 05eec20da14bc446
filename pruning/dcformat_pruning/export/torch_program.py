"""Exports a module with `torch.export`, and names the part that cannot be exported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from dcformat_interop.torch_import import quiet
from torch import nn
from torch.export import ExportedProgram

from dcformat_pruning.export.example_inputs import Examples
from dcformat_pruning.tracing import UnsupportedModuleError, place, reason, unsupported


def exported(module: nn.Module, examples: Examples) -> ExportedProgram:
    """Return the program of a module's forward pass, which may get hooks.

    Raises
    ------
    UnsupportedModuleError
        PyTorch cannot export the module; the message names the part whose forward pass failed.
    """
    stack: list[tuple[str, type]] = []
    for path, part in module.named_modules():
        part.register_forward_pre_hook(_entering(stack, path), prepend=True)
        part.register_forward_hook(_leaving(stack))
    try:
        with quiet():
            return torch.export.export(
                module, examples.positional, examples.named, dynamic_shapes=examples.shapes, strict=False
            )
    except Exception as error:  # the forward pass is the user's code, which may raise any exception
        raise _failure(place(*(stack[-1] if stack else ("", type(module)))), error) from error


def _entering(stack: list[tuple[str, type]], path: str) -> Callable[..., None]:
    def enter(part: nn.Module, inputs: Any) -> None:
        stack.append((path, type(part)))

    return enter


def _leaving(stack: list[tuple[str, type]]) -> Callable[..., None]:
    def leave(part: nn.Module, inputs: Any, outputs: Any) -> None:
        stack.pop()

    return leave


def _failure(where: str, error: Exception) -> UnsupportedModuleError:
    """Return the error for a module that PyTorch does not export."""
    kind, found = type(error).__name__, reason(error)
    if kind == "GuardOnDataDependentSymNode" or "data-dependent" in found:
        return unsupported(
            where,
            "a forward pass whose branches, loops and sizes do not depend on values",
            found,
            "choose with torch.where, or export the parts between the branches",
        )
    if "Constraints violated" in found or ("batch" in found and kind == "UserError"):
        details = [line.strip(" -") for line in str(error).splitlines() if line.strip().startswith("- ")]
        return unsupported(
            where,
            "a forward pass for a batch of any size",
            details[0].partition(". If you")[0] if details else found,
            "take the batch's size from x.shape[0]; for single inputs give batch_axis=None and an example of one",
        )
    return unsupported(
        where, "a forward pass that torch.export can export", found, "fit the inputs to it, or change it"
    )
