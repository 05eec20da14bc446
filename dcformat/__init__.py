"""dcformat: a storage-focused file format for pruned, weight-shared neural networks."""

from __future__ import annotations

from dcformat.dense import from_dense
from dcformat.errors import FormatError
from dcformat.model import Model, Tensor
from dcformat.reader import DcfFile, load, verify
from dcformat.reader import open_file as open
from dcformat.writer import dumps, save

__version__ = "1.0.0"

__all__ = ["DcfFile", "FormatError", "Model", "Tensor", "dumps", "from_dense", "load", "open", "save", "verify"]
