"""Finds models in the layout of Hugging Face: a ``.dcf`` file beside config.json, in a directory or on the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dcformat_interop.refusals import UnfitError

#: The name that a repository's file should have. A directory with only one ``.dcf`` file may call it anything.
MODEL_NAME = "model.dcf"

#: Endings of files that hold a network, and of checkpoints that are one file.
NETWORK_SUFFIXES = (".dcf", ".onnx", ".tflite", ".pt2")
CHECKPOINT_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".npz")

#: Names, without their endings, that distinguish a repository's model from its other files.
_MODEL_STEMS = ("model", "pytorch_model")

_ID = re.compile(r"[\w.-]+/[\w.-]+")


class MissingHubError(ImportError):
    """The package huggingface_hub is not installed."""


def find_model(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return the ``.dcf`` file that a name stands for.

    Parameters
    ----------
    name : str or path
        A file; a directory with ``model.dcf`` or with only one ``.dcf`` file; or, if there is no such file, a Hugging
        Face repository, such as ``org/name``, whose ``.dcf`` files and config.json are downloaded to the cache of
        huggingface_hub, or found there.
    revision : str, optional
        A branch, tag or commit of the repository.
    cache_dir : path, optional
        The cache; by default that of huggingface_hub.
    local_files_only : bool
        Whether to look in the cache alone.

    Raises
    ------
    UnfitError
        The directory or repository has no ``.dcf`` file, or several that are not called ``model.dcf``; or the
        repository cannot be reached.
    FileNotFoundError
        There is no such file, and the name is not that of a repository.
    MissingHubError
        The name is that of a repository, and huggingface_hub is not installed.
    """
    path = Path(name)
    if path.is_dir():
        return packed_model_in(path, str(name))
    if path.exists() or not _ID.fullmatch(str(name)):
        path.stat()
        return path
    options = {"revision": revision, "cache_dir": cache_dir, "local_files_only": local_files_only}
    return packed_model_in(_snapshot(str(name), options), str(name))


def cached_repository(name: str) -> Path | None:
    """Return the directory of a repository's files in the cache of huggingface_hub, without any download.

    The result is None if a name is that of a file or of a place in an existing directory, if the cache does not hold
    the repository, or if huggingface_hub is not installed.
    """
    path = Path(name)
    if not _ID.fullmatch(name) or path.exists() or path.parent.is_dir():
        return None
    try:
        return _snapshot(name, {"local_files_only": True})
    except (UnfitError, MissingHubError):
        return None


def model_in(folder: Path, name: str, suffixes: Sequence[str]) -> Path:
    """Return the file with one of these endings that the directory of a repository stands for.

    Files in its folders count too. If there are several, the one called ``model`` or ``pytorch_model`` counts.

    Raises
    ------
    UnfitError
        The repository, which the message calls `name`, has no such file, or several.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    named = [path for path in found if path.stem in _MODEL_STEMS]
    chosen = found if len(found) == 1 else named
    if len(chosen) != 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in (named or found)[:5])
        expected = f"one model in {folder} ({', '.join(suffixes)})"
        raise UnfitError(name, expected, f"{names}: give the path of one" if names else "none")
    return chosen[0]


def _snapshot(name: str, options: Mapping[str, Any]) -> Path:
    """Return the directory of a repository's files in the cache."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        why = f"{name}: a repository needs huggingface_hub: pip install 'dcformat[hub]' ({error})"
        raise MissingHubError(why) from None
    try:
        return Path(snapshot_download(name, allow_patterns=["*.dcf", "*.dcf.index.json", "config.json"], **options))
    except Exception as error:  # The package raises errors of its own, of httpx and of the file system.
        found = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnfitError(name, "a file, a directory or a repository of Hugging Face", found) from error


def packed_model_in(folder: Path, name: str) -> Path:
    """Return ``model.dcf`` of a directory, or its only ``.dcf`` file; the error calls the directory `name`."""
    if (folder / MODEL_NAME).is_file():
        return folder / MODEL_NAME
    found = sorted(path for path in folder.iterdir() if path.suffix == ".dcf" and path.is_file())
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:5]) or "none"
        raise UnfitError(name, f"{MODEL_NAME}, or a single .dcf file", names)
    return found[0]
