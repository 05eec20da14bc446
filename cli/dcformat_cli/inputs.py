"""Input files, `-` for stdin among them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dcformat.errors import FormatError
from dcformat.layout import DEFAULT_MAX_MEMORY

if TYPE_CHECKING:
    from dcformat import DcfFile

#: What a user can give as FILE: a path for a regular file, bytes for anything that can be read only once.
Source = Path | bytes


def source(name: str) -> tuple[Source, str]:
    """Return what to read and what to call it; ``-``, pipes and devices are read to their end.

    Raises
    ------
    OSError
        Nothing there, or not readable.
    """
    if name == "-":
        return sys.stdin.buffer.read(), "stdin"
    path = Path(name)
    if path.exists() and not path.is_file() and not path.is_dir():
        return path.read_bytes(), name
    return path, name


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
def opened(name: str, max_memory: int | None = None) -> Iterator[DcfFile]:
    """Open a ``.dcf`` that the user named.

    Raises
    ------
    FormatError
        It is none, or is damaged; the message names it.
    OSError
        It cannot be read.
    """
    import dcformat

    content, label = source(name)
    limit = DEFAULT_MAX_MEMORY if max_memory is None else max_memory
    with naming(label), dcformat.open(content, max_memory=limit) as file:
        yield file
