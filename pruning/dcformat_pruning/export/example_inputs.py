"""Makes the examples with which a module is exported from the user's inputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dcformat_pruning.tracing import place, reason, unsupported

ExampleInputs = Sequence[int] | Tensor | Sequence[Any] | Mapping[str, Any]
BatchAxis = int | None | Mapping[str, int | None]

#: The size of the batch in an export, which is then left open. PyTorch treats 0 and 1 as constants.
_BATCH = 3


@dataclass(frozen=True, slots=True)
class Examples:
    """Arguments of a forward pass.

    Attributes
    ----------
    positional : tuple
    named : dict
    shapes : dict or None
        The open dimensions of each parameter, as `torch.export.export` takes them; None if all are fixed.
    """

    positional: tuple[Any, ...]
    named: dict[str, Any]
    shapes: dict[str, Any] | None

    def args(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with other tensors, in their order."""
        left = iter(tensors)
        replaced: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_map(
            lambda leaf: next(left) if isinstance(leaf, Tensor) else leaf, (self.positional, self.named)
        )
        return replaced


def example_inputs(module: nn.Module, inputs: ExampleInputs, batch_axis: BatchAxis) -> Examples:
    """Return the arguments for an export.

    Parameters
    ----------
    module : nn.Module
    inputs, batch_axis
        As in `dcformat_pruning.from_module`.

    Raises
    ------
    UnsupportedModuleError
        The inputs do not fit the forward pass, or a batch axis fits no input.
    """
    where = place("", type(module))
    positional, named = _arguments(inputs)
    try:
        bound = inspect.signature(module.forward).bind(*positional, **named)
    except TypeError as error:
        way_out = "give an example for each, in a tuple or by name"
        raise unsupported(where, "inputs that the forward pass takes", reason(error), way_out) from error
    axes = batch_axis if isinstance(batch_axis, Mapping) else dict.fromkeys(bound.arguments, batch_axis)
    for name in axes:
        if name not in bound.arguments:
            known = ", ".join(bound.arguments)
            raise unsupported(where, f"a batch axis for one of its inputs ({known})", repr(name), "correct batch_axis")
    batch = torch.export.Dim("batch")
    shapes: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        axis = axes.get(name, 0)
        bound.arguments[name] = pytree.tree_map(lambda leaf: _example(where, name, leaf, axis), value)  # noqa: B023
        shapes[name] = pytree.tree_map(
            lambda leaf: {axis % leaf.ndim: batch} if isinstance(leaf, Tensor) and axis is not None else None,  # noqa: B023
            bound.arguments[name],
        )
    is_open = any(leaf is not None for leaf in pytree.tree_leaves(shapes))
    return Examples(bound.args, bound.kwargs, shapes if is_open else None)


def _arguments(inputs: ExampleInputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of the forward pass by position and by name."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, Tensor) or not isinstance(inputs, Sequence):
        return (inputs,), {}
    if all(isinstance(size, int) for size in inputs):
        return (torch.zeros(1, *map(int, inputs)),), {}
    return tuple(inputs), {}


def _example(where: str, name: str, leaf: Any, axis: int | None) -> Any:
    """Return an example with a batch whose size distinguishes its dimension from others; floats are float32."""
    if isinstance(leaf, np.ndarray):
        leaf = torch.from_numpy(leaf)
    if not isinstance(leaf, Tensor):
        return leaf
    if leaf.is_complex():
        raise unsupported(f"{where}, {name}", "real numbers", leaf.dtype, "give their real and imaginary parts")
    values = leaf.detach().cpu()
    values = values.float() if values.is_floating_point() else values
    if axis is None:
        return values.clone()
    if not -values.ndim <= axis < values.ndim or not values.shape[axis]:
        found = f"an example of shape {tuple(leaf.shape)}"
        raise unsupported(f"{where}, {name}", f"a batch in dimension {axis}", found, "correct batch_axis")
    return values.index_select(axis, torch.arange(_BATCH) % values.shape[axis])
