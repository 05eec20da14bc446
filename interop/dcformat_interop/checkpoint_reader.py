"""Reads any checkpoint, with names, dtypes and values unchanged, or raises an error that says why not.

Nothing in a file can run code: NumPy's pickles are never loaded, and PyTorch's files only with ``weights_only``.
"""

from __future__ import annotations

import io
import os
import shlex
import stat
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dcformat.layout import DEFAULT_MAX_MEMORY
from dcformat.model import STORAGE
from dcformat.wording import counted
from dcformat_interop import kinds
from dcformat_interop.mask_folding import fold_masks, looks_like_mask
from dcformat_interop.npz import read_npz
from dcformat_interop.packing.cached_files import check_cached_files
from dcformat_interop.packing.shards import find_shards, is_several
from dcformat_interop.refusals import UnfitError
from dcformat_interop.safetensors import read_safetensors
from dcformat_interop.skipping import SkippedNames
from dcformat_interop.tensors import SKIPPED, Array, Budget, Dense, Raw, Skip, count_not_finite, is_single
from dcformat_interop.torch_files import read_torch

#: The dtypes that a `.dcf` file can hold, for messages.
_HELD = "dtypes that safetensors has"

#: Maximum number of names in a note.
_LISTED = 5

#: Bytes read from a pipe at a time.
_PART = 1 << 20


@dataclass(frozen=True, slots=True)
class Note:
    """A line of text for the user, and whether it warns of a loss."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The tensors of a checkpoint.

    Attributes
    ----------
    path : str
        The name of the file in errors.
    tensors : dict of str to Dense
        The tensors in the file's order, with pruning masks folded. All are finite and have dtypes that a ``.dcf`` file
        can hold.
    notes : sequence of Note
        The reader's changes and omissions.
    left_out : mapping of str to str
        The names missing from `tensors`, each with a reason: a dtype, or ``NaN or infinity in 2 places``.
    metadata : mapping of str to str
        The metadata of a safetensors file.
    """

    path: str
    tensors: dict[str, Dense]
    notes: Sequence[Note]
    left_out: Mapping[str, str]
    metadata: Mapping[str, str]


def read_checkpoint(
    source: str | os.PathLike[str] | BinaryIO,
    *,
    key: str | None = None,
    skip: Sequence[str] = (),
    single: bool = False,
    max_memory: int | None = DEFAULT_MAX_MEMORY,
) -> Checkpoint:
    """Read a checkpoint: safetensors in one or several files, NumPy's ``.npz``, or a state_dict of `torch.save`.

    The content decides the kind, not the name. Pairs of NAME_orig and NAME_mask (`torch.nn.utils.prune`) are folded,
    and tensors that a ``.dcf`` file cannot hold are left out.

    Parameters
    ----------
    source : path or binary file object
        A directory or an index (``*.safetensors.index.json``) stands for all of its safetensors files. A pipe is read
        to its end, or up to `max_memory` bytes.
    key : str, optional
        The mapping to take from a PyTorch file if several hold tensors, such as ``model.state_dict``.
    skip : sequence of str
        Names of tensors to leave out, or patterns with ``*`` and ``?``.
    single : bool
        Whether float64 becomes float32 where that keeps every value, as a network needs.
    max_memory : int or None
        Maximum number of bytes of the tensors, which are counted before they are read; None for no limit.

    Returns
    -------
    Checkpoint

    Raises
    ------
    UnfitError
        The file is of another kind, is damaged, has no tensors, or takes too much memory; it holds several mappings of
        tensors and `key` is None; a pattern in `skip` matches nothing.
    MissingTorchError
        The file is a PyTorch file, and PyTorch is missing or older than 2.6.
    OSError
        The file cannot be read.
    """
    if isinstance(source, str | os.PathLike) and is_several(Path(source)):
        return _read_several(Path(source), key, skip, single, max_memory)
    with _opened(source, max_memory) as (path, file):
        head = file.read(kinds.HEAD)
        kind = kinds.kind_of(path, head, file)
        if kind is None:
            raise kinds.not_checkpoint(path, "bytes of no known kind" if head else "an empty file")
        if key is not None and "torch" not in kind:
            raise UnfitError(path, "a PyTorch file, the only kind with several mappings, for a key", kind)
        budget, skipped = Budget(path, max_memory), SkippedNames(skip)
        raw = _read(path, file, kind, key, skipped, budget)
    return _settled(path, raw, skipped, single, budget)


def _read_several(path: Path, key: str | None, skip: Sequence[str], single: bool, max_memory: int | None) -> Checkpoint:
    """Read all safetensors files of a directory or an index."""
    if key is not None:
        raise UnfitError(path, "a PyTorch file, the only kind with several mappings, for a key", "safetensors")
    shards = find_shards(path, max_memory=max_memory)
    check_cached_files(shards)
    budget, skipped, raw = Budget(str(path), max_memory), SkippedNames(skip), Raw(metadata=shards.metadata)
    for shard in shards.shards:
        with Path(shard.path).open("rb") as file:
            part = read_safetensors(shard.path, file, skipped, budget)
        raw.entries.update(part.entries)
        raw.left_out.update(part.left_out)
    return _settled(str(path), raw, skipped, single, budget)


def _read(path: str, file: BinaryIO, kind: kinds.Kind, key: str | None, skip: Skip, budget: Budget) -> Raw:
    if kind == "safetensors":
        return read_safetensors(path, file, skip, budget)
    if kind == "npz":
        return read_npz(path, file, skip, budget)
    return read_torch(path, file, kind == "torch", key, skip, budget)


