"""Value blocks: values without a codebook, in planes that are stored raw or coded (spec, "Value blocks")."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs import planes, rans
from dcformat.codecs.plane_tables import get_numbers
from dcformat.codecs.rangecoder import Decoder
from dcformat.cursor import Cursor
from dcformat.errors import EncodingError, IndexRangeError
from dcformat.model import STORAGE

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

RAW, CONSTANT, CODED = range(3)
#: The context that selects the table of a symbol: none, its place along an axis, or the byte above it in the highest
#: plane.
ALONE, BY_AXIS, BY_HIGHEST = range(3)
MAX_TABLES = 16
SYMBOLS = 256
NO_CLASSES = np.empty(0, np.uint8)


class Head(NamedTuple):
    """The description of a plane in a block, before the tables and the data.

    Attributes
    ----------
    kind : RAW, CONSTANT or CODED
    byte : int
        All bytes of a constant plane.
    context : ALONE, BY_AXIS or BY_HIGHEST
    tables : int
        Number of frequency tables.
    inner, lines : int
        With BY_AXIS, unit number i has place ``i // inner % lines``.
    words : int
        Number of 16-bit words of a coded plane, not counting its states.
    """

    kind: int
    byte: int = 0
    context: int = ALONE
    tables: int = 1
    inner: int = 1
    lines: int = 1
    words: int = 0

    @property
    def places(self) -> int:
        """The number of places for which a map names the table; 0 without a map."""
        if self.context == ALONE:
            return 0
        return self.lines if self.context == BY_AXIS else SYMBOLS


#: The head of a plane that is stored unchanged.
_RAW_HEAD = Head(RAW)


class ValueBlock(NamedTuple):
    """A value block whose heads have been read; they show how much work and memory the rest takes.

    Attributes
    ----------
    data : uint8 array
        All bytes of the block.
    number : int
        Number of values; an empty block has no heads.
    dtype : str
    heads : list of Head
    start : int
        Number of bytes of the heads.
    made : int
        Number of planes that are not stored unchanged.
    tables, most_tables : int
        Number of frequency tables of all planes, and the most that one of them has.
    places : int
        Number of places in all maps.
    """

    data: Bytes
    number: int
    dtype: str
    heads: list[Head]
    start: int
    made: int
    tables: int
    most_tables: int
    places: int

    @property
    def units(self) -> int:
        """The number of units, which have a byte in each plane."""
        return planes.units_of(self.dtype)[0] * self.number


class Tables(NamedTuple):
    """A coded plane's map from places to tables, and its tables of frequencies, int64 ``(tables, 256)``."""

    chosen: Bytes
    frequencies: npt.NDArray[np.int64]


def parse_block(data: Bytes, count: int, dtype: str, field: str) -> ValueBlock:
    """Read the heads of a block of `count` values; decode nothing.

    Raises
    ------
    FormatError
        A head is damaged.
    """
    cursor = Cursor(data)
    if not count:
        cursor.finish(field)
        return ValueBlock(data, 0, dtype, [], 0, 0, 0, 0, 0)
    each, size = planes.units_of(dtype)
    heads = []
    made = tables = most_tables = places = 0
    for number in range(size):
        head = _read_head(cursor, number, each * count, field)
        heads.append(head)
        made += head.kind != RAW
        if head.kind == CODED:
            tables, most_tables, places = tables + head.tables, max(most_tables, head.tables), places + head.places
    return ValueBlock(data, count, dtype, heads, cursor.offset, made, tables, most_tables, places)


def read_block(block: ValueBlock, field: str, out: Array | None = None) -> Array:
    """Return the values of a block, in `out` if it is given.

    Raises
    ------
    FormatError
        The block is damaged.
    """
    if out is None:
        out = np.empty(block.number, STORAGE[block.dtype])
    if not block.number:
        return out
    units, cursor = block.units, Cursor(block.data)
    cursor.offset = block.start
    tables = read_tables(cursor, block.heads, field)
    found: list[Bytes | int] = []
    for head, table in zip(block.heads, tables, strict=True):
        classes = NO_CLASSES if table is None else _classes(head, table, units, found[0] if found else 0, field)
        found.append(read_plane(cursor, head, table, units, classes, field))
    cursor.finish(field)
    planes.join(found, block.dtype, out)
    require_bools(out, block.dtype, field)
    return out


