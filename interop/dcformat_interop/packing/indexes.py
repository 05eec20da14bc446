"""Indexes: JSON files that name the file of each tensor, for safetensors and for ``.dcf`` files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from dcformat_interop.refusals import UnfitError
from dcformat_interop.tensors import JSON_BYTES, Budget, unique_names


class Index(NamedTuple):
    """An index.

    Attributes
    ----------
    text : bytes
        The raw index.
    where : dict of str to str
        The file of each tensor, by a name relative to the index.
    total_size : object
        The index's number of bytes of all tensors, which some tools get wrong; None if it states none.
    digests : dict of str to str
        The content digest of each ``.dcf`` file, in hexadecimal digits; empty if the index states none.
    """

    text: bytes
    where: dict[str, str]
    total_size: object
    digests: dict[str, str]


def find_index(path: Path, suffix: str) -> Path | None:
    """Return the only index in a directory, or None if there is none; raise `UnfitError` if there are several."""
    found = sorted(each for each in path.iterdir() if each.name.endswith(suffix))
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise UnfitError(path, "a directory with one index, or the index itself", f"several: {names}")
    return found[0] if found else None


def read_index(path: Path, budget: Budget) -> Index:
    """Read an index, and count the memory that it takes.

    Raises
    ------
    UnfitError
        It is damaged or exceeds the budget, or names a file that is outside its directory or missing.
    OSError
        It cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        budget.take(JSON_BYTES * size, path.name)
        raw = file.read(size)
    try:
        parsed: Any = json.loads(raw.decode(), object_pairs_hook=unique_names)
        where = dict(parsed["weight_map"])
        if not where or not all(isinstance(name, str) for name in where.values()):
            raise ValueError("no files")
        metadata = parsed.get("metadata") or {}
        total, digests = metadata.get("total_size"), dict(metadata.get("content_digests") or {})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UnfitError(path, "an index with a weight_map of tensors to files", "something else") from None
    for name in sorted(set(where.values())):
        check_name(str(path), name)
        if not (path.parent / name).is_file():
            raise UnfitError(path, f"the file {name!r}, which the index names", "none of this name")
    return Index(raw, where, total, digests)


def check_name(path: str, name: str) -> None:
    """Raise `UnfitError` unless a file's name stays in the directory."""
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or ":" in name or any(part in ("", ".", "..") for part in parts):
        raise UnfitError(path, "names of files in the directory of the index", repr(name))


def compare(path: Path, where: dict[str, str], found: dict[str, str]) -> None:
    """Raise `UnfitError` unless each tensor was `found` in the file that the index names.

    Parameters
    ----------
    path : Path
        The index.
    where, found : dict of str to str
        The file of each tensor, as stated by the index and in fact.
    """
    for name, file in where.items():
        if name not in found:
            raise UnfitError(path, f"the tensor in {file}, where the index has it", "a file without it", name)
        if found[name] != file:
            raise UnfitError(path, f"the tensor in {file}, where the index has it", f"it in {found[name]}", name)
    extra = [name for name in found if name not in where]
    if extra:
        more = f" (and {len(extra) - 1:,} more)" if len(extra) > 1 else ""
        expected = "an index that names every tensor of its files"
        raise UnfitError(path, expected, f"none for this one in {found[extra[0]]}{more}", extra[0])
