"""Invalid vectors of value blocks and of tables by place: sections 6.4 and 6.5 of the specification."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from generator.assembler import CONSTANT, DENSE, SPARSE, Item, assemble, varint
from generator.samples import Invalid
from generator.value_blocks import (
    BY_AXIS,
    BY_PLANE_0,
    CODED,
    CONSTANT_PLANE,
    ONE,
    RAW,
    Plane,
    block,
    drawn,
    frequencies_of,
    gaps,
    head,
    item,
    raw,
    tabled,
    ways_of,
)

#: Bit patterns of uint8 and uint16.
SOME, WIDE = drawn("uint8", 24, 9), drawn("uint16", 24, 9)
CODED_PLANE = Plane(CODED)


def bad(name: str, code: str, ids: str, way: Plane, values: Sequence[int] = SOME, **more: Any) -> Invalid:
    """Return a vector of one plane."""
    return f"planes_{name}", code, ids, assemble([item(values, "uint8", [way], **more)])


def one(name: str, code: str, ids: str, tensor: Item, **more: Any) -> Invalid:
    """Return a vector of one tensor."""
    return name, code, ids, assemble([tensor], **more)


def invalid_planes() -> Iterator[Invalid]:
    """Value blocks and tables by place that a decoder must reject."""
    yield from heads()
    yield from streams()
    yield from bools()
    yield from blocks_of_entries()
    yield from extended_entries()
    yield from invalid_tables()


def heads() -> Iterator[Invalid]:
    """Heads of planes, and their axes."""
    yield bad("kind_3", "E08", "V1", Plane(RAW, head=3))
    yield bad("context_3", "E08", "V1", replace(CODED_PLANE, head=CODED | 3 << 2 | 1 << 4))
    second = replace(CODED_PLANE, head=CODED | 3 << 2)
    yield one("planes_second_context", "E08", "V1", item(WIDE, "uint16", [Plane(), second]))
    yield bad("raw_with_bits", "E08", "V1", Plane(RAW, head=RAW | 16))
    yield bad("constant_with_bits", "E08", "V1", Plane(CONSTANT_PLANE, head=CONSTANT_PLANE | 4), [1] * 24)
    yield bad("tables_alone", "E08", "V1", replace(CODED_PLANE, head=CODED | 1 << 4))
    yield bad("one_table_by_axis", "E08", "V1", Plane(CODED, BY_AXIS, 1, 2, [0, 0]))
    yield bad("plane_0_by_itself", "E08", "V1", Plane(CODED, BY_PLANE_0, map=[0, 1] * 128))
    flat = [0x0700 | n for n in range(24)]
    ways = [Plane(CONSTANT_PLANE), Plane(CODED, BY_PLANE_0, map=[0, 1] * 128)]
    yield one("planes_by_constant_plane_0", "E08", "V1", item(flat, "uint16", ways))
    for name, inner, lines in (("not_dividing", 5, 2), ("of_none", 0, 2), ("of_no_lines", 2, 0), ("beyond", 24, 2)):
        yield bad(f"axis_{name}", "E08", "V2", axis_way(inner, lines))
    yield bad("axis_limit", "E06", "N2", axis_way(25, 2))
    yield bad("words_limit", "E06", "N2", replace(CODED_PLANE, words=30))


def streams() -> Iterator[Invalid]:
    """Tables of frequencies, states and words, and bytes that are missing or left."""
    by = Plane(CODED, BY_AXIS, 1, 2, [0, 1])
    yield bad("map_beyond", "E14", "A19", replace(by, coded_map=[0, 2]))
    for name, change in (("fewer", -1), ("more", 1)):
        frequencies = frequencies_of(SOME)
        frequencies[SOME[0]] += change
        yield bad(f"frequencies_{name}", "E08", "A16", replace(CODED_PLANE, frequencies=[frequencies]))
    yield bad("state_low", "E13", "A17", replace(CODED_PLANE, first_state=65535))
    two = [0] * 256
    two[0:3] = [3583, 1, 512]
    below = struct.pack("<IH", 32768 + 3583, 3584)  # decodes to the right end, because A takes it to 8 and a word
    yield bad("state_low_unnoticed", "E13", "A17", Plane(CODED, frequencies=[two], data=below, words=1), [1, 2])
    yield bad("state_at_the_end", "E13", "A18", replace(CODED_PLANE, last_state=65537))
    yield bad("words_left", "E13", "A18", replace(CODED_PLANE, words=1), after=b"\0\0")
    yield bad("tables_longest", "E03", "N4", CODED_PLANE, length=1 << 41)
    yield bad("tables_length_limit", "E06", "N2", CODED_PLANE, length=(1 << 41) + 1)
    yield one("planes_words_missing", "E13", "A18", cut_words())
    yield bad("go_on", "E04", "N5", Plane(), after=b"\0")
    short = Item(b"\4\0\0" + bytes(SOME[:-1]), DENSE, (24,), SOME, dtype="uint8")
    yield one("planes_end_early", "E03", "N4", short)
    yield one("planes_of_none_go_on", "E04", "N5", Item(b"\4\0\0", DENSE, (0,), []))


def bools() -> Iterator[Invalid]:
    """Elements of bool that are neither 0 nor 1."""
    yield one("planes_bool", "E08", "T12", item([0, 1, 2], "bool", [Plane()]))
    yield one("planes_bool_raw", "E08", "T12", Item(b"\0\0\0\1\2", DENSE, (3,), [0, 1, 2], dtype="bool"))
    yield one("planes_bool_constant", "E08", "T12", Item(b"\0\2", CONSTANT, (3,), [2], dtype="bool"))


def blocks_of_entries() -> Iterator[Invalid]:
    """Value blocks of sparse tensors: missing, not allowed, or of another length."""
    yield one("planes_stream_of_float64", "E08", "P2", Item(b"\2\0" + bytes(4), DENSE, (1,), [0], dtype="float64"))
    for name, coder, dtype in (("int64", 2, "int64"), ("coder_0", 0, "float32"), ("coder_1", 1, "float32")):
        none = Item(bytes([coder, 0, 0, 0]), SPARSE, (1, 4), [1], [0], dtype=dtype)
        yield one(f"planes_no_block_{name}", "E08", "P2", none)
    for name, form, codebook_size in (("dense", DENSE, 0), ("shared", 4, 1)):
        places = None if form == DENSE else [0]
        given = Item(b"\x80" + bytes(3), form, (1, 4), [1], places, codebook_size)
        yield one(f"planes_block_of_{name}", "E08", "P2", given)
    for name, error, ids, payload, count in (
        ("longer_than_chunk", "E06", "N2", b"\x82\0\5\0\0", 1),
        ("ends_early", "E03", "N4", b"\x82\0\3\0\0", 1),
        ("of_no_entries", "E04", "N5", b"\x82\0\1\0", 0),
    ):
        yield one(f"planes_block_{name}", error, ids, Item(payload, SPARSE, (1, 4), [1] * count, [0] * count))


def extended_entries() -> Iterator[Invalid]:
    """Forms and dtypes that an extended table entry may not name."""
    true = item([1, 2, 3], "float64", ways_of("float64"))
    for name, ids, kind in (
        ("dtype", "T18", b"\x2f\x21"),
        ("form_2", "T19", b"\x27\x22"),
        ("form_4", "T19", b"\x27\x24"),
        ("form_5", "T19", b"\x27\x25"),
        ("dtype_few", "T19", bytes([0x27, 1 | 3 << 3])),
        ("dtype_beyond", "T19", bytes([0x27, 1 | 19 << 3])),
    ):
        yield one(f"tensor_extended_{name}", "E08", ids, replace(true, lies={"kind": kind}), digest=bytes(8))


def axis_way(inner: int, lines: int) -> Plane:
    """Return a plane with a false axis, whose units all have the first of two tables."""
    return Plane(CODED, BY_AXIS, inner, lines, tables=2)


def cut_words() -> Item:
    """Return a tensor whose last word is missing."""
    some = [n * 7 % 256 for n in range(60)]
    whole = item(some, "uint8", [Plane(CODED, words=-1)])
    return replace(whole, payload=whole.payload[:-2])


def invalid_tables() -> Iterator[Invalid]:
    """Payloads under coder 5 that a decoder must reject."""
    codebooks, codes = [ONE, ONE + 1, ONE + 2, ONE + 3], [0, 1, 1, 0, 1, 0]
    values = [codebooks[i // 3 * 2 + c] for i, c in enumerate(codes)]

    def wrong(name: str, code: str, ids: str, payload: bytes, **more: object) -> Invalid:
        return f"tables_{name}", code, ids, assemble([Item(payload, DENSE, (2, 3), values, **more)], digest=bytes(8))  # type: ignore[arg-type]

    good = tabled(codebooks, "float32", 3, 2, raw(codes), size=2)
    yield wrong("kind_2", "E08", "V3", good[:1] + b"\2" + good[2:])
    half = tabled([1, 2], "float16", 3, 2, raw(codes), [0, 0])
    yield wrong("scales_of_float16", "E08", "V3", half, dtype="float16")
    for name, inner, lines in (("not_dividing", 2, 2), ("of_none", 0, 2), ("of_no_lines", 3, 0), ("beyond", 3, 4)):
        yield wrong(f"axis_{name}", "E08", "V4", tabled(codebooks, "float32", inner, lines, raw(codes), size=2))
    for name, code, ids, inner, lines in (
        ("axis_limit", "E06", "N2", (1 << 40) + 1, 2),
        ("lines_limit", "E06", "N2", 3, (1 << 40) + 1),
        ("axis_most", "E08", "V4", 1 << 40, 2),
        ("lines_most", "E08", "V4", 3, 1 << 40),
    ):
        yield wrong(name, code, ids, tabled(codebooks, "float32", inner, lines, raw(codes), size=2))
    none = Item(tabled([], "float32", 1, 1, raw([]), size=1), DENSE, (0, 3), [])
    yield "tables_of_no_elements", "E08", "V4", assemble([none])
    yield wrong("size_0", "E08", "V5", b"\5\0\3\2\0" + good[5:])
    yield wrong("size_limit", "E06", "N2", b"\5\0\3\2" + varint(257) + good[5:])
    yield wrong("of_tables", "E08", "V6", tabled(codebooks, "float32", 3, 2, b"\0" + good, size=2))
    yield wrong("code_beyond", "E14", "V7", tabled(codebooks, "float32", 3, 2, raw([0, 1, 1, 0, 2, 0]), size=2))
    yield wrong("codes_end_early", "E13", "P10", good[:-1])
    yield wrong("no_codes", "E03", "N4", good[: -len(codes) - 2])
    yield wrong(
        "codebook_limit", "E06", "N2", tabled(codebooks, "float32", 3, 2, varint(257) + b"\0\0" + bytes(codes), size=2)
    )
    yield wrong("codebook_most", "E03", "N4", tabled(codebooks, "float32", 3, 2, varint(256), size=2))
    yield wrong("books_end_early", "E03", "N4", good[:10])
    short = tabled(codebooks[:3], "float32", 3, 2, raw(codes), size=2)
    yield wrong("books_short", "E03", "N4", short)
    for name, scale in (("0", 0), ("negative", ONE | 1 << 31), ("infinite", 0x7F800000), ("nan", 0x7FC00000)):
        yield wrong(f"scale_{name}", "E08", "V8", tabled([ONE, scale], "float32", 3, 2, raw(codes), [0, 0]))
    yield wrong("transposed", "E08", "P2", b"\x15" + good[1:])
    shared = Item(good, 2, (2, 3), values, codebook=2)
    yield "tables_of_shared", "E08", "P2", assemble([shared])
    body = block([1, 1], "int8", [Plane()])
    payload = b"\0\x80\0" + head() + varint(len(body)) + body + gaps(2)
    zero = Item(tabled([0, ONE], "float32", 6, 1, payload, size=2), SPARSE, (2, 3), [0, 0], [0, 2])
    yield "tables_zero_of_sparse", "E08", "T13", assemble([zero])
