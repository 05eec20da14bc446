"""Weights in files: a user's checkpoint to start from, and the stages of a run to continue from.

PyTorch files are loaded with ``weights_only``: a checkpoint can hold tensors and plain data, never code to
run.
"""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from dcformat_pruning.masks import PruningError, masked
from dcformat_pruning.networks import CheckpointError

#: Before it, ``weights_only=True`` could be made to run code (CVE-2025-32434).
_SAFE_TORCH = "2.6"


@dataclass(frozen=True, slots=True, eq=False)
class SavedStage:
    """A stage's weights, what it leaves for later stages besides (a teacher's weights), and its report (JSON)."""

    state: Mapping[str, Tensor]
    carried: Mapping[str, Tensor]
    report: str


def load_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """Read a state_dict from a `.pt`, `.pth` or `.safetensors` file, onto the CPU.

    Masks of `torch.nn.utils.prune` (``weight_orig`` with ``weight_mask``) are folded.

    Raises
    ------
    CheckpointError
        The file is not a state_dict, its masks have values other than zero and one, or PyTorch is too old to load
        `.pt` files safely.
    OSError
        It cannot be read.
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
    loaded = _load(path)
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, Mapping) or not all(isinstance(n, str) for n in state):
        raise CheckpointError(f"{path}: expected a state_dict (names to tensors), found {type(state).__name__}")
    for name, value in state.items():
        if not _is_plain(value):
            raise CheckpointError(f"{path}: {name}: expected a dense tensor, found {_kind(value)}")
    return _folded(path, state)


def _is_plain(value: object) -> bool:
    """Return whether a value's elements are simply there, so that they can be checked and copied."""
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
    """Put zeros into ``NAME_orig`` where ``NAME_mask`` is zero, wherever a state_dict holds both; keep the rest.

    Masks are zeros and ones of any dtype. What they keep stays bit for bit.

    Raises
    ------
    PruningError
        A mask of another shape or with other values; names the parameter.
    """
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        stem = name.removesuffix("_orig")
        if stem != name and f"{stem}_mask" in state:
            out[stem] = masked(stem, value, state[f"{stem}_mask"])
        elif not (name.endswith("_mask") and f"{name.removesuffix('_mask')}_orig" in state):
            out[name] = value
    return out


def save_stage(folder: Path, number: int, name: str, key: str, stage: SavedStage) -> None:
    """Write a stage's file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "key": key,
        "state": {n: t.cpu() for n, t in stage.state.items()},
        "carried": {n: t.cpu() for n, t in stage.carried.items()},
        "report": stage.report,
    }
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".stage-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(_stage_path(folder, number, name))
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_stage(folder: Path, number: int, name: str, key: str) -> SavedStage | None:
    """Return a saved stage, or None when there is none of this run.

    Raises
    ------
    CheckpointError
        The file is there but damaged, or belongs to a run with other settings.
    """
    path = _stage_path(folder, number, name)
    if not path.exists():
        return None
    content = _load(path)
    if not isinstance(content, dict) or not {"key", "state", "carried", "report"} <= set(content):
        raise CheckpointError(f"{path}: expected a saved stage, found something else")
    if content["key"] != key:
        raise CheckpointError(f"{path}: expected a stage of {key!r}, found one of {content['key']!r}")
    return SavedStage(content["state"], content["carried"], content["report"])


def _stage_path(folder: Path, number: int, name: str) -> Path:
    return folder / f"{number:02d}-{name}.pt"


def _load(path: Path) -> Any:
    version = TorchVersion(torch.__version__)
    if version < _SAFE_TORCH:
        raise CheckpointError(
            f"{path}: expected PyTorch {_SAFE_TORCH} or later, found {version}, whose weights_only=True could be made "
            f"to run code (CVE-2025-32434); update torch, or save the weights as .safetensors"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle can raise anything
        # PyTorch's own message advises to load the file without weights_only, which would run what it holds.
        raise CheckpointError(
            f"{path}: expected a PyTorch file that holds only tensors, {_found(path, error)}"
        ) from error


def _found(path: Path, error: Exception) -> str:
    """Say what a file holds that PyTorch could not load, and the way out."""
    if _is_torchscript(path):
        return "found a TorchScript archive; save the state_dict() of the module that it was made from"
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named:
        return f"found an object of {named[1]}; save module.state_dict() alone"
    return "found a damaged file or another format; save it again with torch.save(module.state_dict(), path)"


def _is_torchscript(path: Path) -> bool:
    """Whether a file is an archive with the constants that only TorchScript writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError):
        return False
