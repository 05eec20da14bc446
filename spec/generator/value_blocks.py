"""The bytes of value blocks and of tables by place, valid or invalid: sections 6.4 and 6.5 of the specification."""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from reference_coders import fresh
from reference_planes import FOLDED, ROTATED

from generator.assembler import DENSE, SIZES, Item, pack_bits, varint
from generator.ranges import RangeEncoder, number_bits

RAW, CONSTANT_PLANE, CODED = range(3)
ALONE, BY_AXIS, BY_PLANE_0 = range(3)
ONE = 0x3F800000


def planes_of(values: Sequence[int], dtype: str) -> list[list[int]]:
    """Section 6.4: the planes of values, given as bit patterns."""
    size = SIZES[dtype]
    if dtype == "complex64":
        values, size = [part for value in values for part in (value & 0xFFFFFFFF, value >> 32)], 4
    bits = 8 * size
    whole = (1 << bits) - 1
    changed = []
    for u in values:
        high = u >> bits - 1
        if dtype in ROTATED:
            u = u << 1 & whole | high
        elif dtype in FOLDED:
            u = u << 1 & whole ^ (whole if high else 0)
        changed.append(u)
    return [[u >> shift & 255 for u in changed] for shift in range(bits - 8, -8, -8)]


@dataclass
class Plane:
    """The storage of a plane; fields other than the first may be false."""

    kind: int = RAW
    context: int = ALONE
    inner: int = 1
    lines: int = 1
    #: The table of each place; symbols are counted to make the tables.
    map: Sequence[int] = ()
    tables: int | None = None
    head: int | None = None
    words: int = 0
    frequencies: list[list[int]] | None = None
    coded_map: Sequence[int] | None = None
    first_state: int | None = None
    #: The states and words themselves.
    data: bytes | None = None
    last_state: int = 1 << 16


