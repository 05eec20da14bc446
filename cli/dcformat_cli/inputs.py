"""Input files, `-` for stdin among them."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from dcformat.errors import FormatError
from dcformat.layout import DEFAULT_MAX_MEMORY
from dcformat_cli.failures import InputError

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
