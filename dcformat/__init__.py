"""dcformat: a storage-focused file format for pruned, weight-shared neural networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dcformat.errors import FormatError
from dcformat.model import Model, Tensor
from dcformat.opening import load, verify
from dcformat.opening import open_file as open
from dcformat.reader import DcfFile

if TYPE_CHECKING:
    from dcformat.deltas import apply, delta
    from dcformat.dense import from_dense
    from dcformat.writer import dumps, save

__version__ = "1.0.0"

__all__ = [
    "DcfFile", "FormatError", "Model", "Tensor", "apply", "delta", "dumps", "from_dense", "load", "open", "save",
    "verify",
]  # fmt: skip

_LAZY = {"apply": "deltas", "delta": "deltas", "dumps": "writer", "from_dense": "dense", "save": "writer"}


def __getattr__(name: str) -> Any:
    """Import what writes and applies on first use: most processes only read."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f"dcformat.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List all functions, also before they are imported."""
    return sorted({*globals(), *__all__})
