"""Vectors at the edges of the rules: the last allowed value, the first forbidden one, and limits that take effect."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import replace

from reference_coders import CodeSymbols, adaptive_chunk, fresh, multiply
from reference_mixing import ChunkDecoder

from generator.assembler import (
    DENSE,
    DENSE_SHARED,
    SPARSE,
    SPARSE_SHARED,
    Item,
    assemble,
    labels,
    metadata,
    section,
    varint,
)
from generator.lies import closed, head_item
from generator.long_streams import long_streams
from generator.modelled import Modelled, value_item
from generator.packed import EVERY, Packed
from generator.payloads import POOLS
from generator.ranges import (
    RangeEncoder,
    encode_values,
    gamma_bits,
    grid_value_bits,
    number_bits,
    pack_text,
    value_bits,
)
from generator.samples import ONE, Invalid, Valid, constant, dense, valid

MINUS_ONE = ONE | 1 << 31


def valid_boundaries() -> Iterator[Valid]:
    """Files just within the limits, and streams that are long enough to reach the limits of the models."""
    yield from within_the_container()
    yield from within_payloads()
    for name, tensor in long_streams():
        yield valid(f"long_{name}", [tensor])


# ------------------------------------------------------------------------------------------ container and graph


def within_the_container() -> Iterator[Valid]:
    """Sections 2 to 4."""
    yield valid("container_longest_label", [dense()], [(3, labels("x" * 1024))], "N2")
    pairs = [("k" * 255, "v" * (1 << 16)), *((f"m{i:04}", "") for i in range(1023))]
    yield valid("container_longest_metadata", [dense()], [(4, metadata(*pairs))], "N2")
    sections = [(3, varint(1 << 16) + bytes(1 << 16))]
    contents = assemble([dense()], sections)[10:]
    packed = pack_text(contents[: contents.index(varint(1 << 16) + bytes(1 << 16)) + 3 + (1 << 16)])
    yield "container_most_labels", "N2", assemble([dense()], sections, packed=packed), {"a": dense().tensor()}
    few, many = 32761, 32771
    halves = [whole(name, n) for name, n in (("a", few), ("b", many))]
    yield valid("tensor_longest_block", halves, ids="T15")
    yield valid("tensor_long_block_of_one", [whole("a", 1 << 16), dense("b", begins=True)], ids="T15")
    yield valid("tensor_constant_of_two", [constant(shape=(2,)), constant("b", (1, 2, 1))], ids="T6")
    yield valid("tensor_constant_2_40_1", [constant(shape=(1 << 40, 1))], ids="T5")
    tiny = Item(b"\0\0\1\2\3", DENSE, (3,), [1, 2, 3], dtype="int8", scale=2.0**-149)
    yield valid("tensor_scale_least", [tiny], ids="T9")
    ends = [0x7F800000, 0xFF800000, 0x7FC00000, 0xFFFFFFFF, 0x7F800001, 1 << 31]
    yield valid("tensor_not_finite", [Item(b"\0\0" + struct.pack("<6I", *ends), DENSE, (6,), ends)])
    yield valid("tensor_constant_nan", [constant(bits=0xFFC00001)])
    infinite = Packed((1, 4), {0: 0xFF800000, 1: 0x7F800000, 3: 0x7FC00001}).item()
    yield valid("codebook_not_finite", [infinite])
    for form in (DENSE_SHARED, SPARSE_SHARED):
        both = Packed((6,), dict(enumerate([0xFFFFFFFF, 0x7FFFFFFF] * 3)), form).item()
        yield valid(f"codebook_nan_{form}", [both])


def whole(name: str, count: int) -> Item:
    """Return an int8 tensor whose payload has two more bytes than the tensor has elements."""
    return Item(b"\0\0" + bytes([1]) * count, DENSE, (count,), [1] * count, name=name, dtype="int8")


# ------------------------------------------------------------------------------------------------- payloads


def within_payloads() -> Iterator[Valid]:
    """Section 6, and the limits of coders 2 and 3."""

    def file(name: str, tensor: Item, ids: str = "") -> Valid:
        return valid(name, [tensor], ids=ids)

    for coder in (2, 3):
        for shape, name in (((1, (1 << 20) + 1), "long"), ((1 << 15, 1 << 14), "many")):
            for form, codebook in ((SPARSE, None), (SPARSE_SHARED, [1])):
                empty = Modelled(shape, {}, form, "int8", coder, codebook=codebook).item()
                kind = "shared" if codebook else "plain"
                yield file(f"nothing_in_{name}_lines_{kind}_coder_{coder}", empty, f"A{9 + coder}")
    ends = {0: ONE, 1: MINUS_ONE}
    yield file("contexts_most_cells", Modelled((1 << 8, 1 << 20), ends, coder=2).item(), "A11")
    yield file("mixing_most_cells", Modelled((1 << 6, 1 << 20), ends, coder=3).item(), "A12")
    far = (1, (1 << 31) - 1)
    yield file("runs_longest_line", Modelled(far, {0: ONE, 5: MINUS_ONE}, variant=0, width=3).item(), "P3")
    last = Modelled((3, 5), {2: ONE, 14: MINUS_ONE}, variant=0, width=2).item()
    yield file("runs_last_cell", last, "A10")
    for coder in (0, 1):
        yield file(f"last_cell_coder_{coder}", Packed((3, 5), {2: ONE, 14: MINUS_ONE}, coder=coder).item(), "P9")
        codes = dict.fromkeys(range(255), 0)
        wide = Packed((1, 600), {2 * i: 0x3F800000 + i for i in codes}, coder=coder, flags=64).item()
        yield file(f"fillers_most_codes_coder_{coder}", wide, "P2")
    yield file("most_chunks_of_many", many_chunks(95), "P11")
    integers = [-((1 << 20) - 1), -1, 1, (1 << 20) - 1]
    scaled = {i: multiply(ONE, n) for i, n in enumerate(integers)}
    yield file("codebook_grid_most", Modelled((2, 4), scaled, grid=(ONE, integers)).item(), "A3")
    floats = [multiply(ONE, n) for n in integers]
    yield file("values_grid_most", value_item("float32", floats, grid_value_bits(ONE, integers)), "A7")
    for scale, end in ((1, "least"), (0x7F7FFFFF, "most")):
        two = [multiply(scale, 1), multiply(scale, -1)]
        yield file(f"values_grid_scale_{end}", value_item("float32", two, grid_value_bits(scale, [1, -1])), "A6")
    for dtype, bits in (("float16", 10), ("bfloat16", 7)):
        one = 0x3C00 if dtype == "float16" else 0x3F80
        yield file(
            f"values_{dtype}_zeros", value_item(dtype, [one] * 3, value_bits(dtype, [one] * 3, zeros=bits)), "A8"
        )
    yield file("codebook_widest_gap", Packed((1, 4), {0: 0xFF7FFFFF, 3: 0x7F7FFFFF}).item(), "A5")
    yield file("every_element_most_of_one", every_element(1 << 16 | 64, 1), "P14")
    integers = list(range(1, 1 << 16))
    codebook = [multiply(ONE, i) for i in integers]
    most = Modelled(
        (1, 4), {0: codebook[0], 3: codebook[-1]}, grid=(ONE, integers), codebook=codebook, flags=EVERY
    ).item()
    yield file("every_element_most_codes", most, "P2")


def every_element(size: int, entries: int) -> Item:
    """Return a tensor under *every element* with as many elements as its entries allow."""
    return Packed((size,), dict.fromkeys(range(entries), ONE), coder=1, flags=EVERY).item()


def many_chunks(length: int) -> Item:
    """Return a dense tensor of 128 lines in 19 chunks; lines of 95 elements are just long enough for that."""
    values = [1 + i % 100 for i in range(128 * length)]
    parts = [bytes(values[i : i + 7 * length]) for i in range(0, len(values), 7 * length)]
    payload = b"\0\7" + b"".join(varint(len(part)) for part in parts) + b"".join(parts)
    return Item(payload, DENSE, (128, length), values, dtype="int8")


# ------------------------------------------------------------------------------------------------- invalid


def invalid_boundaries() -> Iterator[Invalid]:
    """Files just beyond the limits."""
    yield from beyond_the_container()
    pool = POOLS["float32"]
    for number in (0, 1):
        at_end = Packed((4, 6), {3: pool[0]}, coder=number, gaps=[7, 7, 7, 3], symbols=[0]).item()
        yield f"packed_position_at_end_{number}", "E14", "P9", assemble([at_end])
    runs_out = [0, 0, 0, *number_bits(2, 3), 1, 0, 1]
    coder_2 = RangeEncoder()
    coder_2.queue = list(runs_out)
    try:
        adaptive_chunk(coder_2, CodeSymbols(1, 0), 1, 5, 1)
    except ValueError:
        coder_2.queue.clear()
    yield "runs_at_the_end", "E13", "A10", assemble([Item(b"\2\0" + coder_2.finish(), SPARSE, (1, 5), [ONE], [0])])
    beyond = Modelled((1, 1 << 31), {0: ONE, 5: MINUS_ONE}, variant=0, width=3).item()
    yield "runs_line_too_long", "E06", "P3", assemble([beyond])
    elements = {0: pool[0], 1: pool[1], 2: pool[4]}
    form_3 = Packed((3,), elements, DENSE_SHARED, coder=1, tables=[(3, 1, 2, 2)]).item()
    yield "table_form_3", "E12", "K7", assemble([form_3])
    for form, name in ((DENSE_SHARED, "dense"), (SPARSE_SHARED, "sparse")):
        none = Packed((0, 3), {}, form, codebook=[]).item()
        yield f"tensor_codebook_of_none_{name}", "E08", "T8", assemble([none])
    yield "codebook_gap_too_wide", "E15", "A5", assemble([head_item(gap_too_wide)])
    minus_one = [255] * 12
    ended = value_item("int8", minus_one, value_bits("int8", minus_one))
    assert ended.payload[-1] == 0
    yield "range_cut_zero", "E13", "A1", assemble([replace(ended, payload=ended.payload[:-1])])
    yield "mixing_lag_1_alone", "E13", "A13", assemble([lag_of_1()])
    yield "every_element_beyond_one", "E06", "P14", assemble([every_element((1 << 16 | 64) + 1, 1)])
    yield "payload_chunks_of_too_few", "E06", "P11", assemble([many_chunks(94)])
    limit = varint((1 << 41) + 1)
    yield "head_length_limit", "E06", "N2", assemble([Item(b"\x80\0" + limit, SPARSE, (2, 3), [], [])])
    longest = replace(dense(), lies={"length": varint((1 << 42) - 1)})
    yield "table_length_most", "E03", "N4", assemble([longest])
    most = varint(1 << 41)
    yield "head_length_most", "E03", "N4", assemble([Item(b"\x80\0" + most, SPARSE, (2, 3), [], [])])
    yield "chunk_length_limit", "E06", "N2", assemble([Item(b"\0\1" + limit + bytes(8), DENSE, (3, 1), [])])
    coder = RangeEncoder()
    coder.queue = grid_value_bits(ONE, [-(1 << 20), 1])
    below = Item(b"\2\0" + closed(coder, "float32", 2), DENSE, (2,), [1, 1])
    yield "values_grid_beyond_below", "E08", "A7", assemble([below])


def lag_of_1() -> Item:
    """Return a chunk under coder 3 in which only the lag is wrong."""
    coder = RangeEncoder()
    coder.put(1, 8)
    coder.put(0, 2)
    coder.queue += [1, 0, 0, 1]
    ChunkDecoder(coder, CodeSymbols(1, 0), 1, 6, [0], list(range(6)), 2).decode()
    values = value_bits("float32", [ONE, ONE])
    encode_values(coder, "float32", values, 2)
    return Item(b"\3\0" + coder.finish(), SPARSE, (1, 6), [ONE, ONE], [0, 3])


def gap_too_wide(coder: RangeEncoder) -> None:
    """Write a codebook that begins with 0 and continues with a gamma number of 32 bits."""
    coder.put(0, 1 + 5 + 32)
    coder.queue += gamma_bits(1 << 32)
    with contextlib.suppress(ValueError):
        coder.gamma(fresh(192))
    coder.queue.clear()


def beyond_the_container() -> Iterator[Invalid]:
    """Sections 3 and 4."""
    value = metadata(("k", "v" * ((1 << 16) + 1)))
    yield "metadata_value_limit", "E06", "N2", assemble([dense()], [(4, value)])
    sparse = Item(bytes(4), SPARSE, (2, 3), [], [], lies={"stored": varint((1 << 40) + 1)})
    yield "tensor_entries_limit", "E06", "N2", assemble([sparse])
    yield "tensor_count_most", "E03", "N4", assemble(contents=section(1, varint(1 << 16)))
    parts = [whole(name, n) for name, n in (("a", 32761), ("b", 32772))]
    yield "tensor_block_beyond", "E06", "T15", assemble(parts)
    yield "digest_seven_bytes", "E03", "F5", assemble([dense()])[:-1]
