"""Valid vectors for `coders.md`: coders 2 and 3, codebooks, values, packed contents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from reference_coders import CodeSymbols, multiply

from generator.assembler import DENSE, DENSE_SHARED, SPARSE, SPARSE_SHARED, Item, assemble, labels, varint
from generator.packed import BLOCKS, EVERY, FILLERS, TRANSPOSED, Packed, matrix, order, value_block
from generator.payloads import POOLS, drawn, spread
from generator.ranges import (
    Bits,
    RangeEncoder,
    encode_cells,
    encode_codebook,
    encode_grid,
    encode_mixed,
    encode_runs,
    encode_values,
    grid_value_bits,
    pack_text,
    value_bits,
)
from generator.samples import ONE, Valid, constant, dense, valid

#: Entries in bands of rows and columns, most of whose lines are empty.
BANDS = {p: POOLS["float32"][p % 7] for p in range(1200) if p // 40 % 3 and p % 40 // 5 % 2 and p % 7}


@dataclass
class Modelled:
    """A shared or sparse tensor under coder 2 or 3."""

    shape: tuple[int, ...]
    elements: dict[int, int]
    form: int = SPARSE_SHARED
    dtype: str = "float32"
    coder: int = 2
    flags: int = 0
    per_chunk: int = 0
    #: Coder 2: variant, width of a gap symbol, limit. Coder 3: whether nonempty lines and columns are coded.
    variant: int = 1
    width: int = 3
    limit: int = 1
    nonempty: tuple[bool, bool] = (False, False)
    lag: int = 0
    #: The codebook as a grid; the bits of value streams.
    grid: tuple[int, list[int]] | None = None
    #: A codebook that also holds values of no element.
    codebook: list[int] | None = None
    values: Bits | None = None
    name: str = "a"

    def item(self) -> Item:
        """Return the tensor, assembled."""
        rows, columns = matrix(self.shape, self.form)
        turned = bool(self.flags & TRANSPOSED)
        lines, length = (columns, rows) if turned else (rows, columns)
        codebook = self.codebook or sorted(set(self.elements.values()), key=lambda bits: order(bits, self.dtype))
        at = {p: (p % columns * rows + p // columns if turned else p) for p in self.elements}
        step = self.per_chunk or lines
        bodies, table = [], b""
        for start in range(0, lines, step) if lines else [0]:
            count = min(step, lines - start)
            low, high = start * length, (start + count) * length
            here = {at[p] - low: bits for p, bits in self.elements.items() if low <= at[p] < high}
            bodies.append(self.chunk(codebook, dict(sorted(here.items())), count, length, start == 0))
            stored = varint(len(here)) if self.form != DENSE_SHARED else b""
            table += (stored + varint(len(bodies[-1]))) if self.per_chunk else b""
        payload = bytes([self.coder | self.flags]) + varint(self.per_chunk) + table + b"".join(bodies)
        places = sorted(self.elements)
        shared = self.form != SPARSE
        return Item(
            payload, self.form, self.shape, [self.elements[p] for p in places],
            None if self.form == DENSE_SHARED else places, len(codebook) if shared else 0, self.name, self.dtype,
        )  # fmt: skip

    def chunk(self, codebook: list[int], here: dict[int, int], lines: int, length: int, first: bool) -> bytes:
        """Return a chunk's stream."""
        coder = RangeEncoder()
        shared = self.form != SPARSE
        if first and shared and self.grid:
            encode_grid(coder, *self.grid)
        elif first and shared:
            encode_codebook(coder, self.dtype, codebook)
        negative = sum(order(bits, self.dtype) < 0 for bits in codebook) if shared else 0
        entries = {p: codebook.index(bits) if shared else 0 for p, bits in here.items()}
        if self.flags & EVERY:
            named = {p: c + (c >= negative) for p, c in entries.items()}
            entries = {p: named.get(p, negative) for p in range(lines * length)}
        kinds = CodeSymbols((len(codebook) if shared else 1) + bool(self.flags & (EVERY | FILLERS)), negative)
        if self.coder == 2 and self.variant:
            encode_cells(coder, kinds, lines, length, entries, self.limit, self.lag)
        elif self.coder == 2:
            encode_runs(coder, kinds, lines, length, entries, self.limit, self.width)
        else:
            encode_mixed(coder, kinds, lines, length, entries, self.lag, self.nonempty)
        if self.flags & BLOCKS:
            return value_block(list(here.values()), self.dtype) + coder.finish()
        if not shared and here:
            values = value_bits(self.dtype, list(here.values())) if self.values is None else self.values
            encode_values(coder, self.dtype, values, len(here))
        return coder.finish()


