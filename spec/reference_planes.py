"""Sections 6.4 and 6.5 of `dcformat.md`, and section 8 of `coders.md`: value blocks, and the tables of coder 5."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from struct import unpack

from reference_coders import RangeDecoder, fresh, multiply
from reference_reader import Entry, Reader, check

RAW, CONSTANT, CODED = range(3)
ALONE, BY_AXIS, BY_PLANE_0 = range(3)
ROTATED = ("float32", "float16", "bfloat16", "float64", "complex64")
FOLDED = ("int16", "int32", "int64")
MAX_PAYLOAD = 1 << 41
#: This decoder's own limit, because it is for small files.
MAX_VALUES = 1 << 22


@dataclass
class Plane:
    """Section 6.4: a plane head, and its additions in the range coder stream."""

    kind: int
    context: int
    tables: int
    #: Of a constant plane, its byte; of a coded one, its axis in context 1, and its number of words.
    byte: int | None = None
    inner: int | None = None
    lines: int | None = None
    words: int | None = None
    map: Sequence[int] = ()
    frequencies: Sequence[Sequence[int]] = ()


def value_block(data: bytes, dtype: str, size: int, count: int) -> list[int]:
    """Section 6.4: `count` values of `size` bytes, as bit patterns."""
    reader = Reader(data)
    units, width = (2 * count, size // 2) if dtype == "complex64" else (count, size)
    if count == 0:
        reader.end("[N5] bytes in a block of no values")
        return []
    check(count <= MAX_VALUES, "E07", "[T11] more values than this decoder has memory for")
    heads: list[Plane] = []
    for number in range(width):
        heads.append(plane_head(reader, units, heads[0] if number else None))
    read_all_tables(reader, heads)
    planes: list[Sequence[int]] = []
    for head in heads:
        planes.append(read_plane(reader, head, units, planes[0] if planes else ()))
    reader.end("[N5] bytes left in a value block")
    found = [unchanged(int.from_bytes(parts), dtype, 8 * width) for parts in zip(*planes, strict=True)]
    if dtype == "complex64":
        return [real | imaginary << 32 for real, imaginary in zip(found[::2], found[1::2], strict=True)]
    return found


def plane_head(reader: Reader, units: int, first: Plane | None) -> Plane:
    """Section 6.4: one plane head; `first` is that of plane 0, or None if this is plane 0."""
    byte = reader.u8()
    head = Plane(byte & 3, byte >> 2 & 3, (byte >> 4) + 1)
    check(head.kind <= CODED and head.context <= BY_PLANE_0, "E08", "[V1] an unknown kind or context of a plane")
    if head.kind != CODED:
        check(byte == head.kind, "E08", "[V1] bits of a plane that is not coded")
        if head.kind == CONSTANT:
            head.byte = reader.u8()
        return head
    check((head.context == ALONE) == (head.tables == 1), "E08", "[V1] a number of tables that the context has not")
    if head.context == BY_PLANE_0:
        check(first is not None and first.kind != CONSTANT, "E08", "[V1] no plane 0 to choose tables by")
    if head.context == BY_AXIS:
        head.inner, head.lines = reader.varint(units), reader.varint(units)
        divisor = head.inner * head.lines
        check(divisor > 0 and units % divisor == 0, "E08", "[V2] an axis that does not divide the units")
    head.words = reader.varint(units)
    return head


def read_all_tables(reader: Reader, heads: Sequence[Plane]) -> None:
    """Section 8.1 of coders.md: one stream with the tables of all coded planes, if there are any."""
    coded = [head for head in heads if head.kind == CODED]
    if coded:
        coder = RangeDecoder(reader.take(reader.varint(MAX_PAYLOAD)))
        for head in coded:
            read_tables(coder, head)
        coder.end()


def read_tables(coder: RangeDecoder, head: Plane) -> None:
    """Section 8.1 of coders.md: the map and the frequencies of a coded plane."""
    if head.context != ALONE:
        models, last, chosen = fresh(256), 0, []
        for _ in range(head.lines if head.context == BY_AXIS else 256):
            last = coder.tree(models, 16 * last, 4, 30)
            check(last < head.tables, "E14", "[A19] a number of a table beyond the last")
            chosen.append(last)
        head.map = chosen
    models, before, tables = fresh(256), 0, []
    for _ in range(head.tables):
        frequencies = []
        for _ in range(256):
            before = coder.tree(models, 16 * min(before, 2), 4, 30)
            frequencies.append((1 << before - 1) + coder.direct(before - 1) if before else 0)
        check(sum(frequencies) == 4096, "E08", "[A16] frequencies that do not add up to 4,096")
        tables.append(frequencies)
    head.frequencies = tables


def read_plane(reader: Reader, head: Plane, units: int, first: Sequence[int]) -> Sequence[int]:
    """Section 6.4: the bytes of a plane."""
    if head.kind == CONSTANT:
        return [head.byte] * units
    if head.kind == RAW:
        return reader.take(units)
    tables: Sequence[int] = bytes(units)  # zeros: the only table
    if head.context == BY_AXIS:
        tables = [head.map[i // head.inner % head.lines] for i in range(units)]
    elif head.context == BY_PLANE_0:
        tables = [head.map[byte] for byte in first]
    return rans_plane(reader, head, tables)


def rans_plane(reader: Reader, head: Plane, tables: Sequence[int]) -> list[int]:
    """Section 8.2 of coders.md: the data of a coded plane, given the table of each unit."""
    lanes = 1 << min(max(len(tables).bit_length() - 13, 0), 7)
    states = list(unpack(f"<{lanes}I", reader.take(4 * lanes)))
    words = iter(unpack(f"<{head.words}H", reader.take(2 * head.words)))
    return rans(states, words, tables, head.frequencies)


def rans(
    states: list[int], words: Iterator[int], tables: Sequence[int], frequencies: Sequence[Sequence[int]]
) -> list[int]:
    """Section 8.2 of coders.md: the symbols of a plane."""
    check(min(states) >= 1 << 16, "E13", "[A17] a state below 2^16")
    slots = [[(s, place, f) for s, f in enumerate(row) for place in range(f)] for row in frequencies]
    out = []
    for i, table in enumerate(tables):
        state = states[i % len(states)]
        symbol, place, frequency = slots[table][state % 4096]
        state = frequency * (state >> 12) + place
        if state < 1 << 16:
            word = next(words, None)
            check(word is not None, "E13", "[A18] words that end early")
            state = state << 16 | word
        states[i % len(states)] = state
        out.append(symbol)
    check(next(words, None) is None, "E13", "[A18] words that are left over")
    check(set(states) == {1 << 16}, "E13", "[A18] a state at the end")
    return out


def unchanged(u: int, dtype: str, bits: int) -> int:
    """Section 6.4, "Units": undo the change."""
    if dtype in ROTATED:
        return u >> 1 | (u & 1) << bits - 1
    if dtype in FOLDED:
        return u >> 1 ^ ((1 << bits) - 1 if u & 1 else 0)
    return u


# -------------------------------------------------------------------------------------------- 6.5 Tables by place


@dataclass
class Tables:
    """Section 6.5: the part before the codes."""

    kind: int
    inner: int
    lines: int
    size: int
    values: list[int]
    zeros: list[int]
    codebook: int

    def element(self, position: int, code: int, entry: Entry) -> int:
        """Return the bit pattern of the element at a position, given the eight bits of its code."""
        place = position // self.inner % self.lines
        if self.kind == 1:
            return multiply(self.values[place], signed(code, 8) - signed(self.zeros[place], 16))
        number = code - (entry.form == 3)
        check(number < self.size, "E14", "[V7] a code beyond its codebook")
        return self.values[place * self.size + number]


def signed(pattern: int, bits: int) -> int:
    """Return an integer in two's complement."""
    return pattern - (1 << bits) if pattern >> bits - 1 else pattern


def read_tables_by_place(reader: Reader, entry: Entry) -> Tables:
    """Section 6.5, items 1 to 6."""
    kind = reader.u8()
    check(kind == 0 or (kind == 1 and entry.dtype == "float32"), "E08", "[V3] an unknown kind of tables")
    inner, lines = reader.varint(1 << 40), reader.varint(1 << 40)
    elements = prod(entry.shape)
    good = inner * lines > 0 and elements > 0 and elements % (inner * lines) == 0
    check(good, "E08", "[V4] an axis that does not divide the elements")
    size = reader.varint(256) if kind == 0 else 1
    check(size > 0, "E08", "[V5] codebooks of no values")
    values = value_block(reader.take(reader.varint(MAX_PAYLOAD)), entry.dtype, entry.size, lines * size)
    zeros: list[int] = []
    if kind == 1:
        zeros = value_block(reader.take(reader.varint(MAX_PAYLOAD)), "int16", 2, lines)
        good = all(0 < value < 0x7F800000 for value in values)
        check(good, "E08", "[V8] a scale that is not finite and above 0")
    return Tables(kind, inner, lines, size, values, zeros, reader.varint(256))
