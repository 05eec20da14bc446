"""Files assembled by hand, valid or invalid, with correct checksums; this module does not use the package.

The names follow spec/dcformat.md. A field that a test does not set has the value that a writer would give it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict, Unpack

MAGIC = b"\x89DCF"
FLOAT32, FLOAT16, BFLOAT16, INT8 = range(4)
BOOL = 7
CONSTANT, DENSE, DENSE_SHARED, SPARSE, SPARSE_SHARED = range(5)
TENSORS, GRAPH, LABELS, METADATA, SELF_TEST = range(1, 6)
RAW, HUFFMAN, ADAPTIVE, MIXING, PLANES, TABLES, PREDICTION = range(7)
TRANSPOSED, EVERY_ELEMENT, FILLERS, BLOCKS = 16, 32, 64, 128


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _crc_table()


def crc32c(data: bytes) -> bytes:
    """Return the CRC-32C of bytes, little-endian."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 255]
    return struct.pack("<I", value ^ 0xFFFFFFFF)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return varint(len(raw)) + raw


class Fields(TypedDict, total=False):
    """The fields of an `Entry` besides its payload."""

    name: str | bytes
    form: int
    dtype: int
    shape: Sequence[int]
    stored: int
    codebook_size: int
    scale: float
    fresh: bool | None
    length: int | None


@dataclass
class Entry:
    """A tensor's entry in the table, and its payload; `length` states a false number of payload bytes."""

    payload: bytes
    name: str | bytes = "w"
    form: int = DENSE
    dtype: int = FLOAT32
    shape: Sequence[int] = (1,)
    stored: int = 0
    codebook_size: int = 1
    scale: float = 1.0
    fresh: bool | None = None
    length: int | None = None

    def table(self, first: bool) -> bytes:
        rank = len(self.shape) << 5
        kind = (7 | rank, self.form | self.dtype << 3) if self.dtype > INT8 else (self.form | self.dtype << 3 | rank,)
        out = text(self.name) + bytes(kind)
        out += b"".join(varint(size) for size in self.shape)
        out += struct.pack("<f", self.scale) if self.dtype == INT8 else b""
        out += varint(self.stored) if self.form in (SPARSE, SPARSE_SHARED) else b""
        out += varint(self.codebook_size) if self.form in (DENSE_SHARED, SPARSE_SHARED) else b""
        length = len(self.payload) if self.length is None else self.length
        return out + varint(2 * length + (first if self.fresh is None else self.fresh))


@dataclass
class File:
    """A file; a part that is given replaces the one that would follow from the others."""

    entries: Sequence[Entry] = ()
    sections: Sequence[tuple[int, bytes]] = ()
    count: int | None = None
    magic: bytes = MAGIC
    major: int = 1
    minor: int = 0
    contents: bytes | None = None
    length: int | None = None
    digest: bytes = bytes(8)
    after: bytes = b""
    order: bool = True
    _parts: list[int] = field(default_factory=list)

    def table(self) -> bytes:
        count = len(self.entries) if self.count is None else self.count
        return varint(count) + b"".join(entry.table(number == 0) for number, entry in enumerate(self.entries))

    def plain_contents(self) -> bytes:
        parts = [(TENSORS, self.table()), *self.sections]
        if self.order:
            parts.sort(key=lambda part: part[0])
        return b"".join(bytes((kind,)) + varint(len(body)) + body for kind, body in parts)

    def bytes(self) -> bytes:
        contents = self.plain_contents() if self.contents is None else self.contents
        length = len(contents) if self.length is None else self.length
        front = self.magic + struct.pack("<BBI", self.major, self.minor, length) + contents
        out, block = front + crc32c(front), b""
        for number, entry in enumerate(self.entries):
            fresh = number == 0 if entry.fresh is None else entry.fresh
            if fresh and number:
                out, block = out + block + crc32c(block), b""
            block += entry.payload
        if self.entries:
            out += block + crc32c(block)
        return out + self.digest + self.after


def block(values: bytes) -> bytes:
    """Return the value block of float32 values, in raw planes, with its length before it."""
    numbers = struct.unpack(f"<{len(values) // 4}I", values)
    rotated = [(number << 1 | number >> 31) & 0xFFFFFFFF for number in numbers]
    planes = [bytes(number >> shift & 255 for number in rotated) for shift in (24, 16, 8, 0)]
    whole = bytes(4) + b"".join(planes) if values else b""
    return varint(len(whole)) + whole


def raw_dense(values: bytes, **fields: Unpack[Fields]) -> Entry:
    """Return a dense tensor whose values are stored uncoded."""
    return Entry(bytes((RAW, 0)) + values, **fields)


def one(payload: bytes, *, sections: Sequence[tuple[int, bytes]] = (), **fields: Unpack[Fields]) -> bytes:
    """Return a file of one tensor."""
    return File([Entry(payload, **fields)], sections).bytes()


# --- a range coder that only knows plain bits --------------------------------------------------------------------


class Bits:
    """A range coder stream of direct and adaptive bits (spec, "Range coder")."""

    def __init__(self) -> None:
        self.low, self.range, self.size = 0, 1 << 32, 0
        self.models: dict[object, tuple[int, int]] = {}

    def put(self, width: int, value: int) -> Bits:
        for shift in range(width - 1, -1, -1):
            self.bit((value >> shift) & 1, 32768)
        return self

    def bit(self, bit: int, probability: int) -> Bits:
        bound = (self.range >> 16) * probability
        if bit:
            self.range = bound
        else:
            self.low, self.range = self.low + bound, self.range - bound
        while self.range < 1 << 24:
            self.low, self.range, self.size = self.low << 8, self.range << 8, self.size + 1
        return self

    def adaptive(self, bits: Sequence[tuple[object, int]], limit: int) -> Bits:
        """Code bits, each with the model of the given name, which learns."""
        for name, bit in bits:
            p, seen = self.models.get(name, (1 << 21, 0))
            self.bit(bit, min(max(p >> 6, 32), 65504))
            rate = 131072 // (2 * seen + 3)
            p += ((4194303 - p) * rate) >> 16 if bit else -(p * rate >> 16)
            self.models[name] = p, min(seen + 1, limit)
        return self

    def steps(self, count: int) -> Bits:
        """Code `count` steps of one between a codebook's values: gamma codes without further bits."""
        return self.adaptive([(node, 0) for _ in range(count) for node in (1, 2, 4, 8, 16, 32)], 60)

    def take(self) -> bytes:
        """Return the shortest string in the final interval."""
        for count in range(5):
            unit = 1 << 8 * (4 - count)
            value = -(-self.low // unit) * unit
            if value < self.low + self.range:
                return (value >> 8 * (4 - count)).to_bytes(self.size + count, "big")
        raise ValueError("an interval is never empty")
