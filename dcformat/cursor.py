"""Bounded reading and writing of plain fields: bytes, numbers, canonical varints, text (spec, "Notation")."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from dcformat.errors import EncodingError, LimitError, TrailingDataError, TruncatedError
from dcformat.wording import counted

Buffer = bytes | bytearray | memoryview | npt.NDArray[np.uint8]

#: A varint holds at most 42 bits: more than any count in a tensor of 2^40 elements.
VARINT_BYTES = 6


def varint(value: int) -> bytes:
    """Return `value` as LEB128: seven bits a byte, low bits first, with the high bit set in all bytes but the last."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def text(value: str) -> bytes:
    """Return the text's UTF-8 form, preceded by its length as a varint."""
    raw = value.encode()
    return varint(len(raw)) + raw


def check_text(what: str, value: str, max_bytes: int, min_bytes: int = 0) -> None:
    """Raise unless UTF-8 can hold a text, in `min_bytes` to `max_bytes` bytes."""
    try:
        length = len(value.encode())
    except UnicodeEncodeError:
        raise EncodingError(what, got=repr(value), expected="text that UTF-8 can hold") from None
    if not min_bytes <= length <= max_bytes:
        raise LimitError(what, got=f"{length} bytes", expected=f"{min_bytes} to {max_bytes}")


class Cursor:
    """A position in a byte string; every read is checked against the bytes that are left.

    Parameters
    ----------
    data : bytes-like
    base : int
        Offset of `data` in the file, for messages.
    """

    def __init__(self, data: Buffer, base: int = 0) -> None:
        self.data = memoryview(data).cast("B")  # type: ignore[arg-type]  # NumPy arrays are buffers
        self.offset = 0
        self.base = base

    @property
    def left(self) -> int:
        """Number of bytes not yet read."""
        return len(self.data) - self.offset

    def take(self, count: int, field: str) -> memoryview:
        """Return the next `count` bytes."""
        start = self.offset
        end = start + count
        if end > len(self.data):
            raise TruncatedError(
                field, got=counted(self.left, "byte"), expected=counted(count, "byte"), offset=self.base + start
            )
        self.offset = end
        return self.data[start:end]

    def finish(self, field: str) -> None:
        """Raise unless every byte was read."""
        if self.left:
            raise TrailingDataError(field, got=f"{counted(self.left, 'byte')} more", offset=self.base + self.offset)

    def text(self, field: str, max_bytes: int, min_bytes: int = 0) -> str:
        """Return UTF-8 text of `min_bytes` to `max_bytes` bytes."""
        length = self.varint(f"length of {field}", max_bytes)
        start = self.base + self.offset
        raw = self.take(length, field)
        if length < min_bytes:
            raise EncodingError(field, got="no text", expected=f"at least {counted(min_bytes, 'byte')}", offset=start)
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError:
            raise EncodingError(field, got="invalid bytes", expected="UTF-8 text", offset=start) from None

    def array(self, count: int, field: str) -> npt.NDArray[np.uint8]:
        """Return the next `count` bytes as uint8, without a copy."""
        return np.frombuffer(self.take(count, field), np.uint8)

    def u8(self, field: str) -> int:
        """Return the next byte."""
        at = self.offset
        if at < len(self.data):
            self.offset = at + 1
            return self.data[at]
        return self.take(1, field)[0]  # raises

    def f32(self, field: str) -> float:
        """Return the next four bytes as a finite float32."""
        start = self.base + self.offset
        (value,) = struct.unpack("<f", self.take(4, field))
        if not np.isfinite(value):
            raise EncodingError(field, got=value, expected="a finite number", offset=start)
        return float(value)

    def varint(self, field: str, limit: int) -> int:
        """Read a canonical varint, at most `limit`."""
        start = self.base + self.offset
        byte = self.u8(field)
        value, shift = byte & 127, 7
        while byte > 127:
            if shift == 7 * VARINT_BYTES:
                raise EncodingError(field, got=f"a varint over {VARINT_BYTES} bytes", offset=start)
            byte = self.u8(field)
            value |= (byte & 127) << shift
            shift += 7
        if shift > 7 and not byte:
            raise EncodingError(field, got="an overlong varint", expected="the shortest form", offset=start)
        if value > limit:
            raise LimitError(field, got=value, expected=f"at most {limit}", offset=start)
        return value
