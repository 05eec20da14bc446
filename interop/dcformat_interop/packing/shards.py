"""The files of a sharded checkpoint: an index, a directory, or a Hugging Face snapshot, whose files are links."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dcformat.layout import DEFAULT_MAX_MEMORY
from dcformat.wording import counted
from dcformat_interop import kinds
from dcformat_interop.packing.indexes import Index, compare, find_index, read_index
from dcformat_interop.refusals import UnfitError
from dcformat_interop.safetensors import Layout, read_layout
from dcformat_interop.tensors import Budget

#: The ending of an index's name.
INDEX_SUFFIX = ".safetensors.index.json"


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
        Its size and its time of change in nanoseconds, by which another process recognises that it is still the same.
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
    index : tuple of (str, Index) or None
        The name and content of the index.
    """

    path: str
    shards: list[Shard]
    index: tuple[str, Index] | None

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of all files together; the first file's value counts where several have one."""
        out: dict[str, str] = {}
        for shard in self.shards:
            out = {**shard.layout.metadata, **out}
        return out

    @property
    def are_several(self) -> bool:
        """Whether the checkpoint is more than one file, or has an index."""
        return len(self.shards) > 1 or self.index is not None

    @property
    def data_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.end - entry.begin for shard in self.shards for entry in shard.layout.entries)


def is_several(path: Path) -> bool:
    """Return whether a path may be a checkpoint in several files: a directory, or the name of an index."""
    return path.is_dir() or path.name.endswith(INDEX_SUFFIX)


def is_streamed(path: Path) -> bool:
    """Return whether `find_shards` takes a path: a directory, an index, or a regular safetensors file.

    It takes a directory without safetensors files too, and says then what is missing.
    """
    if is_several(path):
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return kinds.is_safetensors(file.read(kinds.HEAD))


def find_shards(path: Path, *, max_memory: int | None = DEFAULT_MAX_MEMORY) -> Shards:
    """Find the files of a checkpoint and read their headers.

    Parameters
    ----------
    path : Path
        A safetensors file, an index (``*.safetensors.index.json``), or a directory with one index, or else with
        safetensors files.
    max_memory : int or None
        Maximum number of bytes that the index and all headers may take; None for no limit.

    Raises
    ------
    UnfitError
        The directory has no such files or several indexes; a file is damaged or truncated; the index names a file
        outside its directory, or disagrees with the files about the places of tensors; the index and the headers
        take too much memory.
    OSError
        A file cannot be read; `filename` is its name.
    """
    budget = Budget(str(path), max_memory)
    if path.is_dir():
        if (index := find_index(path, INDEX_SUFFIX)) is not None:
            return _indexed(str(path), index, budget)
        files = sorted(path.glob("*.safetensors"))
        if not files:
            expected = f"a directory with safetensors files or an index (*{INDEX_SUFFIX})"
            raise UnfitError(path, expected, kinds.directory_holds(path))
        return _checked(str(path), [_shard(each, each.name, budget) for each in files], None)
    if path.name.endswith(INDEX_SUFFIX):
        return _indexed(str(path), path, budget)
    return _checked(str(path), [_shard(path, path.name, budget)], None)


def _shard(path: Path, name: str, budget: Budget) -> Shard:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        head = file.read(kinds.HEAD)
        if not kinds.is_safetensors(head):
            found = kinds.looks_like(head)
            raise UnfitError(path, "a safetensors file", f"looks like {found}" if found else "other bytes")
        return Shard(str(path), name, read_layout(str(path), file, budget), (status.st_size, status.st_mtime_ns))


def _indexed(path: str, index: Path, budget: Budget) -> Shards:
    content = read_index(index, budget)
    shards = [_shard(index.parent / name, name, budget) for name in sorted(set(content.where.values()))]
    compare(index, content.where, {entry.name: shard.name for shard in shards for entry in shard.layout.entries})
    return _checked(path, shards, (index.name, content))


def _checked(path: str, shards: list[Shard], index: tuple[str, Index] | None) -> Shards:
    """Return the checkpoint; raise unless each name is that of one tensor."""
    seen: dict[str, str] = {}
    for shard in shards:
        for entry in shard.layout.entries:
            if entry.name in seen:
                raise UnfitError(path, f"each tensor in one file, not in {seen[entry.name]}", shard.name, entry.name)
            seen[entry.name] = shard.name
    return Shards(path, shards, index)


def size_note(shards: Shards) -> str | None:
    """Return a remark if the index states another total size than the files have; some tools write a wrong one."""
    if shards.index is None or shards.index[1].total_size in (None, shards.data_bytes):
        return None
    stated = shards.index[1].total_size
    shown = f"{stated:,}" if isinstance(stated, int) else repr(stated)[:40]
    return f"the index states {shown} bytes of tensors, but its files have {counted(shards.data_bytes, 'byte')}"
