"""Vectors that reach every limit of a count and every clamp of the coders."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from reference_coders import multiply

from generator.assembler import DENSE_SHARED, Item
from generator.modelled import Modelled, value_item
from generator.packed import Packed
from generator.payloads import POOLS, drawn
from generator.ranges import grid_value_bits, value_bits
from generator.samples import ONE


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
    codebook = sorted({0x3F000000 + source.randrange(1 << source.randrange(4, 25)) for _ in range(700)})
    yield "codebook", Modelled((len(codebook),), dict(enumerate(codebook)), DENSE_SHARED, coder=2, variant=0).item()
    steps = sorted(
        {source.randrange(-(1 << source.randrange(1, 19)), 1 << source.randrange(1, 19)) for _ in range(700)}
    )
    scaled = [multiply(ONE, n) for n in steps]
    yield "codebook_grid", Modelled((len(steps),), dict(enumerate(scaled)), DENSE_SHARED, coder=2, variant=0,
                                    grid=(ONE, steps), codebook=scaled).item()  # fmt: skip
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
    yield "nearly_empty", matrix(coder, (70, 70), lambda i, j: (i, j) in ((3, 5), (68, 66)))
    yield "nearly_full", matrix(coder, (60, 70), lambda i, j: (i, j) not in ((3, 5), (58, 66), (59, 69)), pool=few[3:5])
    yield "empty_column", matrix(coder, (300, 40), lambda i, j: j != 7 or i == 299, pool=few[3:4], lag=0)
    yield "full_column", matrix(coder, (90, 60), lambda i, j: j == 30, pool=few[2:5])
    yield "full_rows", matrix(coder, (60, 64), lambda i, j: i % 9 == 4, pool=few[4:])
    yield "long_groups", matrix(coder, (8, 300), lambda i, j: (i * 7 + j * j) % 5 < 4, lag=150, pool=few[1:6])
    yield "pattern", matrix(coder, (80, 60), lambda i, j: (j + i) % 4 == 0, lag=4, pool=few[3:4])
    yield "sparse_long_line", matrix(coder, (10, 600), lambda i, j: (i, j) == (9, 599))
    yield "full_long_line", matrix(coder, (10, 600), lambda i, j: (i, j) != (9, 598), pool=few[3:4])
    yield "negative", matrix(coder, (30, 30), lambda i, j: (i + 2 * j) % 3 > 0, pool=few[:3], lag=2)
    signs = matrix(coder, (40, 40), lambda i, j: (i * j) % 3 != 1, lag=2)
    by_column = {p: few[1] if p % 40 < 12 or p // 40 % 7 == 0 else few[5] for p in signs.elements}
    yield "signs", replace(signs, elements=by_column)
    wide = [0x3F800000 + (i << 12) | (i % 3 == 0) << 31 for i in range(200)]
    sizes = matrix(coder, (40, 40), lambda i, j: (i + j) % 3 != 1, lag=3)
    ordered = sorted(wide)
    by_size = {p: ordered[(p % 40 * 5 + p // 40) % 200] for p in sizes.elements}
    yield "sizes", replace(sizes, elements=by_size)
    yield "two_lines", matrix(coder, (2, 200), lambda i, j: j % 3 == 0, lag=255)
    yield "largest_symbols", largest_symbols(coder)
    yield from shapes_of_coder_2() if coder == 2 else shapes_of_coder_3()


def matrix(
    coder: int, shape: tuple[int, int], keep: Callable[[int, int], bool], pool: list[int] | None = None, lag: int = 0
) -> Modelled:
    """Return a matrix with an entry from a pool wherever `keep(line, column)` holds."""
    source = random.Random(shape[0] * 1000 + shape[1])
    places = [i * shape[1] + j for i in range(shape[0]) for j in range(shape[1]) if keep(i, j)]
    elements = {p: source.choice(pool or POOLS["float32"]) for p in places}
    return Modelled(shape, elements, coder=coder, limit=3, lag=lag)


def shapes_of_coder_2() -> Iterator[tuple[str, Modelled]]:
    """Yield a matrix whose density is limited from the first cell on."""
    yield "full_start", matrix(2, (3, 400), lambda i, j: (i, j) != (2, 398))


def shapes_of_coder_3() -> Iterator[tuple[str, Modelled]]:
    """Yield matrices whose nonempty lines and columns are coded, and those of `extremes_of_coder_3`."""
    rough = matrix(3, (200, 200), lambda i, j: i % 7 > 1 and j % 5 > 0 and (i * 31 + j * 17) % 97 == 0, lag=5)
    for coded in ((True, True), (True, False), (False, True)):
        if coded == (True, True):
            yield "nonempty", replace(rough, nonempty=coded)
        few_cells = {p: bits for p, bits in rough.elements.items() if p // 200 < 40 and p % 200 < 50}
        yield (
            f"nonempty_{coded[0]:d}{coded[1]:d}",
            replace(rough, elements=few_cells, nonempty=coded, shape=(200, 200) if all(coded) else (50, 200)),
        )
    first = matrix(3, (30, 40), lambda i, j: i % 4 < 2 and j % 5 < 3, lag=5)
    yield "nonempty_first", replace(first, nonempty=(True, True))
    yield from extremes_of_coder_3()


def extremes_of_coder_3() -> Iterator[tuple[str, Modelled]]:
    """Yield matrices in which a number of coder 3 reaches an end of its range, or falls where few numbers do."""
    few = POOLS["float32"]
    source = random.Random(25)
    close = {p: ONE + (min(p % 40 * 6 + source.randrange(30), 255) << 12) for p in range(1600) if source.random() < 0.9}
    yield "exact_rounding", Modelled((40, 40), close, coder=3, lag=3)  # a weight just below the middle of two integers

    def often(i: int, j: int) -> bool:
        return (i, j) != (119, 18) and (j > 0 or i not in range(40, 100, 4))

    def in_a_group(i: int, j: int) -> bool:
        return (128 <= j < 192 and (i * 64 + j) % 199 > 0) or (i * 640 + j) % 1999 == 0

    yield "surprised_mixer", matrix(3, (120, 20), often, few[3:5])  # only one of two mixers is sure
    yield "dense_group", matrix(3, (20, 640), in_a_group, few[3:4], lag=64)
    scattered = matrix(3, (20, 300), lambda i, j: (i * 7919 + j * 104729 + i * j * 31) % 23 < 4, few[3:4], lag=100)
    yield "scattered_in_groups", scattered
    yield "full_lines", matrix(3, (9, 500), lambda i, j: (i, j) != (8, 498), [*few[4:5] * 300, few[3]], lag=3)
    codebook = [ONE + (i << 12) for i in range(256)]
    yield "empty_lines", Modelled((10, 600), {1799: codebook[77], 5999: codebook[201]}, coder=3, codebook=codebook)


def largest_symbols(coder: int) -> Modelled:
    """Return a matrix whose code symbols have magnitudes of 224 to 255, of both signs."""
    above = [ONE + (i << 12) for i in range(256)]
    codebook = [bits | 1 << 31 for bits in reversed(above)] + above
    source = random.Random(3)
    ends = {p: source.choice((codebook[:32], codebook[-32:])) for p in range(576) if source.random() < 0.5}
    elements = {p: source.choice(end) for p, end in ends.items()}
    return Modelled((24, 24), elements, coder=coder, codebook=codebook, lag=3)


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
                               codebook=names).item()  # fmt: skip
