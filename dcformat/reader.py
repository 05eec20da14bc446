"""From a file's bytes to a model, all of it or tensor by tensor (spec, "File").

Any bytes parse or raise `FormatError`. Nothing is allocated for what the bytes declare before it has been checked
against the bytes there are, the format's limits, and the caller's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs.payload import read_payload
from dcformat.codecs.usage import Usage, measure
from dcformat.contents import Contents, TensorInfo, parse, small_sections
from dcformat.digest import ContentDigest, crc32c
from dcformat.errors import (
    ChecksumError,
    FormatError,
    LimitError,
    MemoryLimitError,
    NotDcfError,
    TrailingDataError,
    TruncatedError,
    VersionError,
)
from dcformat.graph import Graph
from dcformat.model import Extension, Model, SelfTest, Tensor
from dcformat.records import record
from dcformat.source import ByteSource, Source

Bytes = npt.NDArray[np.uint8]
_T = TypeVar("_T")


@record
class LedgerRow:
    """Some of the file's bytes: what they are for, and how many."""

    what: str
    bytes: int


def load(source: Source, *, max_memory: int | None = layout.DEFAULT_MAX_MEMORY, threads: int = 1) -> Model:
    """Read a whole model.

    Parameters
    ----------
    source : path, bytes-like or binary file object
    max_memory : int or None
        Most bytes that the tensors may take, with what decoding them needs on the way; None for no bound.
    threads : int
        Chunks of a large tensor are decoded in as many threads; the result is the same.

    Raises
    ------
    FormatError
        Not a valid file, or (`MemoryLimitError`) one that needs more memory.
    OSError
        The file cannot be read.
    """
    with open_file(source, max_memory=max_memory) as file:
        return file.model(threads=threads)


def verify(source: Source, *, max_memory: int | None = layout.DEFAULT_MAX_MEMORY) -> None:
    """Check every byte of a file: structure, checksums, every tensor, and the content digest. Raises as `load`."""
    with open_file(source, max_memory=max_memory) as file:
        file.verify()


