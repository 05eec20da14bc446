"""Reading a checkpoint of any kind: names, dtypes and values as they are, or a refusal that says why.

Nothing that is read here can run code: NumPy's pickles are never loaded, PyTorch's files with ``weights_only`` alone.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dcformat.layout import DEFAULT_MAX_MEMORY
from dcformat.model import STORAGE
from dcformat_interop import kinds
from dcformat_interop.errors import InputError
from dcformat_interop.masks import fold_masks, looks_like_mask
from dcformat_interop.npz import read_npz
from dcformat_interop.safetensors import read_safetensors
from dcformat_interop.tensors import SKIPPED, Array, Budget, Dense, Raw, Skip, count_not_finite
from dcformat_interop.torch_files import read_torch

#: What a `.dcf` file can hold, for messages.
_HELD = " or ".join((", ".join(list(STORAGE)[:-1]), list(STORAGE)[-1]))

#: So many names are listed in a note.
_LISTED = 5

#: Bytes read from a pipe at a time.
_PART = 1 << 20


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a user should know: a line of text, and whether it warns of a loss."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The tensors of a checkpoint.

    Attributes
    ----------
    path : str
        The file, as errors name it.
    tensors : dict of str to Dense
        In the file's order, pruning masks folded; all finite, of dtypes that a ``.dcf`` file can hold.
    notes : sequence of Note
        What was done on the way.
    left_out : mapping of str to str
        Entries that are not among `tensors`, with the reason: a dtype, ``NaN or infinity in 2 places``.
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
    max_memory: int | None = DEFAULT_MAX_MEMORY,
) -> Checkpoint:
    """Read a checkpoint: safetensors, NumPy's ``.npz``, or a state_dict that `torch.save` wrote.

    The content decides which it is, not the name. Pairs of NAME_orig and NAME_mask (`torch.nn.utils.prune`) are
    folded; float64 becomes float32 where that is exact; entries that a ``.dcf`` file cannot hold are left out.

    Parameters
    ----------
    source : path or binary file object
        What cannot be sought (a pipe) is read to its end, but no more than `max_memory` of it.
    key : str, optional
        Which mapping of a PyTorch file to take where several hold tensors, such as ``model.state_dict``.
    skip : sequence of str
        Names, or patterns with ``*`` and ``?``, of entries to leave out.
    max_memory : int or None
        Most bytes that the entries may take, counted before they are read; None for no bound.

    Returns
    -------
    Checkpoint

    Raises
    ------
    InputError
        Another kind of file, a damaged one, one without tensors, one that takes more memory; several mappings of
        tensors and no `key`; a pattern in `skip` that matches nothing; float64 values that float32 cannot hold.
    MissingTorchError
        A PyTorch file, and no PyTorch from 2.6 on.
    OSError
        The file cannot be read.
    """
    with _opened(source, max_memory) as (path, file):
        head = file.read(kinds.HEAD)
        kind = kinds.kind_of(path, head, file)
        if kind is None:
            raise InputError(path, kinds.EXPECTED, "an empty file" if not head else "bytes of no kind that is known")
        if key is not None and "torch" not in kind:
            raise InputError(path, "a PyTorch file, which may hold several mappings, with a key", kind)
        budget, used = Budget(path, max_memory), set[str]()

        def skipped(name: str) -> bool:
            matches = [pattern for pattern in skip if name == pattern or fnmatchcase(name, pattern)]
            used.update(matches)
            return bool(matches)

        raw = _read(path, file, kind, key, skipped, budget)
    for pattern in skip:
        if pattern not in used:
            raise InputError(path, f"an entry to skip that is called {pattern!r}", "none")
    fold_masks(path, raw, budget)
    return _settled(path, raw, budget)


def _read(path: str, file: BinaryIO, kind: kinds.Kind, key: str | None, skip: Skip, budget: Budget) -> Raw:
    if kind == "safetensors":
        return read_safetensors(path, file, skip, budget)
    if kind == "npz":
        return read_npz(path, file, skip, budget)
    return read_torch(path, file, kind == "torch", key, skip, budget)


@contextmanager
def _opened(source: str | os.PathLike[str] | BinaryIO, most: int | None) -> Iterator[tuple[str, BinaryIO]]:
    """Give what to call the source, and a file at its start that can be sought."""
    if not isinstance(source, str | os.PathLike):
        path = "stdin" if source is sys.stdin.buffer else str(getattr(source, "name", "input"))
        yield path, _held(path, source, most)
        return
    with Path(source).open("rb") as file:
        regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        yield str(source), file if regular else _held(str(source), file, most)


def _held(path: str, file: BinaryIO, most: int | None) -> BinaryIO:
    """Return the content of a pipe or device; of what is no checkpoint, no more than its head is read."""
    out = io.BytesIO(file.read(kinds.HEAD))
    if kinds.kind_of(path, out.getvalue()) is not None:
        budget = Budget(path, most)
        out.seek(0, os.SEEK_END)
        while part := file.read(_PART):
            budget.take(len(part))
            out.write(part)
    out.seek(0)
    return out


def _settled(path: str, raw: Raw, budget: Budget) -> Checkpoint:
    """Convert what can be converted exactly, and leave out what cannot be held."""
    tensors: dict[str, Dense] = {}
    left_out, converted, infinite = dict(raw.left_out), list[str](), list[str]()
    for name, dense in raw.entries.items():
        if dense.dtype not in STORAGE and dense.dtype != "float64":
            left_out[name] = dense.dtype
            continue
        if count := count_not_finite(dense.values, dense.dtype):
            left_out[name] = f"NaN or infinity in {count:,} place{'s' * (count > 1)}"
            infinite.append(name)
            continue
        if dense.dtype not in STORAGE:
            converted.append(name)
        tensors[name] = _stored(path, name, dense, budget)
    if not tensors:
        found = "none" if not left_out else f"none: {_listed(left_out, left_out)} left out"
        raise InputError(path, f"at least one tensor of {_HELD}", found)
    notes = [Note(text) for text in raw.notes]
    if converted:
        notes.append(Note(f"float64 stored as float32, which holds the values exactly: {_listed(converted)}"))
    skipped = [name for name, reason in left_out.items() if reason == SKIPPED]
    odd = [name for name in left_out if name not in infinite and name not in skipped]
    if skipped:
        notes.append(Note(f"left out as asked: {_listed(skipped)}"))
    if odd:
        notes.append(Note(f"left out, for a .dcf file holds {_HELD} alone: {_listed(odd, left_out)}"))
    if infinite:
        notes.append(Note(f"left out, for a .dcf file holds finite values alone: {_listed(infinite, left_out)}", True))
    masks = [name for name, dense in tensors.items() if looks_like_mask(name, dense)]
    if masks:
        notes.append(Note(f"kept, but look like pruning masks that nothing applies: {_listed(masks)}", True))
    return Checkpoint(path, tensors, notes, left_out, raw.metadata)


def _stored(path: str, name: str, dense: Dense, budget: Budget) -> Dense:
    """Return a tensor in the dtype that a file stores, with elements in order."""
    dtype, values = dense.dtype, dense.values
    if dtype not in STORAGE:
        budget.take(STORAGE["float32"].itemsize * values.size, name)
        with np.errstate(over="ignore", under="ignore"):
            single = values.astype(STORAGE["float32"])
        if not np.array_equal(single, values):
            found = "float64 values that float32 cannot hold exactly (convert the tensor yourself, or skip it)"
            raise InputError(path, _HELD, found, name)
        dtype, values = "float32", single
    elif values.dtype != STORAGE[dtype] or not values.flags.c_contiguous:
        budget.take(values.nbytes, name)
    plain: Array = np.ascontiguousarray(values, STORAGE[dtype]).reshape(values.shape)
    return Dense(dtype, plain, dense.scale)


def _listed(names: Collection[str], reasons: Mapping[str, str] | None = None) -> str:
    """Return how many there are, and the first few."""
    shown = [f"{name} ({reasons[name]})" if reasons else name for name in islice(names, _LISTED)]
    more = ", ..." if len(names) > _LISTED else ""
    return f"{len(names):,} entr{'y' if len(names) == 1 else 'ies'}: {', '.join(shown)}{more}"
