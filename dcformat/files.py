"""Output files, written under a temporary name and then renamed: a failure leaves an existing file untouched."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows
    flock = None  # type: ignore[assignment]

#: Maximum number of bytes of a target's name in its temporary file's name; file systems allow 255 bytes for a name.
_NAME_BYTES = 200


def check_output(path: Path | str) -> None:
    """Raise unless a file can be written at `path`; leave nothing behind. Call this before long work.

    Raises
    ------
    OSError
        The directory is missing or cannot be written to, or `path` is a directory; `filename` is `path`.
    """
    target = _target(Path(path))
    if not _is_special(target):
        with _naming(path, target):
            temporary, handle = _temporary(target)
            os.close(handle)
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path | str) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that replaces it if the block ends without an error. It can be read, too.

    Symbolic links are followed. Devices and pipes (``/dev/stdout``) are written to directly, and cannot be read.
    Several processes may write to one target at the same time: each file is complete, and the last one remains. A
    writer removes the temporary files of earlier writers that were killed.

    Raises
    ------
    OSError
        The file cannot be written; the error names `path`, never the temporary file.
    """
    target = _target(Path(path))
    if _is_special(target):
        with _naming(path, target), target.open("wb") as file:
            yield file
        return
    with _naming(path, target):
        temporary, handle = _temporary(target)
        try:
            with os.fdopen(handle, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                if flock is None:
                    file.close()
                # Rename the file while it is still locked, so that no other writer mistakes it for a dead writer's.
                temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def _naming(path: Path | str, target: Path) -> Iterator[None]:
    """Make errors that name the temporary file, or no file, name the path that the user gave."""
    try:
        yield
    except OSError as error:
        named = None if error.filename is None else Path(os.fsdecode(error.filename)).name
        if named is None or _temporaries(target).fullmatch(named):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _target(path: Path) -> Path:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = 0
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    target = path.resolve() if path.is_symlink() else path
    if not target.parent.is_dir():
        code = errno.ENOTDIR if target.parent.exists() else errno.ENOENT
        raise OSError(code, os.strerror(code), str(target.parent))
    return target


def _is_special(target: Path) -> bool:
    return target.exists() and not target.is_file()


def _temporary(target: Path) -> tuple[Path, int]:
    """Create and lock a temporary file beside the target, with the target's permissions."""
    _remove_left(target)
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    while True:
        path = target.with_name(f"{_stem(target.name)}{os.urandom(8).hex()}.partial")
        # The system applies the umask; a file that will be private is private from the start.
        handle = os.open(path, flags, 0o666 if mode is None else mode & 0o777)
        try:
            if _is_locked_here(handle, path):
                if mode is not None:
                    os.chmod(path, mode)  # noqa: PTH101
                return path, handle
        except BaseException:
            os.close(handle)
            path.unlink(missing_ok=True)
            raise
        os.close(handle)


def _stem(name: str) -> str:
    """Return the prefix of the names of a target's temporary files; no other target has the same prefix."""
    raw = os.fsencode(name)
    if len(raw) > _NAME_BYTES:
        name = f"{os.fsdecode(raw[:_NAME_BYTES])}~{crc32(raw):08x}"
    return f".{name}."


def _is_locked_here(handle: int, path: Path) -> bool:
    """Lock a new file; return False if another writer has locked or removed it first."""
    if flock is None:
        return True
    try:
        flock(handle, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # The file system has no locks, so no other writer can lock the file and remove it.
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _temporaries(target: Path) -> re.Pattern[str]:
    return re.compile(re.escape(_stem(target.name)) + r"[0-9a-f]{16}\.partial")


def _remove_left(target: Path) -> None:
    """Remove a target's temporary files that dead writers left; a living writer holds the lock of its file."""
    if flock is None:
        return
    ours = _temporaries(target)
    with suppress(OSError):
        for path in [path for path in target.parent.iterdir() if ours.fullmatch(path.name)]:
            with suppress(OSError):
                _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            flock(handle, LOCK_EX | LOCK_NB)
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)
