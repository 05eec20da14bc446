"""Vectors of deltas (section 15 of the specification): valid ones with their bases, and ones that must be rejected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from generator.assembler import CONSTANT, DENSE, SIZES, Item, assemble, labels, metadata, varint
from generator.delta_bytes import (
    BY_AXIS,
    BY_PREDICTION,
    CHANGED,
    KEPT,
    NEW,
    WIDTH_OF,
    Made,
    Way,
    delta,
    difference,
    origin,
    pair,
    section,
    step,
    string,
    tensor,
)
from generator.graph_bytes import Op, graph, op
from generator.samples import VALUES, Invalid, constant, copy, dense
from generator.value_blocks import CODED, CONSTANT_PLANE, Plane, block

CODED_WAY = Way(Plane(CODED), Plane(CODED))
RAW_WAY = Way(Plane(), Plane())


def deltas() -> Iterator[Made]:
    """All deltas with their bases."""
    yield from valid_files()
    yield from files_of_other_bases()
    for dtype in SIZES:
        old, new = pair(dtype, 40, 3)
        scale = 0.5 if dtype == "int8" else 1.0
        for name, way in (("raw", RAW_WAY), ("coded", CODED_WAY)):
            data = difference(new, old, dtype, way)
            items = tensor("a", old, dtype, (8, 5), scale), tensor("a", new, dtype, (8, 5), scale)
            yield delta(f"{name}_{dtype}", "B12 B13", *items, data)
    yield from valid_differences()
    yield from invalid_differences()
    yield from invalid_small_differences()
    yield from invalid_uses()


def valid_files() -> Iterator[Made]:
    """Deltas of every kind of step and section."""
    first, second, third = dense("a"), constant("b"), dense("c", begins=True)
    base = assemble([first, second, third], [(3, labels("x")), (4, metadata(("k", "v")))])
    kept = (3, labels("x")), (4, metadata(("k", "v")))

    def made(
        name: str,
        items: list[Item],
        own: list[Item],
        steps: list[bytes],
        sections: bytes = b"\2\3\0\4\0",
        order: int = 0,
    ) -> Made:
        after = {b"\2\3\0\4\0": kept, b"\0": (), b"\1\4\0": kept[1:]}.get(sections, ((3, labels("yes")), (131, b"!")))
        result = assemble(items, after)
        body = section(base, result, b"".join(steps), sections, len(steps), order)
        return f"file_{name}", "B7 B8", assemble(own, [body]), base, {item.name: item.tensor() for item in items}

    yield made("nothing_changed", [first, second, third], [], [step(KEPT, 3, b"\0")])
    yield made("order_changed", [third, first, second], [], [step(KEPT, 1, b"\2"), step(KEPT, 2, b"\0")])
    yield made("no_tensors", [], [], [])
    yield made("sections_dropped", [first], [], [step(KEPT, 1, b"\0")], b"\0")
    yield made("section_dropped", [first], [], [step(KEPT, 1, b"\0")], b"\1\4\0")
    body = labels("yes")
    other = b"\2\3" + varint(len(body) + 1) + body + b"\x83\2!"
    yield made("sections_new", [first], [], [step(KEPT, 1, b"\0")], other)
    yield made("in_place_nothing", [first, second, third], [], [], order=1)
    alike_c = difference([*VALUES[:2], 0], VALUES, "float32", RAW_WAY)
    newer, moved = constant("b", bits=7), tensor("c", [*VALUES[:2], 0], "float32")
    own = [newer, string("s", alike_c)]
    yield made("in_place", [first, newer, moved], own, [step(NEW, 1), step(CHANGED, 1, origin(2))], order=1)
    backwards = [string("s", alike_c), newer]
    yield made(
        "in_place_in_any_order", [first, newer, moved], backwards, [step(CHANGED, 1, origin(2)), step(NEW, 1)], order=1
    )
    all_new = [tensor("a", [*VALUES[1:], 0], "float32"), newer, moved]
    yield made("in_place_all", all_new, all_new, [step(NEW, 3)], order=1)
    fresh, again = dense("d"), constant("e", (2, 2), begins=True)
    yield made("tensors_new", [fresh, first, again], [fresh, again], [step(NEW, 1), step(KEPT, 1, b"\0"), step(NEW, 1)])
    alike = string("z", difference(VALUES, VALUES, "float32", Way(Plane(CONSTANT_PLANE), Plane())))
    renamed = replace(first, name="z")
    yield made(
        "tensor_renamed", [renamed, fresh], [alike, fresh], [step(CHANGED, 1, origin(0, name="z")), step(NEW, 1)]
    )
    twice = copy("y", 1, alike)
    both = [renamed, replace(first, name="y")]
    steps = [step(CHANGED, 1, origin(n, name=m)) for n, m in ((0, "z"), (2, "y"))]
    yield made("difference_copied", both, [alike, twice], steps)


def files_of_other_bases() -> Iterator[Made]:
    """Yield a difference of several tensors, and a graph that stays."""
    before, wide = tensor("w", [7, 0, 9] * 2, "float32", (2, 3)), tensor("w", [7, 1, 9, 0, 0, 8], "float32", (2, 3))
    base_of_three = assemble([dense("a"), before, dense("c", begins=True)])
    new, old = ([*VALUES, *middle.values, *VALUES] for middle in (wide, before))
    of_three = string("s", difference(new, old, "float32", CODED_WAY))
    result = assemble([dense("a"), wide, dense("q", begins=True)])
    steps = step(CHANGED, 3, origin(0) + origin(1) + origin(2, name="q"))
    yield (
        "file_one_difference_of_three",
        "B7 B8 B16",
        assemble([of_three], [section(base_of_three, result, steps)]),
        base_of_three,
        {item.name: item.tensor() for item in (dense("a"), wide, dense("q"))},
    )
    net = graph((5,), op(Op.RELU))
    with_graph = assemble([dense("a")], [(2, net)])
    result = assemble([], [(2, net)])
    yield "file_graph_kept", "B7", assemble([], [section(with_graph, result, b"", b"\1\2\0", 0)]), with_graph, {}
    long, name = assemble([dense("a")]), "n" * 255
    alike = string("z", difference(VALUES, VALUES, "float32", Way(Plane(CONSTANT_PLANE), Plane())))
    renamed = section(long, assemble([dense(name)]), step(CHANGED, 1, origin(0, name=name)))
    yield "file_longest_name", "B8", assemble([alike], [renamed]), long, {name: dense(name).tensor()}
    test = (5, varint(7) + varint(1) + bytes(8))
    tested, result = assemble([], [(2, net), test]), assemble([], [(2, net), test, (128, b"!")])
    made = assemble([], [section(tested, result, b"", b"\3\2\0\5\0\x80\2!", 0)])
    yield "file_sections_5_and_128", "B2 B7", made, tested, {}
    many = Item(b"\0\7", CONSTANT, ((1 << 20) + 1,), [7], name="a", dtype="uint8")
    pieces = (difference([7] * n, [7] * n, "uint8", Way(Plane(CONSTANT_PLANE), Plane()))[1:] for n in (1 << 20, 1))
    base = assemble([many])
    made = assemble([string("a", b"\0" + b"".join(pieces))], [section(base, base, step(CHANGED, 1, origin(0)))])
    yield "file_of_two_pieces", "B8", made, base, {"a": many.tensor()}


def valid_differences() -> Iterator[Made]:
    """Tables, contexts, scales and extreme steps."""
    for dtype in ("float32", "bfloat16", "int8", "float64", "complex64", "uint16"):
        some, becomes = pair(dtype, 5, 8)
        codes = [n * n % 5 for n in range(40)]
        old, moved = [some[c] for c in codes], [becomes[c] for c in codes]
        new = [*moved[:-2], 0, old[0]]
        known = sorted(set(old))
        table = block(
            [becomes[some.index(value)] for value in known], dtype, [Plane()] * WIDTH_OF.get(dtype, SIZES[dtype])
        )
        data = difference(new, moved, dtype, CODED_WAY, 1, varint(len(table)) + table)
        yield delta(f"table_{dtype}", "B9", tensor("a", old, dtype), tensor("a", new, dtype), data)
    for dtype in ("float32", "bfloat16", "int16", "float16"):
        old, new = pair(dtype, 60, 9)
        items = tensor("a", old, dtype, (6, 10)), tensor("a", new, dtype, (6, 10))
        prediction = Plane(CODED, BY_PREDICTION)
        yield delta(f"by_prediction_{dtype}", "B11", *items, difference(new, old, dtype, Way(prediction, prediction)))
        for inner, lines in ((10, 6), (1, 10), (7, 3), (100, 2), (1 << 40, 2)):
            axis = Plane(CODED, BY_AXIS, inner, lines, [n % 3 for n in range(lines)])
            data = difference(new, old, dtype, Way(axis, axis))
            yield delta(f"by_axis_{inner}_{lines}_{dtype}", "B10", *items, data)
        one_line = Plane(CODED, BY_AXIS, 5, 1, [0], tables=2)
        yield delta(f"by_axis_5_1_{dtype}", "B10", *items, difference(new, old, dtype, Way(one_line, Plane())))
    old, new = [1, 2, 250], [1, 3, 0]
    items = tensor("a", old, "int8", (3,), 0.5), tensor("a", new, "int8", (3,), 0.25)
    yield delta("scale", "B6", *items, difference(new, old, "int8", RAW_WAY), scale=0.25)
    zero, top = 0, 0x80000000
    old = [zero, top, 0x7F800000, 0xFFFFFFFF, 0x7FFFFFFF, 1, 0x80000001, 0x3F800000]
    new = [top, zero, 0xFF800000, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000001, 1, 0x3F800001]
    data = difference(new, old, "float32", Way(Plane(CODED), Plane(CODED), given_marks=[2] * 8))
    yield delta("extreme_float32", "B13", tensor("a", old, "float32"), tensor("a", new, "float32"), data)
    old = [0, (1 << 64) - 1, 1 << 63, 5, 1]
    new = [1 << 63, (1 << 63) - 1, 0, (1 << 64) - 1, (1 << 63) + 2]
    data = difference(new, old, "uint64", Way(Plane(CODED), Plane(CODED), given_marks=[2] * 5))
    yield delta("extreme_uint64", "B13 B14", tensor("a", old, "uint64"), tensor("a", new, "uint64"), data)
    every = Way(Plane(CONSTANT_PLANE), Plane(CONSTANT_PLANE))
    old = list(range(100, 140))
    yield delta("all_by_one", "", tensor("a", old, "uint8"), tensor("a", [n + 1 for n in old], "uint8"),
                difference([n + 1 for n in old], old, "uint8", every))  # fmt: skip
    yield delta("all_zero", "", tensor("a", old, "uint8"), tensor("a", [0] * 40, "uint8"),
                difference([0] * 40, old, "uint8", every))  # fmt: skip
    none = Item(b"\0\0", DENSE, (0, 3), [])
    yield delta("no_elements", "", none, none, b"\0")
    yield delta("no_elements_with_table", "", none, none, b"\1")
    long_old = [n * n % 251 for n in range(9000)]
    long_new = [n if i % 7 else (n + i) % 256 for i, n in enumerate(long_old)]
    axis = Plane(CODED, BY_AXIS, 9, 1000, [n % 16 for n in range(1000)])
    yield delta("two_states", "", tensor("a", long_old, "uint8", (1000, 9)), tensor("a", long_new, "uint8", (1000, 9)),
                difference(long_new, long_old, "uint8", Way(axis, Plane(CODED, BY_PREDICTION))))  # fmt: skip


def invalid_differences() -> Iterator[Made]:
    """Differences that a decoder must reject."""
    old, new = pair("float32", 12, 3)
    items = tensor("a", old, "float32"), tensor("a", new, "float32")

    def bad(name: str, code: str, ids: str, way: Way = CODED_WAY, **more: object) -> Made:
        data = difference(new, old, "float32", way, **more)  # type: ignore[arg-type]
        return delta(f"bad_{name}", ids, *items, data, code)

    good = difference(new, old, "float32", CODED_WAY)
    yield bad("flags", "E08", "B9", flags=2)
    yield delta("bad_empty", "N4", *items, b"", "E03")
    yield delta("bad_cut", "N4", *items, good[:1], "E03")
    yield delta("bad_cut_in_piece", "N4", *items, good[:-1], "E03")
    yield delta("bad_after_the_last_piece", "N5", *items, good + b"\0", "E04")
    yield bad("after_the_block", "E04", "N5", replace(CODED_WAY, tail=b"\0"))
    stepped = sum(a != b and b != 0 for a, b in zip(old, new, strict=True))
    yield bad("count", "E14", "B12", Way(Plane(), Plane(), count=stepped - 1, given_sizes=[0] * (stepped - 1)))
    more = Way(Plane(), Plane(), count=stepped + 1)
    yield bad("count_more", "E14", "B12", more)
    yield bad("count_limit", "E06", "N2", replace(CODED_WAY, count=13))
    yield bad("mark", "E14", "B12", replace(CODED_WAY, given_marks=[3] * 12))
    yield bad("constant_mark", "E14", "B12", Way(Plane(CONSTANT_PLANE), Plane(), given_marks=[255] * 12))
    for name, plane in (
        ("kind", Plane(head=3)),
        ("raw_with_context", Plane(head=4)),
        ("tables_without_context", Plane(CODED, head=2 | 1 << 4)),
        ("context_without_tables", Plane(CODED, head=2 | 3 << 2)),
    ):
        yield bad(name, "E08", "V1", Way(plane, Plane()))
        yield bad(f"size_{name}", "E08", "V1", Way(Plane(CODED), plane))
    yield bad("plane_0", "E08", "B11", Way(Plane(CODED, head=2 | 2 << 2 | 1 << 4), Plane()))
    for inner, lines in ((0, 2), (2, 0)):
        axis = Plane(CODED, BY_AXIS, inner, lines, head=2 | 1 << 2 | 1 << 4)
        yield bad(f"axis_{inner}_{lines}", "E08", "B10", Way(axis, Plane()))
    for inner, lines in (((1 << 40) + 1, 2), (2, (1 << 20) + 1)):
        axis = Plane(CODED, BY_AXIS, inner, lines, head=2 | 1 << 2 | 1 << 4)
        yield bad(f"axis_{inner}_{lines}", "E06", "N2 B10", Way(axis, Plane()))
    most = Plane(CODED, BY_AXIS, 2, 1 << 20, head=2 | 1 << 2 | 15 << 4)
    yield bad("axis_most_lines", "E13", "A1", Way(most, Plane()))
    yield bad("words", "E06", "N2", Way(Plane(CODED, words=13), Plane()))
    yield bad("map", "E14", "A19", Way(Plane(CODED, BY_PREDICTION, map=[0, 1] * 128, coded_map=[2] * 256), Plane()))


def invalid_small_differences() -> Iterator[Made]:
    """Differences of two elements, with bad sizes of steps, tables and values."""
    small = tensor("a", [5, 6], "uint8"), tensor("a", [7, 9], "uint8")
    for name, code, ids, sizes, tail in (
        ("size", "E14", "B13", [28, 1], b""),
        ("constant_size", "E14", "B13", [255, 1], b""),
        ("step_of_nothing", "E14", "B13", [27, 1], b"\x1f"),
        ("steps_end_early", "E03", "N4", [27, 27], b"\x1e"),
        ("padding", "E13", "B14", [12, 1], b"\x08"),
    ):
        way = Way(Plane(CONSTANT_PLANE), Plane(), given_sizes=sizes, tail=tail)
        yield delta(f"bad_{name}", ids, *small, difference([7, 9], [5, 6], "uint8", way), code)
    table = block([1, 2], "uint8", [Plane()])
    for name, code, data in (("short", "E03", table[:-1]), ("long", "E04", table + b"\0")):
        made = difference([7, 9], [1, 2], "uint8", RAW_WAY, 1, varint(len(data)) + data)
        yield delta(f"bad_table_{name}", "B9", *small, made, code)
    made = difference([7, 9], [1, 2], "uint8", RAW_WAY, 2, varint(len(table)) + table)
    yield delta("bad_flags_and_table", "B9", *small, made, "E08")
    true = tensor("a", [0, 1], "bool"), tensor("a", [2, 1], "bool")
    yield delta("bad_bool", "B8 T12", *true, difference([2, 1], [0, 1], "bool", RAW_WAY), "E08")


def invalid_uses() -> Iterator[Made]:
    """Deltas that do not fit their base."""
    first, second = dense("a"), constant("b")
    base, result = assemble([first, second]), assemble([first])

    def bad(
        name: str, code: str, ids: str, steps: bytes, own: Sequence[Item] = (), given: bytes = base, **more: bytes
    ) -> Made:
        said = more.pop("said", given)
        return f"bad_{name}", ids, assemble(own, [section(said, result, steps, **more)]), given, code

    keep = step(KEPT, 1, b"\0")
    alike = string("z", difference(VALUES, VALUES, "float32", Way(Plane(CONSTANT_PLANE), Plane())))
    yield bad("base", "E17", "B7", keep, said=result)
    yield bad("kept_beyond", "E17", "B7", step(KEPT, 1, b"\2"))
    yield bad("kept_beyond_by_count", "E17", "B7", step(KEPT, 3, b"\0"))
    yield bad("origin_beyond", "E17", "B7", step(CHANGED, 1, origin(2)), [alike])
    yield bad("origin_most", "E17", "B7", step(CHANGED, 1, origin(1 << 16, 0.5, "n")), [alike])
    yield "bad_no_delta", "B7", result, base, "E18"
    yield bad("section_of_the_base", "E17", "B7", keep, sections=b"\1\3\0")
    chained = assemble([], [section(base, result, keep)])
    yield bad("base_is_a_delta", "E17", "B7", keep, given=chained)
    yield bad("result", "E05", "B8", step(KEPT, 1, b"\1"))
    yield bad("name_again", "E10", "B8 T1", step(KEPT, 1, b"\0") + step(NEW, 1), [dense("a")], count=2)  # type: ignore[arg-type]
    yield bad("scale_of_float32", "E08", "B6", step(CHANGED, 1, origin(0, 0.5)), [alike])
    mixed = assemble([first, tensor("b", [1, 2, 3], "uint32")])
    yield bad("origins_of_two_dtypes", "E08", "B16", step(CHANGED, 2, origin(0) + origin(1)), [alike], mixed)
    again = step(KEPT, 1, b"\0") + step(CHANGED, 1, origin(0, name="a"))
    yield bad("name_of_origin_again", "E10", "B8 T1", again, [alike], count=2)  # type: ignore[arg-type]
    yield bad("name_in_place", "E17", "B7", step(NEW, 1), [dense("z")], order=1)  # type: ignore[arg-type]
    yield bad(
        "twice_in_place", "E10", "B8", step(NEW, 1) + step(CHANGED, 1, origin(0)), [dense("a"), alike], count=2, order=1
    )  # type: ignore[arg-type]
    yield bad("graph", "E08", "B8 G1", keep, sections=b"\1\2\2\x09")
    yield bad("labels", "E08", "B8 C6", keep, sections=b"\1\3\2\0")


def invalid_deltas() -> Iterator[Invalid]:
    """Deltas that a decoder must reject without a base."""
    base = assemble([dense("a")])
    keep = step(KEPT, 1, b"\0")

    def bad(
        name: str, code: str, ids: str, body: bytes, own: Sequence[Item] = (), more: Sequence[tuple[int, bytes]] = ()
    ) -> Invalid:
        return f"delta_{name}", code, ids, assemble(own, [*more, (6, body)])

    def body(steps: bytes, count: int = 1, sections: bytes = b"\0", order: int = 0) -> bytes:
        return section(base, base, steps, sections, count, order)[1]

    yield bad("cut_in_digest", "E03", "N4", body(keep)[:15])
    yield bad("cut", "E03", "N4", body(keep)[:-1])
    yield bad("too_long", "E04", "N5", body(keep) + b"\0")
    for kind, other in ((2, graph((5,), op(Op.RELU))), (3, labels("x")), (4, metadata(("k", "v")))):
        yield bad(f"beside_section_{kind}", "E08", "B1", body(keep), more=[(kind, other)])
    for name, listed in (("0", b"\1\0\0"), ("1", b"\1\1\0"), ("6", b"\1\6\0"), ("127", b"\1\x7f\0")):
        yield bad(f"section_{name}", "E08", "B2", body(keep, sections=listed))
    yield bad("sections_descend", "E08", "B2", body(keep, sections=b"\2\4\0\3\0"))
    yield bad("sections_descend_later", "E08", "B2", body(keep, sections=b"\3\2\0\5\0\3\0"))
    yield bad("section_again", "E08", "B2", body(keep, sections=b"\2\3\0\3\0"))
    yield bad("sections_limit", "E06", "N2", body(keep, sections=varint(257)))
    yield bad("section_length", "E06", "N2", body(keep, sections=b"\1\3" + varint((1 << 24) + 2)))
    yield bad("sections_most", "E08", "B2", body(keep, sections=varint(256)))
    yield bad("section_longest", "E03", "N4", body(keep, sections=b"\1\3" + varint((1 << 24) + 1)))
    yield bad("order_2", "E08", "B17", body(b"", 0, order=2))
    yield bad("kept_in_place", "E08", "B18", body(keep, order=1))
    named = step(CHANGED, 1, origin(0, name="z"))
    yield bad("renamed_in_place", "E08", "B18", body(named, order=1), [string("z", b"\0")])
    yield bad("step_of_none", "E08", "B3", body(step(KEPT, 0, b"\0")))
    yield bad("step_of_kind_3", "E08", "B3", body(step(3, 1)))
    yield bad("step_of_kind_3_most", "E08", "B3", body(step(3, 1 << 16)))
    yield bad("steps_limit", "E06", "N2", body(b"", (1 << 16) + 1))
    yield bad("step_limit", "E06", "N2", body(step(KEPT, (1 << 16) + 1)))
    yield bad("first_limit", "E06", "N2", body(step(KEPT, 1, varint((1 << 16) + 1))))
    yield bad("origin_limit", "E06", "N2", body(step(CHANGED, 1, origin((1 << 16) + 1))), [string("z", b"\0")])
    yield bad("unused", "E14", "B4", body(keep), [dense("z")])
    yield bad("used_twice", "E14", "B4", body(step(NEW, 2)), [dense("z")])
    yield bad("too_many", "E14", "B4", body(step(KEPT, 1 << 16, b"\0") + keep, 2))
    yield bad("difference_of_floats", "E08", "B5", body(step(CHANGED, 1, origin(0))), [dense("z")])
    matrix = replace(string("z", b"\0\0"), shape=(1, 2))
    yield bad("difference_of_rank_2", "E08", "B5", body(step(CHANGED, 1, origin(0))), [matrix])
    unnamed = varint(2) + b"\0"
    yield bad("name_empty", "E08", "B15", body(step(CHANGED, 1, unnamed)), [string("z", b"\0")])
    long = varint(2) + varint(256) + b"n" * 256
    yield bad("name_limit", "E06", "N2", body(step(CHANGED, 1, long)), [string("z", b"\0")])
    for name, scale in (("zero", 0.0), ("negative", -1.0), ("infinite", float("inf"))):
        yield bad(f"scale_{name}", "E08", "B6", body(step(CHANGED, 1, origin(0, scale))), [string("z", b"\0")])