class DcfFile:
    """An open file: its contents are read, tensors are decoded when asked for. May be used by several threads.

    Attributes
    ----------
    version : tuple of int
        Major and minor.
    size : int
        Bytes of the file.
    digest : bytes
        The content digest that the file states; `verify` checks it.
    """

    def __init__(self, data: ByteSource, *, max_memory: int | None = layout.DEFAULT_MAX_MEMORY) -> None:
        self._data = data
        self._max_memory = max_memory
        self.path = data.path
        self.size = data.size
        with self._naming():
            self.version, self._contents, self._begin = _read_front(data)
            self._blocks = _block_offsets(self._contents, self._begin, data.size)
            self.digest = bytes(data.take(data.size - layout.DIGEST_BYTES, layout.DIGEST_BYTES))
        self._info = {info.name: info for info in self._contents.tensors}
        self._checked: set[int] = set()

    def __repr__(self) -> str:
        source = "bytes" if self.path is None else repr(self.path)
        count = len(self._info)
        return f"DcfFile({source}, {self.size:,} bytes, {count:,} tensor{'s' * (count != 1)})"

    def __enter__(self) -> DcfFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, if it was opened here."""
        self._data.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors, in the file's order."""
        return tuple(self._info)

    @property
    def graph(self) -> Graph | None:
        """The network, validated against the tensors' shapes."""
        return self._contents.graph

    @property
    def labels(self) -> tuple[str, ...]:
        """Class labels."""
        return self._contents.labels

    @property
    def metadata(self) -> Mapping[str, str]:
        """Free text, keys ascending."""
        return self._contents.metadata

    @property
    def self_test(self) -> SelfTest | None:
        """The golden self-test."""
        return self._contents.self_test

    @property
    def extensions(self) -> tuple[Extension, ...]:
        """Sections that this version does not know and may ignore."""
        return self._contents.extensions

    @property
    def decoded_bytes(self) -> int:
        """Bytes that all tensors take in memory, in the form they have in the file."""
        return sum(info.decoded_bytes for info in self._contents.tensors)

    def info(self, name: str) -> TensorInfo:
        """Return what the table of contents says of a tensor; raises KeyError."""
        return self._info[name]

    def tensor(self, name: str, *, threads: int = 1) -> Tensor:
        """Decode one tensor; of the others, only those in its data block are read. Raises KeyError, FormatError."""
        info = self._info[name]
        with self._naming():
            return self._decode(info, threads, self._max_memory)

    def model(self, *, threads: int = 1) -> Model:
        """Decode everything. Raises `FormatError`."""
        with self._naming():
            self._allow(self.decoded_bytes, "tensors")
            left = None if self._max_memory is None else self._max_memory - self.decoded_bytes
            tensors = {}
            for name, info in self._info.items():
                tensors[name] = self._decode(info, threads, None if left is None else left + info.decoded_bytes)
        return self._model(tensors)

    def verify(self) -> None:
        """Decode everything, one tensor at a time, and check the content digest. Raises `FormatError`."""
        digest = ContentDigest(small_sections(self._model(dict.fromkeys(self._info))))  # type: ignore[arg-type]
        for name in self._info:
            digest.add(self.tensor(name))
        found = digest.take()
        if found != self.digest:
            with self._naming():
                raise ChecksumError("content digest", got=found.hex(), expected=self.digest.hex())

    def ledger(self) -> list[LedgerRow]:
        """Return what every byte is for; the rows add up to `size`."""
        begin = self._begin - layout.CRC_BYTES - layout.PREFIX_BYTES
        rows = [
            LedgerRow("magic, version, length", layout.PREFIX_BYTES),
            LedgerRow("contents (names, shapes, graph, metadata)", begin),
        ]
        rows += [LedgerRow(info.name, info.payload_bytes) for info in self._contents.tensors]
        rows.append(LedgerRow("checksums", layout.CRC_BYTES * (1 + len(self._blocks))))
        rows.append(LedgerRow("content digest", layout.DIGEST_BYTES))
        return rows

    def usage(self, name: str) -> Usage:
        """Return what the bits of a tensor's payload are for. Decodes it."""
        info = self._info[name]
        with self._naming():
            return self._guarded(info, self._max_memory, lambda payload: measure(info, payload, self._max_memory))

    def _model(self, tensors: Mapping[str, Tensor]) -> Model:
        c = self._contents
        return Model(tensors, c.graph, c.labels, c.metadata, c.self_test, c.extensions)

    def _decode(self, info: TensorInfo, threads: int, most: int | None) -> Tensor:
        return self._guarded(info, most, lambda payload: read_payload(info, payload, threads, most))

    def _guarded(self, info: TensorInfo, most: int | None, function: Callable[[Bytes], _T]) -> _T:
        """Apply a function to a tensor's payload; running out of memory is the file's failure like any other."""
        field = f"tensor {info.name!r}"
        self._allow(info.decoded_bytes, field)
        payload = self._payload(info)
        try:
            return function(payload)
        except FormatError as error:
            error.offset = self._blocks[info.block] + info.offset
            raise
        except MemoryError:
            raise MemoryLimitError(field, got="no more memory", expected=most) from None

    def _payload(self, info: TensorInfo) -> Bytes:
        start = self._blocks[info.block]
        length = self._contents.blocks[info.block]
        if not self._data.in_memory:
            self._allow(length, f"data block {info.block}")
        block = self._data.take(start, length + layout.CRC_BYTES)
        if info.block not in self._checked:
            _check_crc(block, f"data block {info.block}", start)
            self._checked.add(info.block)
        return np.frombuffer(block, np.uint8, info.payload_bytes, info.offset)

    def _allow(self, need: int, what: str) -> None:
        if self._max_memory is not None and need > self._max_memory:
            raise MemoryLimitError(what, got=f"{need} bytes", expected=f"at most {self._max_memory} (max_memory)")

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Let errors say which file they are about."""
        try:
            yield
        except FormatError as error:
            error.path = error.path or self.path
            raise


def open_file(
    source: Source,
    *,
    max_memory: int | None = layout.DEFAULT_MAX_MEMORY,
    max_work: int | None = layout.DEFAULT_MAX_WORK,
    mmap: bool = False,
) -> DcfFile:
    """Open a file for reading tensor by tensor; `dcformat.open`. Use it as a context manager.

    Parameters
    ----------
    source : path, bytes-like or binary file object
        A file object that cannot seek is read to its end.
    max_memory : int or None
        As in `load`; enforced for each tensor, and for all of them by `DcfFile.model`.
    mmap : bool
        Map the file into memory rather than read parts of it as they are needed; only for a path.

    Raises
    ------
    FormatError, OSError
        As `load`.
    """
    data = ByteSource.of(source, mmap=mmap, most=max_memory)
    try:
        return DcfFile(data, max_memory=max_memory)
    except BaseException:
        data.close()
        raise


def _read_front(data: ByteSource) -> tuple[tuple[int, int], Contents, int]:
    """Return version, contents, and the offset of the first data block."""
    head = bytes(data.take(0, min(data.size, layout.PREFIX_BYTES)))
    if head[:4] != layout.MAGIC[: len(head)] or not head:
        raise NotDcfError("magic", got=head[:4].hex() or "an empty file", expected=layout.MAGIC.hex(), offset=0)
    if len(head) < layout.PREFIX_BYTES:
        raise TruncatedError("prefix", got=f"{len(head)} bytes", expected=f"{layout.PREFIX_BYTES}", offset=0)
    major, minor, length = struct.unpack("<BBI", head[4:])
    if major != layout.MAJOR:
        raise VersionError("major version", got=major, expected=layout.MAJOR, offset=4)
    packed, length = bool(length & layout.CONTENTS_PACKED), length & ~layout.CONTENTS_PACKED
    if length > (layout.MAX_PACKED_BYTES if packed else layout.MAX_CONTENTS_BYTES):
        raise LimitError("contents length", got=length, expected="a length within the limit", offset=6)
    front = data.take(0, layout.PREFIX_BYTES + length + layout.CRC_BYTES)
    _check_crc(front, "contents", 0)
    contents = bytes(front[layout.PREFIX_BYTES : layout.PREFIX_BYTES + length])
    if packed:
        from dcformat.codecs import text

        contents = text.unpack(contents, layout.MAX_PACKED_BYTES, layout.CONTENTS_PRESET)
    return (major, minor), parse(contents, 0 if packed else layout.PREFIX_BYTES), len(front)


def _block_offsets(contents: Contents, begin: int, size: int) -> list[int]:
    """Return where each data block begins; require that they and the digest are all there is."""
    offsets = []
    for length in contents.blocks:
        offsets.append(begin)
        begin += length + layout.CRC_BYTES
    begin += layout.DIGEST_BYTES
    if begin > size:
        raise TruncatedError("file", got=f"{size} bytes", expected=f"{begin}", offset=size)
    if begin < size:
        raise TrailingDataError("file", got=f"{size} bytes", expected=f"{begin}", offset=begin)
    return offsets


def _check_crc(part: memoryview, what: str, offset: int) -> None:
    body, stated = part[: -layout.CRC_BYTES], bytes(part[-layout.CRC_BYTES :])
    found = crc32c(body)
    if found != stated:
        raise ChecksumError(f"CRC-32C of {what}", got=found.hex(), expected=stated.hex(), offset=offset + len(body))
