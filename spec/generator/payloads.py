"""Valid and invalid vectors of payloads under coders 0 and 1: section 6 of the specification."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from generator.assembler import CONSTANT, DENSE, DENSE_SHARED, SIZES, SPARSE, SPARSE_SHARED, Item, assemble, varint
from generator.packed import EVERY, FILLERS, TRANSPOSED, Packed
from generator.samples import RAW, VALUES, Invalid, Valid, valid

#: Values of each dtype, ascending: two below zero, negative zero if the dtype has one, and a few above zero.
POOLS = {
    "float32": [0xC0490FDB, 0xBF800000, 0x80000000, 0x00000001, 0x3F000000, 0x3F800000, 0x42C80000],
    "float16": [0xC248, 0xBC00, 0x8000, 0x0001, 0x3800, 0x3C00, 0x5640],
    "bfloat16": [0xC049, 0xBF80, 0x8000, 0x0001, 0x3F00, 0x3F80, 0x42C8],
    "int8": [0x80, 0xFF, 0xFE, 0x01, 0x02, 0x03, 0x7F],
}
FORMS = {DENSE_SHARED: "dense_shared", SPARSE: "sparse", SPARSE_SHARED: "sparse_shared"}


def drawn(
    shape: tuple[int, ...], share: float, seed: int, dtype: str = "float32", pool: list[int] | None = None
) -> dict[int, int]:
    """Return a random choice of elements with values from a pool."""
    source = random.Random(seed)
    size = 1
    for n in shape:
        size *= n
    return {at: source.choice(pool or POOLS[dtype]) for at in range(size) if source.random() < share}


def spread(count: int) -> list[int]:
    """Return `count` distinct binary32 values, some below zero."""
    return [0x3F800000 + (i << 12) | (i % 3 == 0) << 31 for i in range(count)]


def of(name: str, *tensors: Packed, ids: str = "") -> Valid:
    """Return a valid vector of packed tensors."""
    return valid(name, [tensor.item() for tensor in tensors], ids=ids)


def valid_payloads() -> Iterator[Valid]:
    """Every form and dtype, every flag, and the edges of coders 0 and 1."""
    for dtype, pool in POOLS.items():
        size = SIZES[dtype]
        raw = b"".join(value.to_bytes(size, "little") for value in [*pool, 0])
        scale = 0.125 if dtype == "int8" else 1.0
        some = Item(b"\0\0" + raw, DENSE, (2, 4), [*pool, 0], dtype=dtype, scale=scale)
        yield valid(f"form_dense_{dtype}", [some])
        one = Item(b"\0" + raw[:size], CONSTANT, (2, 4), pool[:1], dtype=dtype, scale=scale)
        yield valid(f"form_constant_{dtype}", [one])
        for form, name in FORMS.items():
            elements = drawn((6, 5), 1 if form == DENSE_SHARED else 0.4, 7, dtype)
            for coder in (0, 1):
                yield of(f"form_{name}_{dtype}_coder_{coder}", Packed((6, 5), elements, form, dtype, coder))
    for coder in (0, 1):
        for name, vector in edges(coder):
            yield of(f"coder_{coder}_{name}", vector)


def edges(coder: int) -> Iterator[tuple[str, Packed]]:
    """Yield the edge cases that coders 0 and 1 have in common."""
    shape = (7, 3, 3)
    elements = drawn(shape, 0.3, 1)
    for flags, name in ((0, "plain"), (TRANSPOSED, "transposed"), (EVERY, "every_element"), (FILLERS, "fillers")):
        yield name, Packed(shape, elements, coder=coder, flags=flags, gap_bits=2)
        yield f"{name}_chunks", Packed(shape, elements, coder=coder, flags=flags, gap_bits=2, per_chunk=2)
    yield "transposed_every_element", Packed(shape, elements, coder=coder, flags=TRANSPOSED | EVERY)
    yield "transposed_fillers", Packed(shape, elements, coder=coder, flags=TRANSPOSED | FILLERS, gap_bits=1)
    for form in (SPARSE, DENSE_SHARED):
        filled = elements if form == SPARSE else drawn(shape, 1, 2)
        for flags, name in ((0, "chunks"), (TRANSPOSED, "transposed")):
            packed = Packed(shape, filled, form, coder=coder, flags=flags, per_chunk=0 if flags else 4)
            yield f"{FORMS[form]}_{name}", packed
    for bits in range(1, 9):
        far = {3: 0x3F800000, 4: 0xBF800000, 3 * ((1 << bits) - 1) + 5: 0x3F800000, 899: 0xBF800000}
        yield f"gap_bits_{bits}", Packed((30, 30), far, coder=coder, gap_bits=bits)
    yield "fillers_far", Packed((30, 30), {0: 0x3F800000, 899: 0xBF800000}, coder=coder, gap_bits=5, flags=FILLERS)
    yield "run_of_one_escape", Packed((4, 4), {7: 0x3F800000}, coder=coder, gap_bits=3)
    one = drawn(shape, 0.3, 3, pool=[0x3F800000])
    yield "one_symbol", Packed(shape, one, coder=coder)
    yield "one_symbol_every_element", Packed(shape, one, coder=coder, flags=EVERY)
    yield "one_symbol_fillers", Packed(shape, one, coder=coder, flags=FILLERS, gap_bits=1)
    yield "one_symbol_dense", Packed((3, 2), dict.fromkeys(range(6), 0xBF800000), DENSE_SHARED, coder=coder)
    yield "one_gap_symbol", Packed((4, 4), {at: spread(5)[at % 5] for at in range(0, 16, 2)}, coder=coder)
    yield "no_entries", Packed((4, 4), {}, SPARSE, coder=coder)
    yield "no_entries_shared", Packed((4, 4), {}, coder=coder, codebook=[0x3F800000])
    yield "no_entries_in_a_chunk", Packed((4, 4), {14: 0x3F800000, 15: 0xBF800000}, coder=coder, per_chunk=1)
    yield "size_0_sparse", Packed((0, 4), {}, SPARSE, coder=coder)
    yield "size_0_sparse_shared", Packed((4, 0), {}, coder=coder, codebook=[0x3F800000], flags=TRANSPOSED)
    yield "size_0_dense_shared", Packed((2, 0, 3), {}, DENSE_SHARED, coder=coder, codebook=[0, 0x3F800000])
    yield "rank_0", Packed((), {0: 0xBF800000}, coder=coder)
    yield "rank_1", Packed((90,), drawn((90,), 0.3, 22), coder=coder)
    yield "rank_1_transposed", Packed((90,), drawn((90,), 0.3, 22), SPARSE, coder=coder, flags=TRANSPOSED, per_chunk=40)
    yield "rank_1_2_40", Packed((1 << 40,), {0: 0x3F800000, 2000: 0xBF800000}, coder=coder, gap_bits=8)
    yield "every_element_most", Packed((1 << 16,), {}, coder=coder, codebook=[0x3F800000], flags=EVERY)
    yield "rank_7", Packed((2, 1, 2, 1, 2, 1, 2), drawn((16,), 0.5, 4), coder=coder, flags=TRANSPOSED)
    yield "columns_2_39", Packed((2, 1 << 39), {0: 0x3F800000, 2000: 0xBF800000}, coder=coder, gap_bits=8)
    yield "rows_2_20", Packed((1 << 20, 1 << 20), {5: 0x3F800000, 3000: 0xBF800000}, SPARSE, coder=coder, gap_bits=8)
    yield "unused_codes", Packed(shape, one, coder=coder, codebook=[*POOLS["float32"][:5], 0x3F800000])
    yield from edges_of_planes(coder)
    yield from edges_of_streams(coder)


def edges_of_planes(coder: int) -> Iterator[tuple[str, Packed]]:
    """Yield alphabets of about 256 code symbols, at which a second plane begins."""
    for symbols in (255, 256, 257, 300, 512):
        pool = spread(symbols)
        filled = {at: pool[at * 7 % symbols] for at in range(symbols)}
        yield f"dense_symbols_{symbols}", Packed((symbols,), filled, DENSE_SHARED, coder=coder)
    pool = spread(256)
    sparse = {2 * at: pool[at * 5 % 256] for at in range(256)}
    yield "planes_sparse", Packed((16, 40), {**sparse, 600: 0x40000001}, coder=coder)
    yield "planes_every_element", Packed((16, 32), sparse, coder=coder, flags=EVERY)
    yield (
        "planes_255_fillers",
        Packed((16, 40), {at: v for at, v in sparse.items() if v != pool[0]}, coder=coder, flags=FILLERS),
    )


def edges_of_streams(coder: int) -> Iterator[tuple[str, Packed]]:
    """Yield sequences of about 4,096 symbols, from which on there are four streams, and the longest codes."""
    few = [0x3F800000, 0xBF800000]
    full = {at: few[at % 3 == 0] for at in range(4095)}
    yield "one_stream_4095", Packed((4095,), full, DENSE_SHARED, coder=coder)
    yield "four_streams_4096", Packed((4096,), {**full, 4095: few[0]}, DENSE_SHARED, coder=coder)
    yield "four_streams_4097", Packed((4097,), {**full, 4095: few[0], 4096: few[1]}, DENSE_SHARED, coder=coder)
    yield "four_streams_sparse", Packed((50, 100), drawn((50, 100), 0.84, 5, pool=few), coder=coder, gap_bits=1)
    yield "four_streams_every_element", Packed((50, 100), drawn((50, 100), 0.5, 6, pool=few), coder=coder, flags=EVERY)
    yield "four_streams_gaps_only", Packed((50, 100), dict.fromkeys(range(0, 5000, 2), few[0]), coder=coder, gap_bits=1)
    yield (
        "four_streams_fillers",
        Packed((90, 100), drawn((90, 100), 0.3, 8, pool=few), coder=coder, gap_bits=1, flags=FILLERS),
    )
    planes = {at: spread(257)[at * at % 257] for at in range(4200)}
    yield "four_streams_planes", Packed((4200,), planes, DENSE_SHARED, coder=coder)
    if coder == 1:
        lopsided = {at: spread(13)[min((at & -at).bit_length(), 12)] for at in range(4095)}
        yield "codes_of_12_bits", Packed((4095,), lopsided, DENSE_SHARED, coder=1)
        flat = {at: spread(16)[at % 16] for at in range(64)}
        yield "codes_of_no_bits", Packed((1, 40), dict.fromkeys(range(40), few[0]), coder=1)
        yield "codes_of_one_length", Packed((64,), flat, DENSE_SHARED, coder=1)


#: The tensor to which false parts are added.
SHAPE = (4, 6)
ELEMENTS = drawn(SHAPE, 0.5, 9)


def bad(name: str, code: str, ids: str, *, cut: int = 0, **parts: object) -> Invalid:
    """Return a payload with false parts; `cut` bytes are missing at its end."""
    given = {"shape": SHAPE, "elements": ELEMENTS, **parts}
    item = Packed(**given).item()  # type: ignore[arg-type]
    item.payload = item.payload[: len(item.payload) - cut]
    return f"packed_{name}", code, ids, assemble([item])


def invalid_payloads() -> Iterator[Invalid]:
    """Payloads under coders 0 and 1 that a decoder must reject."""
    pool = POOLS["float32"]
    for form, name in ((DENSE_SHARED, "dense_shared"), (SPARSE, "sparse")):
        filled = drawn(SHAPE, 1, 9) if form == DENSE_SHARED else ELEMENTS
        for flags, what in ((EVERY, "every_element"), (FILLERS, "fillers")):
            yield bad(f"{name}_{what}", "E08", "P2", form=form, elements=filled, flags=flags)
    yield bad("fillers_every_element", "E08", "P2", flags=EVERY | FILLERS)
    for coder in (0, 1):
        yield bad(f"every_element_beyond_{coder}", "E06", "P14", coder=coder, shape=((1 << 16) + 1,), elements={},
                  codebook=[pool[-1]], flags=EVERY)  # fmt: skip
    yield bad("fillers_256", "E08", "P2", shape=(16, 32), elements=dict(enumerate(spread(256))), flags=FILLERS)
    yield bad("transposed_long", "E06", "P3", shape=(1, 1 << 31), elements={5: pool[0]}, flags=TRANSPOSED, gap_bits=8)
    yield bad("chunk_entries_more", "E06", "P12", per_chunk=2, stored=[len(ELEMENTS), 1])
    yield bad("chunk_entries_fewer", "E14", "P4", per_chunk=2, stored=[0, 0])
    yield bad("chunk_entries_beyond", "E06", "P12", per_chunk=2, stored=[13, 1])
    full = dict.fromkeys(range(24), pool[0])
    yield bad("chunk_entries_beyond_lines", "E06", "P12", elements=full, per_chunk=2, stored=[13, 11])
    yield bad("every_element_more", "E14", "P7", elements={0: pool[0]}, flags=EVERY, symbols=[0, 0] + [1] * 22)
    yield bad("every_element_fewer", "E14", "P7", elements={0: pool[0]}, flags=EVERY, symbols=[1] * 24)
    for coder in (0, 1):
        yield from invalid_positions(coder)
        yield from invalid_streams(coder)
    long = {at: pool[at * at % 3] for at in range(4100)}
    yield bad("stream_limit", "E06", "N2", shape=(4100,), elements=long, form=DENSE_SHARED, shifts=[0, 0, 0, 3300])
    yield bad("padding_of_seven", "E08", "K3", elements=dict.fromkeys((3, 5, 7), pool[0]), padding="1")
    yield from invalid_symbols()


def invalid_positions(coder: int) -> Iterator[Invalid]:
    """Gap symbols that do not fit the entries."""
    pool = POOLS["float32"]
    yield bad(f"filler_short_{coder}", "E14", "P8", coder=coder, elements={9: pool[0], 10: pool[1]}, flags=FILLERS,
              gaps=[6, 2, 0], symbols=[0, 1, 2])  # fmt: skip
    yield bad(f"filler_last_{coder}", "E14", "P9", coder=coder, elements={9: pool[0], 10: pool[1]}, flags=FILLERS,
              gaps=[7, 1, 0, 7], symbols=[0, 1, 2, 0])  # fmt: skip
    yield bad(f"escape_last_{coder}", "E14", "P9", coder=coder, elements={9: pool[0]}, gaps=[7, 2, 7], symbols=[0])
    yield bad(
        f"entries_fewer_{coder}",
        "E14",
        "P9",
        coder=coder,
        elements={3: pool[0], 9: pool[0]},
        gaps=[7, 2],
        symbols=[],
    )
    yield bad(f"entries_more_{coder}", "E14", "P9", coder=coder, elements={3: pool[0]}, gaps=[3, 5], symbols=[])
    yield bad(f"position_past_end_{coder}", "E14", "P9", coder=coder, elements={3: pool[0], 9: pool[1]},
              gaps=[7, 7, 7, 3, 0], symbols=[0, 1])  # fmt: skip
    yield bad(f"filler_past_end_{coder}", "E14", "P9", coder=coder, elements={3: pool[0], 9: pool[1]},
              flags=FILLERS, gaps=[7, 7, 7, 0, 0], symbols=[0, 0, 0, 1, 2])  # fmt: skip


def invalid_streams(coder: int) -> Iterator[Invalid]:
    """Streams that are longer or shorter than they should be."""
    pool = POOLS["float32"]
    yield bad(f"gap_symbols_fewer_{coder}", "E13", "K1", coder=coder, count=len(ELEMENTS) - 1)
    yield bad(f"gap_symbols_more_{coder}", "E06", "K9", coder=coder, count=25)
    yield bad(
        f"gap_symbols_beyond_bits_{coder}",
        "E13",
        "K1",
        coder=coder,
        shape=(400, 600),
        elements={3: pool[0]},
        count=200000,
    )
    yield bad(f"padding_{coder}", "E08", "K3", coder=coder, elements={3: pool[0], 5: pool[0]}, padding="1")
    yield bad(f"bytes_after_{coder}", "E13", "K4", coder=coder, after=b"\0")
    yield bad(f"ends_early_{coder}", "E13", "K12", coder=coder, cut=1)
    long = {at: pool[at * at % 3] for at in range(4100)}
    for name, shifts in (("longer", [1, -1, 0, 0]), ("shorter", [-1, 1, 0, 0]), ("last", [0, 0, 0, 1])):
        yield bad(f"stream_{name}_{coder}", "E13", "K2", coder=coder, shape=(4100,), elements=long,
                  form=DENSE_SHARED, shifts=shifts)  # fmt: skip
    yield bad(f"streams_beyond_{coder}", "E03", "K2", coder=coder, shape=(4100,), elements=long,
              form=DENSE_SHARED, shifts=[0, 0, 0, 16])  # fmt: skip


def invalid_symbols() -> Iterator[Invalid]:
    """Code symbols past the alphabet, and values that must not be stored."""
    pool = POOLS["float32"]
    yield bad(
        "symbol_beyond",
        "E14",
        "K5",
        form=DENSE_SHARED,
        shape=(3,),
        elements={0: pool[0], 1: pool[1], 2: pool[4]},
        symbols=[0, 1, 3],
    )
    yield bad("symbol_beyond_sparse", "E14", "K5", elements={0: pool[0], 1: pool[1], 2: pool[4]}, symbols=[0, 3, 1])
    many = dict(enumerate(spread(300)))
    yield bad(
        "symbol_beyond_planes", "E14", "K5", form=DENSE_SHARED, shape=(300,), elements=many, symbols=[*range(299), 300]
    )
    yield bad(
        "symbol_beyond_planes_1",
        "E14",
        "K5",
        form=DENSE_SHARED,
        shape=(300,),
        elements=many,
        symbols=[*range(299), 300],
        coder=1,
    )
    yield bad("value_zero", "E08", "T13", form=SPARSE, elements={5: 0, 6: pool[0]})
    yield bad("value_zero_int8", "E08", "T13", form=SPARSE, dtype="int8", elements={5: 0, 6: 1})


def invalid_dense_payloads() -> Iterator[Invalid]:
    """Payloads without a codebook under coder 0: coding byte, chunking, values."""

    def raw(name: str, code: str, ids: str, payload: bytes, shape: tuple[int, ...] = (3,)) -> Invalid:
        return f"payload_{name}", code, ids, assemble([Item(payload, DENSE, shape, VALUES)])

    for byte, what in ((1, "coder_1"), (2, "coder_2"), (3, "coder_3"), (16, "transposed"), (32, "every_element"),
                       (64, "fillers"), (128, "blocks")):  # fmt: skip
        item = Item(bytes([byte]) + RAW[:4], CONSTANT, (4,), VALUES[:1])
        yield f"payload_constant_{what}", "E08", "P2", assemble([item])
    yield "payload_constant_short", "E13", "P10", assemble([Item(b"\0" + RAW[:3], CONSTANT, (4,), VALUES[:1])])
    yield "payload_constant_long", "E13", "P10", assemble([Item(b"\0" + RAW[:5], CONSTANT, (4,), VALUES[:1])])
    yield raw("coder_7", "E02", "P1", b"\7\0" + RAW)
    yield raw("coder_15", "E02", "P1", b"\x0f\0" + RAW)
    yield raw("dense_coder_1", "E08", "P2", b"\1\0" + RAW)
    yield raw("dense_coder_3", "E08", "P2", b"\3\0" + RAW)
    yield raw("dense_transposed", "E08", "P2", b"\x10\0" + RAW)
    yield raw("dense_every_element", "E08", "P2", b"\x20\0" + RAW)
    yield raw("dense_fillers", "E08", "P2", b"\x40\0" + RAW)
    yield raw("empty", "E03", "N4", b"")
    yield raw("lines_in_a_chunk", "E06", "N2", b"\0\3" + RAW)
    yield raw("one_line_in_a_chunk", "E06", "N2", b"\0\1" + RAW, shape=(1, 3))
    yield raw("chunk_table_ends_early", "E03", "N4", b"\0\2" + varint(8) + b"\x84")
    yield raw("more_chunks_than_bytes", "E06", "P11", b"\0\2" + varint(8))
    yield raw("chunk_ends_early", "E03", "N4", b"\0\2" + varint(8) + varint(5) + RAW)
    yield raw("chunks_go_on", "E04", "N5", b"\0\2" + varint(8) + varint(4) + RAW + b"\0")
    yield raw("values_short", "E13", "P10", b"\0\0" + RAW[:-1])
    yield raw("values_long", "E13", "P10", b"\0\0" + RAW + b"\0")
    yield raw("chunk_short", "E13", "P10", b"\0\2" + varint(7) + varint(5) + RAW)
    many = [1] * 17
    payload = b"\0\1" + varint(4) * 17 + struct.pack("<17I", *many)
    yield "payload_too_many_chunks", "E06", "P11", assemble([Item(payload, DENSE, (17,), many)])
