"""dcformat: a storage-focused file format for pruned, weight-shared neural networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dcformat.dense import from_dense
from dcformat.errors import FormatError
from dcformat.model import Model, Tensor
from dcformat.reader import DcfFile, load, verify
from dcformat.reader import open_file as open

if TYPE_CHECKING:
    from dcformat.writer import dumps, save

__version__ = "1.0.0"

__all__ = ["DcfFile", "FormatError", "Model", "Tensor", "dumps", "from_dense", "load", "open", "save", "verify"]


def __getattr__(name: str) -> Any:
    """Import the writer on first use: most processes only read."""
    if name in ("dumps", "save"):
        from dcformat import writer

        return getattr(writer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the writer's functions too, before they are imported."""
    return sorted({*globals(), *__all__})
