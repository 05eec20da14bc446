"""Files in the cache of huggingface_hub, which are named by their digests: a file must match its name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dcformat_interop.packing.shards import Shards
from dcformat_interop.refusals import UnfitError

#: Large files have the SHA-256 of their content as a name, others that of a blob in git.
_NAME = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


def check_cached_files(shards: Shards, progress: Callable[[int, int, str], object] | None = None) -> None:
    """Raise unless the files of a snapshot in the cache have the digests by which the cache names them.

    Files and an index that are not links into a directory ``blobs`` have no such digest.

    Parameters
    ----------
    shards : Shards
    progress : callable, optional
        Called before each file with the number of files that were checked, that of all, and the name of the file.

    Raises
    ------
    UnfitError
        A file has another digest.
    OSError
        A file cannot be read.
    """
    paths = [Path(shard.path) for shard in shards.shards]
    if shards.index is not None:
        given = Path(shards.path)
        paths.append(given / shards.index[0] if given.is_dir() else given)
    blobs = {path: blob for path in paths if (blob := _blob(path)) is not None}
    for number, (path, blob) in enumerate(blobs.items()):
        if progress is not None:
            progress(number, len(blobs), path.name)
        with blob.open("rb") as file:
            state: Any = hashlib.file_digest(file, partial(_begun, blob))
        if state.hexdigest() != blob.name:
            expected = f"the content whose {state.name.upper()} the cache states, {blob.name}"
            raise UnfitError(path, expected, f"{state.hexdigest()}: remove {blob} and download it again")


def _blob(path: Path) -> Path | None:
    """Return the file of the cache that a link leads to; None if a path is not such a link."""
    target = path.resolve()
    known = path.is_symlink() and target.parent.name == "blobs" and _NAME.fullmatch(target.name)
    return target if known else None


def _begun(blob: Path) -> Any:
    """Return the state of the digest of a file's name, before its content."""
    if len(blob.name) == 64:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % blob.stat().st_size, usedforsecurity=False)
