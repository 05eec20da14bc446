"""Section 15 of `dcformat.md`: deltas, and the differences in them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from reference_planes import (
    ALONE,
    BY_AXIS,
    CODED,
    CONSTANT,
    FOLDED,
    MAX_PAYLOAD,
    RAW,
    ROTATED,
    Plane,
    rans_plane,
    read_all_tables,
    value_block,
)
from reference_reader import Entry, Reader, Tensor, check, finite_f32

MAX_TENSORS = 1 << 16
MAX_NAME = 255
MAX_CONTENTS = 1 << 24
MAX_SECTIONS = 1 << 8
KEPT, NEW, CHANGED = range(3)
BY_PREDICTION = 3
PIECE = 1 << 20
MAX_INNER, MAX_LINES = 1 << 40, 1 << 20
#: This decoder's own limit, because it is for small files.
MAX_ELEMENTS = 1 << 22


@dataclass
class Step:
    """Section 15, item 3: a step that makes the next `count` tensors."""

    kind: int
    count: int
    first: int
    #: Number, name and scale of each origin.
    origins: list[tuple[int, str | None, float | None]]


@dataclass
class Delta:
    """Section 15: the body of section 6."""

    base: bytes
    result: bytes
    #: Ids and bodies; None for that of the base.
    sections: list[tuple[int, bytes | None]]
    steps: list[Step]
    order: int

    def summary(self) -> dict[str, object]:
        """Return the section in a form that JSON can express."""
        return {
            "base": self.base.hex(),
            "result": self.result.hex(),
            "sections": [[kind, None if body is None else body.hex()] for kind, body in self.sections],
            "order": self.order,
            "steps": [[step.kind, step.count, step.first, step.origins] for step in self.steps],
        }


def read_delta(reader: Reader, entries: list[Entry]) -> Delta:
    """Section 15: the body of section 6."""
    base, result = reader.take(8), reader.take(8)
    sections: list[tuple[int, bytes | None]] = []
    for _ in range(reader.varint(MAX_SECTIONS)):
        kind = reader.u8()
        good = kind > (sections[-1][0] if sections else 1) and (kind <= 5 or kind >= 128)
        check(good, "E08", "[B2] a section of the new file")
        length = reader.varint(MAX_CONTENTS + 1)
        sections.append((kind, reader.take(length - 1) if length else None))
    order = reader.u8()
    check(order <= 1, "E08", "[B17] an unknown order")
    steps: list[Step] = []
    used = made = 0
    for _ in range(reader.varint(MAX_TENSORS)):
        number = reader.varint(4 * MAX_TENSORS + 3)
        step = Step(number & 3, number >> 2, 0, [])
        check(step.kind <= CHANGED and step.count > 0, "E08", "[B3] a step of nothing or of an unknown kind")
        if step.kind == KEPT:
            step.first = reader.varint(MAX_TENSORS)
        elif step.kind == CHANGED:
            step.origins = [read_origin(reader) for _ in range(step.count)]
            for entry in entries[used : used + 1]:
                check(entry.dtype == "uint8" and len(entry.shape) == 1, "E08", "[B5] a difference that is no string")
        renamed = any(name is not None for _, name, _ in step.origins)
        check(order == 0 or (step.kind != KEPT and not renamed), "E08", "[B18] what is kept or renamed in place")
        made += step.count
        used += {KEPT: 0, NEW: step.count, CHANGED: 1}[step.kind]
        check(used <= len(entries) and made <= MAX_TENSORS, "E14", "[B4] too many tensors")
        steps.append(step)
    check(used == len(entries), "E14", "[B4] tensors that are not used")
    return Delta(base, result, sections, steps, order)


def read_origin(reader: Reader) -> tuple[int, str | None, float | None]:
    """Section 15: the number of an origin, and the name and the scale that may follow."""
    number = reader.varint(4 * MAX_TENSORS + 3)
    name, scale = None, None
    if number & 2:
        name = reader.text(MAX_NAME)
        check(name != "", "E08", "[B15] an empty name")
    if number & 1:
        raw = reader.take(4)
        (scale,) = struct.unpack("<f", raw)
        check(finite_f32(raw) and scale > 0, "E08", "[B6] the scale")
    return number >> 2, name, scale


def new_tensors(delta: Delta, own: dict[str, Tensor], base: dict[str, Tensor]) -> dict[str, Tensor]:
    """Section 15: the tensors of the new file, from those of the delta and of the base."""
    made: dict[str, Tensor] = {}
    mine, names = iter(own.items()), list(base)

    def add(name: str, tensor: Tensor) -> None:
        check(name not in made, "E10", "[B8] [T1] a name again")
        made[name] = tensor

    def origin(number: int) -> str:
        check(number < len(names), "E17", "[B7] a tensor that the base does not have")
        return names[number]

    for step in delta.steps:
        if step.kind == KEPT:
            for number in range(step.first, step.first + step.count):
                add(origin(number), base[origin(number)])
        elif step.kind == NEW:
            for _ in range(step.count):
                add(*next(mine))
        elif step.kind == CHANGED:
            _, string = next(mine)
            origins = [base[origin(number)] for number, _, _ in step.origins]
            tensors = changed(origins, [scale for _, _, scale in step.origins], string.dense())
            for (number, name, _), tensor in zip(step.origins, tensors, strict=True):
                add(origin(number) if name is None else name, tensor)
    if delta.order == 1:
        check(made.keys() <= base.keys(), "E17", "[B7] a name that the base does not have")
        return base | made
    return made


# ------------------------------------------------------------------------------------------- 15.1 Differences


def changed(origins: list[Tensor], scales: list[float | None], data: bytes) -> list[Tensor]:
    """Section 15.1: the tensors that a difference makes from its origins."""
    dtype, whole = origins[0].dtype, origins[0].size
    check(all(origin.dtype == dtype for origin in origins), "E08", "[B16] origins of several dtypes")
    check(dtype == "int8" or not any(scales), "E08", "[B6] the scale of another dtype than int8")
    counts = [prod(origin.shape) for origin in origins]
    check(sum(counts) <= MAX_ELEMENTS, "E07", "[T11] more elements than this decoder has memory for")
    raw, reader = b"".join(origin.dense() for origin in origins), Reader(data)
    flags = reader.u8()
    check(flags <= 1, "E08", "[B9] unknown flags")
    values = split(raw, whole)
    if flags and values:
        known = sorted(set(values))
        table = value_block(reader.take(reader.varint(MAX_PAYLOAD)), dtype, whole, len(known))
        becomes = dict(zip(known, table, strict=True))
        raw = b"".join(becomes[value].to_bytes(whole, "little") for value in values)
    size = whole // 2 if dtype == "complex64" else whole
    units, made = split(raw, size), []
    for first in range(0, len(units), PIECE):
        block = Reader(reader.take(reader.varint(MAX_PAYLOAD)))
        made += difference_block(block, units[first : first + PIECE], first, dtype, 8 * size)
        block.end("[N5] bytes left in a difference block")
    reader.end("[N5] bytes left in a difference")
    values = split(b"".join(unit.to_bytes(size, "little") for unit in made), whole)
    check(dtype != "bool" or all(value < 2 for value in values), "E08", "[B8] [T12] a bool that is neither 0 nor 1")
    out = []
    for origin, scale, count in zip(origins, scales, counts, strict=True):
        scale = origin.scale if scale is None else scale
        out.append(Tensor(origin.shape, dtype, whole, scale, False, None, values[:count]))
        values = values[count:]
    return out


def split(raw: bytes, size: int) -> list[int]:
    """Return little-endian numbers of `size` bytes."""
    return [int.from_bytes(raw[i : i + size], "little") for i in range(0, len(raw), size)]


def difference_block(reader: Reader, predicted: list[int], first: int, dtype: str, bits: int) -> list[int]:
    """Section 15.1, "Difference block": the new units of a piece."""
    count = reader.varint(len(predicted))
    heads = [plane_head(reader, units) for units in (len(predicted), count) if units]
    read_all_tables(reader, heads)
    places = list(enumerate(predicted, first))
    marks = read_plane(reader, heads[0], places, dtype, bits)
    check(max(marks) <= 2, "E14", "[B12] an unknown mark")
    stepped = [place for place, mark in zip(places, marks, strict=True) if mark == 2]
    check(len(stepped) == count, "E14", "[B12] the number of units that change by a step")
    sizes = iter(read_plane(reader, heads[1], stepped, dtype, bits) if count else ())
    rests = Rests(reader)
    out = []
    for (_, prediction), mark in zip(places, marks, strict=True):
        if mark == 2:
            out.append(moved(prediction, read_step(next(sizes), rests, bits), dtype, bits))
        else:
            out.append(0 if mark == 1 else prediction)
    check(rests.buffer == 0, "E13", "[B14] bits after the last step")
    return out


def plane_head(reader: Reader, units: int) -> Plane:
    """Section 15.1: a plane head of a difference block."""
    byte = reader.u8()
    head = Plane(byte & 3, byte >> 2 & 3, (byte >> 4) + 1)
    if head.kind != CODED:
        check(byte in (RAW, CONSTANT), "E08", "[V1] an unknown kind of a plane, or bits of one that is not coded")
        if head.kind == CONSTANT:
            head.byte = reader.u8()
        return head
    check(head.context in (ALONE, BY_AXIS, BY_PREDICTION), "E08", "[B11] a context of value blocks")
    check((head.context == ALONE) == (head.tables == 1), "E08", "[V1] a number of tables that the context has not")
    if head.context == BY_AXIS:
        head.inner, head.lines = reader.varint(MAX_INNER), reader.varint(MAX_LINES)
        check(head.inner > 0 and head.lines > 0, "E08", "[B10] an axis of nothing")
    head.words = reader.varint(units)
    return head


def read_plane(reader: Reader, head: Plane, places: Sequence[tuple[int, int]], dtype: str, bits: int) -> Sequence[int]:
    """Section 15.1: a plane, given number and prediction of each of its units."""
    if head.kind == CONSTANT:
        return [head.byte] * len(places)
    if head.kind == RAW:
        return reader.take(len(places))
    tables: Sequence[int] = bytes(len(places))  # zeros: the only table
    if head.context == BY_AXIS:
        tables = [head.map[number // head.inner % head.lines] for number, _ in places]
    elif head.context == BY_PREDICTION:
        tables = [head.map[highest(prediction, dtype, bits)] for _, prediction in places]
    return rans_plane(reader, head, tables)


def highest(unit: int, dtype: str, bits: int) -> int:
    """Section 6.4, "Units": the highest byte of a changed unit."""
    if dtype in ROTATED:
        return unit >> bits - 9 & 255
    if dtype in FOLDED:
        return (unit >> bits - 9 ^ (255 if unit >> bits - 1 else 0)) & 255
    return unit >> bits - 8


class Rests:
    """Section 15.1, item 5: bits, the low one of a byte first; those of a byte that are not read yet are kept."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.buffer, self.count = reader, 0, 0

    def take(self, count: int) -> int:
        """Return the next bits as a number, the low one first."""
        while self.count < count:
            self.buffer |= self.reader.u8() << self.count
            self.count += 8
        found = self.buffer & (1 << count) - 1
        self.buffer >>= count
        self.count -= count
        return found


def read_step(size: int, rests: Rests, bits: int) -> int:
    """Section 15.1, "Steps"."""
    check(size <= 4 * bits - 5, "E14", "[B13] the size of a step")
    value = size
    if size >= 8:
        rest = (size + 8) // 4 - 3
        value = (4 + size % 4 << rest) + rests.take(rest)
    check(value < (1 << bits) - 1, "E14", "[B13] a step that changes nothing")
    z = value + 1
    return z // 2 if z % 2 == 0 else -(z // 2) - 1


def moved(prediction: int, step: int, dtype: str, bits: int) -> int:
    """Section 15.1: the unit that is a step away."""
    if dtype not in ROTATED:
        return (prediction + step) % (1 << bits)
    top, last = 1 << bits - 1, (1 << bits) - 1
    order = prediction + top if prediction < top else last - prediction
    order = (order + step) % (1 << bits)
    return order - top if order >= top else last - order
