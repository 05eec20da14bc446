"""Invalid vectors for `coders.md`: codebooks, tables, values, coders 2 and 3, packed contents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from reference_coders import CodeSymbols, adaptive_chunk, multiply
from reference_mixing import mixed_chunk

from generator.assembler import CONSTANT, DENSE, DENSE_SHARED, SPARSE, SPARSE_SHARED, Item, assemble, labels, varint
from generator.modelled import Modelled, value_item
from generator.packed import EVERY, FILLERS, Packed
from generator.payloads import POOLS, drawn, spread
from generator.ranges import (
    Bits,
    RangeEncoder,
    encode_grid,
    encode_numbers,
    encode_values,
    grid_value_bits,
    number_bits,
    pack_text,
    put_scale,
    value_bits,
)
from generator.samples import ONE, Invalid, dense


def invalid_modelled() -> Iterator[Invalid]:
    """Streams that a decoder must reject."""
    good = Modelled((4, 6), drawn((4, 6), 0.5, 9)).item()
    for name, code, ids, payload in (
        ("zero_after", "E04", "A1", good.payload + b"\0"),
        ("byte_after", "E04", "A1", good.payload + b"\x55"),
        ("cut", "E13", "A1", good.payload[:-3]),
        ("changed_at_end", "E13", "A1", good.payload[:-1] + bytes([good.payload[-1] ^ 1])),
    ):
        yield f"range_{name}", code, ids, assemble([replace(good, payload=payload)])
    many = value_item("int8", list(range(100)), value_bits("int8", list(range(100))))
    yield "range_cut_long", "E13", "A1", assemble([replace(many, payload=many.payload[:5])])
    integers = list(range(1, (1 << 16) + 1))
    codebook = [multiply(ONE, i) for i in integers]
    huge = Modelled(
        (1, 4), {0: codebook[0], 3: codebook[-1]}, grid=(ONE, integers), codebook=codebook, flags=EVERY
    ).item()
    yield "payload_every_element_65536", "E08", "P2", assemble([huge])
    coded = value_item("float32", [ONE], value_bits("float32", [ONE]))
    constant = Item(b"\2" + coded.payload[2:], CONSTANT, (4,), [ONE])
    yield "payload_constant_coded", "E08", "P2", assemble([constant])
    for coder in (2, 3):
        fillers = Modelled((4, 6), {0: ONE, 9: ONE + 1}, coder=coder, flags=FILLERS)
        yield f"payload_fillers_coder_{coder}", "E08", "P2", assemble([fillers.item()])
    mixed = Modelled((4, 6), {0: ONE, 9: ONE + 1}, coder=3).item()
    yield "payload_planes_shared", "E08", "P2", assemble([replace(mixed, payload=b"\4" + mixed.payload[1:])])
    yield from invalid_codebooks()
    yield from invalid_tables()
    yield from invalid_values()
    yield from invalid_positions()
    contents = b"".join(section_bytes())
    packed = pack_text(contents)
    yield (
        "packed_contents_too_long",
        "E06",
        "A15",
        assemble(contents=b"", packed=pack_text(b"", (1 << 24) + 1), digest=bytes(8)),
    )
    most = pack_text(b"", 1 << 24)
    yield "packed_contents_most", "E13", "A1", assemble(contents=b"", packed=most, digest=bytes(8))
    names = labels(*(f"{number * number:x}" for number in range(1000, 1040)))
    file = assemble(sections=[(3, names)])
    long = pack_text(file[10 : 10 + int.from_bytes(file[6:10], "little")])
    yield "packed_contents_cut", "E13", "A1", assemble(packed=long[: len(long) // 2])
    yield "packed_contents_go_on", "E04", "A1", assemble([dense()], packed=packed + b"\0")
    yield "packed_contents_of_nothing", "E08", "C5", assemble(packed=pack_text(b""))


def section_bytes() -> Iterator[bytes]:
    """Yield the contents of a file of one dense tensor."""
    file = assemble([dense()])
    yield file[10 : 10 + int.from_bytes(file[6:10], "little")]


def head_item(
    write: Callable[[RangeEncoder], object], form: int = SPARSE_SHARED, dtype: str = "float32", k: int = 2
) -> Item:
    """Return a tensor of two entries under coder 0 whose codebook `write` writes; the rest is valid."""
    coder = RangeEncoder()
    write(coder)
    if form == SPARSE_SHARED:
        coder.put(2, 3)
    raw = coder.finish()
    chunk = b"\2\x40" if form == SPARSE_SHARED else b"\2"
    positions = [0, 1] if form == SPARSE_SHARED else None
    return Item(b"\0\0" + varint(len(raw)) + raw + chunk, form, (1, 2), [1, 2], positions, k, dtype=dtype)


def listed(*numbers: int, zeros: int = 0, bits: int = 32, flag: bool = True) -> Callable[[RangeEncoder], None]:
    """Return a function that writes a codebook as a list of numbers."""

    def write(coder: RangeEncoder) -> None:
        if flag:
            coder.put(0, 1)
        coder.put(zeros, 5)
        encode_numbers(coder, numbers, bits - zeros)

    return write


def invalid_codebooks() -> Iterator[Invalid]:
    """Codebooks: section 2 of `coders.md` and section 6 of `dcformat.md`."""
    half = 1 << 31
    yield "codebook_zero", "E15", "P6", assemble([head_item(listed(half - 1, half))])
    yield "codebook_past_end", "E15", "A5", assemble([head_item(listed(half + ONE, (1 << 32) + 5))])
    yield (
        "codebook_past_end_float16",
        "E15",
        "A5",
        assemble([head_item(listed(0x8001, 1 << 16, bits=16, flag=False), dtype="float16")]),
    )
    last = head_item(lambda coder: encode_numbers(coder, [200, 256], 8), dtype="int8")
    yield "codebook_past_end_int8", "E15", "A5", assemble([last])

    def sixteen(coder: RangeEncoder) -> None:
        coder.put(16, 5)

    yield "codebook_low_bits", "E08", "A4", assemble([head_item(sixteen, dtype="float16")])
    yield from invalid_grids()
    yield from invalid_heads()


def invalid_grids() -> Iterator[Invalid]:
    """Codebooks as grids: section 2 of `coders.md`."""
    grids: list[tuple[str, str, str, int, list[int]]] = [
        ("beyond", "E15", "A3", ONE, [1, 1 << 20]),
        ("beyond_first", "E15", "A3", ONE, [-(1 << 20), 1]),
        ("overflow", "E15", "P5", 0x7F000000, [1, 2]),
        ("zero", "E15", "P6", ONE, [-1, 0]),
        ("scale_0", "E08", "A6", 0, [1, 2]),
        ("scale_infinite", "E08", "A6", 0x7F800000, [1, 2]),
        ("scale_nan", "E08", "A6", 0x7FC00000, [1, 2]),
    ]
    for name, code, ids, scale, integers in grids:
        yield (
            f"codebook_grid_{name}",
            code,
            ids,
            assemble([head_item(lambda c, s=scale, i=integers: encode_grid(c, s, i))]),
        )

    def narrow(coder: RangeEncoder) -> None:
        coder.put(1, 1)
        coder.put(24, 5)
        put_scale(coder, ONE)

    yield "codebook_grid_scale_bits", "E08", "A6", assemble([head_item(narrow)])


def invalid_heads() -> Iterator[Invalid]:
    """Heads of another length than their stream."""
    after = head_item(listed((1 << 31) + 1, (1 << 31) + 2))
    size = after.payload[2]
    longer = after.payload[:2] + varint(size + 1) + after.payload[3 : 3 + size] + b"\0" + after.payload[3 + size :]
    yield "head_goes_on", "E04", "A1", assemble([replace(after, payload=longer)])
    yield (
        "head_cut",
        "E13",
        "A1",
        assemble([replace(after, payload=after.payload[:2] + varint(size - 1) + after.payload[3:])]),
    )
    yield "head_ends_early", "E03", "N4", assemble([replace(after, payload=after.payload[:6])])


def invalid_tables() -> Iterator[Invalid]:
    """Tables of code lengths: section 6.3 of `dcformat.md`."""
    pool = POOLS["float32"]
    elements = {0: pool[0], 1: pool[1], 2: pool[4]}
    for name, ids, table in (
        ("incomplete", "K6", (2, 1, 2, -1)),
        ("one_of_length_1", "K6", (2, -1, 1, -1)),
        ("none_used", "K6", (2, -1, -1, -1)),
        ("too_full", "K6", (2, 2, 2, 3, 1)),
        ("all_of_one_length", "K6", (0,)),
        ("symbol", "K10", (1, 3)),
        ("form", "K7", (3,)),
        ("length_0", "K8", (2, 1, 0, 1)),
        ("length_13", "K8", (2, 12, 13, 1)),
    ):
        form = "too_full" if name == "too_full" else ""
        filled = {**elements, 3: pool[5]} if form else elements
        item = Packed((len(filled),), filled, DENSE_SHARED, coder=1, tables=[table]).item()
        yield f"table_{name}", "E12", ids, assemble([item])
    # The sums of these are 1 for a decoder that lets 0 and 13 pass.
    for name, symbols, lengths in (("0_alone", 2, (0,)), ("13_beside", 14, (*range(1, 14), 12))):
        item = Packed(
            (symbols,), dict(enumerate(spread(symbols))), DENSE_SHARED, coder=1, tables=[(2, *lengths)]
        ).item()
        yield f"table_length_{name}", "E12", "K8", assemble([item])
    gaps = Packed((4, 4), {3: pool[0], 9: pool[1]}, coder=1, tables=[(2, 1, 2, *[-1] * 6), (0,)])
    yield "table_gaps_incomplete", "E12", "K6", assemble([gaps.item()])


def invalid_values() -> Iterator[Invalid]:
    """Value streams: section 3 of `coders.md`."""

    def item(bits: Bits, count: int, dtype: str = "float32") -> bytes:
        coder = RangeEncoder()
        coder.queue = bits
        return assemble([Item(b"\2\0" + closed(coder, dtype, count), DENSE, (count,), [1] * count, dtype=dtype)])

    yield "values_low_bits", "E08", "A8", item([0, *number_bits(24, 5), 0, 0], 1)
    yield "values_low_bits_int8", "E08", "A8", item([*number_bits(1, 5), 0, 0], 1, "int8")
    yield "values_grid_beyond", "E08", "A7", item(grid_value_bits(ONE, [1, 1 << 20]), 2)
    yield "values_grid_overflow", "E08", "A9", item(grid_value_bits(0x7F000000, [1, 2]), 2)
    yield "values_grid_scale_0", "E08", "A6", item(grid_value_bits(0, [1, 2]), 2)
    yield "values_scale_bits", "E08", "A6", item([1, *number_bits(31, 5)], 2)
    zero = Modelled((2, 4), {0: 0, 3: ONE}, SPARSE).item()
    yield "values_zero_of_sparse", "E08", "T13", assemble([zero])
    none = Item(b"\2\0\0", DENSE, (0,), [])
    yield "values_of_none_go_on", "E13", "P13", assemble([none])


def closed(coder: RangeEncoder, dtype: str, count: int) -> bytes:
    """Return the stream of the queued bits that a decoder reads before it rejects the values."""
    try:
        encode_values(coder, dtype, [], count)
    except ValueError:
        coder.queue.clear()
    return coder.finish()


def invalid_positions() -> Iterator[Invalid]:
    """Chunks of coders 2 and 3: sections 5 and 6 of `coders.md`."""

    def item(coder: int, shape: tuple[int, ...], count: int, bits: Bits, flags: int = 0) -> Item:
        encoder = RangeEncoder()
        encoder.queue = list(bits)
        kinds = CodeSymbols(1, 0)
        lines, length = (shape[1], shape[0]) if flags else shape
        try:
            if coder == 2:
                adaptive_chunk(encoder, kinds, lines, length, count)
            else:
                mixed_chunk(encoder, kinds, lines, length, count)
        except (ValueError, IndexError):
            encoder.queue.clear()
        payload = bytes([coder | flags, 0]) + encoder.finish()
        return Item(payload, SPARSE, shape, [ONE] * count, list(range(count)))

    past = [0, 0, 0, *number_bits(1, 3), 1, 0, 1, 1, 1, 0]
    yield "runs_past_the_end", "E13", "A10", assemble([item(2, (1, 5), 2, past)])
    yield "runs_of_escapes_past_the_end", "E13", "A10", assemble([item(2, (1, 5), 1, [0, 0, 0, 0, 0, 0, *[1] * 6])])
    wide = [1, 0, 0]
    yield "contexts_long_line", "E06", "A11", assemble([item(2, (1, (1 << 20) + 1), 1, wide)])
    yield "contexts_many_cells", "E06", "A11", assemble([item(2, (1 << 9, (1 << 19) + 1), 1, wide)])
    yield "mixing_long_line", "E06", "A12", assemble([item(3, (1, (1 << 20) + 1), 1, [])])
    yield "mixing_many_cells", "E06", "A12", assemble([item(3, (1 << 7, (1 << 19) + 1), 1, [])])
    yield "mixing_lag_1", "E13", "A13", assemble([item(3, (4, 4), 2, [*number_bits(1, 8), 0, 0])])
    yield "mixing_too_few_cells", "E13", "A14", assemble([item(3, (2, 2), 3, [*number_bits(0, 8), 1, 0, 1, 0])])
    yield "mixing_no_cells", "E13", "A14", assemble([item(3, (2, 2), 1, [*number_bits(0, 8), 0, 1, 0, 0])])
    for coder in (2, 3):
        yield (
            f"lines_too_long_{coder}",
            "E06",
            "P3",
            assemble([item(coder, (1, 1 << 31), 1, [1, 0, 0] if coder == 2 else [])]),
        )
        every = Modelled((4, 6), drawn((4, 6), 0.5, 9), coder=coder, flags=EVERY).item()
        for name, stored in (("more", len(every.values) - 1), ("fewer", len(every.values) + 1)):
            lie = replace(every, lies={"stored": varint(stored)})
            yield f"every_element_{name}_{coder}", "E14", "P7", assemble([lie])
