"""Takes a `.dcf` file apart into fields that a mutator can change, and builds it again with the right checksums.

Parsing is lenient, and writing accepts any number in any field. `File.build` derives everything that depends on other
fields (lengths, checksums, the set of an entry's fields), unless a mutation overrides it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dcformat import layout
from dcformat.codecs import text
from dcformat.cursor import varint
from dcformat.digest import crc32c
from dcformat.errors import FormatError

#: The form of a copy of an earlier tensor: the entry says how many tensors to go back, and has no payload.
FORM_COPY = 5


class ParseError(ValueError):
    """The bytes cannot be taken apart; a mutator then changes them as bytes."""


def text_field(raw: bytes) -> bytes:
    """Return the bytes after their length."""
    return varint(len(raw)) + raw


class Scan:
    """Reads bytes from a position on."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    @property
    def left(self) -> int:
        """The number of bytes that are left."""
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        if not 0 <= count <= self.left:
            raise ParseError("bytes end early")
        self.at += count
        return self.data[self.at - count : self.at]

    def u8(self) -> int:
        """Return a byte."""
        return self.take(1)[0]

    def varint(self) -> int:
        """Return a varint of at most six bytes."""
        value = 0
        for shift in range(0, 42, 7):
            byte = self.u8()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ParseError("a varint over six bytes")

    def text(self) -> bytes:
        """Return the bytes of a text."""
        return self.take(self.varint())


@dataclass
class Entry:
    """A tensor's table entry and its payload; `lies` holds bytes to write for a field in place of the truth.

    Fields that only some forms or dtypes have (`scale`, `stored`, `codebook_size`, `back`) are written only for those.
    """

    name: bytes = b"w"
    form: int = layout.FORM_DENSE
    dtype: int = 0
    dims: tuple[int, ...] = ()
    scale: bytes = b"\0\0\x80?"
    stored: int = 0
    codebook_size: int = 1
    back: int = 1
    payload: bytes = b""
    fresh: bool = True
    lies: dict[str, bytes] = field(default_factory=dict)

    def line(self) -> bytes:
        """Return the entry's bytes."""
        parts = {
            "name": text_field(self.name),
            "kind": self._kind(),
            "dims": b"".join(map(varint, self.dims)),
            "scale": self.scale if self.dtype == 3 else b"",
            "stored": varint(self.stored) if self.form in (layout.FORM_SPARSE, layout.FORM_SPARSE_SHARED) else b"",
            "codebook_size": varint(self.codebook_size) if self.is_shared else b"",
            "length": varint(2 * len(self.payload) + self.fresh),
        }
        if self.form == FORM_COPY:
            parts = {"name": parts["name"], "kind": bytes((FORM_COPY,)), "back": varint(self.back)}
        return b"".join((parts | self.lies).values())

    def _kind(self) -> bytes:
        rank = (len(self.dims) & 7) << 5
        if self.dtype < layout.KERNEL_DTYPES:
            return bytes((self.form & 7 | self.dtype << 3 | rank,))
        return bytes((layout.FORM_EXTENDED | rank, self.form & 7 | (self.dtype & 31) << 3))

    @property
    def is_shared(self) -> bool:
        """Return whether the form has a codebook."""
        return self.form in (layout.FORM_DENSE_SHARED, layout.FORM_SPARSE_SHARED)

    def copy(self) -> Entry:
        """Return a copy that may be changed."""
        return replace(self, lies=dict(self.lies))


@dataclass
class File:
    """A file's fields: the table's entries, the other sections in order, and the frame around them."""

    entries: list[Entry] = field(default_factory=list)
    sections: list[tuple[int, bytes]] = field(default_factory=list)
    major: int = layout.MAJOR
    minor: int = 0
    packed: bool = False
    count: int | None = None
    digest: bytes = bytes(layout.DIGEST_BYTES)
    after: bytes = b""
    #: Functions that change the plain contents, each data block, and the stored contents, before checksums are made.
    change_contents: Callable[[bytes], bytes] | None = None
    change_stored: Callable[[bytes], bytes] | None = None
    ordered: bool = True

    def copy(self) -> File:
        """Return a copy that may be changed."""
        return replace(self, entries=[entry.copy() for entry in self.entries], sections=list(self.sections))

    def section(self, kind: int) -> bytes | None:
        """Return the body of a section, if the file has one."""
        return next((body for known, body in self.sections if known == kind), None)

    def put(self, kind: int, body: bytes) -> None:
        """Replace or add a section."""
        self.sections = [(k, b) for k, b in self.sections if k != kind]
        self.sections.append((kind, body))

    def contents(self) -> bytes:
        """Return the plain contents."""
        count = len(self.entries) if self.count is None else self.count
        table = varint(count) + b"".join(entry.line() for entry in self.entries)
        parts = [(layout.SECTION_TENSORS, table), *self.sections]
        if self.ordered:
            parts.sort(key=lambda part: part[0])
        plain = b"".join(bytes((kind & 255,)) + varint(len(body)) + body for kind, body in parts)
        return plain if self.change_contents is None else self.change_contents(plain)

    def blocks(self) -> list[bytes]:
        """Return the data blocks."""
        out: list[bytes] = []
        for entry in self.entries:
            if entry.form == FORM_COPY:
                continue
            if entry.fresh or not out:
                out.append(entry.payload)
            else:
                out[-1] += entry.payload
        return out

    def build(self) -> bytes:
        """Return the file's bytes with the right lengths and checksums, and the digest unchanged."""
        stored = self.contents()
        packed = self.packed and len(stored) <= _PACKED_MOST
        if packed:
            stored = text.pack(stored, layout.CONTENTS_PRESET)
        if self.change_stored is not None:
            stored = self.change_stored(stored)
        front = struct.pack("<4sBBI", layout.MAGIC, self.major & 255, self.minor & 255, len(stored) | packed << 31)
        front += stored
        out = [front, crc32c(front)]
        for block in self.blocks():
            out += [block, crc32c(block)]
        return b"".join((*out, self.digest, self.after))


