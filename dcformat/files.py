"""Output files: written beside their place and renamed into it, so that a failure leaves what was there."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def check_output(path: Path | str) -> None:
    """Raise unless a file can be written at `path`; leaves nothing behind. For use before long work.

    Raises
    ------
    OSError
        The directory is missing or cannot be written to, or `path` is a directory; `filename` is `path`.
    """
    target = _target(Path(path))
    if not _is_special(target):
        handle, temporary = _temporary(target)
        os.close(handle)
        Path(temporary).unlink()


@contextmanager
def replacing(path: Path | str) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that takes its place once the block is done without an error.

    A symbolic link is followed. A device or pipe (``/dev/stdout``) is written to as it is.

    Raises
    ------
    OSError
        Naming `path`, never the temporary file.
    """
    target = _target(Path(path))
    if _is_special(target):
        try:
            with target.open("wb") as file:
                yield file
        except OSError as error:
            if error.filename is not None:
                raise
            raise OSError(error.errno, error.strerror, str(path)) from error
        return
    handle, temporary = _temporary(target)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(target))  # noqa: PTH101
        Path(temporary).replace(target)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, temporary):
            # The user knows the name that was asked for, not the temporary one.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _target(path: Path) -> Path:
    target = path.resolve() if path.is_symlink() else path
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not target.parent.is_dir():
        code = errno.ENOTDIR if target.parent.exists() else errno.ENOENT
        raise OSError(code, os.strerror(code), str(target.parent))
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
