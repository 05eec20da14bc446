"""Assembles dcformat files for `make_vectors.py`, valid or invalid, byte by byte from the specification.

It shares the reference decoder's checksum, digest and classes, and nothing with the package.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from reference_decoder import crc32c
from reference_digest import content_digest
from reference_reader import DTYPES, Tensor

CONSTANT, DENSE, DENSE_SHARED, SPARSE, SPARSE_SHARED, COPY = range(6)
NAMES = [name for name, _ in DTYPES]
SIZES = dict(DTYPES)


def varint(number: int) -> bytes:
    """Section 1: seven bits a byte, low ones first."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def text(value: str) -> bytes:
    """Section 1: length and UTF-8."""
    raw = value.encode()
    return varint(len(raw)) + raw


def section(kind: int, body: bytes) -> bytes:
    """Section 3: id, length, body."""
    return bytes([kind]) + varint(len(body)) + body


def f32(*values: float) -> bytes:
    """Section 1: binary32, little-endian."""
    return struct.pack(f"<{len(values)}f", *values)


def labels(*names: str) -> bytes:
    """Section 3: labels."""
    return varint(len(names)) + b"".join(map(text, names))


def metadata(*pairs: tuple[str, str]) -> bytes:
    """Section 3: metadata."""
    return varint(len(pairs)) + b"".join(text(key) + text(value) for key, value in pairs)


# -------------------------------------------------------------------------------------------------- tensors


@dataclass
class Item:
    """A tensor to assemble: its line in the table, its payload, and its contents."""

    payload: bytes
    form: int = DENSE
    shape: tuple[int, ...] = (3,)
    #: Bit patterns, as in `Tensor.values`.
    values: Sequence[int] = ()
    positions: Sequence[int] | None = None
    codebook: int = 0
    name: str = "a"
    dtype: str = "float32"
    scale: float = 1.0
    begins: bool | None = None
    #: For a copy: the distance back to the original, and the original.
    back: int | None = None
    original: Item | None = None
    #: False statements in the table.
    lies: dict[str, bytes] = field(default_factory=dict)

    def line(self, first: bool) -> bytes:
        """Section 4: the seven fields, or the three of a copy."""
        if self.back is not None:
            parts = {"name": text(self.name), "kind": bytes([COPY]), "back": varint(self.back)}
            return b"".join((parts | self.lies).values())
        begins = first if self.begins is None else self.begins
        parts = {
            "name": text(self.name),
            "kind": self.kind(),
            "shape": b"".join(map(varint, self.shape)),
            "scale": f32(self.scale) if self.dtype == "int8" else b"",
            "stored": varint(len(self.positions or ())) if self.form >= SPARSE else b"",
            "codebook": varint(self.codebook) if self.form in (DENSE_SHARED, SPARSE_SHARED) else b"",
            "length": varint(2 * len(self.payload) + begins),
        }
        return b"".join((parts | self.lies).values())

    def kind(self) -> bytes:
        """Section 4, item 2: the kind, in two bytes for the dtypes from 4 on."""
        number, rank = NAMES.index(self.dtype), len(self.shape)
        if number < 4:
            return bytes([self.form | number << 3 | rank << 5])
        return bytes([7 | rank << 5, self.form | number << 3])

    def tensor(self) -> Tensor:
        """Return the tensor that a decoder must return."""
        if self.original is not None:
            return self.original.tensor()
        positions = None if self.positions is None else list(self.positions)
        constant, size = self.form == CONSTANT, SIZES[self.dtype]
        return Tensor(self.shape, self.dtype, size, self.scale, constant, positions, list(self.values))


def table(items: Sequence[Item]) -> bytes:
    """Section 4: the body of the tensor table."""
    return varint(len(items)) + b"".join(item.line(i == 0) for i, item in enumerate(items))


def blocks(items: Sequence[Item]) -> list[bytes]:
    """Section 4, "Blocks": the payloads of tensors that share one."""
    out: list[bytes] = []
    for i, item in enumerate(items):
        if item.back is not None:
            continue
        if item.begins or i == 0:
            out.append(b"")
        out[-1] += item.payload
    return out


def with_crc(data: bytes) -> bytes:
    """Section 2: bytes and their CRC-32C."""
    return data + struct.pack("<I", crc32c(data))


def assemble(
    items: Sequence[Item] = (),
    sections: Iterable[tuple[int, bytes]] = (),
    *,
    minor: int = 0,
    contents: bytes | None = None,
    packed: bytes | None = None,
    digest: bytes | None = None,
) -> bytes:
    """Section 2: a whole file; `contents` replaces the sections, and `packed` their stored bytes."""
    bodies = {1: table(items), **dict(sections)}
    if contents is None:
        contents = b"".join(section(kind, body) for kind, body in bodies.items())
    stored = contents if packed is None else packed
    prefix = b"\x89DCF\x01" + bytes([minor]) + struct.pack("<I", len(stored) | (packed is not None) << 31)
    if digest is None:
        digest = content_digest(bodies, {item.name: item.tensor() for item in items})
    return with_crc(prefix + stored) + b"".join(map(with_crc, blocks(items))) + digest


# ------------------------------------------------------------------------------- payloads of coders 0 and 1


def canonical_codes(lengths: Sequence[int]) -> dict[int, str]:
    """Section 6.2, "Coder 1": symbol to code, as a string of bits; a length of -1 marks a symbol that is not in use."""
    codes, word, last = {}, 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length >= 0):
        word <<= length - last
        codes[symbol] = f"{word:0{length}b}" if length else ""
        word, last = word + 1, length
    return codes


def fixed_codes(alphabet: int) -> dict[int, str]:
    """Section 6.2, "Coder 0": the symbol itself, its high bit first."""
    width = (alphabet - 1).bit_length()
    return {symbol: f"{symbol:0{width}b}" for symbol in range(1 << width)}


def pack_bits(bits: str) -> bytes:
    """Section 6.2: bit i is bit i mod 8 of byte i div 8; zeros up to a whole byte."""
    return int(bits[::-1] or "0", 2).to_bytes((len(bits) + 7) // 8, "little")
