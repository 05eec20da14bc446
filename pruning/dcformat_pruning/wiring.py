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


#: Modules whose forward pass is understood; a subclass is one of them if it runs the same forward pass.
_KINDS = (
    nn.Linear,
    nn.Conv2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.SyncBatchNorm,
    nn.ReLU,
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Flatten,
    nn.Softmax,
)


class UnsupportedModuleError(ValueError):
    """A module that cannot be traced, or a part of it that has no counterpart; the message names it."""


def unsupported(where: str, expected: str, found: object, way_out: str) -> UnsupportedModuleError:
    """Return the error for a part of a module, in the form that all of them have.

    Parameters
    ----------
    where : str
        The part, as `place` writes it.
    """
    return UnsupportedModuleError(f"{where}: expected {expected}, found {found}; {way_out}")


def reason(error: Exception) -> str:
    """Return the first line of what an error says, for errors that name where it happened."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def place(path: str, kind: type) -> str:
    """Return how errors name a part of a module: its path and its type."""
    name = kind.__name__ if kind.__module__.startswith("torch.nn.modules.") else f"{kind.__module__}.{kind.__name__}"
    return f"{path or 'the module'} ({name})"


def kind_of(module: nn.Module) -> type[nn.Module] | None:
    """Return which of PyTorch's layers `module` computes, or None if it is none that is understood.

    A subclass that replaces the forward pass (or a module whose ``forward`` was replaced) is not its base class.
    """
    own = type(module)
    for kind in _KINDS:
        if isinstance(module, kind):
            methods = [name for name in ("forward", "_conv_forward", "_check_input_dim") if hasattr(kind, name)]
            same = all(getattr(own, n) is getattr(kind, n) and n not in vars(module) for n in methods)
            return kind if same else None
    return None


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


class _Proxy(fx.Proxy):
    """A traced value whose ``+=`` is recorded as what it is; plain proxies record a sum, and lose the alias."""


def _record(function: Any) -> Any:
    def method(self: _Proxy, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return method


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"):
    setattr(_Proxy, f"__i{_name}__", _record(getattr(operator, f"i{_name}")))


class _Tracer(fx.Tracer):
    """Leaves the layers that are understood whole, and gives arguments behind the first their defaults."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return kind_of(m) is not None or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        function, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        for i, argument in enumerate(args[2:], 2):
            node = argument.node
            if node.args or str(node.target).startswith("*"):
                args[i] = node.args[0] if node.args else {} if str(node.target).startswith("**") else ()
                self.graph.erase_node(node)
        return function, args


def trace(module: nn.Module) -> fx.Graph:
    """Trace `module` as called with one argument, leaving PyTorch's own modules whole.

    Raises
    ------
    UnsupportedModuleError
        Its forward pass branches on values, or does something else that cannot be traced.
    """
    tracer = _Tracer()
    try:
        return tracer.trace(module)
    except Exception as error:  # the forward pass is the user's code: anything may come out of it
        path, kind = next(reversed(tracer.module_stack.values()), ("", type(module)))
        raise unsupported(
            place(path, kind),
            "a forward pass that torch.fx can trace",
            reason(error),
            "let no branch, loop or index depend on the input, and assign to no part of a tensor",
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
