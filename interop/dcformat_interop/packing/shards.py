"""The files of a sharded checkpoint: an index, a directory, or a Hugging Face snapshot, whose files are links."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcformat.wording import counted
from dcformat_interop import kinds
from dcformat_interop.refusals import UnfitError
from dcformat_interop.safetensors import DTYPES, Entry, Layout, read_layout

#: How the name of an index ends.
INDEX_SUFFIX = ".safetensors.index.json"

#: Maximum number of bytes of an index.
_MAX_INDEX_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class Shard:
    """A safetensors file.

    Attributes
    ----------
    path : str
        The file, for opening it and for errors.
    name : str
        Its name in the index, relative to the directory.
    layout : Layout
    stamp : tuple of int
        Its size and its time of change in nanoseconds, by which another process knows that it is still the same.
    """

    path: str
    name: str
    layout: Layout
    stamp: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Shards:
    """All files of a checkpoint, in the order of their names.

    Attributes
    ----------
    path : str
        The checkpoint as the user named it.
    shards : list of Shard
    index : tuple of (str, bytes) or None
        The name and content of the index.
    """

    path: str
    shards: list[Shard]
    index: tuple[str, bytes] | None

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of all files together; the first file's value counts where several have one."""
        out: dict[str, str] = {}
        for shard in self.shards:
            out = {**shard.layout.metadata, **out}
        return out

    @property
    def data_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.end - entry.begin for shard in self.shards for entry in shard.layout.entries)


def is_streamed(path: Path) -> bool:
    """Return whether `find_shards` takes a path: a directory, an index, or a regular safetensors file.

    It takes a directory without safetensors files too, and says then what is missing.
    """
    if path.is_dir() or path.name.endswith(INDEX_SUFFIX):
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return kinds.is_safetensors(file.read(kinds.HEAD))


def find_shards(path: Path) -> Shards:
    """Find the files of a checkpoint and read their headers.

    Parameters
    ----------
    path : Path
        A safetensors file, an index (``*.safetensors.index.json``), or a directory with one index, or else with
        safetensors files.

    Raises
    ------
    UnfitError
        The directory has no such files or several indexes; a file is damaged or truncated; the index names a file
        outside its directory, or disagrees with the files about which tensors are where.
    OSError
        A file cannot be read; `filename` is its name.
    """
    if path.is_dir():
        indexes = sorted(each for each in path.iterdir() if each.name.endswith(INDEX_SUFFIX))
        if len(indexes) > 1:
            names = ", ".join(each.name for each in indexes)
            raise UnfitError(path, "a directory with one index, or the index itself", f"several: {names}")
        if indexes:
            return _indexed(str(path), indexes[0])
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise UnfitError(path, f"a directory with safetensors files or an index (*{INDEX_SUFFIX})", "neither")
        return _checked(str(path), [_shard(each, each.name) for each in files], None)
    if path.name.endswith(INDEX_SUFFIX):
        return _indexed(str(path), path)
    return _checked(str(path), [_shard(path, path.name)], None)


def _shard(path: Path, name: str) -> Shard:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        head = file.read(kinds.HEAD)
        if not kinds.is_safetensors(head):
            found = kinds.looks_like(head)
            raise UnfitError(path, "a safetensors file", f"looks like {found}" if found else "other bytes")
        return Shard(str(path), name, read_layout(str(path), file), (status.st_size, status.st_mtime_ns))


def _indexed(path: str, index: Path) -> Shards:
    with index.open("rb") as file:
        raw = file.read(_MAX_INDEX_BYTES + 1)
    where = _weight_map(index, raw)
    shards = []
    for name in sorted(set(where.values())):
        check_name(str(index), name)
        try:
            shards.append(_shard(index.parent / name, name))
        except FileNotFoundError:
            raise UnfitError(index, f"the file {name!r} beside the index, which names it", "none") from None
    _compare(index, where, shards)
    return _checked(path, shards, (index.name, raw))


def _weight_map(index: Path, raw: bytes) -> Mapping[str, str]:
    """Return the file of each tensor."""
    try:
        parsed: Any = json.loads(raw.decode()) if len(raw) <= _MAX_INDEX_BYTES else None
        where = parsed["weight_map"]
        if not where or not all(isinstance(name, str) for name in where.values()):
            raise ValueError("no files")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UnfitError(index, "an index with a weight_map of tensors to files", "something else") from None
    return dict(where)


def check_name(path: str, name: str) -> None:
    """Raise `UnfitError` unless a file's name stays in the directory."""
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or ":" in name or any(part in ("", ".", "..") for part in parts):
        raise UnfitError(path, "names of files in the directory of the index", repr(name))


def _compare(index: Path, where: Mapping[str, str], shards: list[Shard]) -> None:
    """Raise unless each tensor is in the file that the index names."""
    found = {entry.name: shard.name for shard in shards for entry in shard.layout.entries}
    for name, file in where.items():
        if name not in found:
            raise UnfitError(index, f"the tensor in {file}, where the index has it", "a file without it", name)
        if found[name] != file:
            raise UnfitError(index, f"the tensor in {file}, where the index has it", f"it in {found[name]}", name)
    extra = [name for name in found if name not in where]
    if extra:
        more = f", and {len(extra) - 1} more" if len(extra) > 1 else ""
        place = f"{found[extra[0]]}, whose tensor it is{more}"
        raise UnfitError(index, "an index that names all tensors of its files", f"none for one in {place}", extra[0])


def _checked(path: str, shards: list[Shard], index: tuple[str, bytes] | None) -> Shards:
    """Return the checkpoint; raise unless each name is that of one tensor."""
    seen: dict[str, str] = {}
    for shard in shards:
        for entry in shard.layout.entries:
            if entry.name in seen:
                raise UnfitError(path, f"each tensor in one file, not in {seen[entry.name]}", shard.name, entry.name)
            seen[entry.name] = shard.name
    return Shards(path, shards, index)


def tensors_of(shards: Shards) -> dict[str, tuple[Shard, Entry]]:
    """Return every tensor's file and entry, in the order of the files and of their data."""
    return {entry.name: (shard, entry) for shard in shards.shards for entry in shard.layout.entries}


def is_known(entry: Entry) -> bool:
    """Return whether a ``.dcf`` file can hold a tensor."""
    return entry.code in DTYPES


def size_note(shards: Shards) -> str | None:
    """Return a remark if the index states another total size than the files have; some tools write a wrong one."""
    if shards.index is None:
        return None
    stated = (json.loads(shards.index[1].decode()).get("metadata") or {}).get("total_size")
    if stated in (None, shards.data_bytes):
        return None
    return f"the index states {stated} bytes of tensors, but its files have {counted(shards.data_bytes, 'byte')}"
