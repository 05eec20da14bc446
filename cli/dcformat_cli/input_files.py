"""Input files; `-` stands for stdin."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click
from dcformat_interop import kinds
from dcformat_interop.hub import cached_repository, packed_model_in

from dcformat import layout
from dcformat.errors import FormatError
from dcformat.layout import DEFAULT_MAX_MEMORY, DEFAULT_MAX_WORK
from dcformat.model import require_no_delta
from dcformat.source import is_url
from dcformat_cli.failures import UnfitError

if TYPE_CHECKING:
    from dcformat import DcfFile


def source(name: str) -> tuple[Path | BinaryIO, str]:
    """Return the source (a path, or stdin for ``-``) and its name for messages, without reading anything."""
    return (sys.stdin.buffer, "stdin") if name == "-" else (Path(name), name)


def model_source(name: str) -> tuple[Path | str | BinaryIO, str]:
    """Return the source of a ``.dcf`` file and its name for messages.

    It may also be a URL, or lie in a directory or in a Hugging Face repository that is in the cache.
    """
    if is_url(name):
        return name, name
    folder = Path(name) if Path(name).is_dir() else cached_repository(name)
    return source(name) if folder is None else (packed_model_in(folder, name), name)


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
    name: str,
    max_memory: int | None = DEFAULT_MAX_MEMORY,
    max_work: int | None = DEFAULT_MAX_WORK,
    *,
    partial: bool = False,
    delta: bool = False,
) -> Iterator[DcfFile]:
    """Open a ``.dcf`` file that the user named, with the limits and options of `dcformat.open`.

    A delta is refused unless `delta` is true, because its tensors mean nothing without its base.

    Raises
    ------
    FormatError
        The file is not a ``.dcf`` file, is damaged, or is a delta; the message names it.
    OSError
        The file cannot be read.
    """
    import dcformat

    content, label = model_source(name)
    with naming(label), dcformat.open(content, max_memory=max_memory, max_work=max_work, partial=partial) as file:
        if not delta:
            require_no_delta(file.delta)
        yield file


@contextmanager
def spooled(name: str | Path) -> Iterator[Path]:
    """Yield a path that can be opened repeatedly: `name`, or a temporary copy of stdin or of a pipe.

    If a stream begins like no known file, only its beginning is copied, which suffices for a reader to refuse it.

    Raises
    ------
    UnfitError
        The input exceeds `DEFAULT_MAX_MEMORY` bytes. Errors of the block name the input as the user did.
    """
    pipe = str(name) == "-"
    if not pipe and (Path(name).is_file() or Path(name).is_dir() or not Path(name).exists()):
        yield Path(name)
        return
    label = "stdin" if pipe else str(name)
    with tempfile.TemporaryDirectory(prefix="dcformat-") as folder:
        path = Path(folder) / "input"
        with path.open("wb") as copy, nullcontext(sys.stdin.buffer) if pipe else Path(name).open("rb") as stream:
            part = stream.read(kinds.HEAD)
            copy.write(part)
            known = part.startswith(layout.MAGIC) or kinds.looks_like(part) is not None
            while known and (part := stream.read(1 << 20)):
                copy.write(part)
                if copy.tell() > DEFAULT_MAX_MEMORY:
                    raise UnfitError(label, f"at most {DEFAULT_MAX_MEMORY:,} bytes", "more")
        try:
            yield path
        except FormatError as error:
            error.path = label
            raise
        except click.UsageError as error:
            raise click.UsageError(error.message.replace(str(path), label), error.ctx) from None
        except (ValueError, ImportError) as error:
            error.args = (str(error).replace(str(path), label),)
            raise
