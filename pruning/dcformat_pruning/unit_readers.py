"""Finds the layers that read a layer's units, which must change when a unit is removed."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from dcformat_pruning.tracing import trace

#: Operations that keep the values of different units apart, so that a unit can be followed through them.
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


@dataclass(frozen=True, slots=True)
class UnitReaders:
    """The layers that read each layer, by their paths.

    Attributes
    ----------
    readers : dict of str to tuple of str
        Maps each Linear or Conv2d to its readers if only such layers read its units. A layer whose output is added,
        concatenated, returned, or split over convolution groups is missing, because its units cannot be removed
        one by one.
    first : tuple of str
        The layers that read the module's own input, perhaps flattened.
    """

    readers: dict[str, tuple[str, ...]]
    first: tuple[str, ...]


def unit_readers(module: nn.Module) -> UnitReaders:
    """Find the layers that read the units of each Linear and Conv2d of `module`.

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
    return UnitReaders(readers, first)


def _follow(node: fx.Node, layers: dict[str, nn.Module]) -> list[str] | None:
    """Return the paths of the layers that read `node`, or None if anything but a layer reads it."""
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
