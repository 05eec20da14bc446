"""Reads files of NumPy arrays for `dcformat run`; `-` stands for stdin. Nothing in them is executed."""

from __future__ import annotations

import io
from contextlib import nullcontext
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from dcformat_interop.kinds import HEAD, looks_like
from dcformat_interop.npy import (
    NPY_MAGIC,
    NPY_START_BYTES,
    NpyHeader,
    NpyHeaderError,
    holds_numbers,
    read_npy_header,
)
from dcformat_interop.npz import read_npz
from dcformat_interop.refusals import WrongKindError
from dcformat_interop.tensors import Budget

from dcformat.layout import DEFAULT_MAX_MEMORY
from dcformat.limits import is_array_shape, memory_counts, require_memory
from dcformat_cli.failures import UnfitError
from dcformat_cli.input_files import naming, source

Array = npt.NDArray[Any]

_NPY = "a NumPy .npy array of numbers"
_EITHER = "a NumPy .npy array or .npz archive of numbers"
_ZIP_MAGIC = b"PK"
_PIECE_BYTES = 1 << 20


def read_arrays(name: str, max_memory: int | None = DEFAULT_MAX_MEMORY) -> Array | dict[str, Array]:
    """Read a ``.npy`` array, or the arrays of an ``.npz`` archive by name; the content decides which it is.

    No more is read than the headers declare.

    Parameters
    ----------
    name : str
        The file; ``-`` for stdin.
    max_memory : int or None
        Maximum number of bytes of all arrays; None for no limit.

    Raises
    ------
    UnfitError
        The file is of another kind, is damaged, or holds something other than numbers; or an archive exceeds
        `max_memory`.
    MemoryLimitError
        The header of an array declares more bytes than `max_memory`.
    OSError
        The file cannot be read.
    """
    content, label = source(name)
    with nullcontext(content) if not isinstance(content, Path) else content.open("rb") as stream:
        start = stream.read(NPY_START_BYTES)
        if not start.startswith(_ZIP_MAGIC):
            return _read_array(start, stream, label, max_memory)
        if isinstance(content, Path) and stream.seekable():
            stream.seek(0)
            return _read_archive(stream, label, max_memory)
        # An archive is read from its end, so a pipe must have been read completely.
        with naming(label), memory_counts("archive", max_memory):
            whole = bytearray(start)
            while part := stream.read(_PIECE_BYTES):
                whole += part
                require_memory("archive", len(whole), max_memory)
            return _read_archive(io.BytesIO(whole), label, max_memory)


def _read_archive(file: BinaryIO, label: str, max_memory: int | None) -> dict[str, Array]:
    raw = read_npz(label, file, lambda _: False, Budget(label, max_memory, "an archive"))
    for name, found in raw.left_out.items():
        raise UnfitError(label, "arrays of numbers", found, name)
    return {name: entry.values for name, entry in raw.entries.items()}


def _read_array(start: bytes, stream: BinaryIO, label: str, max_memory: int | None) -> Array:
    dtype, fortran, shape = _read_header(start, stream, label)
    need = dtype.itemsize * prod(shape)
    with naming(label), memory_counts("array", max_memory):
        require_memory("array", need, max_memory)
        raw = bytearray()
        while part := stream.read(min(_PIECE_BYTES, need + 1 - len(raw))):
            raw += part
    if len(raw) != need:
        found = f"{len(raw):,} bytes" if len(raw) < need else "more"
        raise UnfitError(label, f"{_NPY} with {need:,} bytes for shape {shape}", found)
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


def _read_header(start: bytes, stream: BinaryIO, label: str) -> NpyHeader:
    """Return the header of an array of numbers."""
    if not start.startswith(NPY_MAGIC):
        start += stream.read(HEAD)
        kind = looks_like(start)
        found = f"looks like {kind}" if kind else "bytes of no known kind" if start else "an empty file"
        raise WrongKindError(label, _EITHER, found)
    try:
        header = read_npy_header(start, stream)
    except NpyHeaderError:
        raise UnfitError(label, _NPY, "a damaged one") from None
    if not holds_numbers(header.dtype):
        raise UnfitError(label, _NPY, "pickled objects" if header.dtype.hasobject else header.dtype.name)
    if not is_array_shape(header.shape, header.dtype.itemsize):
        raise UnfitError(label, "a shape that NumPy supports", header.shape)
    return header
