"""Reads a user's weights from a file, to start from instead of training.

PyTorch files are loaded with ``weights_only``, so that a file can hold tensors and plain data, but no code to run.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from dcformat.source import ClippedFile
from dcformat_pruning.lenets import CheckpointError
from dcformat_pruning.masks import PruningError, masked

#: Before this version, a file could run code in spite of ``weights_only=True`` (CVE-2025-32434).
_SAFE_TORCH = "2.6"


def load_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """Read a state_dict from a `.pt`, `.pth` or `.safetensors` file to the CPU.

    Masks of `torch.nn.utils.prune` (``weight_orig`` with ``weight_mask``) are folded.

    Returns
    -------
    dict of str to Tensor
        Parameter and buffer names to values, in the file's order.

    Raises
    ------
    CheckpointError
        The file holds no state_dict, its masks have values other than zero and one, or PyTorch is too old to load
        `.pt` files safely.
    OSError
        The file cannot be read.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state = load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path}: expected a safetensors file: {error}") from error
        return _folded(path, state)
    loaded = load_tensors(path)
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, Mapping) or not all(isinstance(n, str) for n in state):
        raise CheckpointError(f"{path}: expected a state_dict (names to tensors), found {type(state).__name__}")
    for name, value in state.items():
        if not _is_plain(value):
            raise CheckpointError(f"{path}: {name}: expected a dense tensor, found {_kind(value)}")
    return _folded(path, state)


def _is_plain(value: object) -> bool:
    """Return whether a value holds its elements in plain memory, so that they can be checked and copied."""
    if not isinstance(value, Tensor) or value.is_nested or value.is_quantized or value.is_meta:
        return False
    return value.layout is torch.strided


def _kind(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{value.dtype}, {value.layout}" + (" without data" if value.is_meta else "")


def _folded(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    try:
        return fold_masks(state)
    except PruningError as error:
        raise CheckpointError(f"{path}: {error}") from error


def fold_masks(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace each pair of ``NAME_orig`` and ``NAME_mask`` in a state_dict by ``NAME``, zero where the mask is zero.

    Masks are zeros and ones of any dtype. Values that they keep do not change by a bit; other tensors are kept.

    Raises
    ------
    PruningError
        A mask has another shape than its parameter, or other values; the message names the parameter.
    """
    # `dcformat_interop.mask_folding` does the same with NumPy: it must run without PyTorch, but knows fewer dtypes.
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        stem = name.removesuffix("_orig")
        if stem != name and f"{stem}_mask" in state:
            out[stem] = masked(stem, value, state[f"{stem}_mask"])
        elif not (name.endswith("_mask") and f"{name.removesuffix('_mask')}_orig" in state):
            out[name] = value
    return out


def load_tensors(path: Path) -> Any:
    """Load tensors and plain data from a file of `torch.save` to the CPU.

    Raises
    ------
    CheckpointError
        The file holds anything else or is damaged, or PyTorch is too old to load it safely.
    OSError
        The file cannot be read.
    """
    version = TorchVersion(torch.__version__)
    if version < _SAFE_TORCH:
        raise CheckpointError(
            f"{path}: expected PyTorch {_SAFE_TORCH} or later, found {version}, whose weights_only=True could be made "
            f"to run code (CVE-2025-32434); update torch, or save the weights as .safetensors"
        )
    try:
        with path.open("rb") as file:
            return torch.load(ClippedFile(file), map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle may raise any exception
        # PyTorch's own message advises loading the file without weights_only, which would run the code in it.
        raise CheckpointError(
            f"{path}: expected a PyTorch file that holds only tensors, {_found(path, error)}"
        ) from error


def _found(path: Path, error: Exception) -> str:
    """Describe the contents that PyTorch could not load, and what the user can do."""
    if _is_torchscript(path):
        return "found a TorchScript archive; save the state_dict() of the module that it was made from"
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named:
        return f"found an object of {named[1]}; save only module.state_dict()"
    return "found a damaged file or another format; save it again with torch.save(module.state_dict(), path)"


def _is_torchscript(path: Path) -> bool:
    """Whether a file is an archive with the constants that only TorchScript writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError):
        return False
