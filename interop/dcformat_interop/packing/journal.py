"""The finished parts of a packing, kept beside the output so that a later run need not repeat them.

After a first line that marks it as a journal, ``OUT.journal`` holds lines of JSON: what is packed and how, then a line
for each finished tensor or chunk, with the place and the checksum of its bytes in ``OUT.journal.data``, which begins
with the same mark. Bytes count only if their checksum is right. An interrupted run leaves both files; a run that
succeeds removes them. Files of these names without the mark belong to somebody else and are not touched.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from dcformat.digest import crc32c
from dcformat.files import replacing
from dcformat_interop.packing.elements import Findings

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows
    flock = None  # type: ignore[assignment]

#: Bytes that are copied at a time.
_PART = 1 << 20

#: The first line of both files.
_MARK = b"dcformat journal\n"

#: Maximum number of bytes of another line; the parts of a tensor of a hundred billion elements take 4 MB.
_MAX_LINE = 16 << 20


@dataclass(frozen=True, slots=True)
class Extent:
    """The place of bytes in the data file, and their CRC-32C."""

    offset: int
    size: int
    crc: str


@dataclass(frozen=True, slots=True)
class DoneChunk:
    """A finished chunk, and the number of its entries."""

    place: Extent
    stored: int


@dataclass(frozen=True, slots=True)
class DoneTensor:
    """A finished tensor: the beginning of its table entry, its digest, and the parts of its payload in their order."""

    head: bytes
    digest: bytes
    parts: tuple[Extent, ...]
    findings: Findings

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return sum(part.size for part in self.parts)


@dataclass(slots=True)
class PackingWork:
    """The work that a journal is about.

    Attributes
    ----------
    options : dict
        Everything that decides on a tensor's bytes besides the file that it is in.
    files : dict of str to list
        For each tensor, the identity of its file's state.
    """

    options: dict[str, Any]
    files: dict[str, list[Any]] = field(default_factory=dict)


class BusyError(OSError):
    """Another process is packing to the same output."""


class Journal:
    """The finished parts of a packing. Use it as a context manager.

    Parameters
    ----------
    path : Path or None
        The file of lines, ``OUT.journal``; None keeps finished parts in a temporary file only.
    work : PackingWork

    Attributes
    ----------
    tensors : dict of str to DoneTensor
    chunks : dict of (str, int) to DoneChunk
        The chunks of unfinished tensors.
    restarted : bool
        Whether an earlier run left parts that are useless now.

    Raises
    ------
    BusyError
        Another process uses the journal.
    OSError
        The files cannot be written, or there are others of these names.
    """

    def __init__(self, path: Path | None, work: PackingWork) -> None:
        self.tensors: dict[str, DoneTensor] = {}
        self.chunks: dict[tuple[str, int], DoneChunk] = {}
        self.restarted = False
        self._path, self._files = path, work.files
        self._lines: IO[bytes] | None = None
        self._data: IO[bytes] = _temporary() if path is None else self._locked(path)
        try:
            if path is not None:
                self._keep(path, work)
                self._rewrite(path, work)
                self._lines = path.open("ab")
        except BaseException:
            self._data.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files and leave them."""
        self._data.close()
        if self._lines is not None:
            self._lines.close()

    def remove(self) -> None:
        """Remove the files; the journal must be open."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            _data_path(self._path).unlink(missing_ok=True)

    def put(self, data: bytes) -> Extent:
        """Append bytes to the data file. Raises `OSError`."""
        offset = self._data.seek(0, os.SEEK_END)
        with self._naming():
            view = memoryview(data)
            while view:
                view = view[self._data.write(view) :]
            self._data.flush()
        return Extent(offset, len(data), crc32c(data).hex())

    def add_tensor(self, name: str, tensor: DoneTensor) -> None:
        """Note that a tensor is finished; its parts have been put, and replace its chunks. Raises `OSError`."""
        for key in [key for key in self.chunks if key[0] == name]:
            del self.chunks[key]
        self.tensors[name] = tensor
        self._line(_tensor_line(name, self._files.get(name, []), tensor))

    def add_chunk(self, name: str, number: int, chunk: DoneChunk) -> None:
        """Note that a chunk is finished; its bytes have been put. Raises `OSError`."""
        self.chunks[name, number] = chunk
        self._line(_chunk_line(name, number, self._files.get(name, []), chunk))

    def read(self, place: Extent) -> Iterator[bytes]:
        """Yield bytes part by part; raise `OSError` if they have changed."""
        check, left = crc32c(b""), place.size
        self._data.seek(place.offset)
        while left and (part := self._data.read(min(left, _PART))):
            check = crc32c(part, check)
            left -= len(part)
            yield part
        if left or check.hex() != place.crc:
            raise OSError(errno.EIO, "finished tensors were altered before they were assembled", self._name)

    def _locked(self, path: Path) -> IO[bytes]:
        """Open and lock the data file; raise unless both files are a journal's or new."""
        with suppress(FileNotFoundError), path.open("rb") as lines:
            _require_mark(path, lines)
        file = _data_path(path).open("a+b", buffering=0)
        try:
            if flock is not None:
                flock(file, LOCK_EX | LOCK_NB)
            _require_mark(_data_path(path), file)
            if file.tell() < len(_MARK):
                file.truncate(0)
                file.write(_MARK)
        except BlockingIOError:
            file.close()
            raise BusyError(errno.EBUSY, "another process is packing to this output", str(path)) from None
        except BaseException:
            file.close()
            raise
        return file

    def _keep(self, path: Path, work: PackingWork) -> None:
        """Take over the finished parts of an earlier run that belong to the same work and whose bytes are right."""
        lines = _parsed(path)
        same = next(lines, {}).get("options") == work.options
        found = 0
        for line in lines:
            found += 1
            if same:
                self._take(line, work)
        self.restarted = len(self.tensors) + len(self.chunks) < found
        places = [part for tensor in self.tensors.values() for part in tensor.parts]
        places += [chunk.place for chunk in self.chunks.values()]
        self._data.truncate(max([len(_MARK), *(place.offset + place.size for place in places)]))

    def _rewrite(self, path: Path, work: PackingWork) -> None:
        """Write the lines that are kept: useless ones must not come back, and the last one may be cut short."""
        with replacing(path) as file:
            file.write(_MARK)
            file.write(_encoded({"options": work.options}))
            for (name, number), chunk in self.chunks.items():
                file.write(_encoded(_chunk_line(name, number, work.files[name], chunk)))
            for name, tensor in self.tensors.items():
                file.write(_encoded(_tensor_line(name, work.files[name], tensor)))

    def _take(self, line: dict[str, Any], work: PackingWork) -> None:
        try:
            name, places = line["tensor"], [Extent(*part) for part in line["parts"]]
            if name not in work.files or work.files[name] != line["file"] or not all(map(self._is_right, places)):
                return
            if "chunk" in line:
                self.chunks[name, line["chunk"]] = DoneChunk(places[0], line["stored"])
                return
            findings = Findings(**line["findings"])
            digest = bytes.fromhex(line["digest"])
            self.tensors[name] = DoneTensor(bytes.fromhex(line["head"]), digest, tuple(places), findings)
        except (KeyError, TypeError, ValueError, IndexError, OverflowError):
            return  # The line is damaged; its work is done again.

    def _is_right(self, place: Extent) -> bool:
        try:
            for _ in self.read(place):
                pass
        except (OSError, ValueError):
            return False
        return True

    def _line(self, content: dict[str, Any]) -> None:
        if self._lines is not None:
            with self._naming():
                self._lines.write(_encoded(content))
                self._lines.flush()

    @property
    def _name(self) -> str:
        if self._path is None:
            return f"temporary file in {tempfile.gettempdir()}"
        return str(_data_path(self._path))

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Name the data file in errors."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._name) from error