def require_bools(values: Array, dtype: str, field: str) -> None:
    """Raise unless the bytes of bools are 0 or 1."""
    if dtype == "bool" and len(values) and int(values.view(np.uint8).max()) > 1:
        raise EncodingError(field, got=int(values.view(np.uint8).max()), expected="0 or 1 for each bool")


def _read_head(cursor: Cursor, number: int, units: int, field: str) -> Head:
    byte = cursor.u8(field)
    if byte == RAW:
        return _RAW_HEAD
    if byte == CONSTANT:
        return Head(CONSTANT, byte=cursor.u8(field))
    kind, context, tables = byte & 3, byte >> 2 & 3, (byte >> 4) + 1
    if kind != CODED or context > BY_HIGHEST or (context == ALONE) != (tables == 1):
        raise EncodingError(f"plane of {field}", got=f"0x{byte:02x}", expected="a kind and context of a plane")
    if context == BY_HIGHEST and not number:
        raise EncodingError(f"plane of {field}", got=f"0x{byte:02x}", expected="no context of the plane itself")
    inner = lines = 1
    if context == BY_AXIS:
        inner, lines = cursor.varint(f"inner size of {field}", units), cursor.varint(f"axis of {field}", units)
        require_axis(inner, lines, units, field)
    return Head(kind, 0, context, tables, inner, lines, cursor.varint(f"words of {field}", units))


def read_tables(cursor: Cursor, heads: list[Head], field: str) -> list[Tables | None]:
    """Read the maps and the tables of all planes, which share a range coder stream; None for a plane without any."""
    if all(head.kind != CODED for head in heads):
        return [None] * len(heads)
    decoder = Decoder(cursor.array(cursor.varint(f"tables of {field}", layout.MAX_PAYLOAD_BYTES), field))
    out: list[Tables | None] = []
    for head in heads:
        if head.kind != CODED:
            out.append(None)
            continue
        chosen = NO_CLASSES
        if head.context != ALONE:
            numbers = get_numbers(decoder, head.places, f"map of {field}", frequencies=False)
            if int(numbers.max()) >= head.tables:
                raise IndexRangeError(f"map of {field}", got=int(numbers.max()), expected=f"below {head.tables}")
            chosen = numbers.astype(np.uint8)
        numbers = get_numbers(decoder, head.tables * SYMBOLS, f"frequencies of {field}", frequencies=True)
        frequencies = numbers.reshape(head.tables, SYMBOLS)
        for total in np.add.reduce(frequencies, 1).tolist():
            if total != rans.TOTAL:
                raise EncodingError(f"frequencies of {field}", got=f"a sum of {total}", expected=f"{rans.TOTAL}")
        out.append(Tables(chosen, frequencies))
    decoder.finish()
    return out


def read_plane(
    cursor: Cursor, head: Head, tables: Tables | None, units: int, classes: Bytes, field: str
) -> Bytes | int:
    """Read a plane's data, given the table of each unit (none if there is only one); an integer if all are equal."""
    if head.kind == CONSTANT:
        return head.byte
    if head.kind == RAW or tables is None:
        return cursor.array(units, field)
    size = rans.STATE_BYTES * rans.states_for(units) + 2 * head.words
    return rans.decode(cursor.array(size, field), units, tables.frequencies, classes, field)


def _classes(head: Head, tables: Tables, units: int, highest: Bytes | int, field: str) -> Bytes:
    if isinstance(highest, int) and head.context == BY_HIGHEST:
        raise EncodingError(f"plane of {field}", got="a constant highest plane", expected="one to choose tables by")
    return classes_of(head, tables.chosen, units, highest)


def classes_of(head: Head, chosen: Bytes, units: int, highest: Bytes | int) -> Bytes:
    """Return the table of each unit; an empty array if there is only one table."""
    if head.context == ALONE:
        return NO_CLASSES
    if head.context == BY_HIGHEST:
        return chosen[highest]
    return np.tile(np.repeat(chosen, head.inner), units // (head.inner * head.lines))


def require_axis(inner: int, lines: int, count: int, field: str) -> None:
    """Raise unless `lines` places of `inner` elements each divide `count` elements evenly."""
    if not inner or not lines or not count or count % (inner * lines):
        raise EncodingError(f"axis of {field}", got=f"{lines} x {inner}", expected=f"a divisor of {count}")
