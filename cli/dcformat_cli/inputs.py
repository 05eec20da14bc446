"""Input files, `-` for stdin among them."""

from __future__ import annotations

import ast
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from dcformat.errors import FormatError
from dcformat.layout import DEFAULT_MAX_MEMORY, DEFAULT_MAX_WORK
from dcformat.limits import is_array_shape, memory_counts, require_memory
from dcformat_cli.failures import InputError

if TYPE_CHECKING:
    from dcformat import DcfFile

_NPY = "a NumPy .npy array of numbers"
#: NumPy's own bounds: longest header, most dimensions.
_NPY_HEADER_BYTES, _NPY_RANK = 10_000, 32
_NPY_DTYPE = re.compile(r"[<>|=]?[biufc]\d{1,2}")
_PIECE_BYTES = 1 << 20


def source(name: str) -> tuple[Path | BinaryIO, str]:
    """Return what to read, a path or stdin for ``-``, and what to call it. Nothing is read yet."""
    return (sys.stdin.buffer, "stdin") if name == "-" else (Path(name), name)


@contextmanager
def naming(label: str) -> Iterator[None]:
    """Make a `FormatError` that leaves the block name its file, if it does not yet."""
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
    """Open a ``.dcf`` that the user named; its limits are those of `dcformat.open`.

    Raises
    ------
    FormatError
        It is none, or is damaged; the message names it.
    OSError
        It cannot be read.
    """
    import dcformat

    content, label = source(name)
    with naming(label), dcformat.open(content, max_memory=max_memory, max_work=max_work) as file:
        yield file


@contextmanager
def spooled(name: str | Path) -> Iterator[Path]:
    """Return a path that can be opened more than once: `name`, or a temporary copy of stdin or of a pipe.

    Raises
    ------
    InputError
        More than `DEFAULT_MAX_MEMORY` bytes, or what the block raises; both call the copy by the user's name.
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
                    raise InputError(label, f"at most {DEFAULT_MAX_MEMORY:,} bytes", "more")
        try:
            yield path
        except InputError as error:
            error.args = (str(error).replace(str(path), label),)
            raise
        except FormatError as error:
            error.path = label
            raise


def read_array(name: str, max_memory: int | None = DEFAULT_MAX_MEMORY) -> npt.NDArray[Any]:
    """Read a ``.npy`` file of numbers, ``-`` for stdin.

    Nothing in it is executed, and no more is read than it declares.

    Returns
    -------
    ndarray
        Of one dimension or more.

    Raises
    ------
    InputError
        It is another kind of file, is damaged, or holds other things than numbers.
    MemoryLimitError
        It declares more bytes than `max_memory`.
    OSError
        It cannot be read.
    """
    content, label = source(name)
    with nullcontext(content) if not isinstance(content, Path) else content.open("rb") as stream:
        dtype, fortran, shape = _read_npy_header(stream, label)
        need = dtype.itemsize * prod(shape)
        with naming(label), memory_counts("array", max_memory):
            require_memory("array", need, max_memory)
            raw = bytearray()
            while part := stream.read(min(_PIECE_BYTES, need + 1 - len(raw))):
                raw += part
    if len(raw) != need:
        found = f"{len(raw):,} bytes" if len(raw) < need else "more"
        raise InputError(label, f"{_NPY} with {need:,} bytes for shape {shape}", found)
    if not shape:
        raise InputError(label, "shape (batch, ...)", "()")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


def _read_npy_header(stream: BinaryIO, label: str) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    """Return the dtype, whether the order is Fortran's, and the shape."""
    wrong = InputError(label, _NPY, "another or a damaged one")
    head = stream.read(8)
    wide = 2 if head[6:7] == b"\1" else 4
    if head[:6] != b"\x93NUMPY" or head[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise wrong
    length = int.from_bytes(stream.read(wide), "little")
    if length > _NPY_HEADER_BYTES:
        raise wrong
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what is between quotes
            header = ast.literal_eval(stream.read(length).decode("utf-8").strip())
        if "O" in header["descr"]:
            raise InputError(label, _NPY, "pickled objects")
        if not _NPY_DTYPE.fullmatch(header["descr"]):
            raise wrong
        dtype, fortran, shape = np.dtype(header["descr"]), header["fortran_order"], header["shape"]
    except (ValueError, SyntaxError, TypeError, LookupError, RecursionError, MemoryError) as error:
        raise error if isinstance(error, InputError) else wrong from None
    is_shape = isinstance(shape, tuple) and len(shape) <= _NPY_RANK
    if not is_shape or not all(type(size) is int and size >= 0 for size in shape):
        raise wrong
    if not is_array_shape(shape, dtype.itemsize):
        raise InputError(label, "a shape that NumPy has arrays of", shape)
    return dtype, fortran is True, shape
