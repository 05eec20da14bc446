"""Sources of a file's bytes: memory, a mapped file, or a file that is read part by part."""

from __future__ import annotations

import errno
import io
import mmap as _mmap
import os
import stat
from _thread import LockType, allocate_lock
from typing import Any, BinaryIO

from dcformat import layout
from dcformat.errors import MemoryLimitError, TruncatedError
from dcformat.wording import counted

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO

#: Bytes read at a time from a stream, which cannot seek.
_PIECE_BYTES = 1 << 20


def is_url(name: object) -> bool:
    """Return whether a name is a URL such as ``https://host/model.dcf`` or ``s3://bucket/model.dcf``."""
    scheme, sign, _ = name.partition("://") if isinstance(name, str) else ("", "", "")
    return bool(sign) and len(scheme) > 1 and scheme.translate({43: None, 45: None, 46: None}).isalnum()


class ByteSource:
    """A source of bytes: memory, or a file that is read part by part under a lock.

    Attributes
    ----------
    size : int
        Bytes of the file.
    path : str or None
        The file's name, if it has one.
    held : int
        Bytes of memory that the source itself takes if it is a stream that was read to its end.
    """

    def __init__(
        self,
        view: memoryview | None,
        file: BinaryIO | None,
        size: int,
        path: str | None,
        own: Any,
        *,
        held: bool = False,
    ) -> None:
        self._view, self._file, self.size, self.path, self._own = view, file, size, path, own
        self.held = size if held else 0
        #: Whether the bytes cannot change. If so, `take` makes no copy, because checked bytes stay unchanged.
        self.is_fixed = held or (view is not None and isinstance(view.obj, bytes))
        self._locks: dict[int, LockType] = {}  # Each process has its own: after a fork, the parent's may stay locked.

    @classmethod
    def of(cls, source: Source, *, mmap: bool, max_memory: int | None) -> ByteSource:
        """Open a source; a pipe or device is read to its end, up to `max_memory` bytes."""
        if isinstance(source, str | os.PathLike):
            return cls._of_path(os.fspath(source), mmap=mmap, max_memory=max_memory)
        try:
            view = memoryview(source)  # type: ignore[arg-type]
        except TypeError:
            return cls._of_file(source, max_memory)  # type: ignore[arg-type]
        view = (view if view.c_contiguous else memoryview(view.tobytes())).cast("B") if view.nbytes else memoryview(b"")
        return cls(view, None, len(view), None, None)

    @classmethod
    def _of_file(cls, file: BinaryIO, max_memory: int | None) -> ByteSource:
        if not hasattr(file, "read"):
            raise TypeError(f"source: expected a path, bytes or a binary file, found {type(file).__name__}")
        name = getattr(file, "name", None)
        # Python calls streams without a path "<stdin>" and the like.
        path = name if isinstance(name, str) and not name.startswith("<") else None
        if not _has_parts(file):
            return cls._of_stream(file, path, None, max_memory)
        begin = file.tell()
        size = file.seek(0, io.SEEK_END) - begin
        return cls(None, _Shifted(file, begin) if begin else file, size, path, None)  # type: ignore[arg-type]

    @classmethod
    def _of_path(cls, path: str, *, mmap: bool, max_memory: int | None) -> ByteSource:
        if is_url(path):
            from dcformat.remote import open_url

            remote, size = open_url(path, max_memory)
            return cls(None, remote, size, path, remote)
        file = open(path, "rb")  # noqa: PTH123, SIM115 - pathlib costs 3 ms at start; closed by `close`
        try:
            if not _has_parts(file):
                return cls._of_stream(file, path, file, max_memory)
            size = os.fstat(file.fileno()).st_size
            if mmap:
                mapped = _mmap.mmap(file.fileno(), 0, access=_mmap.ACCESS_READ)
                # The map lives as long as the arrays that view it; closing it under them would be worse than a leak.
                return cls(memoryview(mapped), file, len(mapped), path, file)
        except BaseException:
            file.close()
            raise
        return cls(None, file, size, path, file)

    @classmethod
    def _of_stream(cls, file: BinaryIO, path: str | None, own: Any, max_memory: int | None) -> ByteSource:
        view = memoryview(read_stream(file, path, max_memory))
        return cls(view, None, len(view), path, own, held=True)

    def take(self, start: int, count: int) -> memoryview:
        """Return `count` bytes that can no longer change; raise `TruncatedError` if fewer are left."""
        if start < 0 or count > self.size - start:
            raise TruncatedError(
                "file", got=counted(self.size, "byte"), expected=f"at least {start + count:,}", offset=start
            )
        if self._view is not None:
            # Reading a mapped part that the file no longer has would kill the process.
            there = self.size if self._file is None else os.fstat(self._file.fileno()).st_size
            part = self._view[start : max(start, min(start + count, there))]
            data: bytes | memoryview = part if self.is_fixed else bytes(part)
        else:
            assert self._file is not None  # The source has a view or a file.
            with self._locks.setdefault(os.getpid(), allocate_lock()):
                self._file.seek(start)
                data = _read(self._file, count)
        if len(data) != count:
            raise TruncatedError(
                "file", got=counted(start + len(data), "byte"), expected=f"{start + count:,}", offset=start
            )
        return memoryview(data)

    def close(self) -> None:
        """Close the file if this object opened it."""
        if self._own is not None:
            self._own.close()


