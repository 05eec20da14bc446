"""The front of a file: its magic number, its version and its contents (spec, "File")."""

from __future__ import annotations

import struct
from typing import NamedTuple

from dcformat import layout
from dcformat.codecs.memory import contents_bytes
from dcformat.codecs.work import contents_steps
from dcformat.contents import Contents, parse
from dcformat.digest import crc32c
from dcformat.errors import (
    ChecksumError,
    LimitError,
    NotDcfError,
    TrailingDataError,
    TruncatedError,
    VersionError,
)
from dcformat.limits import require_memory, require_work
from dcformat.source import ByteSource
from dcformat.wording import counted


class Front(NamedTuple):
    """The part of a file before the data blocks.

    Attributes
    ----------
    version : tuple of int
        Major and minor version of the format.
    contents : Contents
    size : int
        Bytes of the front: the offset of the first data block.
    held : int
        Bytes of memory that the source and the contents take.
    """

    version: tuple[int, int]
    contents: Contents
    size: int
    held: int

    @property
    def contents_size(self) -> int:
        """Bytes of the contents in the file."""
        return self.size - layout.CRC_BYTES - layout.PREFIX_BYTES

    def block_offsets(self, file_size: int | None) -> list[int]:
        """Return the offset of each data block; if a size is given, require that only the digest follows the last."""
        offsets = []
        begin = self.size
        for length in self.contents.blocks:
            offsets.append(begin)
            begin += length + layout.CRC_BYTES
        begin += layout.DIGEST_BYTES
        if file_size is None:
            return offsets
        if begin > file_size:
            raise TruncatedError("file", got=counted(file_size, "byte"), expected=f"{begin:,}", offset=file_size)
        if begin < file_size:
            raise TrailingDataError("file", got=counted(file_size, "byte"), expected=f"{begin:,}", offset=begin)
        return offsets


def read_front(data: ByteSource, max_memory: int | None, max_work: int | None) -> Front:
    """Read the front of a file. Raises `FormatError`."""
    head = bytes(data.take(0, min(data.size, layout.PREFIX_BYTES)))
    if head[:4] != layout.MAGIC[: len(head)] or not head:
        raise NotDcfError("magic", got=head.hex() or "an empty file", expected=layout.MAGIC.hex(), offset=0)
    if len(head) < layout.PREFIX_BYTES:
        raise TruncatedError("prefix", got=counted(len(head), "byte"), expected=f"{layout.PREFIX_BYTES}", offset=0)
    major, minor, length = struct.unpack("<BBI", head[4:])
    if major != layout.MAJOR:
        raise VersionError("major version", got=major, expected=layout.MAJOR, offset=4)
    packed, length = bool(length & layout.CONTENTS_PACKED), length & ~layout.CONTENTS_PACKED
    if length > layout.MAX_CONTENTS_BYTES:
        raise LimitError("contents length", got=length, expected="a length within the limit", offset=6)

    def allow(plain: int) -> int:
        """Count the contents, `plain` bytes in their plain form, against the limits; return the bytes held."""
        held = data.held + contents_bytes(plain, packed)
        require_memory("contents", held, max_memory)
        require_work("contents", contents_steps(plain, packed), max_work)
        return held

    held = data.held if packed else allow(length)
    read = data.take(0, layout.PREFIX_BYTES + length + layout.CRC_BYTES)
    check_crc(read, "contents", 0)
    contents = bytes(read[layout.PREFIX_BYTES : layout.PREFIX_BYTES + length])
    if packed:
        from dcformat.codecs import text

        limit = layout.MAX_CONTENTS_BYTES
        if (plain := text.stated_length(contents)) <= limit:  # `unpack` refuses a longer one
            held = allow(plain)
        contents = text.unpack(contents, limit, layout.CONTENTS_PRESET, max_memory=max_memory, max_work=max_work)
    return Front((major, minor), parse(contents, 0 if packed else layout.PREFIX_BYTES), len(read), held)


def check_crc(part: memoryview, what: str, offset: int) -> None:
    """Compare a part of a file, which starts at `offset`, with the CRC-32C in its last bytes."""
    body, stated = part[: -layout.CRC_BYTES], bytes(part[-layout.CRC_BYTES :])
    found = crc32c(body)
    if found != stated:
        raise ChecksumError(f"CRC-32C of {what}", got=found.hex(), expected=stated.hex(), offset=offset + len(body))
