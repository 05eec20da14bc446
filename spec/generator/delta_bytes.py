"""The bytes of deltas, valid or invalid: section 15 of the specification."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from reference_planes import ROTATED
from reference_reader import Tensor

from generator.assembler import DENSE, SIZES, Item, assemble, f32, pack_bits, text, varint
from generator.ranges import RangeEncoder
from generator.value_blocks import CODED, CONSTANT_PLANE, RAW, Plane, encode_tables, frequencies_of, rans

#: A delta: name, requirements, bytes, base, and the tensors of the new file or the code of the error.
Made = tuple[str, str, bytes, bytes, "dict[str, Tensor] | str"]
BY_AXIS, BY_PREDICTION = 1, 3
KEPT, NEW, CHANGED = range(3)
WIDTH_OF = {"complex64": 4}


def section(
    base: bytes, result: bytes, steps: bytes, sections: bytes = b"\0", count: int | None = None, order: int = 0
) -> tuple[int, bytes]:
    """Section 15: section 6; `steps` are those of `step`, and `sections` item 2."""
    return 6, base[-8:] + result[-8:] + sections + bytes([order]) + varint(1 if count is None else count) + steps


def step(kind: int, count: int, after: bytes = b"") -> bytes:
    """Section 15, item 3."""
    return varint(4 * count + kind) + after


def origin(number: int, scale: float | None = None, name: str | None = None) -> bytes:
    """Section 15: an origin."""
    head = varint(4 * number + 2 * (name is not None) + (scale is not None))
    return head + (b"" if name is None else text(name)) + (b"" if scale is None else f32(scale))


def string(name: str, data: bytes) -> Item:
    """Return a difference as a tensor."""
    return Item(b"\0\0" + data, DENSE, (len(data),), list(data), name=name, dtype="uint8")


# --------------------------------------------------------------------------------------------------- differences


@dataclass
class Way:
    """The coding of a difference block; any part may be false."""

    marks: Plane
    sizes: Plane
    count: int | None = None
    tail: bytes = b""
    padding: str = ""
    given_marks: Sequence[int] | None = None
    given_sizes: Sequence[int] | None = None


def size_of(new: int, old: int, dtype: str, bits: int) -> tuple[int, str]:
    """Section 15.1, "Steps": the size of the step from one unit to another, and its rest."""
    top, whole = 1 << bits - 1, (1 << bits) - 1
    if dtype in ROTATED:
        new, old = (u + top if u < top else whole - u for u in (new, old))
    distance = (new - old + top) % (1 << bits) - top
    value = (2 * distance if distance > 0 else -2 * distance - 1) - 1
    if value < 8:
        return value, ""
    rest = value.bit_length() - 3
    return 4 * (rest + 3) - 8 + (value >> rest & 3), f"{value & (1 << rest) - 1:0{rest}b}"[::-1]


def highest(unit: int, dtype: str, bits: int) -> int:
    """Section 6.4: the highest byte of a changed unit."""
    if dtype in ROTATED:
        unit = unit << 1 & (1 << bits) - 1 | unit >> bits - 1
    elif dtype in ("int16", "int32", "int64"):
        unit = (unit << 1 ^ ((1 << bits) - 1 if unit >> bits - 1 else 0)) & (1 << bits) - 1
    return unit >> bits - 8


def difference_block(new: Sequence[int], old: Sequence[int], dtype: str, bits: int, way: Way) -> bytes:
    """Section 15.1, "Difference block"."""
    marks = [0 if a == b else 1 if a == 0 else 2 for a, b in zip(new, old, strict=True)]
    marks = list(marks if way.given_marks is None else way.given_marks)
    there = [i for i, mark in enumerate(marks) if mark == 2]
    found = [size_of(new[i], old[i], dtype, bits) for i in there]
    sizes = [size for size, _ in found] if way.given_sizes is None else list(way.given_sizes)
    rests = "".join(rest for _, rest in found)
    heads, data, coder = b"", b"", RangeEncoder()
    for symbols, units, given in ((marks, range(len(marks)), way.marks), (sizes, there, way.sizes)):
        if not symbols:
            continue
        plane = replace(given)
        if plane.kind != CODED:
            heads += bytes([plane.kind if plane.head is None else plane.head])
            heads += bytes(symbols[:1]) if plane.kind == CONSTANT_PLANE else b""
            data += bytes(symbols) if plane.kind == RAW else b""
            continue
        tables = [0] * len(symbols)
        if plane.context == BY_AXIS and plane.map:
            tables = [plane.map[i // plane.inner % plane.lines] for i in units]
        elif plane.context == BY_PREDICTION:
            plane.map = plane.map or [n % 16 for n in range(256)]
            tables = [plane.map[highest(old[i], dtype, bits)] for i in units]
        count = max(plane.map, default=0) + 1 if plane.tables is None else plane.tables
        used = [[s for s, t in zip(symbols, tables, strict=True) if t == table] or [0] for table in range(count)]
        plane.frequencies = [frequencies_of(some) for some in used]
        data += rans(symbols, tables, plane)
        axis = varint(plane.inner) + varint(plane.lines) if plane.context == BY_AXIS else b""
        head = CODED | plane.context << 2 | count - 1 << 4 if plane.head is None else plane.head
        heads += bytes([head]) + axis + varint(plane.words)
        encode_tables(coder, plane)
    stream = coder.finish()
    coded = any(plane.kind == CODED for plane in (way.marks, way.sizes)[: 1 + bool(sizes)])
    head = varint(len(there) if way.count is None else way.count) + heads
    body = head + (varint(len(stream)) + stream if coded else b"") + data
    return body + pack_bits(rests + way.padding) + way.tail


def difference(
    new: Sequence[int], old: Sequence[int], dtype: str, way: Way, flags: int = 0, table: bytes = b""
) -> bytes:
    """Section 15.1: a difference of one piece, or of none; elements are bit patterns, `old` after the table."""
    if dtype == "complex64":
        new, old = ([part for n in some for part in (n & 0xFFFFFFFF, n >> 32)] for some in (new, old))
    bits = 8 * WIDTH_OF.get(dtype, SIZES[dtype])
    body = difference_block(new, old, dtype, bits, way) if old else b""
    return bytes([flags]) + table + (varint(len(body)) + body if old else b"")


def pair(dtype: str, count: int, seed: int) -> tuple[list[int], list[int]]:
    """Return the elements of a tensor and of its new version: some the same, some zero, some near, some anything."""
    source, bits = random.Random(seed), 8 * SIZES[dtype]
    if dtype == "bool":
        return [n % 3 & 1 for n in range(count)], [n % 5 & 1 for n in range(count)]
    old = [source.getrandbits(bits) for _ in range(count)]
    new = [
        (u, 0, u ^ source.getrandbits(3), source.getrandbits(bits))[source.choice((0, 0, 0, 1, 2, 2, 3))] for u in old
    ]
    return old, new


def tensor(name: str, values: Sequence[int], dtype: str, shape: tuple[int, ...] = (), scale: float = 1.0) -> Item:
    """Return a dense tensor under coder 0."""
    raw = b"".join(value.to_bytes(SIZES[dtype], "little") for value in values)
    return Item(b"\0\0" + raw, DENSE, shape or (len(values),), list(values), name=name, dtype=dtype, scale=scale)


def delta(name: str, ids: str, old: Item, new: Item, data: bytes, code: str = "", scale: float | None = None) -> Made:
    """Return a delta whose new file has one tensor, made from the base's only one; `code` if it must be rejected."""
    base, result = assemble([old]), assemble([new])
    made = assemble([string(new.name, data)], [section(base, result, step(CHANGED, 1, origin(0, scale)))])
    return name, ids, made, base, code or {new.name: new.tensor()}
