"""Differences: strings of bytes that make a tensor from another one, its origin (spec, "Differences")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs import planes
from dcformat.codecs.value_blocks import (
    ALONE,
    BY_AXIS,
    CODED,
    CONSTANT,
    NO_CLASSES,
    RAW,
    Bytes,
    Head,
    Tables,
    parse_block,
    read_block,
    read_plane,
    read_tables,
)
from dcformat.cursor import Cursor
from dcformat.errors import EncodingError, IndexRangeError, StreamError
from dcformat.floats import bit_patterns
from dcformat.limits import require_work
from dcformat.model import STORAGE

Array = npt.NDArray[Any]
Units = npt.NDArray[np.uint64]

#: Number of units in a piece; the last one holds those that are left.
PIECE_UNITS = 1 << 20
#: A context that value blocks do not have: the highest byte of the prediction.
BY_PREDICTION = 3
MAX_INNER, MAX_LINES = layout.MAX_ELEMENTS, 1 << 20
#: What becomes of a unit.
KEPT, CLEARED, STEPPED = range(3)
#: Sizes below this number are steps; larger ones give a step's highest bits.
SMALL_SIZES = 8
#: The dtypes whose bit patterns are ordered as sign and magnitude.
_ORDERED = ("float32", "float16", "bfloat16", "float64", "complex64")
#: Bytes of memory for each unit of a piece, and steps of work for each unit and for each table.
PIECE_BYTES = 80 * PIECE_UNITS
_UNIT_STEPS, _TABLE_STEPS = 60, 1 << 16


class Places(NamedTuple):
    """The properties that decide on the table of each unit of a piece.

    Attributes
    ----------
    first : int
        Number of the piece's first unit in its tensor.
    highest : uint8 ``(units,)``
        The highest byte of each unit's prediction.
    """

    first: int
    highest: Bytes

    def chosen(self, head: Head) -> npt.NDArray[np.int64] | Bytes:
        """Return each unit's place in a plane's map."""
        if head.context == BY_PREDICTION:
            return self.highest
        return (self.first + np.arange(len(self.highest))) // head.inner % head.lines


def apply_difference(data: Bytes, origin: Array, dtype: str, field: str, max_work: int | None = None) -> Array:
    """Return the new tensor's elements, 1-D, given those of its origin in ``STORAGE[dtype]``.

    Raises
    ------
    FormatError
        The difference is damaged, or takes more than `max_work` steps.
    """
    require_work(field, _UNIT_STEPS * len(origin) * planes.units_of(dtype)[0] + _TABLE_STEPS * 16, max_work)
    cursor = Cursor(data)
    flags = cursor.u8(field)
    if flags > 1:
        raise EncodingError(f"flags of {field}", got=flags, expected="0 or 1")
    predicted = np.ascontiguousarray(origin)
    if flags and len(origin):
        predicted = _by_table(cursor, predicted, dtype, field)
    units = as_units(predicted, dtype)
    out = np.empty_like(units)
    for first in range(0, len(units), PIECE_UNITS):
        piece = slice(first, first + PIECE_UNITS)
        block = cursor.array(cursor.varint(f"piece of {field}", layout.MAX_PAYLOAD_BYTES), field)
        out[piece] = _read_piece(Cursor(block), units[piece], first, dtype, field)
    cursor.finish(field)
    return out.view(STORAGE[dtype])


def _by_table(cursor: Cursor, origin: Array, dtype: str, field: str) -> Array:
    """Return the value that the table gives for each element."""
    patterns = bit_patterns(origin)
    known = np.sort(patterns)
    known = known[np.append(True, known[1:] != known[:-1])]
    block = cursor.array(cursor.varint(f"table of {field}", layout.MAX_PAYLOAD_BYTES), field)
    table = read_block(parse_block(block, len(known), dtype, f"table of {field}"), f"table of {field}")
    out = np.empty_like(origin)
    # Piece by piece, because the places of all elements would take more memory than they do.
    for piece in pieces(len(origin)):
        out[piece] = table[np.searchsorted(known, patterns[piece])]
    return out


def as_units(values: Array, dtype: str) -> Array:
    """View values as the units in which they change."""
    return values.view(f"<u{planes.units_of(dtype)[1]}")


def highest_bytes(units: Array, dtype: str) -> Bytes:
    """Return the highest byte of each unit, in the form in which planes hold it."""
    return planes.split(units, dtype)[0]


def ordered(units: Array, dtype: str) -> Array:
    """Return units as unsigned integers in the order of their numbers; `unordered` undoes it."""
    if dtype not in _ORDERED:
        return units
    top = units.dtype.type(1 << (8 * units.itemsize - 1))
    return np.where(units < top, units + top, ~units)


def unordered(order: Array, dtype: str) -> Array:
    """Return the units that `ordered` was given."""
    if dtype not in _ORDERED:
        return order
    top = order.dtype.type(1 << (8 * order.itemsize - 1))
    return np.where(order >= top, order - top, ~order)


def rest_bits(sizes: Bytes) -> npt.NDArray[np.int64]:
    """Return the number of bits of each step that its size leaves open."""
    return np.maximum((sizes.astype(np.int64) + SMALL_SIZES) // 4 - 3, 0)


def max_size(width: int) -> int:
    """Return the greatest size of a step in units of `width` bits."""
    return 4 * width - 5


def _read_piece(cursor: Cursor, predicted: Array, first: int, dtype: str, field: str) -> Array:
    count = len(predicted)
    stepped = cursor.varint(f"changed units of {field}", count)
    counts = [count, stepped] if stepped else [count]
    heads = [_read_head(cursor, units, field) for units in counts]
    tables = read_tables(cursor, heads, field)
    places = Places(first, highest_bytes(predicted, dtype))
    marks = _plane(cursor, heads[0], tables[0], places, None, count, field)
    if int(marks.max()) > STEPPED:
        raise IndexRangeError(f"marks of {field}", got=int(marks.max()), expected=f"at most {STEPPED}")
    there = np.flatnonzero(marks == STEPPED)
    if len(there) != stepped:
        raise IndexRangeError(f"changed units of {field}", got=len(there), expected=stepped)
    out = np.where(marks == CLEARED, predicted.dtype.type(0), predicted)
    if stepped:
        sizes = _plane(cursor, heads[1], tables[1], places, there, stepped, field)
        out[there] = _stepped(cursor, predicted[there], sizes, dtype, field)
    cursor.finish(field)
    return out


def _read_head(cursor: Cursor, units: int, field: str) -> Head:
    byte = cursor.u8(field)
    kind, context, tables = byte & 3, byte >> 2 & 3, (byte >> 4) + 1
    valid = kind == CODED and context in (ALONE, BY_AXIS, BY_PREDICTION) and (context == ALONE) == (tables == 1)
    if not valid and byte not in (RAW, CONSTANT):
        raise EncodingError(f"plane of {field}", got=f"0x{byte:02x}", expected="a kind and context of a plane")
    if kind != CODED:
        return Head(kind, byte=cursor.u8(field) if kind == CONSTANT else 0)
    inner = lines = 1
    if context == BY_AXIS:
        inner, lines = cursor.varint(f"inner size of {field}", MAX_INNER), cursor.varint(f"axis of {field}", MAX_LINES)
        if not inner or not lines:
            raise EncodingError(f"axis of {field}", got=f"{lines} x {inner}", expected="both above 0")
    return Head(kind, 0, context, tables, inner, lines, cursor.varint(f"words of {field}", units))


def _plane(
    cursor: Cursor, head: Head, tables: Tables | None, places: Places, only: Array | None, count: int, field: str
) -> Bytes:
    """Read a plane of all units, or of those whose numbers are in `only`."""
    classes = NO_CLASSES
    if tables is not None and head.context != ALONE:
        chosen = places.chosen(head)
        classes = tables.chosen[chosen if only is None else chosen[only]]
    found = read_plane(cursor, head, tables, count, classes, field)
    return np.full(count, found, np.uint8) if isinstance(found, int) else found


def _stepped(cursor: Cursor, predicted: Array, sizes: Bytes, dtype: str, field: str) -> Array:
    """Return predictions plus their steps."""
    width = 8 * predicted.itemsize
    if int(sizes.max()) > max_size(width):
        raise IndexRangeError(f"size of a step of {field}", got=int(sizes.max()), expected=f"at most {max_size(width)}")
    bits = rest_bits(sizes)
    values = _read_rests(cursor, bits, field)
    large = sizes >= SMALL_SIZES
    values += np.where(large, (4 + (sizes & 3).astype(np.uint64)) << bits.astype(np.uint64), sizes)
    if (values >= np.uint64((1 << width) - 1)).any():
        raise IndexRangeError(f"step of {field}", got=int(values.max()), expected=f"below 2^{width} - 1")
    zigzag = (values + np.uint64(1)).astype(predicted.dtype)
    step = zigzag >> 1 ^ (0 - (zigzag & 1))
    return unordered(ordered(predicted, dtype) + step, dtype)


def _read_rests(cursor: Cursor, bits: npt.NDArray[np.int64], field: str) -> Units:
    """Return the next fields, whose widths are `bits`, at most 61 each."""
    ends = np.cumsum(bits)
    total = int(ends[-1])
    data = cursor.array(-(-total // 8), f"steps of {field}")
    if total % 8 and data[-1] >> total % 8:
        raise StreamError(f"steps of {field}", got="bits after the last step", expected="zeros")
    padded = np.zeros(len(data) + 16, np.uint8)
    padded[: len(data)] = data
    starts = ends - bits
    # Each field lies in the eight bytes from its first one on, and at most seven bits of it in the byte after them.
    windows = np.ndarray(len(padded) - 7, "<u8", padded, strides=(1,))
    shift = (starts & 7).astype(np.uint64)
    low = windows[starts >> 3] >> shift
    beyond = np.where(
        shift > 0, padded[(starts >> 3) + 8].astype(np.uint64) << (np.uint64(64) - shift) % np.uint64(64), 0
    )
    mask = (np.uint64(1) << bits.astype(np.uint64)) - np.uint64(1)
    fields: Units = (low | beyond) & mask
    return fields


def pieces(count: int) -> Iterator[slice]:
    """Yield the pieces of `count` units."""
    for first in range(0, count, PIECE_UNITS):
        yield slice(first, min(first + PIECE_UNITS, count))