#: Longer contents are written plain, because packing them takes milliseconds.
_PACKED_MOST = 2048


def parse(data: bytes) -> File:
    """Take a file apart without checking its checksums; raise `ParseError` if that fails."""
    if len(data) < layout.PREFIX_BYTES + layout.CRC_BYTES:
        raise ParseError("no prefix")
    _, major, minor, length = struct.unpack("<4sBBI", data[: layout.PREFIX_BYTES])
    packed, length = bool(length >> 31), length & layout.CONTENTS_PACKED - 1
    scan = Scan(data[layout.PREFIX_BYTES :])
    contents = scan.take(length)
    scan.take(layout.CRC_BYTES)
    if packed:
        try:
            contents = text.unpack(contents, layout.MAX_CONTENTS_BYTES, layout.CONTENTS_PRESET)
        except FormatError as error:
            raise ParseError(str(error)) from None
    file = File(major=major, minor=minor, packed=packed)
    lengths: list[int] = []
    parts = Scan(contents)
    while parts.left:
        kind, body = parts.u8(), parts.text()
        if kind == layout.SECTION_TENSORS and not file.entries:
            file.entries = _entries(body, lengths)
        else:
            file.sections.append((kind, body))
    held = [entry for entry in file.entries if entry.form != FORM_COPY]
    for number, (entry, size) in enumerate(zip(held, lengths, strict=True)):
        if entry.fresh and number:
            scan.take(layout.CRC_BYTES)
        entry.payload = scan.take(size)
    if held:
        scan.take(layout.CRC_BYTES)
    file.digest, file.after = scan.take(layout.DIGEST_BYTES), scan.take(scan.left)
    return file


def _entries(body: bytes, lengths: list[int]) -> list[Entry]:
    scan, out = Scan(body), []
    for _ in range(scan.varint()):
        name, kind = scan.text(), scan.u8()
        entry = Entry(name, kind & 7, kind >> 3 & 3)
        rank = kind >> 5
        if entry.form == layout.FORM_EXTENDED:
            kind = scan.u8()
            entry.form, entry.dtype = kind & 7, kind >> 3
        if entry.form > FORM_COPY:
            raise ParseError("an unknown form")
        if entry.form == FORM_COPY:
            entry.back = scan.varint()
            out.append(entry)
            continue
        entry.dims = tuple(scan.varint() for _ in range(rank))
        if entry.dtype == 3:
            entry.scale = scan.take(4)
        if entry.form in (layout.FORM_SPARSE, layout.FORM_SPARSE_SHARED):
            entry.stored = scan.varint()
        if entry.is_shared:
            entry.codebook_size = scan.varint()
        length = scan.varint()
        entry.fresh = bool(length & 1)
        lengths.append(length >> 1)
        out.append(entry)
    return out


def parse_texts(body: bytes, pairs: bool = False) -> list[bytes]:
    """Take labels, or metadata if `pairs` is set, apart into texts."""
    scan = Scan(body)
    return [scan.text() for _ in range(scan.varint() * (2 if pairs else 1))]


def texts(values: list[bytes], count: int) -> bytes:
    """Return the body of labels or metadata that claims to hold `count` items."""
    return varint(count) + b"".join(map(text_field, values))


@dataclass
class Payload:
    """A payload's fields: coding byte, lines in a chunk, head, chunk table (entries and length), and the rest."""

    coding: int
    each: int
    head: bytes | None
    table: list[list[int]]
    chunks: list[bytes]
    with_entries: bool

    def build(self) -> bytes:
        """Return the payload; the lengths of chunks are right unless the table overrides them."""
        out = bytearray((self.coding & 255,)) + varint(self.each)
        if self.head is not None:
            out += text_field(self.head)
        for row in self.table:
            out += b"".join(map(varint, row))
        return bytes(out) + b"".join(self.chunks)


def parse_payload(entry: Entry) -> Payload:
    """Take apart the payload of an entry that is not a constant; raise `ParseError` if that fails."""
    scan = Scan(entry.payload)
    coding = scan.u8()
    if entry.form == layout.FORM_CONSTANT:
        raise ParseError("a constant has no parts")
    each = scan.varint()
    plain = entry.form == layout.FORM_DENSE
    head = scan.text() if coding & layout.CODER_MASK <= layout.CODER_HUFFMAN and not plain else None
    rows = entry.dims[0] if entry.dims else 1
    columns = 1
    for size in entry.dims[1:]:
        columns *= size
    lines = columns if coding & layout.CODING_TRANSPOSED else rows
    table: list[list[int]] = []
    sparse = entry.form in (layout.FORM_SPARSE, layout.FORM_SPARSE_SHARED)
    if not each:
        return Payload(coding, each, head, table, [scan.take(scan.left)], sparse)
    for _ in range(min(-(-lines // each), scan.left)):
        table.append([scan.varint(), scan.varint()] if sparse else [scan.varint()])
    chunks = [scan.take(min(row[-1], scan.left)) for row in table]
    return Payload(coding, each, head, table, [*chunks, scan.take(scan.left)], sparse)