# ------------------------------------------------------------------------------------------------------- valid


def valid_modelled() -> Iterator[Valid]:
    """Coders 2 and 3: every form, dtype and flag."""
    for coder in (2, 3):
        for dtype in POOLS:
            for form, name in ((DENSE_SHARED, "dense_shared"), (SPARSE, "sparse"), (SPARSE_SHARED, "sparse_shared")):
                elements = drawn((6, 5), 1 if form == DENSE_SHARED else 0.4, 7, dtype)
                item = Modelled((6, 5), elements, form, dtype, coder, lag=2).item()
                yield valid(f"form_{name}_{dtype}_coder_{coder}", [item])
        for name, tensor in edges(coder):
            yield valid(f"coder_{coder}_{name}", [tensor.item()])
    for name, item in value_streams():
        yield valid(f"values_{name}", [item])
    for name, item in codebooks():
        yield valid(f"codebook_{name}", [item])
    items = [dense("conv1.weight"), constant("conv1.bias")]
    numbers = [labels(*"0123456789"), labels(*(str(i * i) for i in range(12000)))]
    for name, section in zip(("container_packed", "container_packed_long"), numbers, strict=True):
        sections = [(3, section), (131, bytes(range(256)))]
        contents = assemble(items, sections)
        length = int.from_bytes(contents[6:10], "little")
        packed = pack_text(contents[10 : 10 + length])
        tensors = {item.name: item.tensor() for item in items}
        yield name, "", assemble(items, sections, packed=packed), tensors


def edges(coder: int) -> Iterator[tuple[str, Modelled]]:
    """Yield the edge cases that coders 2 and 3 have in common, and those of each coder alone."""
    shape = (9, 4, 3)
    elements = drawn(shape, 0.3, 11)
    for flags, name in (
        (0, "plain"),
        (TRANSPOSED, "transposed"),
        (EVERY, "every_element"),
        (TRANSPOSED | EVERY, "both"),
    ):
        base = Modelled(shape, elements, coder=coder, flags=flags, lag=3)
        yield name, base
        yield f"{name}_chunks", replace(base, per_chunk=4)
    for form, share in ((SPARSE, 0.3), (DENSE_SHARED, 1)):
        name = "sparse" if form == SPARSE else "dense_shared"
        yield (
            f"{name}_chunks",
            Modelled(shape, drawn(shape, share, 12), form, coder=coder, per_chunk=2, flags=TRANSPOSED),
        )
    yield "one_symbol", Modelled(shape, drawn(shape, 0.4, 13, pool=[ONE]), coder=coder)
    yield "one_symbol_dense", Modelled((3, 2), dict.fromkeys(range(6), ONE), DENSE_SHARED, coder=coder)
    yield "symbols_above_zero", Modelled(shape, drawn(shape, 0.4, 14, pool=POOLS["float32"][3:]), coder=coder)
    yield "symbols_below_zero", Modelled(shape, drawn(shape, 0.4, 15, pool=POOLS["float32"][:3]), coder=coder)
    yield "symbols_257", Modelled((20, 20), drawn((20, 20), 0.9, 16, pool=spread(257)), coder=coder)
    yield "symbols_600", Modelled((40, 40), drawn((40, 40), 0.5, 17, pool=spread(600)), coder=coder, lag=4)
    yield "no_entries", Modelled((4, 4), {}, SPARSE, coder=coder)
    yield "no_entries_in_a_chunk", Modelled((4, 4), {14: ONE, 15: 0xBF800000}, coder=coder, per_chunk=1)
    yield "all_entries", Modelled((4, 4), {p: POOLS["float32"][p % 7] for p in range(16)}, coder=coder)
    yield "size_0", Modelled((0, 4), {}, SPARSE, coder=coder)
    yield "rank_0", Modelled((), {0: 0xBF800000}, coder=coder)
    yield "rank_1", Modelled((90,), drawn((90,), 0.3, 22), coder=coder, lag=3)
    yield "rank_1_transposed", Modelled((90,), drawn((90,), 0.3, 22), SPARSE, coder=coder, flags=TRANSPOSED)
    yield "rank_7", Modelled((2, 1, 2, 1, 2, 1, 2), drawn((16,), 0.5, 18), coder=coder, lag=2)
    yield "bands", Modelled((30, 40), BANDS, coder=coder, lag=10)
    yield from (edges_of_coder_2 if coder == 2 else edges_of_coder_3)()


