"""The entry points for reading a file: `dcformat.open`, `load` and `verify`."""

from __future__ import annotations

from dcformat import layout
from dcformat.limits import memory_counts
from dcformat.model import Model
from dcformat.reader import DcfFile
from dcformat.source import ByteSource, Source


def load(
    source: Source,
    *,
    max_memory: int | None = layout.DEFAULT_MAX_MEMORY,
    max_work: int | None = layout.DEFAULT_MAX_WORK,
    threads: int = 1,
) -> Model:
    """Read a whole model.

    Parameters
    ----------
    source : path, URL, bytes-like or binary file object
    max_memory : int or None
        Maximum number of bytes that the tensors and their decoding may take; None for no bound.
    max_work : int or None
        Maximum number of steps, of about a nanosecond each, that decoding may take (docs/limits.md); None for no bound.
    threads : int
        Number of threads that decode a large tensor's chunks; the result does not depend on it.

    Raises
    ------
    FormatError
        The file is not valid, or needs more memory (`MemoryLimitError`) or work (`WorkLimitError`) than allowed.
    OSError
        The file cannot be read.
    """
    with open_file(source, max_memory=max_memory, max_work=max_work) as file:
        return file.model(threads=threads)


def verify(
    source: Source,
    *,
    max_memory: int | None = layout.DEFAULT_MAX_MEMORY,
    max_work: int | None = layout.DEFAULT_MAX_WORK,
) -> None:
    """Check every byte of a file: structure, checksums, tensors and content digest. Raises the errors of `load`."""
    with open_file(source, max_memory=max_memory, max_work=max_work) as file:
        file.verify()


def open_file(
    source: Source,
    *,
    max_memory: int | None = layout.DEFAULT_MAX_MEMORY,
    max_work: int | None = layout.DEFAULT_MAX_WORK,
    mmap: bool = False,
    partial: bool = False,
) -> DcfFile:
    """Open a file to read tensor by tensor (`dcformat.open`). Use the result as a context manager.

    Parameters
    ----------
    source : path, URL, bytes-like or binary file object
        A pipe or device is read to its end, unless its magic number is wrong. Of a file behind a URL, only the parts
        that you ask for are read, after the contents (docs/remote.md).
    max_memory, max_work : int or None
        As in `load`, for each method call.
    mmap : bool
        Map the file into memory instead of reading its parts on demand; for paths only.
    partial : bool
        Accept a file with missing or additional bytes at its end, as an interrupted download leaves it. The tensors
        that are there can be read; `DcfFile.damaged` names the others.

    Raises
    ------
    FormatError, OSError
        As in `load`.
    """
    with memory_counts("file", max_memory):
        data = ByteSource.of(source, mmap=mmap, max_memory=max_memory)
    try:
        return DcfFile(data, max_memory=max_memory, max_work=max_work, partial=partial)
    except BaseException:
        data.close()
        raise
