"""Bounded reading and writing of a section's plain fields: bytes, little-endian numbers, canonical varints."""

from __future__ import annotations

import struct
from collections.abc import Buffer

import numpy as np
import numpy.typing as npt

from dcformat.errors import EncodingError, LimitError, TruncatedError

#: A varint holds at most 42 bits: more than any count in a tensor of 2^40 elements.
VARINT_BYTES = 6


def varint(value: int) -> bytes:
    """Return `value` as LEB128: seven bits a byte, low ones first, the high bit set on all but the last."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class Section:
    """A cursor over one section's bytes; every read is checked against what is left."""

    def __init__(self, data: Buffer) -> None:
        self.data = memoryview(data).cast("B")
        self.offset = 0

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return len(self.data) - self.offset

    def take(self, count: int, field: str) -> memoryview:
        """Return the next `count` bytes."""
        if count > self.left:
            raise TruncatedError(field, got=f"{self.left} bytes", expected=f"{count} bytes", offset=self.offset)
        self.offset += count
        return self.data[self.offset - count : self.offset]

    def array(self, count: int, field: str) -> npt.NDArray[np.uint8]:
        """Return the next `count` bytes as uint8, without a copy."""
        return np.frombuffer(self.take(count, field), np.uint8)

    def u8(self, field: str) -> int:
        """Return the next byte."""
        return self.take(1, field)[0]

    def f32(self, field: str) -> float:
        """Return the next four bytes as a finite float32."""
        start = self.offset
        (value,) = struct.unpack("<f", self.take(4, field))
        if not np.isfinite(value):
            raise EncodingError(field, got=value, expected="a finite number", offset=start)
        return float(value)

    def varint(self, field: str, most: int) -> int:
        """Return a canonical varint of at most `most`."""
        start, value = self.offset, 0
        for index in range(VARINT_BYTES):
            byte = self.u8(field)
            value |= (byte & 127) << 7 * index
            if byte < 128:
                if index and not byte:
                    raise EncodingError(field, got="an overlong varint", expected="the shortest form", offset=start)
                if value > most:
                    raise LimitError(field, got=value, expected=f"at most {most}", offset=start)
                return value
        raise EncodingError(field, got=f"a varint over {VARINT_BYTES} bytes", offset=start)
