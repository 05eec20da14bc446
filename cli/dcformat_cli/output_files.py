"""Output files; `-` stands for stdout. An existing file is replaced only on the user's request."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dcformat.files import check_output, replacing
from dcformat_cli.failures import misuse


@dataclass(frozen=True, slots=True)
class OutputFile:
    """The destination of a verb's file.

    Attributes
    ----------
    path : Path or None
        The file; None stands for stdout.
    force : bool
        Whether to replace an existing file.
    """

    path: Path | None
    force: bool = False

    @classmethod
    def of(cls, name: str, force: bool) -> OutputFile:
        """Return the output for the name that the user gave (``-`` for stdout)."""
        return cls(None if name == "-" else Path(name), force)

    def __str__(self) -> str:
        return "stdout" if self.path is None else str(self.path)

    @property
    def to_stdout(self) -> bool:
        """Whether the file goes to stdout; messages then go to stderr."""
        return self.path is None

    def check(self, *inputs: str | Path | None) -> None:
        """Refuse the output before the work begins.

        Parameters
        ----------
        *inputs : str, Path or None
            The files that the verb reads (``-`` for stdin).

        Raises
        ------
        click.UsageError
            The output is one of the inputs, exists without ``--force``, or is a terminal.
        OSError
            The file cannot be written there.
        """
        if self.path is None:
            if sys.stdout.isatty():
                raise misuse("-o -: expected stdout to be a file or a pipe, found a terminal; redirect it with > FILE")
            return
        for name in inputs:
            if name is not None and _same(name, self.path):
                raise misuse(f"{self.path}: expected an output other than the input, found the same file as {name}")
        if _is_terminal(self.path):
            raise misuse(f"{self.path}: expected a file or a pipe for the output, found a terminal")
        refuse_existing(self.path, self.force)
        check_output(self.path)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the output for writing; the file is put in place only if the block ends without an error."""
        if self.path is None:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
            return
        with replacing(self.path) as file:
            yield file


def refuse_existing(path: Path, force: bool) -> None:
    """Raise `click.UsageError` if the file exists and `force` is false."""
    if not force and path.is_file():
        raise misuse(f"{path}: expected no file of this name, found one; -f replaces it")


def _same(name: str | Path, path: Path) -> bool:
    """Return whether an input is the file at `path`, even through links."""
    try:
        found = os.fstat(sys.stdin.fileno()) if str(name) == "-" else Path(name).stat()
        return stat.S_ISREG(found.st_mode) and os.path.samestat(found, path.stat())
    except (OSError, ValueError):  # The file does not exist, or stdin is not a file.
        return False


def _is_terminal(path: Path) -> bool:
    if not path.is_char_device():
        return False
    handle = os.open(path, os.O_WRONLY | os.O_NOCTTY)
    try:
        return os.isatty(handle)
    finally:
        os.close(handle)