def edges_of_coder_2() -> Iterator[tuple[str, Modelled]]:
    """Yield the widths, limits and forms of runs, and the limits of contexts."""
    for width in range(1, 9):
        far = {p: POOLS["float32"][p % 7] for p in (3, 4, 3 * ((1 << width) - 1) + 5, 899)}
        yield f"runs_{width}", Modelled((30, 30), far, variant=0, width=width, limit=width % 4)
    yield "runs_every_element", Modelled((9, 4, 3), drawn((9, 4, 3), 0.3, 11), flags=EVERY, variant=0)
    yield "runs_dense_shared", Modelled((9, 4, 3), drawn((9, 4, 3), 1, 19), DENSE_SHARED, variant=0)
    yield "runs_symbols_257", Modelled((20, 20), drawn((20, 20), 0.9, 16, pool=spread(257)), variant=0)
    for limit in range(4):
        many = drawn((60, 30), 0.4, 20, pool=POOLS["float32"][1:5])
        yield f"limit_{limit}", Modelled((60, 30), many, limit=limit, lag=1)


def edges_of_coder_3() -> Iterator[tuple[str, Modelled]]:
    """Yield coded lines and columns, and lags."""
    for coded in ((True, False), (False, True), (True, True)):
        yield f"nonempty_{coded[0]:d}{coded[1]:d}", Modelled((30, 40), BANDS, coder=3, nonempty=coded)
    yield "nonempty_lag", Modelled((30, 40), BANDS, coder=3, lag=5, nonempty=(True, True))
    yield "lag_2", Modelled((30, 40), BANDS, coder=3, lag=2)
    yield "long", Modelled((60, 60), drawn((60, 60), 0.5, 21), coder=3, lag=28)


def stream(write: Callable[[RangeEncoder], object]) -> bytes:
    """Return the bytes of the stream that `write` writes."""
    coder = RangeEncoder()
    write(coder)
    return coder.finish()


def value_item(dtype: str, values: list[int], bits: Bits, shape: tuple[int, ...] = ()) -> Item:
    """Return a dense tensor under coder 2."""
    raw = stream(lambda coder: encode_values(coder, dtype, bits, len(values)))
    return Item(b"\2\0" + raw, DENSE, shape or (len(values),), values, dtype=dtype)


