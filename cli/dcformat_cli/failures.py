"""Failures in one line, in the order in which people ask: which file, what is wrong with it, and the details.

An example is ``model.jpg: not a .dcf file (looks like a JPEG image) [E01]``; a `FormatError`'s code is at the end.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import click
from dcformat_interop.refusals import UnfitError

from dcformat.errors import FormatError, MemoryLimitError, NotDcfError, TruncatedError, WorkLimitError

#: `UnfitError` belongs to a package that knows nothing of the command; verbs import it from here.
__all__ = [
    "MissingExtraError",
    "UnfitError",
    "describe",
    "is_ours",
    "misuse",
    "require_onnx",
    "require_onnxscript",
    "require_pillow",
    "require_ray",
    "require_report",
    "require_torch",
]

_SYSTEM_ERRORS = {
    errno.ENOENT: "no such file or directory",
    errno.EISDIR: "a directory, where a file is expected",
    errno.ENOTDIR: "a file, where a directory is expected",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOSPC: "the disk is full",
    errno.EFBIG: "the file would be larger than the disk or a limit allows",
    errno.EROFS: "the file system is read-only",
}

#: System errors of writing alone.
_ONLY_WRITING = (errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EDQUOT)

#: The headlines that name an option, by the code of a `FormatError`; the others are the error's own.
_HEADLINES = {
    "E07": "needs more memory than --max-memory allows",
    "E16": "needs more work than --max-work allows",
}

#: Maximum number of characters shown of an expected or a found value: values come from files and may be very long.
_LONGEST = 300


class MissingExtraError(Exception):
    """The verb needs an optional dependency that is not installed."""


def describe(error: Exception) -> str:
    """Return one line for an error that reached the command."""
    if isinstance(error, OSError) and error.errno is not None:
        name = os.fsdecode(error.filename) if error.filename is not None else _unnamed(error.errno)
        return f"{name}: {_SYSTEM_ERRORS.get(error.errno, error.strerror or type(error).__name__)}"
    if isinstance(error, MemoryError):
        return f"out of memory{': ' if str(error) else ''}{error}"
    if isinstance(error, FormatError):
        name = f"{error.path}: " if error.path else ""
        return f"{name}{_matter(error)} [{error.code}]"
    if is_ours(error):
        return str(error).replace("(max_memory)", "(--max-memory)")
    return f"unexpected {type(error).__name__}: {error} (dcformat --debug ... shows where)"


def _unnamed(code: int) -> str:
    """Return the subject of a system error that names no file."""
    return "output" if code in _ONLY_WRITING else "an input or the output"


def _matter(error: FormatError) -> str:
    """Return the fault of a file, and the details."""
    headline = _HEADLINES.get(error.code, error.headline)
    if isinstance(error, NotDcfError):
        return f"{headline}{_looks(error)}"
    found, expected = _first_number(error.got), _first_number(error.expected)
    if isinstance(error, TruncatedError) and found is not None and expected is not None and "bit" not in str(error.got):
        part = "" if error.field == "file" else f" of {error.field}"
        least = "at least " if "at least" in str(error.expected) else ""
        return f"{headline}: {found:,} of {least}{expected:,} bytes{part}"
    where = f" at byte {error.offset:,}" if error.offset is not None else ""
    parts = [f"expected {error.expected}"[:_LONGEST]] if error.expected is not None else []
    parts += [f"found {error.got}"[:_LONGEST]] if error.got is not None else []
    details = ", ".join(parts)
    if isinstance(error, MemoryLimitError | WorkLimitError):
        details = re.sub(r" \(max_\w+\)", "", details)
    return f"{headline}: {error.field}{where}{': ' if details else ''}{details}"


def _looks(error: NotDcfError) -> str:
    """Return the kind of file that was given instead, in parentheses, or an empty string for an unknown kind."""
    from dcformat_interop import kinds

    found = str(error.got)
    try:
        head = bytes.fromhex(found)
    except ValueError:  # `found` is text, such as "an empty file".
        return f" ({found})"
    if error.path and Path(error.path).is_file():
        with Path(error.path).open("rb") as file:
            longer = file.read(kinds.HEAD)
        # Otherwise another file happens to have the name that stands for stdin.
        head = longer if longer.startswith(head) else head
    kind = kinds.looks_like(head)
    advice = ": use dcformat pack" if kind in kinds.NETWORKS else ""
    return "" if kind is None else f" (looks like {kind}{advice})"


def _first_number(text: object) -> int | None:
    match = re.search(r"\d[\d,]*", str(text))
    return None if match is None else int(match[0].replace(",", ""))


def is_ours(error: Exception) -> bool:
    """Return whether this project raised the error on purpose: it has one of our classes, or is our own ValueError."""
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


def require_pillow(what: str) -> None:
    """Raise `MissingExtraError` unless Pillow, which decodes JPEG images, can be imported."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"{what} needs Pillow: pip install 'dcformat[study]' ({error})") from None


def require_onnx(what: str) -> None:
    """Raise `MissingExtraError` unless the onnx package can be imported."""
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"{what} needs the onnx package: pip install 'dcformat[onnx]' ({error})") from None


def require_onnxscript(what: str) -> None:
    """Raise `MissingExtraError` unless the packages can be imported with which PyTorch exports to ONNX."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"{what} needs onnx and onnxscript: pip install 'dcformat[pruning]' ({error})"
        ) from None


def require_ray(what: str) -> None:
    """Raise `MissingExtraError` unless Ray can be imported."""
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"{what} needs Ray: pip install 'dcformat[ray]' ({error})") from None


def require_report() -> None:
    """Raise `MissingExtraError` unless the packages can be imported that draw a report."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"report needs Jinja2 and Matplotlib: pip install 'dcformat[report]' ({error})"
        ) from None


def misuse(message: str) -> click.UsageError:
    """Return the error for options that contradict each other (exit code 2)."""
    return click.UsageError(message, click.get_current_context())
