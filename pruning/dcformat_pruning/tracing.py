"""Tracing a module with `torch.fx`, and the errors for modules that cannot be traced.

Removing a unit, folding a batch norm and exporting a graph all need to know which layer reads which. The order of a
module's children shows this only for an `nn.Sequential`; a trace shows it for any module.
"""

from __future__ import annotations

import operator
from typing import Any

from torch import fx, nn

TracedLayer = nn.Linear | nn.Conv2d

#: Modules with a known forward pass. A subclass counts as its base class if it has the same forward pass.
_KINDS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
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
    """A module cannot be traced, or a part of it has no counterpart in the format; the message names the part."""


def unsupported(where: str, expected: str, found: object, way_out: str) -> UnsupportedModuleError:
    """Return the error for a part of a module: what was expected, what was found, and what the user can do.

    Parameters
    ----------
    where : str
        The part; see `place`.
    """
    return UnsupportedModuleError(f"{where}: expected {expected}, found {found}; {way_out}")


def reason(error: Exception) -> str:
    """Return the first line of an error's message, for use in another message."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def place(path: str, kind: type) -> str:
    """Return the name of a part of a module in errors: its path and type."""
    name = kind.__name__ if kind.__module__.startswith("torch.nn.modules.") else f"{kind.__module__}.{kind.__name__}"
    return f"{path or 'the module'} ({name})"


def kind_of(module: nn.Module) -> type[nn.Module] | None:
    """Return the PyTorch layer that `module` computes, or None if its forward pass is not known.

    A subclass with a forward pass of its own, or a module whose ``forward`` was replaced, is not its base class.
    """
    own = type(module)
    for kind in _KINDS:
        if isinstance(module, kind):
            methods = [name for name in ("forward", "_conv_forward", "_check_input_dim") if hasattr(kind, name)]
            same = all(getattr(own, n) is getattr(kind, n) and n not in vars(module) for n in methods)
            return kind if same else None
    return None


class _Proxy(fx.Proxy):
    """A traced value that records ``+=`` as an operation in place; plain proxies record a sum and lose the alias."""


def _record(function: Any) -> Any:
    def method(self: _Proxy, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return method


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"):
    setattr(_Proxy, f"__i{_name}__", _record(getattr(operator, f"i{_name}")))


class _Tracer(fx.Tracer):
    """A tracer that does not enter known layers, and gives all arguments but the first their defaults."""

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
    """Trace a call of `module` with one argument; PyTorch's own modules are single nodes.

    Raises
    ------
    UnsupportedModuleError
        The forward pass branches on values, or does something else that cannot be traced.
    """
    tracer = _Tracer()
    try:
        return tracer.trace(module)
    except Exception as error:  # the forward pass is the user's code, which may raise any exception
        path, kind = next(reversed(tracer.module_stack.values()), ("", type(module)))
        raise unsupported(
            place(path, kind),
            "a forward pass that torch.fx can trace",
            reason(error),
            "let no branch, loop or index depend on the input, and assign to no part of a tensor",
        ) from error