def _temporary() -> IO[bytes]:
    return tempfile.TemporaryFile()


def _data_path(path: Path) -> Path:
    return path.with_name(path.name + ".data")


def _require_mark(path: Path, file: IO[bytes]) -> None:
    """Raise `OSError` unless a file is a journal's, or is empty or cut short within the mark."""
    file.seek(0)
    if not _MARK.startswith(file.read(len(_MARK))):
        reason = "not a journal of an interrupted run, although its name is that of one: move or rename it"
        raise FileExistsError(errno.EEXIST, reason, str(path))


def _parsed(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a journal up to the first that is damaged."""
    # A process that is killed while it writes the last line leaves it incomplete.
    with suppress(FileNotFoundError, ValueError, RecursionError), path.open("rb") as file:
        file.readline(len(_MARK))
        while line := file.readline(_MAX_LINE):
            content = json.loads(line)
            if not isinstance(content, dict):
                return
            yield content


def _encoded(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def _tensor_line(name: str, file: list[Any], tensor: DoneTensor) -> dict[str, Any]:
    parts = [[part.offset, part.size, part.crc] for part in tensor.parts]
    known = {"head": tensor.head.hex(), "digest": tensor.digest.hex(), "findings": asdict(tensor.findings)}
    return {"tensor": name, "file": file, "parts": parts, **known}


def _chunk_line(name: str, number: int, file: list[Any], chunk: DoneChunk) -> dict[str, Any]:
    place = chunk.place
    parts = [[place.offset, place.size, place.crc]]
    return {"tensor": name, "chunk": number, "file": file, "parts": parts, "stored": chunk.stored}
