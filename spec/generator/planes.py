"""Valid vectors of value blocks and of tables by place: sections 6.4 and 6.5 of the specification."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from reference_coders import multiply

from generator.assembler import CONSTANT, DENSE, SIZES, SPARSE, Item, varint
from generator.value_blocks import (
    BY_AXIS,
    BY_PLANE_0,
    CODED,
    CONSTANT_PLANE,
    ONE,
    Plane,
    block,
    codebook,
    drawn,
    gaps,
    head,
    item,
    planes_of,
    raw,
    tabled,
    ways_of,
)

#: The name, requirements and tensor of a vector.
Good = tuple[str, str, Item]


def valid_planes() -> Iterator[Good]:
    """Value blocks and tables by place."""
    yield from dtypes()
    yield from contexts()
    yield from streams()
    yield from chunks_and_entries()
    yield from valid_tables()


def dtypes() -> Iterator[Good]:
    """Every dtype, and values at the ends of their ranges."""
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


def contexts() -> Iterator[Good]:
    """Every context, and maps from places to tables."""
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
    parts = [n % 3 << 24 | 5 << 16 | n * n % 7 << 8 | n for n in range(60)]
    third = Plane(CODED, BY_PLANE_0, map=[n % 2 for n in range(256)])
    yield "planes_third_by_plane_0", "V1", item(parts, "uint32", [Plane(), Plane(CONSTANT_PLANE), third, Plane()])
    one_place = Plane(CODED, BY_AXIS, 1, 1, [0], tables=2)
    yield "planes_axis_of_one_place", "V2", item(drawn("uint8", 20, 3), "uint8", [one_place])
    falls = Plane(CODED, BY_AXIS, 1, 4, [15, 3, 15, 0], tables=16)
    yield "planes_map_falls", "A19", item(drawn("uint8", 32, 3), "uint8", [falls])
    most = Plane(CODED, BY_AXIS, 1, 16, list(range(16)))
    yield "planes_most_tables", "", item(drawn("uint8", 320, 3), "uint8", [most])
    unused = Plane(CODED, BY_AXIS, 1, 4, [0, 3, 0, 3])
    yield "planes_unused_tables", "", item(drawn("uint8", 32, 3), "uint8", [unused])


def streams() -> Iterator[Good]:
    """Frequencies, and every number of states."""
    mixed = [(7 * n * n + 3 * n) % 31 >> n % 4 for n in range(256)]
    mixed[0] += 4096 - sum(mixed)
    used = [n * n % 256 for n in range(40) if mixed[n * n % 256]]
    yield "planes_frequencies", "A16", item(used, "uint8", [Plane(CODED, frequencies=[mixed])])
    for count in (1, 4095, 4096, 8191, 8192, 16384, 70000):
        yield f"planes_states_{count}", "A17 A18", item(drawn("uint8", count, 4), "uint8", [Plane(CODED)])
    one = Plane(CODED, frequencies=[[4096 * (n == 7) for n in range(256)]])
    yield "planes_one_symbol", "A16", item([7] * 50, "uint8", [one])
    yield "planes_states_most", "A17 A18", item([7] * (1 << 20), "uint8", [one])


def chunks_and_entries() -> Iterator[Good]:
    """Value blocks of chunks, and of sparse tensors."""
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
    ends = tabled([1, 0x7F7FFFFF], "float32", 2, 2, raw([1, 3, 1, 255]), [0, 0])
    values = [1, 3, 0x7F7FFFFF, 0xFF7FFFFF]
    yield "tables_scales_ends", "V8", Item(ends, DENSE, (4,), values)
    alone = tabled([ONE], "float32", 1, 1, raw([0]), size=1)
    yield "tables_one_element", "V4", Item(alone, DENSE, (1,), [ONE])
    all_codes = list(range(256))
    large = tabled([ONE + n for n in all_codes], "float32", 256, 1, raw(all_codes), size=256)
    yield "tables_most_values", "V5 V7", Item(large, DENSE, (256,), [ONE + n for n in all_codes])
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
    vast = tabled(books[:3], "float32", 1 << 40, 1, payload, size=3)
    found = [books[code - 1] for code in entries.values()]
    yield "tables_sparse_2_40", "V4", Item(vast, SPARSE, (1 << 40,), found, list(entries))
