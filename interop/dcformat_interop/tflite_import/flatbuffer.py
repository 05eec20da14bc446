"""A reader of flatbuffers that proves every offset and length to be in range before it uses it.

A flatbuffer consists of tables, vectors, and strings, which refer to each other by offsets. All offsets lead forwards,
except that from a table to its vtable, so there are no cycles; but tables may be shared, so the bytes that are read are
counted too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat_interop.refusals import UnfitError

Array = npt.NDArray[Any]

#: Maximum number of times that a byte is read on average: writers share vtables and strings, but little else.
_SHARING = 4
_SLACK = 1 << 12

_U16, _U32, _I32 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<i")


class Flatbuffer:
    """The bytes of a file.

    Parameters
    ----------
    path : str
        The file, for errors.
    data : bytes
    """

    def __init__(self, path: str, data: bytes) -> None:
        self.path, self.data = path, data
        self._left = _SHARING * len(data) + _SLACK

    def root(self) -> Table:
        """Return the table that holds all others. Raises `UnfitError`, as all methods do."""
        return Table(self, self.target(0, "model"), "model")

    def unpack(self, form: struct.Struct, position: int, what: str) -> Any:
        """Return a number at a position."""
        if position < 0:
            raise self.refused(what, "an offset within the file", f"one to {-position:,} bytes before it")
        self.require(position + form.size, what)
        return form.unpack_from(self.data, position)[0]

    def target(self, position: int, what: str) -> int:
        """Return the position to which the offset at a position leads."""
        offset = self.unpack(_U32, position, what)
        if offset < _U32.size:
            raise self.refused(what, f"an offset of at least {_U32.size} at byte {position:,}", f"{offset:,}")
        self.require(position + offset + 1, what)
        return position + int(offset)

    def vector(self, position: int, item: int, what: str) -> tuple[int, int]:
        """Return the first byte and the length of a vector whose elements have `item` bytes."""
        length, start = self.unpack(_U32, position, what), position + _U32.size
        self.require(start + length * item, what)
        return start, length

    def require(self, size: int, what: str) -> None:
        """Raise `UnfitError` if the file has fewer than `size` bytes, to which a part of it reaches."""
        if size > len(self.data):
            raise self.refused(
                f"truncated or damaged: {what}", f"a file of at least {size:,} bytes", f"{len(self.data):,}"
            )

    def count(self, size: int, what: str) -> None:
        """Count the bytes that are read: a file that repeats a part very often would otherwise take very long."""
        self._left -= size
        if self._left < 0:
            raise self.refused(what, "tables and vectors that share few bytes", "some that share very many")

    def refused(self, what: str, expected: str, found: str) -> UnfitError:
        """Return the error for a part of the file."""
        return UnfitError(self.path, expected, found, what)


class Table:
    """A table; each of its fields may be absent.

    Parameters
    ----------
    buffer : Flatbuffer
    position : int
    what : str
        The table's name in errors.
    """

    def __init__(self, buffer: Flatbuffer, position: int, what: str) -> None:
        self.buffer, self.what, self._position = buffer, what, position
        self._vtable = position - buffer.unpack(_I32, position, what)
        self._fields_end = buffer.unpack(_U16, self._vtable, what)
        self._size = buffer.unpack(_U16, self._vtable + 2, what)
        buffer.unpack(struct.Struct(f"{max(self._fields_end, 4)}x0s"), self._vtable, what)
        buffer.unpack(struct.Struct(f"{max(self._size, 4)}x0s"), position, what)
        if self._fields_end < 4 or self._fields_end % 2 or self._size < 4:
            found = f"{self._fields_end} and {self._size}"
            raise buffer.refused(what, "a vtable and a table of at least 4 bytes", found)
        buffer.count(_I32.size, what)

    def place(self, field: int, size: int) -> int | None:
        """Return the position of a field of `size` bytes, or None if it is absent."""
        entry = 4 + 2 * field
        if entry + 2 > self._fields_end:
            return None
        offset = self.buffer.unpack(_U16, self._vtable + entry, self.what)
        if offset == 0:
            return None
        if not 4 <= offset <= self._size - size:
            expected = f"field {field} at byte 4 to {self._size - size} of the table"
            raise self.buffer.refused(self.what, expected, f"byte {offset}")
        return self._position + int(offset)

    def last_field(self) -> int:
        """Return the number of the last field that is there, or -1."""
        for field in reversed(range((self._fields_end - 4) // 2)):
            if self.place(field, 1) is not None:
                return field
        return -1

    def number(self, field: int, form: str, default: Any = 0) -> Any:
        """Return a number; `form` is its format as `struct` has it."""
        packed = struct.Struct(f"<{form}")
        place = self.place(field, packed.size)
        return default if place is None else self.buffer.unpack(packed, place, self.what)

    def table(self, field: int, what: str = "") -> Table | None:
        """Return a table, or None if it is absent; `what` is its name in errors."""
        place = self.place(field, 4)
        what = what or self.what
        return None if place is None else Table(self.buffer, self.buffer.target(place, what), what)

    def tables(self, field: int, what: str) -> Iterator[Table]:
        """Yield the tables of a vector; `what` is the name of each in errors, before its number."""
        place = self.place(field, 4)
        if place is None:
            return
        start, length = self.buffer.vector(self.buffer.target(place, self.what), 4, f"{what}s")
        for number in range(length):
            named = f"{what} {number}"
            yield Table(self.buffer, self.buffer.target(start + 4 * number, named), named)

    def array(self, field: int, dtype: str) -> Array | None:
        """Return a vector of numbers, or None if it is absent; it shares its memory with the file."""
        place = self.place(field, 4)
        if place is None:
            return None
        item = np.dtype(dtype).newbyteorder("<")
        start, length = self.buffer.vector(self.buffer.target(place, self.what), item.itemsize, self.what)
        return np.frombuffer(self.buffer.data, item, length, start)

    def integers(self, field: int, dtype: str = "i4") -> tuple[int, ...]:
        """Return a short vector of whole numbers, which is empty if it is absent."""
        found = self.array(field, dtype)
        if found is None:
            return ()
        self.buffer.count(found.nbytes, self.what)
        return tuple(found.tolist())

    def text(self, field: int) -> str:
        """Return a string, which is empty if it is absent."""
        found = self.array(field, "u1")
        if found is None:
            return ""
        self.buffer.count(len(found), self.what)
        return found.tobytes().decode(errors="replace")
