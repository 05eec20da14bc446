"""How a module's layers feed one another, found by tracing it with `torch.fx`.

Removing a unit, folding a batch norm and exporting a graph all need to know who reads what; a list of
children says so only for an `nn.Sequential`.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

Layer = nn.Linear | nn.Conv2d

#: What keeps each unit's values apart from the other units': following the wires passes through these.
_UNIT_MODULES = (
    nn.ReLU,
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Flatten,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
)
_UNIT_FUNCTIONS = (
    functional.relu,
    torch.relu,
    functional.dropout,
    functional.max_pool2d,
    functional.avg_pool2d,
    functional.adaptive_avg_pool2d,
    torch.flatten,
)
_UNIT_METHODS = ("relu", "flatten", "view", "reshape", "size")
_SIZE_FUNCTIONS = (getattr, operator.getitem)


class UnsupportedModuleError(ValueError):
    """A module that cannot be traced, or a part of it that has no counterpart; the message names it."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """Who reads whom, by layer path.

    Attributes
    ----------
    readers : dict of str to tuple of str
        For each Linear or Conv2d whose units are read by such layers alone: those layers. A layer whose
        output is added, joined, returned, or split over convolution groups is left out: its units are not
        free to go.
    first : tuple of str
        The layers that read the module's input itself (perhaps flattened).
    """

    readers: dict[str, tuple[str, ...]]
    first: tuple[str, ...]


def trace(module: nn.Module) -> fx.Graph:
    """Trace `module`, leaving PyTorch's own modules whole.

    Raises
    ------
    UnsupportedModuleError
        Its forward pass branches on values, or does something else that cannot be traced.
    """
    try:
        return fx.Tracer().trace(module)
    except Exception as error:  # the forward pass is the user's code: anything may come out of it
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnsupportedModuleError(
            f"{type(module).__name__}: expected a forward pass that torch.fx can trace, found: {reason}"
        ) from error


def wiring(module: nn.Module) -> Wiring:
    """Find who reads the units of each Linear and Conv2d of `module`.

    Raises
    ------
    UnsupportedModuleError
        The module cannot be traced.
    """
    graph = trace(module)
    layers = dict(module.named_modules())
    readers: dict[str, tuple[str, ...]] = {}
    first: tuple[str, ...] = ()
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    for node in graph.nodes:
        if node.op == "placeholder":
            first = tuple(_follow(node, layers) or ())
        elif node.op == "call_module" and isinstance(layers[node.target], nn.Linear | nn.Conv2d):
            found = _follow(node, layers)
            if found and calls.count(node.target) == 1:
                readers[node.target] = tuple(found)
    return Wiring(readers, first)


def _follow(node: fx.Node, layers: dict[str, nn.Module]) -> list[str] | None:
    """Return the layers that read `node` alone, or None if anything else does."""
    found: list[str] = []
    for user in node.users:
        kind = layers[str(user.target)] if user.op == "call_module" else None
        if isinstance(kind, nn.Linear) or (isinstance(kind, nn.Conv2d) and kind.groups == 1):
            found.append(str(user.target))
        elif _keeps_units(user, kind):
            further = _follow(user, layers)
            if further is None:
                return None
            found += [name for name in further if name not in found]
        else:
            return None
    return found


def _keeps_units(user: fx.Node, kind: nn.Module | None) -> bool:
    if kind is not None:
        return isinstance(kind, _UNIT_MODULES)
    if user.op == "call_function":
        target: Any = user.target
        return target in _UNIT_FUNCTIONS or target in _SIZE_FUNCTIONS
    return user.op == "call_method" and user.target in _UNIT_METHODS