def value_streams() -> Iterator[tuple[str, Item]]:
    """Dense tensors under coder 2."""
    for dtype, pool in POOLS.items():
        for t in (0, 3):
            yield f"{dtype}_{t}", value_item(dtype, [*pool, 0], value_bits(dtype, [*pool, 0], t=t))
    low = [0x3F800000, 0x40200000, 0xBE000000, 0]
    yield "low_bits_zero", value_item("float32", low, value_bits("float32", low, zeros=20, t=1))
    yield "mantissa_zero", value_item("float32", [ONE, 0xBF800000], value_bits("float32", [ONE, 0xBF800000], zeros=23))
    scale = 0x3DCCCCCD  # 0.1
    integers = [0, 1, -1, 7, 3, -524289, (1 << 20) - 1]
    numbers = [multiply(scale, i) for i in integers]
    yield "grid", value_item("float32", numbers, grid_value_bits(scale, integers))
    tiny = [multiply(3, i) for i in integers]
    yield "grid_subnormal", value_item("float32", tiny, grid_value_bits(3, integers))
    first, last = value_bits("float32", low[:2]), value_bits("float32", low[2:])
    parts = [stream(lambda coder, bits=bits: encode_values(coder, "float32", bits, 2)) for bits in (first, last)]
    table = b"".join(varint(len(part)) for part in parts)
    yield "chunks", Item(b"\2\2" + table + b"".join(parts), DENSE, (4,), low)
    yield "of_none", Item(b"\2\0", DENSE, (0, 3), [])
    signs = [0x7F800000, 0xFF000001, 0x7F000000, 0xFF800000, ONE, 0xFF7FFFFF, 0x7FC00000, 0xFFFFFFFF] * 3
    yield "largest_exponents", value_item("float32", signs, value_bits("float32", signs))
    for coder in (2, 3):
        blocks = Modelled((3, 5), dict.fromkeys((1, 4, 6, 13), 1 << 63), SPARSE, "float64", coder, flags=BLOCKS)
        yield f"blocks_{coder}", blocks.item()
    grid = Modelled((2, 4), {0: numbers[1], 3: numbers[3], 6: numbers[5]}, SPARSE)
    yield "sparse_grid", replace(grid, values=grid_value_bits(scale, [1, 7, -524289])).item()


def codebooks() -> Iterator[tuple[str, Item]]:
    """Codebooks as grids and as lists, in the head and in a chunk."""
    scale = 0x3D4CCCCD  # 0.05
    integers = [-40000, -3, -1, 2, 3, 900]
    elements = dict(enumerate(multiply(scale, i) for i in integers))
    for coder in (2, 3):
        yield f"grid_coder_{coder}", Modelled((2, 5), elements, coder=coder, grid=(scale, integers)).item()
    with_zero = dict(enumerate(multiply(scale, i) for i in [-1, 0, 1]))
    yield "grid_with_zero", Modelled((3,), with_zero, DENSE_SHARED, grid=(scale, [-1, 0, 1])).item()
    integers = list(range(-(1 << 15), 1 << 15))
    codebook = [multiply(ONE, i) for i in integers]
    few = {0: codebook[0], 1: codebook[-1], 2: codebook[40000], 3: codebook[1 << 15]}
    for coder in (2, 3):
        wide = Modelled((4,), few, DENSE_SHARED, coder=coder, grid=(ONE, integers), codebook=codebook)
        yield f"65536_coder_{coder}", wide.item()
    signs = {0: 1 << 31, 1: 0, 2: 1, 3: (1 << 31) + 1}
    yield "zeros_of_both_signs", Packed((4,), signs, DENSE_SHARED).item()
    ends = {0: 0xFF7FFFFF, 1: 0x7F7FFFFF, 2: 1 << 31}
    yield "ends_float32", Packed((1, 4), ends).item()
    yield "ends_float16", Packed((1, 4), {0: 0xFBFF, 1: 0x7BFF}, dtype="float16").item()
    yield "all_int8", Packed((256,), {p: p for p in range(256)}, DENSE_SHARED, "int8").item()
    yield "one_bit_each", Packed((2, 2), {0: 0x40000000, 1: 0xC0000000}).item()
