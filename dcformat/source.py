"""Where a file's bytes come from: memory, a mapped file, or a file that is read by parts."""

from __future__ import annotations

import errno
import io
import mmap as _mmap
import os
from _thread import LockType, allocate_lock
from typing import Any, BinaryIO

from dcformat import layout
from dcformat.errors import MemoryLimitError, TruncatedError

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO

#: Bytes read at a time from what cannot seek.
_PIECE_BYTES = 1 << 20


class ByteSource:
    """Where the bytes come from: memory, or a file read by parts under a lock."""

    def __init__(self, view: memoryview | None, file: BinaryIO | None, size: int, path: str | None, own: Any) -> None:
        self._view, self._file, self.size, self.path, self._own = view, file, size, path, own
        self._locks: dict[int, LockType] = {}  # one for each process: a fork may leave one locked for ever

    @property
    def in_memory(self) -> bool:
        """Whether taking bytes makes no copy of them."""
        return self._view is not None

    @classmethod
    def of(cls, source: Source, *, mmap: bool, most: int | None) -> ByteSource:
        """Open a source; what cannot seek is read to its end, `most` bytes at most."""
        if isinstance(source, str | os.PathLike):
            return cls._of_path(os.fspath(source), mmap=mmap, most=most)
        try:
            view = memoryview(source)  # type: ignore[arg-type]
        except TypeError:
            return cls._of_file(source, most)  # type: ignore[arg-type]
        view = (view if view.c_contiguous else memoryview(view.tobytes())).cast("B") if view.nbytes else memoryview(b"")
        return cls(view, None, len(view), None, None)

    @classmethod
    def _of_file(cls, file: BinaryIO, most: int | None) -> ByteSource:
        if not hasattr(file, "read"):
            raise TypeError(f"source: expected a path, bytes or a binary file, found {type(file).__name__}")
        name = getattr(file, "name", None)
        path = name if isinstance(name, str) else None
        if not (hasattr(file, "seekable") and file.seekable()):
            view = memoryview(_read_to_end(file, most))
            return cls(view, None, len(view), path, None)
        begin = file.tell()
        size = file.seek(0, io.SEEK_END) - begin
        return cls(None, _Shifted(file, begin) if begin else file, size, path, None)  # type: ignore[arg-type]

    @classmethod
    def _of_path(cls, path: str, *, mmap: bool, most: int | None) -> ByteSource:
        file = open(path, "rb")  # noqa: PTH123, SIM115 - pathlib costs 3 ms at start; closed by `close`
        try:
            if not file.seekable():
                view = memoryview(_read_to_end(file, most))
                return cls(view, None, len(view), path, file)
            size = os.fstat(file.fileno()).st_size
            if mmap and size:
                mapped = _mmap.mmap(file.fileno(), 0, access=_mmap.ACCESS_READ)
                # The map lives as long as arrays that look at it; closing it under them would be worse than a leak.
                return cls(memoryview(mapped), file, len(mapped), path, file)
        except BaseException:
            file.close()
            raise
        return cls(None, file, size, path, file)

    def take(self, start: int, count: int) -> memoryview:
        """Return bytes; raise `TruncatedError` where there are fewer."""
        if start < 0 or count > self.size - start:
            raise TruncatedError("file", got=f"{self.size} bytes", expected=f"at least {start + count}", offset=start)
        if self._view is not None:
            # Looking at a part of a map that its file has lost kills the process.
            there = self.size if self._file is None else os.fstat(self._file.fileno()).st_size
            data: bytes | memoryview = self._view[start : max(start, min(start + count, there))]
        else:
            assert self._file is not None  # one of the two is there
            with self._locks.setdefault(os.getpid(), allocate_lock()):
                self._file.seek(start)
                data = _read(self._file, count)
        if len(data) != count:
            raise TruncatedError("file", got=f"{start + len(data)} bytes", expected=f"{start + count}", offset=start)
        return memoryview(data)

    def close(self) -> None:
        """Close the file, if it was opened here."""
        if self._own is not None:
            self._own.close()


def _read(file: BinaryIO, count: int) -> bytes:
    """Return the next `count` bytes, fewer only at the end, however few the file object gives at a time."""
    data = _read_some(file, count)
    if not data or len(data) >= count:
        return data
    parts, left = [data], count - len(data)
    while left > 0 and (data := _read_some(file, left)):
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


def _read_some(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if data is None:
        raise BlockingIOError(errno.EAGAIN, "the file has no bytes ready")
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"file object: expected bytes from read(), found {type(data).__name__}")
    return bytes(data)


def _read_to_end(file: BinaryIO, most: int | None) -> bytes:
    """Read what cannot seek: no further than its magic number if that is wrong, and at most `most` bytes."""
    data = bytearray(_read(file, len(layout.MAGIC)))
    while data.startswith(layout.MAGIC) and (piece := _read(file, _PIECE_BYTES)):
        data += piece
        if most is not None and len(data) > max(most, _PIECE_BYTES):
            raise MemoryLimitError("file", got=f"over {most} bytes", expected=f"at most {most} (max_memory)")
    return bytes(data)


class _Shifted:
    """A file object whose file begins in the middle of another."""

    def __init__(self, file: BinaryIO, begin: int) -> None:
        self._file, self._begin = file, begin
        self.read = file.read

    def seek(self, offset: int) -> int:
        return self._file.seek(self._begin + offset)
