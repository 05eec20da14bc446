"""Vectors of value blocks and of tables by place: sections 6.4 and 6.5 of the specification; any part may be false."""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from reference_coders import fresh, multiply
from reference_planes import FOLDED, ROTATED

from generator.assembler import CONSTANT, DENSE, SIZES, SPARSE, Item, assemble, pack_bits, varint
from generator.ranges import RangeEncoder, number_bits

#: Name, requirements and tensor of a valid vector; name, code, requirements and bytes of an invalid one.
Good = tuple[str, str, Item]
Bad = tuple[str, str, str, bytes]
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
    """How to store a plane; fields other than the first may be false."""

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


def block(values: Sequence[int], dtype: str, ways: Sequence[Plane], after: bytes = b"") -> bytes:
    """Section 6.4: a value block."""
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
        data += rans(symbols, tables, way)
        head = CODED | way.context << 2 | count - 1 << 4 if way.head is None else way.head
        axis = varint(way.inner) + varint(way.lines) if way.context == BY_AXIS else b""
        heads += bytes([head]) + axis + varint(way.words)
        encode_tables(coder, way)
    stream = coder.finish()
    coded = any(way.kind == CODED for way in ways)
    return heads + (varint(len(stream)) + stream if coded else b"") + data + after


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


def item(values: Sequence[int], dtype: str, ways: Sequence[Plane], shape: tuple[int, ...] = (), **more: bytes) -> Item:
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


# ------------------------------------------------------------------------------------------------------- valid


def valid_planes() -> Iterator[Good]:
    """Every dtype, kind of plane, context, and number of states."""
    for dtype, size in SIZES.items():
        some = drawn(dtype, 12, 1)
        scale = 0.5 if dtype == "int8" else 1.0
        yield f"planes_raw_{dtype}", "T19", replace(item(some, dtype, ways_of(dtype), (3, 4)), scale=scale)
        yield f"planes_coded_{dtype}", "V1", replace(item(some, dtype, ways_of(dtype, Plane(CODED))), scale=scale)
        constant = Item(b"\0" + some[0].to_bytes(size, "little"), CONSTANT, (2, 3), some[:1], dtype=dtype, scale=scale)
        yield f"planes_constant_{dtype}", "", constant
    ends = [0x7F800000, 0xFF800000, 0x7FC00000, 0xFFFFFFFF, 0x7F800001, 0x80000000, 0, 1]
    yield "planes_not_finite", "", item(ends, "float32", ways_of("float32", Plane(CODED)))
    flat = [ONE | 5 << 8 | n for n in range(40)]
    yield "planes_constant_planes", "", item(flat, "float32", [Plane(CONSTANT_PLANE)] * 3 + [Plane(CODED)])
    yield "planes_signed", "", item([0, 0xFFFF, 1, 0x8000, 0x7FFF, 0xFFFE], "int16", [Plane(CODED), Plane()])
    yield "planes_of_none", "", Item(b"\4\0", DENSE, (0, 3), [])
    rows = drawn("bfloat16", 60, 2)
    for inner, lines in ((10, 6), (1, 10), (2, 5), (60, 1), (1, 60)):
        axis = Plane(CODED, BY_AXIS, inner, lines, [n % 3 % lines if lines > 1 else 0 for n in range(lines)])
        if lines > 1:
            yield f"planes_axis_{inner}_{lines}", "V2 A19", item(rows, "bfloat16", [axis, Plane()], (6, 10))
    chosen = [0] * 256
    for number, byte in enumerate(dict.fromkeys(planes_of(rows, "bfloat16")[0])):
        chosen[byte] = number % 16
    below = Plane(CODED, BY_PLANE_0, map=chosen)
    yield "planes_by_plane_0", "V1", item(rows, "bfloat16", [Plane(CODED), below], (6, 10))
    yield "planes_by_raw_plane_0", "V1", item(rows, "bfloat16", [Plane(), below])
    most = Plane(CODED, BY_AXIS, 1, 16, list(range(16)))
    yield "planes_most_tables", "", item(drawn("uint8", 320, 3), "uint8", [most])
    unused = Plane(CODED, BY_AXIS, 1, 4, [0, 3, 0, 3])
    yield "planes_unused_tables", "", item(drawn("uint8", 32, 3), "uint8", [unused])
    for count in (1, 4095, 4096, 8191, 8192, 16384, 70000):
        yield f"planes_states_{count}", "A17 A18", item(drawn("uint8", count, 4), "uint8", [Plane(CODED)])
    one = Plane(CODED, frequencies=[[4096 * (n == 7) for n in range(256)]])
    yield "planes_one_symbol", "A16", item([7] * 50, "uint8", [one])
    first, last = drawn("float16", 6, 5), drawn("float16", 3, 6)
    bodies = [block(part, "float16", ways_of("float16", Plane(CODED))) for part in (first, last)]
    table = b"".join(varint(len(body)) for body in bodies)
    yield "planes_chunks", "", Item(b"\4\2" + table + b"".join(bodies), DENSE, (3, 3), first + last, dtype="float16")
    for dtype in ("float64", "complex64", "int64", "bool"):
        values = [value or 1 for value in drawn(dtype, 5, 7)]
        body = block(values, dtype, ways_of(dtype, Plane(CODED)))
        payload = b"\x80\0" + head() + varint(len(body)) + body + gaps(5)
        places = [0, 2, 3, 7, 11]
        yield f"planes_sparse_{dtype}", "T19", Item(payload, SPARSE, (3, 4), values, places, dtype=dtype)
    yield from valid_tables()


