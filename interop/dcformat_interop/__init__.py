"""Other people's files: reads checkpoints into arrays that `dcformat` can pack, and writes tensors back for others."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dcformat_interop.archives import write_npz, write_safetensors
    from dcformat_interop.checkpoints import Checkpoint, Note, read_checkpoint
    from dcformat_interop.errors import InputError, MissingTorchError
    from dcformat_interop.han import read_han
    from dcformat_interop.matching import match
    from dcformat_interop.tensors import Dense

__all__ = [
    "Checkpoint",
    "Dense",
    "InputError",
    "MissingTorchError",
    "Note",
    "match",
    "read_checkpoint",
    "read_han",
    "write_npz",
    "write_safetensors",
]

_HOMES = {
    "archives": ("write_npz", "write_safetensors"),
    "checkpoints": ("Checkpoint", "Note", "read_checkpoint"),
    "errors": ("InputError", "MissingTorchError"),
    "han": ("read_han",),
    "matching": ("match",),
    "tensors": ("Dense",),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: the command line needs the errors alone to start."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"dcformat_interop.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