@contextmanager
def _opened(source: str | os.PathLike[str] | BinaryIO, max_bytes: int | None) -> Iterator[tuple[str, BinaryIO]]:
    """Yield the name of the source, and a seekable file at its start."""
    if not isinstance(source, str | os.PathLike):
        path = "stdin" if source is sys.stdin.buffer else str(getattr(source, "name", "input"))
        yield path, _held(path, source, max_bytes)
        return
    with Path(source).open("rb") as file:
        regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        yield str(source), file if regular else _held(str(source), file, max_bytes)


def _held(path: str, file: BinaryIO, max_bytes: int | None) -> BinaryIO:
    """Return the content of a pipe or device; unless it is a checkpoint, only its head is read."""
    out = io.BytesIO(file.read(kinds.HEAD))
    if kinds.kind_of(path, out.getvalue()) is not None:
        budget = Budget(path, max_bytes)
        out.seek(0, os.SEEK_END)
        while part := file.read(_PART):
            budget.take(len(part))
            out.write(part)
    out.seek(0)
    return out


def _settled(path: str, raw: Raw, skipped: SkippedNames, single: bool, budget: Budget) -> Checkpoint:
    """Fold masks and leave out what a file cannot hold; `single` makes float64 float32 where that is exact."""
    for pattern in skipped.unused():
        raise UnfitError(path, f"an entry to skip that is called {pattern!r}", "none")
    fold_masks(path, raw, budget)
    tensors: dict[str, Dense] = {}
    left_out, exact, infinite = dict(raw.left_out), list[str](), dict[str, int]()
    for name, dense in raw.entries.items():
        if dense.dtype not in STORAGE:
            left_out[name] = dense.dtype
            continue
        if dense.dtype == "float64" and is_single(dense.values):
            exact.append(name)
        tensors[name] = _stored(name, dense, "float32" if single and name in exact[-1:] else dense.dtype, budget)
        if count := count_not_finite(dense.values, dense.dtype):
            infinite[name] = count
    if not tensors:
        raise no_tensors(path, left_out)
    notes = [Note(text) for text in raw.notes]
    if exact:
        done = "stored as float32, which" if single else "kept, although float32"
        notes.append(Note(f"float64 {done} holds the values exactly: {_listed(exact)}"))
    masks = [name for name, dense in tensors.items() if looks_like_mask(name, dense)]
    return Checkpoint(path, tensors, [*notes, *remarks(left_out, infinite, masks)], left_out, raw.metadata)


def no_tensors(path: str, left_out: Mapping[str, str]) -> UnfitError:
    """Return the error for a checkpoint of which nothing can be stored, with the names left out and the reasons."""
    found = "none" if not left_out else f"none: {_listed(left_out, left_out)} left out"
    return UnfitError(path, f"at least one tensor of {_HELD}", found)


def require_all(path: str, left_out: Mapping[str, str]) -> None:
    """Raise `UnfitError` if entries would be left out without a request: an archive would lack them silently."""
    lost = {name: reason for name, reason in left_out.items() if reason != SKIPPED}
    if lost:
        ways = " ".join(f"--skip {shlex.quote(name)}" for name in islice(lost, _LISTED))
        found = f"{_listed(lost, lost)} ({ways}{' ...' * (len(lost) > _LISTED)} to leave out)"
        raise UnfitError(path, f"only {_HELD}", found)


def remarks(left_out: Mapping[str, str], infinite: Mapping[str, int], masks: Collection[str]) -> list[Note]:
    """Return notes on the tensors of a checkpoint.

    Parameters
    ----------
    left_out : mapping of str to str
        The names of tensors that are left out, and the reasons.
    infinite : mapping of str to int
        The names of tensors that have NaN or infinite values, and how many.
    masks : collection of str
        The names of tensors that look like pruning masks.
    """
    notes = []
    skipped = [name for name, reason in left_out.items() if reason == SKIPPED]
    odd = [name for name in left_out if name not in skipped]
    if skipped:
        notes.append(Note(f"left out as asked: {_listed(skipped)}"))
    if odd:
        notes.append(Note(f"left out, because a .dcf file holds only {_HELD}: {_listed(odd, left_out)}"))
    if infinite:
        places = {name: f"{count:,} place{'s' * (count > 1)}" for name, count in infinite.items()}
        notes.append(Note(f"kept, but NaN or infinite in some places: {_listed(places, places)}", True))
    if masks:
        notes.append(Note(f"kept, although they look like pruning masks without weights: {_listed(masks)}", True))
    return notes


def _stored(name: str, dense: Dense, dtype: str, budget: Budget) -> Dense:
    """Return a tensor as `dtype`, with its elements in row-major order."""
    values = dense.values
    if values.dtype != STORAGE[dtype] or not values.flags.c_contiguous:
        budget.take(STORAGE[dtype].itemsize * values.size, name)
    plain: Array = np.ascontiguousarray(values, STORAGE[dtype]).reshape(values.shape)
    return Dense(dtype, plain, dense.scale)


def _listed(names: Collection[str], reasons: Mapping[str, str] | None = None) -> str:
    """Return the number of names, and the first few of them."""
    shown = [f"{name} ({reasons[name]})" if reasons else name for name in islice(names, _LISTED)]
    more = ", ..." if len(names) > _LISTED else ""
    return f"{counted(len(names), 'entry', 'entries')}: {', '.join(shown)}{more}"