def frequencies_of(symbols: Sequence[int]) -> list[int]:
    """Return frequencies that add up to 4,096."""
    counts = Counter(symbols)
    out = [0] * 256
    for symbol, count in counts.items():
        out[symbol] = max(count * 4096 // len(symbols), 1)
    out[max(counts, key=lambda symbol: (counts[symbol], symbol))] += 4096 - sum(out)
    return out


def rans(symbols: Sequence[int], tables: Sequence[int], plane: Plane) -> bytes:
    """Section 8.2 of coders.md, "An encoder goes backwards"."""
    frequencies = plane.frequencies or []
    lanes = 1 << min(max(len(symbols).bit_length() - 13, 0), 7)
    states, words = [1 << 16] * lanes, []
    states[0] = plane.last_state
    for i in range(len(symbols) - 1, -1, -1):
        table = frequencies[tables[i]]
        frequency, state = table[symbols[i]], states[i % lanes]
        if state >= frequency << 20:
            words.append(state & 0xFFFF)
            state >>= 16
        states[i % lanes] = (state // frequency << 12) + state % frequency + sum(table[: symbols[i]])
    if plane.first_state is not None:
        states[0] = plane.first_state
    plane.words += len(words)
    return struct.pack(f"<{lanes}I", *states) + struct.pack(f"<{len(words)}H", *reversed(words))


def block(
    values: Sequence[int], dtype: str, ways: Sequence[Plane], after: bytes = b"", length: int | None = None
) -> bytes:
    """Section 6.4: a value block; `length` is a false one of the range coder stream."""
    heads, data, coder = b"", b"", RangeEncoder()
    parts = planes_of(values, dtype)
    for number, (symbols, given) in enumerate(zip(parts, ways, strict=True)):
        way = replace(given)
        if way.kind != CODED:
            heads += bytes([way.kind if way.head is None else way.head])
            heads += bytes(symbols[:1]) if way.kind == CONSTANT_PLANE else b""
            data += bytes(symbols) if way.kind == RAW else b""
            continue
        places = [0] * len(symbols)
        if way.context == BY_AXIS:
            places = [i // way.inner % way.lines for i in range(len(symbols))] if way.map else places
        elif way.context == BY_PLANE_0 and number:
            places = parts[0]
        tables = [way.map[place] if way.map else 0 for place in places]
        count = max(way.map, default=0) + 1 if way.tables is None else way.tables
        if way.frequencies is None:
            used = [[s for s, t in zip(symbols, tables, strict=True) if t == table] or [0] for table in range(count)]
            way.frequencies = [frequencies_of(some) for some in used]
        data += rans(symbols, tables, way) if way.data is None else way.data
        head = CODED | way.context << 2 | count - 1 << 4 if way.head is None else way.head
        axis = varint(way.inner) + varint(way.lines) if way.context == BY_AXIS else b""
        heads += bytes([head]) + axis + varint(way.words)
        encode_tables(coder, way)
    stream = coder.finish()
    coded = any(way.kind == CODED for way in ways)
    stated = varint(len(stream) if length is None else length)
    return heads + (stated + stream if coded else b"") + data + after


def encode_tables(coder: RangeEncoder, way: Plane) -> None:
    """Section 8.1 of coders.md."""
    models, last = fresh(256), 0
    for number in way.map if way.coded_map is None else way.coded_map:
        coder.queue += number_bits(number, 4)
        last = coder.tree(models, 16 * last, 4, 30)
    models, before = fresh(256), 0
    for table in way.frequencies or []:
        for frequency in table:
            width = frequency.bit_length()
            coder.queue += number_bits(width, 4)
            before, start = width, 16 * min(before, 2)
            coder.tree(models, start, 4, 30)
            if width:
                coder.put(frequency - (1 << width - 1), width - 1)


def item(values: Sequence[int], dtype: str, ways: Sequence[Plane], shape: tuple[int, ...] = (), **more: Any) -> Item:
    """Return a dense tensor under coder 4."""
    payload = b"\4\0" + block(values, dtype, ways, **more)
    return Item(payload, DENSE, shape or (len(values),), list(values), dtype=dtype)


def drawn(dtype: str, count: int, seed: int) -> list[int]:
    """Return random bit patterns whose high bytes repeat."""
    source, size = random.Random(seed), SIZES[dtype]
    if dtype == "bool":
        return [int(source.random() < 0.2) for _ in range(count)]
    high = [source.getrandbits(8) for _ in range(3)]
    return [source.choice(high) << 8 * (size - 1) | source.getrandbits(8 * (size - 1)) for _ in range(count)]


def ways_of(dtype: str, *given: Plane) -> list[Plane]:
    """Return the given planes, and raw ones for the rest."""
    count = 4 if dtype == "complex64" else SIZES[dtype]
    return [*given, *[Plane()] * (count - len(given))][:count]


def head() -> bytes:
    """Return the head of a sparse tensor under coder 0 whose gap symbols have 4 bits, and its length."""
    coder = RangeEncoder()
    coder.put(3, 3)
    stream = coder.finish()
    return varint(len(stream)) + stream


def gaps(count: int) -> bytes:
    """Return gap symbols of 4 bits for entries at positions 0, 2, 3, 7 and 11, or the first of them."""
    return varint(count) + pack_bits("".join(f"{gap:04b}" for gap in (0, 1, 0, 3, 3)[:count]))


def codebook(code: int) -> bytes:
    """Return the head of an int8 tensor under coder 0 with a codebook of one value."""
    coder = RangeEncoder()
    coder.put(code ^ 128, 8)
    return coder.finish()


def raw(codes: Sequence[int]) -> bytes:
    """Return the codebook size and the payload of dense codes under coder 0."""
    return b"\0\0\0" + bytes(codes)


def tabled(
    values: Sequence[int], dtype: str, inner: int, lines: int, codes: bytes, zeros: Sequence[int] = (), size: int = 0
) -> bytes:
    """Section 6.5: a payload under coder 5; codebooks if `size` is not 0, else scales."""
    out = b"\5" + bytes([not size]) + varint(inner) + varint(lines) + (varint(size) if size else b"")
    blocks = [block(values, dtype, ways_of(dtype))] if values else [b""]
    blocks += [block(zeros, "int16", [Plane(), Plane()])] if not size else []
    return out + b"".join(varint(len(one)) + one for one in blocks) + codes
