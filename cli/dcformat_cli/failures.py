"""What went wrong, in one line: file, what was expected, what was found."""

from __future__ import annotations

import errno
import os

import click
from dcformat_interop.errors import InputError

#: `InputError` is a room's own that knows nothing of the command; verbs take it from here.
__all__ = ["InputError", "MissingExtraError", "describe", "is_ours", "misuse", "require_torch"]

_FOUND = {
    errno.ENOENT: "expected an existing file or directory, found none",
    errno.EISDIR: "expected a file, found a directory",
    errno.ENOTDIR: "expected a directory on the way to it, found a file",
    errno.EACCES: "expected permission to use it, found none",
    errno.ENOSPC: "expected room for the file, found the disk full",
    errno.EROFS: "expected a place to write, found a read-only file system",
}


class MissingExtraError(Exception):
    """A verb that needs an optional dependency which is not installed."""


def describe(error: Exception) -> str:
    """Return one line for an error that reached the top."""
    if isinstance(error, OSError) and error.errno is not None:
        name = "output" if error.filename is None else os.fsdecode(error.filename)
        return f"{name}: {_FOUND.get(error.errno, error.strerror or type(error).__name__)}"
    if isinstance(error, MemoryError):
        return f"out of memory{': ' if str(error) else ''}{error}"
    if is_ours(error):
        return str(error)
    return f"unexpected {type(error).__name__}: {error} (dcformat --debug ... shows where)"


def is_ours(error: Exception) -> bool:
    """Whether our own code raised the error on purpose: its class is ours, or a ValueError left our code."""
    if type(error).__module__.partition(".")[0].startswith("dcformat"):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return isinstance(error, ValueError) and str(module).startswith("dcformat")


def require_torch(why: str) -> None:
    """Raise `MissingExtraError` unless PyTorch can be imported."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"{why} needs PyTorch: pip install 'dcformat[pruning]' ({error})") from None


def misuse(message: str) -> click.UsageError:
    """Return the error for options that make no sense together (exit code 2)."""
    return click.UsageError(message, click.get_current_context())
