"""Output files: written beside their place and renamed into it, so that a failure leaves what was there."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dcformat_cli.failures import InputError


def check_output(path: Path) -> None:
    """Raise unless a file can be written at `path`; leaves nothing behind. For use before long work.

    Raises
    ------
    OSError, InputError
        The directory is missing or cannot be written to, or `path` is a directory.
    """
    target = _target(path)
    if not _is_special(target):
        handle, temporary = _temporary(target)
        os.close(handle)
        Path(temporary).unlink()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that takes its place once the block is done without an error.

    A symbolic link is followed. A device or pipe (``/dev/stdout``) is written to as it is.
    """
    target = _target(path)
    if _is_special(target):
        with target.open("wb") as file:
            yield file
        return
    handle, temporary = _temporary(target)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(target))  # noqa: PTH101
        Path(temporary).replace(target)
    except OSError as error:
        # The user knows the name that was asked for, not the temporary one.
        Path(temporary).unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _target(path: Path) -> Path:
    target = path.resolve() if path.is_symlink() else path
    if target.is_dir():
        raise InputError(path, "a file to write", "a directory")
    if not target.parent.is_dir():
        found = "a file" if target.parent.exists() else "nothing"
        raise InputError(path, f"a directory {target.parent}", found)
    return target


def _is_special(target: Path) -> bool:
    return target.exists() and not target.is_file()


def _temporary(target: Path) -> tuple[int, str]:
    try:
        return tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.", suffix=".partial")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error


def _mode(target: Path) -> int:
    """Permissions for the new file: those of the one it replaces, else what the umask leaves of 0o666."""
    if target.exists():
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
