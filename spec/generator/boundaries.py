"""Vectors at the edges of the rules: the last allowed value, the first forbidden one, and limits that take effect."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

from reference_coders import CodeSymbols, adaptive_chunk, fresh, multiply
from reference_mixing import ChunkDecoder

from generator.assembler import DENSE, DENSE_SHARED, SPARSE, SPARSE_SHARED, Item, assemble, varint
from generator.container import (
    ADD,
    AVG,
    BIAS,
    CONV,
    LINEAR,
    MAX,
    RELU,
    SPELLED,
    WIRED,
    Invalid,
    Valid,
    constant,
    dense,
    graph,
    labels,
    metadata,
    ones,
    op,
    valid,
)
from generator.lies import closed, head_item
from generator.modelled import ONE, Modelled, pack_text, value_item
from generator.packed import EVERY, Packed
from generator.payloads import POOLS, drawn
from generator.ranges import RangeEncoder, encode_values, gamma_bits, grid_value_bits, number_bits, value_bits

MINUS_ONE = ONE | 1 << 31


def valid_boundaries() -> Iterator[Valid]:
    """Files just within the limits, and streams that are long enough to reach the limits of the models."""
    yield from within_the_container()
    yield from within_graphs()
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
    ends = [0x7F7FFFFF, 0xFF7FFFFF, 1]
    yield valid("tensor_values_finite", [Item(b"\0\0" + struct.pack("<3I", *ends), DENSE, (3,), ends)], ids="T12")


def whole(name: str, count: int) -> Item:
    """Return an int8 tensor whose payload has two more bytes than the tensor has elements."""
    return Item(b"\0\0" + bytes([1]) * count, DENSE, (count,), [1] * count, name=name, dtype="int8")


def within_graphs() -> Iterator[Valid]:
    """Section 5."""
    large = 1 << 16

    def file(name: str, items: list[Item], body: bytes, ids: str = "G6") -> Valid:
        return valid(f"graph_{name}", items, [(2, body)], ids)

    kernel, bias = ones("w", 4, 2, 3, 3), ones("b", 4)
    yield file("conv_window_fits", [kernel], graph((2, 3, 3), op(CONV, 0)))
    yield file("conv_padded_window_fits", [kernel], graph((2, 1, 3), op(CONV | SPELLED, 0, 1, 1, 1, 0, 1, 1, 1)))
    yield file("conv_dilated_fits", [kernel], graph((2, 5, 7), op(CONV | SPELLED, 0, 1, 1, 0, 0, 2, 3, 1)))
    yield file("conv_depthwise", [ones("w", 4, 1, 3, 3)], graph((4, 5, 5), op(CONV | SPELLED, 0, 1, 1, 0, 0, 1, 1, 4)))
    yield file("conv_bias", [kernel, bias], graph((2, 4, 4), op(CONV | BIAS, 0, 1)))
    yield file("conv_stride_most", [kernel], graph((2, 4, 4), op(CONV | SPELLED, 0, large, 1, 0, 0, 1, 1, 1)), "N2")
    yield file("pool_window_fits", [], graph((2, 2, 2), op(MAX)))
    yield file("pool_padding_most", [], graph((2, 4, 4), op(MAX | SPELLED, 2, 3, 1, 1, 1, 1, 0)), "G8")
    yield file("pool_stride_most", [], graph((2, 4, 4), op(AVG | SPELLED, 2, 2, large, large, 0, 0, 0)), "N2")
    yield file("inputs_most", [], graph((5,), op(ADD | WIRED, 64, *[0] * 64)), "N2")
    yield file("input_2_40", [], graph((1 << 40,), op(RELU)))
    yield file("image_2_40", [], graph((1 << 20, 1 << 10, 1 << 10), op(RELU)))
    yield file("linear_bias_2", [ones("b", 3), ones("w", 3, 5)], graph((5,), op(LINEAR | BIAS, 1, 0)))


def runs() -> Iterator[tuple[Valid, dict[str, list[float]]]]:
    """Yield graphs of pools, each with an input and the output that it must give."""
    for name, kind, size, attributes in (
        ("max_floor", MAX, (5, 6), (2, 3, 2, 2, 1, 1, 0)),
        ("max_ceil", MAX, (5, 6), (2, 3, 2, 2, 1, 1, 1)),
        ("max_ceil_drops", MAX, (5, 5), (2, 2, 4, 4, 1, 1, 1)),
        ("max_ceil_keeps", MAX, (6, 6), (2, 2, 3, 4, 0, 0, 1)),
        ("avg_floor", AVG, (5, 6), (3, 3, 2, 2, 1, 1, 0)),
        ("avg_ceil", AVG, (6, 7), (3, 2, 2, 3, 1, 1, 1)),
        ("avg_left_out", AVG, (5, 6), (3, 3, 2, 2, 1, 1, 2)),
        ("avg_ceil_left_out", AVG, (6, 7), (3, 2, 2, 3, 1, 1, 3)),
        ("avg_ceil_beyond", AVG, (4, 4), (3, 3, 3, 3, 0, 1, 1)),
        ("avg_ceil_beyond_left_out", AVG, (4, 4), (3, 3, 3, 3, 0, 1, 3)),
    ):
        shape = (2, *size)
        values = [float((7 * i) % 23 - 9) for i in range(2 * size[0] * size[1])]
        output = pooled(kind, shape, attributes, values)
        made = valid(f"run_{name}", [], [(2, graph(shape, op(kind | SPELLED, *attributes)))], "G6")
        yield made, {"input": values, "output": output}


def pooled(kind: int, shape: tuple[int, int, int], attributes: tuple[int, ...], values: list[float]) -> list[float]:
    """Section 5, "Windows" and "Flags of pools": the output of a pool, element by element."""
    kernel, stride, padding, flags = attributes[:2], attributes[2:4], attributes[4:6], attributes[6]
    counts = []
    for i in (0, 1):
        room = shape[1 + i] + 2 * padding[i] - kernel[i]
        count = (room + (stride[i] - 1 if flags & 1 else 0)) // stride[i] + 1
        while flags & 1 and (count - 1) * stride[i] >= shape[1 + i] + padding[i]:
            count -= 1
        counts.append(count)
    out = []
    for channel in range(shape[0]):
        for y in range(counts[0]):
            for x in range(counts[1]):
                inside, padded = [], 0
                for dy in range(kernel[0]):
                    for dx in range(kernel[1]):
                        row, column = y * stride[0] - padding[0] + dy, x * stride[1] - padding[1] + dx
                        padded += row < shape[1] + padding[0] and column < shape[2] + padding[1]
                        if 0 <= row < shape[1] and 0 <= column < shape[2]:
                            inside.append(values[(channel * shape[1] + row) * shape[2] + column])
                count = len(inside) if flags & 2 else padded
                out.append(max(inside) if kind == MAX else sum(inside) / count)
    return out


# ------------------------------------------------------------------------------------------------- payloads


def within_payloads() -> Iterator[Valid]:
    """Section 6, and the limits of coders 2 and 3."""

    def file(name: str, tensor: Item, ids: str = "") -> Valid:
        return valid(name, [tensor], ids=ids)

    for coder in (2, 3):
        for shape, name in (((1, (1 << 20) + 1), "long"), ((1 << 15, 1 << 14), "many")):
            for form, book in ((SPARSE, None), (SPARSE_SHARED, [1])):
                empty = Modelled(shape, {}, form, "int8", coder, book=book).item()
                kind = "shared" if book else "plain"
                yield file(f"nothing_in_{name}_lines_{kind}_coder_{coder}", empty, f"A{9 + coder}")
    most = {0: ONE, 1: MINUS_ONE}
    yield file("contexts_most_cells", Modelled((1 << 8, 1 << 20), most, coder=2).item(), "A11")
    yield file("mixing_most_cells", Modelled((1 << 6, 1 << 20), most, coder=3).item(), "A12")
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


def every_element(size: int, entries: int) -> Item:
    """Return a tensor under *every element* with as many elements as its entries allow."""
    return Packed((size,), dict.fromkeys(range(entries), ONE), coder=1, flags=EVERY).item()


def many_chunks(length: int) -> Item:
    """Return a dense tensor of 128 lines in 19 chunks; lines of 95 elements are just long enough for that."""
    values = [1 + i % 100 for i in range(128 * length)]
    parts = [bytes(values[i : i + 7 * length]) for i in range(0, len(values), 7 * length)]
    payload = b"\0\7" + b"".join(varint(len(part)) for part in parts) + b"".join(parts)
    return Item(payload, DENSE, (128, length), values, dtype="int8")


def long_streams() -> Iterator[tuple[str, Item]]:
    """Yield streams that reach every limit of a count and every clamp of coders 2 and 3."""
    source = random.Random(31)
    few = POOLS["float32"]
    spread = [0x3F000000 + source.randrange(1 << 24) | source.randrange(2) << 31 for _ in range(600)]
    for dtype, shift in (("float32", 0), ("float16", 16), ("bfloat16", 16)):
        values = [bits >> shift for bits in spread]
        for t in (0, 1, 2, 3):
            yield f"values_{dtype}_{t}", value_item(dtype, values, value_bits(dtype, values, t=t))
    whole_numbers = [source.randrange(256) & source.randrange(256) for _ in range(600)]
    yield "values_int8", value_item("int8", whole_numbers, value_bits("int8", whole_numbers))
    numbers = [source.randrange(-(1 << source.randrange(1, 20)), 1 << source.randrange(1, 20)) for _ in range(600)]
    yield "values_grid", value_item("float32", [multiply(ONE, n) for n in numbers], grid_value_bits(ONE, numbers))
    equal = [ONE] * 600 + [few[0]] * 3
    yield "values_alike", value_item("float32", equal, value_bits("float32", equal, t=2))
    book = sorted({0x3F000000 + source.randrange(1 << source.randrange(4, 25)) for _ in range(700)})
    yield "codebook", Modelled((len(book),), dict(enumerate(book)), DENSE_SHARED, coder=2, variant=0).item()
    steps = sorted(
        {source.randrange(-(1 << source.randrange(1, 19)), 1 << source.randrange(1, 19)) for _ in range(700)}
    )
    scaled = [multiply(ONE, n) for n in steps]
    yield "codebook_grid", Modelled((len(steps),), dict(enumerate(scaled)), DENSE_SHARED, coder=2, variant=0,
                                    grid=(ONE, steps), book=scaled).item()  # fmt: skip
    yield "one_symbol_gamma", Modelled((300,), dict(enumerate(range(ONE, ONE + 300))), DENSE_SHARED, variant=0).item()
    for coder in (2, 3):
        for name, tensor in shapes(coder):
            yield f"{name}_coder_{coder}", tensor.item()
    for limit in range(4):
        elements = drawn((40, 60), 0.35, 33 + limit)
        yield f"runs_{limit}", Modelled((40, 60), elements, variant=0, width=2, limit=limit).item()
    yield from table_streams()


def shapes(coder: int) -> Iterator[tuple[str, Modelled]]:
    """Yield matrices that take coders 2 and 3 to their extremes."""
    few = POOLS["float32"]

    def made(shape: tuple[int, int], keep: Callable[[int, int], bool], **kw: object) -> Modelled:
        source = random.Random(shape[0] * 1000 + shape[1])
        places = [i * shape[1] + j for i in range(shape[0]) for j in range(shape[1]) if keep(i, j)]
        pool = kw.pop("pool", few)
        elements = {p: source.choice(pool) for p in places}  # type: ignore[arg-type]
        return Modelled(shape, elements, coder=coder, limit=3, **kw)  # type: ignore[arg-type]

    yield "nearly_empty", made((70, 70), lambda i, j: (i, j) in ((3, 5), (68, 66)))
    yield "nearly_full", made((60, 70), lambda i, j: (i, j) not in ((3, 5), (58, 66), (59, 69)), pool=few[3:5])
    yield "empty_column", made((300, 40), lambda i, j: j != 7 or i == 299, pool=few[3:4], lag=0)
    yield "full_column", made((90, 60), lambda i, j: j == 30, pool=few[2:5])
    yield "full_rows", made((60, 64), lambda i, j: i % 9 == 4, pool=few[4:])
    yield "long_groups", made((8, 300), lambda i, j: (i * 7 + j * j) % 5 < 4, lag=150, pool=few[1:6])
    yield "pattern", made((80, 60), lambda i, j: (j + i) % 4 == 0, lag=4, pool=few[3:4])
    yield "sparse_long_line", made((10, 600), lambda i, j: (i, j) == (9, 599))
    yield "full_long_line", made((10, 600), lambda i, j: (i, j) != (9, 598), pool=few[3:4])
    yield "negative", made((30, 30), lambda i, j: (i + 2 * j) % 3 > 0, pool=few[:3], lag=2)
    signs = made((40, 40), lambda i, j: (i * j) % 3 != 1, lag=2)
    by_column = {p: few[1] if p % 40 < 12 or p // 40 % 7 == 0 else few[5] for p in signs.elements}
    yield "signs", replace(signs, elements=by_column)
    wide = [0x3F800000 + (i << 12) | (i % 3 == 0) << 31 for i in range(200)]
    sizes = made((40, 40), lambda i, j: (i + j) % 3 != 1, lag=3)
    ordered = sorted(wide)
    by_size = {p: ordered[(p % 40 * 5 + p // 40) % 200] for p in sizes.elements}
    yield "sizes", replace(sizes, elements=by_size)
    yield "two_lines", made((2, 200), lambda i, j: j % 3 == 0, lag=255)
    if coder == 3:
        rough = made((200, 200), lambda i, j: i % 7 > 1 and j % 5 > 0 and (i * 31 + j * 17) % 97 == 0, lag=5)
        for coded in ((True, True), (True, False), (False, True)):
            if coded == (True, True):
                yield "nonempty", replace(rough, nonempty=coded)
            few_cells = {p: bits for p, bits in rough.elements.items() if p // 200 < 40 and p % 200 < 50}
            yield (
                f"nonempty_{coded[0]:d}{coded[1]:d}",
                replace(rough, elements=few_cells, nonempty=coded, shape=(200, 200) if all(coded) else (50, 200)),
            )


def table_streams() -> Iterator[tuple[str, Item]]:
    """Yield code length tables of many symbols, which reach the limit of 30 of their models."""
    source = random.Random(37)
    names = [0x3F800000 + (i << 10) for i in range(256)]
    weights = [1 << min((i * 37) % 11, 8) for i in range(256)]
    drawn_codes = source.choices(range(256), weights, k=3000)
    elements = {i: names[c] for i, c in enumerate(drawn_codes)}
    yield "table", Packed((3000,), elements, DENSE_SHARED, coder=1).item()
    steep = source.choices(range(256), [1 << (i % 12) for i in range(256)], k=4000)
    yield "table_steep", Packed((4000,), {i: names[c] for i, c in enumerate(steep)}, DENSE_SHARED, coder=1).item()
    some = [c for c in drawn_codes if c % 3]
    yield "table_gaps", Packed((40, 300), {i * 4: names[c] for i, c in enumerate(some)}, coder=1, gap_bits=8,
                               book=names).item()  # fmt: skip


# ------------------------------------------------------------------------------------------------- invalid


def invalid_boundaries() -> Iterator[Invalid]:
    """Files just beyond the limits."""
    yield from beyond_the_container()
    yield from beyond_graphs()
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
        none = Packed((0, 3), {}, form, book=[]).item()
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
    yield "head_length_limit", "E06", "N2", assemble([Item(b"\0\0" + limit, SPARSE, (2, 3), [], [])])
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
    """Write a codebook that begins with 0 and continues with a gamma number of 33 bits."""
    coder.put(0, 1 + 5 + 32)
    coder.queue += gamma_bits(1 << 33)
    with contextlib.suppress(ValueError):
        coder.gamma(fresh(192))
    coder.queue.clear()


def beyond_the_container() -> Iterator[Invalid]:
    """Sections 3 and 4."""
    value = metadata(("k", "v" * ((1 << 16) + 1)))
    yield "metadata_value_limit", "E06", "N2", assemble([dense()], [(4, value)])
    sparse = Item(bytes(4), SPARSE, (2, 3), [], [], lies={"stored": varint((1 << 40) + 1)})
    yield "tensor_entries_limit", "E06", "N2", assemble([sparse])
    parts = [whole(name, n) for name, n in (("a", 32761), ("b", 32772))]
    yield "tensor_block_beyond", "E06", "T15", assemble(parts)
    yield "digest_seven_bytes", "E03", "F5", assemble([dense()])[:-1]


def beyond_graphs() -> Iterator[Invalid]:
    """Section 5."""
    items = [
        ones("w", 4, 2, 3, 3),
        ones("b", 3),
        ones("c", 4, 1),
        ones("d", 4, 2, 3, 3, 1),
        ones("e", 5),
        ones("f", 3, 5),
    ]
    image, large = (2, 3, 3), (1 << 16) + 1
    for name, code, ids, body in (
        ("conv_bias", "E09", "G6", graph(image, op(CONV | BIAS, 0, 1))),
        ("conv_bias_rank", "E09", "G6", graph(image, op(CONV | BIAS, 0, 2))),
        ("conv_input_rank", "E09", "G6", graph((2,), op(CONV, 0))),
        ("preprocessing_flat", "E09", "G7", graph((5,), mean=(0.0, 1.0), std=(1.0, 1.0))),
        ("conv_weight_rank_5", "E09", "G6", graph(image, op(CONV, 3))),
        ("linear_weight_rank_1", "E09", "G6", graph((5,), op(LINEAR, 4))),
        ("linear_bias_rank", "E09", "G6", graph((5,), op(LINEAR | BIAS, 5, 2))),
        ("conv_window_width", "E09", "G6", graph((2, 3, 2), op(CONV, 0))),
        ("conv_dilation_width_0", "E11", "G8", graph(image, op(CONV | SPELLED, 0, 1, 1, 0, 0, 1, 0, 1))),
        ("conv_stride_height_0", "E11", "G8", graph(image, op(CONV | SPELLED, 0, 0, 1, 0, 0, 1, 1, 1))),
        ("conv_groups_of_out", "E09", "G6", graph((6, 3, 3), op(CONV | SPELLED, 0, 1, 1, 0, 0, 1, 1, 3))),
        ("pool_kernel_width_0", "E11", "G8", graph(image, op(MAX | SPELLED, 2, 0, 2, 2, 0, 0, 0))),
        ("pool_stride_height_0", "E11", "G8", graph(image, op(MAX | SPELLED, 2, 2, 0, 2, 0, 0, 0))),
        ("pool_padding_height", "E11", "G8", graph(image, op(MAX | SPELLED, 1, 2, 2, 2, 1, 0, 0))),
        ("pool_padding_width", "E11", "G8", graph(image, op(MAX | SPELLED, 2, 1, 2, 2, 0, 1, 0))),
        ("input_limit", "E06", "N2", graph(image, op(RELU | WIRED, large))),
        ("tensor_limit", "E06", "N2", graph(image, op(CONV, large))),
        ("preprocessing_limit", "E06", "N2", b"\1" + varint(large) + varint(large)),
        ("dimension_limit", "E06", "N2", b"\1" + varint((1 << 40) + 1) + b"\0\0"),
    ):
        yield f"graph_beyond_{name}", code, ids, assemble(items, [(2, body)])