def _has_parts(file: BinaryIO) -> bool:
    """Return whether a file has a size and can seek; devices only claim to, and files in /proc have no size."""
    if not (hasattr(file, "seekable") and file.seekable()):
        return False
    try:
        status = os.fstat(file.fileno())
    except (AttributeError, OSError):
        return True  # The file object is in memory.
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def _read(file: BinaryIO, count: int) -> bytes:
    """Return the next `count` bytes, or fewer at the end, even if the file object returns only a few at a time."""
    data = _read_some(file, count)
    if not data or len(data) >= count:
        return data
    parts, left = [data], count - len(data)
    while left > 0 and (data := _read_some(file, left)):
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


def _read_some(file: BinaryIO, count: int) -> bytes:
    try:
        data = file.read(count)
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        name = getattr(file, "name", None)
        raise OSError(error.errno, error.strerror, name if isinstance(name, str) else None) from error
    if data is None:
        raise BlockingIOError(errno.EAGAIN, "the file has no bytes ready")
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"file object: expected bytes from read(), found {type(data).__name__}")
    return bytes(data)


def read_stream(file: BinaryIO, path: str | None, max_memory: int | None) -> bytearray:
    """Read a stream to its end, up to `max_memory` bytes; if its magic number is wrong, read only that."""
    data = bytearray(_read(file, len(layout.MAGIC)))
    while data.startswith(layout.MAGIC) and (piece := _read(file, _PIECE_BYTES)):
        data += piece
        if max_memory is not None and len(data) > max(max_memory, _PIECE_BYTES):
            error = MemoryLimitError(
                "file", got=f"over {counted(max_memory, 'byte')}", expected=f"at most {max_memory:,} (max_memory)"
            )
            error.path = path
            raise error
    return data


class _Shifted:
    """A file object that begins in the middle of another file object."""

    def __init__(self, file: BinaryIO, begin: int) -> None:
        self._file, self._begin = file, begin
        self.read = file.read

    def seek(self, offset: int) -> int:
        return self._file.seek(self._begin + offset)


class ClippedFile:
    """A file whose reads never ask for more bytes than are left: Python's files allocate as many as a pickle claims.

    Parameters
    ----------
    file : binary file object
        It must be able to seek; reading begins at its start.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._size = file, file.seek(0, os.SEEK_END)
        file.seek(0)

    def read(self, count: int = -1) -> bytes:
        """Return at most `count` bytes, or all bytes that are left."""
        left = max(self._size - self._file.tell(), 0)
        return self._file.read(left if count < 0 else min(count, left))

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute from the file."""
        return getattr(self._file, name)
