"""The parts that the modules of the reference decoder share: bounded reads, the error, a tensor and its table entry."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from math import prod

#: The decoder does not make larger tensors dense, because it is for small files.
MAX_DENSE_BYTES = 1 << 26
#: Section 4: the dtypes, and their bytes.
DTYPES = (
    ("float32", 4), ("float16", 2), ("bfloat16", 2), ("int8", 1), ("float64", 8), ("complex64", 8), ("uint8", 1),
    ("bool", 1), ("int16", 2), ("uint16", 2), ("int32", 4), ("uint32", 4), ("int64", 8), ("uint64", 8),
    ("float8_e4m3fn", 1), ("float8_e5m2", 1), ("float8_e4m3fnuz", 1), ("float8_e5m2fnuz", 1), ("float8_e8m0fnu", 1),
)  # fmt: skip


class DecodeError(ValueError):
    """A file that is not valid; `code` is one of section 11."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code


def check(condition: bool, code: str, message: str) -> None:
    """Reject the file with `code` unless `condition` holds."""
    if not condition:
        raise DecodeError(code, message)


def finite_f32(raw: bytes) -> bool:
    """Whether a binary32 is neither infinite nor NaN: its exponent is not all ones."""
    return int.from_bytes(raw, "little") >> 23 & 255 != 255


class Reader:
    """Section 1, "Notation": reads a string of bytes from beginning to end."""

    def __init__(self, data: bytes) -> None:
        self.data = bytes(data)
        self.at = 0

    def left(self) -> int:
        """Return the number of bytes left."""
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        check(count <= self.left(), "E03", "[N4] bytes end early")
        self.at += count
        return self.data[self.at - count : self.at]

    def uint(self, size: int) -> int:
        """Return an unsigned little-endian integer of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def u8(self) -> int:
        """Return one byte."""
        return self.uint(1)

    def varint(self, limit: int) -> int:
        """Return a varint of at most `limit`: seven bits a byte, low ones first."""
        value = 0
        for i in range(6):
            byte = self.u8()
            value |= (byte & 127) << 7 * i
            if byte < 128:
                check(byte != 0 or i == 0, "E08", "[N1] a varint longer than need be")
                check(value <= limit, "E06", "[N2] a number above its limit")
                return value
        raise DecodeError("E08", "[N1] a varint of more than six bytes")

    def text(self, limit: int) -> str:
        """Return a text of at most `limit` bytes."""
        raw = self.take(self.varint(limit))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise DecodeError("E08", "[N3] not UTF-8") from None

    def end(self, message: str) -> None:
        """Reject bytes that remain."""
        check(self.left() == 0, "E04", message)


@dataclass
class Entry:
    """Section 4: a tensor's entry in the tensor table."""

    name: str
    form: int
    dtype: str
    size: int
    shape: tuple[int, ...]
    scale: float
    stored: int
    codebook: int
    length: int
    begins_block: bool
    #: For a copy, the name of the original.
    original: str | None = None

    @property
    def rows(self) -> int:
        """Section 4: the first dimension; rank 0 is 1 x 1, and rank 1 in a sparse form a single row."""
        return 1 if len(self.shape) < (2 if self.form in (3, 4) else 1) else self.shape[0]

    @property
    def columns(self) -> int:
        """Section 4: the product of the other dimensions."""
        return prod(self.shape) if len(self.shape) < (2 if self.form in (3, 4) else 1) else prod(self.shape[1:])


@dataclass
class Tensor:
    """A decoded tensor.

    `values` are bit patterns of `size` bytes each: one for a constant, one for each element of a dense tensor, or one
    for each of the `positions` (row x columns + column, ascending) of a sparse tensor.
    """

    shape: tuple[int, ...]
    dtype: str
    size: int
    scale: float
    constant: bool
    positions: list[int] | None
    values: list[int]

    def dense(self) -> bytes:
        """Return all elements, row-major, little-endian."""
        elements = prod(self.shape)
        check(elements * self.size <= MAX_DENSE_BYTES, "E07", "a tensor too large for this decoder")
        values = self.values * elements if self.constant else self.values
        if self.positions is not None:
            values = [0] * elements
            for position, value in zip(self.positions, self.values, strict=True):
                values[position] = value
        return b"".join(value.to_bytes(self.size, "little") for value in values)

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of the dense bytes or, if they would be too many, of positions (u64) and values."""
        if prod(self.shape) * self.size <= MAX_DENSE_BYTES:
            return {"sha256": hashlib.sha256(self.dense()).hexdigest()}
        positions = self.positions or []
        raw = struct.pack(f"<{len(positions)}Q", *positions)
        raw += b"".join(value.to_bytes(self.size, "little") for value in self.values)
        return {"stored_sha256": hashlib.sha256(raw).hexdigest()}
