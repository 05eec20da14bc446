"""Checkpoints that `dcformat pack --shards` divided among several files, for verbs that read one file at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dcformat.wording import counted
from dcformat_cli import summary
from dcformat_cli.terminal import TextTable, emit_json, say

if TYPE_CHECKING:
    from dcformat_interop.packing.packed_files import PackedFiles


def shards(name: str, max_memory: int | None) -> list[str] | None:
    """Return the files of a checkpoint in several files, given its index or directory, or None for any other name.

    Raises
    ------
    UnfitError
        The index is damaged or takes too much memory, names a file that is missing, or is one of several.
    """
    path = Path(name)
    if name == "-" or not (path.is_dir() or name.endswith(".json")):
        return None
    from dcformat_interop.packing.indexes import find_index
    from dcformat_interop.packing.packed_files import INDEX_SUFFIX, is_sharded, named_files

    if not is_sharded(path) or (path.is_dir() and find_index(path, INDEX_SUFFIX) is None):
        return None
    return [str(each) for each in named_files(path, max_memory=max_memory)]


def compare_index(name: str, max_memory: int | None) -> None:
    """Raise `UnfitError` unless an index, or the one in a directory, names each tensor of its files where it is."""
    from dcformat_interop.packing.packed_files import opened_files

    with opened_files(Path(name), max_memory=max_memory):
        pass


def inspect(name: str, max_memory: int | None, max_work: int | None, as_json: bool) -> None:
    """Show what the files of a checkpoint hold together, and what their bytes are for."""
    from dcformat_interop.packing.packed_files import opened_files

    with opened_files(Path(name), max_memory=max_memory, max_work=max_work) as packed:
        figures = summary.combined([summary.summarize(file) for file in packed.files])
        if as_json:
            emit_json(_document(name, packed, figures))
            return
        files = counted(len(packed.files), "file")
        say(f"{summary.headline(name, figures)}, in {files}")
        for key, value in packed.metadata.items():
            say(f"{key}: {value}")
        rows = [(Path(str(file.path)).name, f"{len(file.names):,}", f"{file.size:,}") for file in packed.files]
        say("")
        TextTable("files", ("file", "tensors", "bytes"), rows).show()
        say("")
        summary.show_tables(figures, "all files")


def _document(name: str, packed: PackedFiles, figures: summary.Summary) -> dict[str, Any]:
    files = [
        {"file": file.path, "bytes": file.size, "tensors": len(file.names), "digest": file.digest.hex()}
        for file in packed.files
    ]
    return {"file": name, "files": files, **summary.as_json(figures), "metadata": dict(packed.metadata)}