def valid_tables() -> Iterator[Good]:
    """Coder 5: codebooks and scales, dense and sparse, by rows, columns and groups."""
    for dtype in ("float32", "bfloat16", "int8", "float64", "uint8", "int64"):
        books = drawn(dtype, 6, 8)
        codes = [n * n % 3 for n in range(24)]
        for inner, lines in ((12, 2), (1, 2), (6, 2)):
            values = [books[i // inner % lines * 3 + c] for i, c in enumerate(codes)]
            tensor = Item(tabled(books, dtype, inner, lines, raw(codes), size=3), DENSE, (2, 12), values, dtype=dtype)
            yield f"tables_{dtype}_{inner}", "V4 V7", tensor
    scales, zeros = [0x3DCCCCCD, 0x00000003, 0x42C80000], [0, 0x8000, 300]
    codes = [n * 23 % 256 for n in range(24)]
    signed = [code - 256 if code > 127 else code for code in codes]
    offsets = [0, -32768, 300]
    values = [multiply(scales[i // 8], c - offsets[i // 8]) for i, c in enumerate(signed)]
    yield "tables_scales", "V8", Item(tabled(scales, "float32", 8, 3, raw(codes), zeros), DENSE, (3, 8), values)
    huge = [multiply(0x7F000000, c) for c in (-2, 1, 2, 0)]
    scaled = tabled([0x7F000000], "float32", 4, 1, raw([254, 1, 2, 0]), [0])
    yield "tables_scales_overflow", "V8", Item(scaled, DENSE, (4,), huge)
    shared = b"\1\0\0" + varint(len(codebook(5))) + codebook(5)
    yield (
        "tables_shared_codes",
        "",
        Item(tabled([1, 2, 3, 4, 5, 6], "float32", 1, 1, shared, size=6), DENSE, (8,), [6] * 8),
    )
    books = [ONE + n for n in range(6)]
    entries = {0: 1, 2: 3, 3: 2, 7: 1, 11: 3}
    body = block(list(entries.values()), "int8", [Plane()])
    payload = b"\0\x80\0" + head() + varint(len(body)) + body + gaps(5)
    found = [books[at // 6 * 3 + code - 1] for at, code in entries.items()]
    sparse = Item(tabled(books, "float32", 6, 2, payload, size=3), SPARSE, (3, 4), found, list(entries))
    yield "tables_sparse", "V7 T13", sparse


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


# ----------------------------------------------------------------------------------------------------- invalid


def invalid_planes() -> Iterator[Bad]:
    """Value blocks that a decoder must reject."""
    some, coded = drawn("uint8", 24, 9), Plane(CODED)
    wide = drawn("uint16", 24, 9)

    def bad(name: str, code: str, ids: str, way: Plane, values: Sequence[int] = some, **more: bytes) -> Bad:
        return f"planes_{name}", code, ids, assemble([item(values, "uint8", [way], **more)])

    def two(name: str, code: str, ids: str, first: Plane, second: Plane) -> Bad:
        return f"planes_{name}", code, ids, assemble([item(wide, "uint16", [first, second])])

    yield bad("kind_3", "E08", "V1", Plane(RAW, head=3))
    yield bad("context_3", "E08", "V1", replace(coded, head=CODED | 3 << 2 | 1 << 4))
    yield bad("raw_with_bits", "E08", "V1", Plane(RAW, head=RAW | 16))
    yield bad("constant_with_bits", "E08", "V1", Plane(CONSTANT_PLANE, head=CONSTANT_PLANE | 4), [1] * 24)
    yield bad("tables_alone", "E08", "V1", replace(coded, head=CODED | 1 << 4))
    yield bad("one_table_by_axis", "E08", "V1", Plane(CODED, BY_AXIS, 1, 2, [0, 0]))
    yield bad("plane_0_by_itself", "E08", "V1", Plane(CODED, BY_PLANE_0, map=[0, 1] * 128))
    flat = [0x0700 | n for n in range(24)]
    way = [Plane(CONSTANT_PLANE), Plane(CODED, BY_PLANE_0, map=[0, 1] * 128)]
    yield "planes_by_constant_plane_0", "E08", "V1", assemble([item(flat, "uint16", way)])
    for name, inner, lines in (("not_dividing", 5, 2), ("of_none", 0, 2), ("of_no_lines", 2, 0), ("beyond", 24, 2)):
        yield bad(f"axis_{name}", "E08", "V2", axis_way(inner, lines))
    yield bad("axis_limit", "E06", "N2", axis_way(25, 2))
    yield bad("words_limit", "E06", "N2", replace(coded, words=30))
    by = Plane(CODED, BY_AXIS, 1, 2, [0, 1])
    yield bad("map_beyond", "E14", "A19", replace(by, coded_map=[0, 2]))
    short = frequencies_of(some)
    short[some[0]] -= 1
    yield bad("frequencies_fewer", "E08", "A16", replace(coded, frequencies=[short]))
    more = frequencies_of(some)
    more[some[0]] += 1
    yield bad("frequencies_more", "E08", "A16", replace(coded, frequencies=[more]))
    yield bad("state_low", "E13", "A17", replace(coded, first_state=65535))
    yield bad("state_at_the_end", "E13", "A18", replace(coded, last_state=65537))
    yield bad("words_left", "E13", "A18", replace(coded, words=1), after=b"\0\0")
    yield "planes_words_missing", "E13", "A18", assemble([cut_words()])
    yield bad("go_on", "E04", "N5", Plane(), after=b"\0")
    yield (
        "planes_end_early",
        "E03",
        "N4",
        assemble([Item(b"\4\0\0" + bytes(some[:-1]), DENSE, (24,), some, dtype="uint8")]),
    )
    yield two("second_context", "E08", "V1", Plane(), replace(coded, head=CODED | 3 << 2))
    yield "planes_of_none_go_on", "E04", "N5", assemble([Item(b"\4\0\0", DENSE, (0,), [])])
    yield "planes_bool", "E08", "T12", assemble([item([0, 1, 2], "bool", [Plane()])])
    yield "planes_bool_raw", "E08", "T12", assemble([Item(b"\0\0\0\1\2", DENSE, (3,), [0, 1, 2], dtype="bool")])
    yield "planes_bool_constant", "E08", "T12", assemble([Item(b"\0\2", CONSTANT, (3,), [2], dtype="bool")])
    tree = b"\2\0" + bytes(4)
    yield "planes_stream_of_float64", "E08", "P2", assemble([Item(tree, DENSE, (1,), [0], dtype="float64")])
    for name, byte in (("int64", b"\2"), ("coder_0", b"\0"), ("coder_1", b"\1")):
        dtype = name if name == "int64" else "float32"
        yield (
            f"planes_no_block_{name}",
            "E08",
            "P2",
            assemble([Item(byte + bytes(3), SPARSE, (1, 4), [1], [0], dtype=dtype)]),
        )
    for name, form, codebook_size in (("dense", DENSE, 0), ("shared", 4, 1)):
        places = None if form == DENSE else [0]
        blocks = Item(b"\x80" + bytes(3), form, (1, 4), [1], places, codebook_size)
        yield f"planes_block_of_{name}", "E08", "P2", assemble([blocks])
    long = Item(b"\x82\0\5\0\0", SPARSE, (1, 4), [1], [0])
    yield "planes_block_longer_than_chunk", "E06", "N2", assemble([long])
    ends = Item(b"\x82\0\3\0\0", SPARSE, (1, 4), [1], [0])
    yield "planes_block_ends_early", "E03", "N4", assemble([ends])
    none = Item(b"\x82\0\1\0", SPARSE, (1, 4), [], [])
    yield "planes_block_of_no_entries", "E04", "N5", assemble([none])
    for name, kind in (
        ("dtype", b"\x2f\x21"),
        ("form_2", b"\x27\x22"),
        ("form_4", b"\x27\x24"),
        ("form_5", b"\x27\x25"),
    ):
        ids = "T18" if name == "dtype" else "T19"
        lie = replace(item([1, 2, 3], "float64", ways_of("float64")), lies={"kind": kind})
        yield f"tensor_extended_{name}", "E08", ids, assemble([lie], digest=bytes(8))
    for name, number in (("few", 3), ("beyond", 19)):
        lie = replace(item([1, 2, 3], "float64", ways_of("float64")), lies={"kind": bytes([0x27, 1 | number << 3])})
        yield f"tensor_extended_dtype_{name}", "E08", "T19", assemble([lie], digest=bytes(8))
    yield from invalid_tables()


def axis_way(inner: int, lines: int) -> Plane:
    """Return a plane with a false axis, whose units all have the first of two tables."""
    return Plane(CODED, BY_AXIS, inner, lines, tables=2)


def cut_words() -> Item:
    """Return a tensor whose last word is missing."""
    some = [n * 7 % 256 for n in range(60)]
    whole = item(some, "uint8", [Plane(CODED, words=-1)])
    return replace(whole, payload=whole.payload[:-2])


def invalid_tables() -> Iterator[Bad]:
    """Payloads under coder 5 that a decoder must reject."""
    books, codes = [ONE, ONE + 1, ONE + 2, ONE + 3], [0, 1, 1, 0, 1, 0]
    values = [books[i // 3 * 2 + c] for i, c in enumerate(codes)]

    def bad(name: str, code: str, ids: str, payload: bytes, **more: object) -> Bad:
        return f"tables_{name}", code, ids, assemble([Item(payload, DENSE, (2, 3), values, **more)], digest=bytes(8))  # type: ignore[arg-type]

    good = tabled(books, "float32", 3, 2, raw(codes), size=2)
    yield bad("kind_2", "E08", "V3", good[:1] + b"\2" + good[2:])
    half = tabled([1, 2], "float16", 3, 2, raw(codes), [0, 0])
    yield bad("scales_of_float16", "E08", "V3", half, dtype="float16")
    for name, inner, lines in (("not_dividing", 2, 2), ("of_none", 0, 2), ("of_no_lines", 3, 0), ("beyond", 3, 4)):
        yield bad(f"axis_{name}", "E08", "V4", tabled(books, "float32", inner, lines, raw(codes), size=2))
    yield bad("axis_limit", "E06", "N2", tabled(books, "float32", (1 << 40) + 1, 2, raw(codes), size=2))
    none = Item(tabled([], "float32", 1, 1, raw([]), size=1), DENSE, (0, 3), [])
    yield "tables_of_no_elements", "E08", "V4", assemble([none])
    yield bad("size_0", "E08", "V5", b"\5\0\3\2\0" + good[5:])
    yield bad("size_limit", "E06", "N2", b"\5\0\3\2" + varint(257) + good[5:])
    yield bad("of_tables", "E08", "V6", tabled(books, "float32", 3, 2, b"\0" + good, size=2))
    yield bad("code_beyond", "E14", "V7", tabled(books, "float32", 3, 2, raw([0, 1, 1, 0, 2, 0]), size=2))
    yield bad("codes_end_early", "E13", "P10", good[:-1])
    yield bad("no_codes", "E03", "N4", good[: -len(codes) - 2])
    yield bad(
        "codebook_limit", "E06", "N2", tabled(books, "float32", 3, 2, varint(257) + b"\0\0" + bytes(codes), size=2)
    )
    yield bad("books_end_early", "E03", "N4", good[:10])
    short = tabled(books[:3], "float32", 3, 2, raw(codes), size=2)
    yield bad("books_short", "E03", "N4", short)
    for name, scale in (("0", 0), ("negative", ONE | 1 << 31), ("infinite", 0x7F800000), ("nan", 0x7FC00000)):
        yield bad(f"scale_{name}", "E08", "V8", tabled([ONE, scale], "float32", 3, 2, raw(codes), [0, 0]))
    yield bad("transposed", "E08", "P2", b"\x15" + good[1:])
    shared = Item(good, 2, (2, 3), values, codebook=2)
    yield "tables_of_shared", "E08", "P2", assemble([shared])
    body = block([1, 1], "int8", [Plane()])
    payload = b"\0\x80\0" + head() + varint(len(body)) + body + gaps(2)
    zero = Item(tabled([0, ONE], "float32", 6, 1, payload, size=2), SPARSE, (2, 3), [0, 0], [0, 2])
    yield "tables_zero_of_sparse", "E08", "T13", assemble([zero])
