"""dcformat: a storage-focused file format for pruned, weight-shared neural networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dcformat.conversions import from_scipy
    from dcformat.deltas import apply, delta
    from dcformat.dense import from_dense
    from dcformat.errors import FormatError
    from dcformat.graph import Graph
    from dcformat.model import Model, Tensor
    from dcformat.opening import load, verify
    from dcformat.opening import open_file as open
    from dcformat.reader import DcfFile
    from dcformat.writer import dumps, save

__version__ = "1.0.0"

__all__ = [
    "DcfFile", "FormatError", "Graph", "Model", "Tensor", "apply", "delta", "dumps", "from_dense", "from_scipy", "load",
    "open", "save", "verify",
]  # fmt: skip

#: Where the names are, and what they are called there.
_HOMES = {
    "DcfFile": "reader", "FormatError": "errors", "Graph": "graph", "Model": "model", "Tensor": "model",
    "apply": "deltas", "delta": "deltas", "dumps": "writer", "from_dense": "dense", "from_scipy": "conversions",
    "load": "opening", "open": "opening.open_file", "save": "writer", "verify": "opening",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a name on first use.

    Most processes only read, and `python -m dcformat` imports this module before it can answer Ctrl-C.
    """
    if name in _HOMES:
        from importlib import import_module

        module, _, own = _HOMES[name].partition(".")
        value = getattr(import_module(f"dcformat.{module}"), own or name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List all public names, even before they are imported, but not those that only this module needs."""
    return sorted({*globals(), *__all__} - {"Any", "TYPE_CHECKING", "annotations"})
