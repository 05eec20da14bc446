"""Input files; `-` stands for stdin."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
from dcformat_interop.kinds import looks_like
from dcformat_interop.npy import (
    NPY_MAGIC,
    NPY_START_BYTES,
    NpyHeader,
    NpyHeaderError,
    holds_numbers,
    read_npy_header,
)
from dcformat_interop.refusals import WrongKindError

from dcformat.errors import FormatError
from dcformat.layout import DEFAULT_MAX_MEMORY, DEFAULT_MAX_WORK
from dcformat.limits import is_array_shape, memory_counts, require_memory
from dcformat_cli.failures import UnfitError

if TYPE_CHECKING:
    from dcformat import DcfFile

_NPY = "a NumPy .npy array of numbers"
_PIECE_BYTES = 1 << 20


def source(name: str) -> tuple[Path | BinaryIO, str]:
    """Return the source (a path, or stdin for ``-``) and its name for messages, without reading anything."""
    return (sys.stdin.buffer, "stdin") if name == "-" else (Path(name), name)


@contextmanager
def naming(label: str) -> Iterator[None]:
    """Add the file's name to a `FormatError` that leaves the block, unless it has one."""
    try:
        yield
    except FormatError as error:
        if error.path is None:
            error.path = label
        raise


@contextmanager
def opened(
    name: str, max_memory: int | None = DEFAULT_MAX_MEMORY, max_work: int | None = DEFAULT_MAX_WORK
) -> Iterator[DcfFile]:
    """Open a ``.dcf`` file that the user named, with the limits of `dcformat.open`.

    Raises
    ------
    FormatError
        The file is not a ``.dcf`` file, or is damaged; the message names it.
    OSError
        The file cannot be read.
    """
    import dcformat

    content, label = source(name)
    with naming(label), dcformat.open(content, max_memory=max_memory, max_work=max_work) as file:
        yield file


@contextmanager
def spooled(name: str | Path) -> Iterator[Path]:
    """Yield a path that can be opened repeatedly: `name`, or a temporary copy of stdin or of a pipe.

    Raises
    ------
    UnfitError
        The input exceeds `DEFAULT_MAX_MEMORY` bytes, or the block raises the error; the message has the user's name.
    """
    pipe = str(name) == "-"
    if not pipe and (Path(name).is_file() or Path(name).is_dir() or not Path(name).exists()):
        yield Path(name)
        return
    label = "stdin" if pipe else str(name)
    with tempfile.TemporaryDirectory(prefix="dcformat-") as folder:
        path = Path(folder) / "input"
        with path.open("wb") as copy, nullcontext(sys.stdin.buffer) if pipe else Path(name).open("rb") as stream:
            while part := stream.read(1 << 20):
                copy.write(part)
                if copy.tell() > DEFAULT_MAX_MEMORY:
                    raise UnfitError(label, f"at most {DEFAULT_MAX_MEMORY:,} bytes", "more")
        try:
            yield path
        except UnfitError as error:
            error.args = (str(error).replace(str(path), label),)
            raise
        except FormatError as error:
            error.path = label
            raise


def read_array(name: str, max_memory: int | None = DEFAULT_MAX_MEMORY) -> npt.NDArray[Any]:
    """Read a ``.npy`` file of numbers (``-`` for stdin).

    Nothing in the file is executed, and no more is read than its header declares.

    Returns
    -------
    ndarray
        The array, with at least one dimension.

    Raises
    ------
    UnfitError
        The file is of another kind, is damaged, or holds something other than numbers.
    MemoryLimitError
        The header declares more bytes than `max_memory`.
    OSError
        The file cannot be read.
    """
    content, label = source(name)
    with nullcontext(content) if not isinstance(content, Path) else content.open("rb") as stream:
        dtype, fortran, shape = _read_header(stream, label)
        need = dtype.itemsize * prod(shape)
        with naming(label), memory_counts("array", max_memory):
            require_memory("array", need, max_memory)
            raw = bytearray()
            while part := stream.read(min(_PIECE_BYTES, need + 1 - len(raw))):
                raw += part
    if len(raw) != need:
        found = f"{len(raw):,} bytes" if len(raw) < need else "more"
        raise UnfitError(label, f"{_NPY} with {need:,} bytes for shape {shape}", found)
    if not shape:
        raise UnfitError(label, "shape (batch, ...)", "()")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


def _read_header(stream: BinaryIO, label: str) -> NpyHeader:
    """Return the header of an array of numbers."""
    start = stream.read(NPY_START_BYTES)
    if not start.startswith(NPY_MAGIC):
        kind = looks_like(start) if start else None
        found = f"looks like {kind}" if kind else "bytes of no known kind" if start else "an empty file"
        raise WrongKindError(label, _NPY, found)
    try:
        header = read_npy_header(start, stream)
    except NpyHeaderError:
        raise UnfitError(label, _NPY, "a damaged one") from None
    if not holds_numbers(header.dtype):
        raise UnfitError(label, _NPY, "pickled objects" if header.dtype.hasobject else header.dtype.name)
    if not is_array_shape(header.shape, header.dtype.itemsize):
        raise UnfitError(label, "a shape that NumPy supports", header.shape)
    return header
