"""Tensors under coders 0 and 1, written from section 6 of the specification; any part of them may be false."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from reference_packed import planes

from generator.assembler import (
    DENSE_SHARED,
    SIZES,
    SPARSE,
    SPARSE_SHARED,
    Item,
    canonical_codes,
    fixed_codes,
    pack_bits,
    varint,
)
from generator.ranges import RangeEncoder, encode_codebook, encode_lengths
from generator.value_blocks import planes_of

TRANSPOSED, EVERY, FILLERS, BLOCKS = 16, 32, 64, 128


def matrix(shape: tuple[int, ...], form: int) -> tuple[int, int]:
    """Section 4: rows and columns; a sparse tensor of rank 1 is a row."""
    if len(shape) < (1 if form == DENSE_SHARED else 2):
        return 1, prod(shape)
    return shape[0], prod(shape[1:])


def order(bits: int, dtype: str) -> int:
    """Section 6, "Codebook": the order of the real numbers, negative zero before zero."""
    sign = 1 << (8 * SIZES[dtype] - 1)
    if dtype == "int8":
        return (bits ^ sign) - sign
    return -(bits ^ sign) - 1 if bits & sign else bits


def huffman(counts: Counter[int]) -> dict[int, int]:
    """Section 6.2: code lengths by Huffman's algorithm, with leaves in symbol order and inner nodes after them."""
    if len(counts) == 1:
        return dict.fromkeys(counts, 0)
    heap = [(count, i, [symbol]) for i, (symbol, count) in enumerate(sorted(counts.items()))]
    heapq.heapify(heap)
    lengths, number = dict.fromkeys(counts, 0), len(heap)
    while len(heap) > 1:
        (a, _, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in left + right:
            lengths[symbol] += 1
        heapq.heappush(heap, (a + b, number, left + right))
        number += 1
    return lengths


def value_block(values: list[int], dtype: str) -> bytes:
    """Section 6.4: a value block of raw planes, and its length before it."""
    size = SIZES[dtype]
    block = bytes(size) + b"".join(map(bytes, planes_of(values, dtype))) if values else b""
    return varint(len(block)) + block


@dataclass
class Packed:
    """A shared or sparse tensor to write: its contents, its coding, and false parts.

    `elements` maps row-major positions to bit patterns; a dense tensor needs every position.
    """

    shape: tuple[int, ...]
    elements: dict[int, int]
    form: int = SPARSE_SHARED
    dtype: str = "float32"
    coder: int = 0
    flags: int = 0
    gap_bits: int = 3
    per_chunk: int = 0
    name: str = "a"
    #: False parts: the codebook as coded; gap symbols and code symbols of the only chunk; the number of gap symbols;
    #: code length tables; bytes after the payload.
    codebook: list[int] | None = None
    gaps: list[int] | None = None
    symbols: list[int] | None = None
    count: int | None = None
    tables: list[tuple[int, ...]] | None = None
    after: bytes = b""
    #: Additions to the lengths of four streams and to the bits; entries in the chunk table; bytes after the head.
    shifts: tuple[int, ...] = (0, 0, 0, 0)
    padding: str = ""
    stored: list[int] | None = None
    head_after: bytes = b""
    lies: dict[str, bytes] = field(default_factory=dict)

    def item(self) -> Item:
        """Return the tensor, assembled."""
        rows, columns = matrix(self.shape, self.form)
        turned = bool(self.flags & TRANSPOSED)
        lines, length = (columns, rows) if turned else (rows, columns)
        true_codebook = sorted(set(self.elements.values()), key=lambda bits: order(bits, self.dtype))
        codebook = true_codebook if self.codebook is None else self.codebook
        shared = self.form != SPARSE
        if turned:
            placed = sorted((at % columns * rows + at // columns, bits) for at, bits in self.elements.items())
        else:
            placed = sorted(self.elements.items())
        step = self.per_chunk or lines
        chunks = []
        for start in range(0, lines, step) if lines else [0]:
            low, high = start * length, min(start + step, lines) * length
            here = [(at - low, bits) for at, bits in placed if low <= at < high]
            chunks.append((here, *self.sequences(here, high - low, true_codebook)))
        alphabet = (len(codebook) if shared else 1) + bool(self.flags & (EVERY | FILLERS))
        sequences = [self.planes(gaps, symbols, alphabet) for _, gaps, symbols in chunks]
        head, codes = self.head(sequences, codebook, shared, alphabet)
        bodies, table = [], b""
        for i, ((here, gaps, _), parts) in enumerate(zip(chunks, sequences, strict=True)):
            values = [bits for _, bits in here]
            block = b"" if shared else value_block(values, self.dtype)
            bodies.append(block + self.chunk(parts, codes, gaps is not None))
            if self.per_chunk:
                entries = len(here) if self.stored is None else self.stored[i]
                table += (varint(entries) if self.form != DENSE_SHARED else b"") + varint(len(bodies[-1]))
        payload = (
            bytes([self.coder | self.flags | BLOCKS * (not shared)])
            + varint(self.per_chunk)
            + head
            + table
            + b"".join(bodies)
            + self.after
        )
        positions = sorted(self.elements)
        return Item(
            payload,
            self.form,
            self.shape,
            [self.elements[at] for at in positions],
            None if self.form == DENSE_SHARED else positions,
            len(codebook) if shared else 0,
            self.name,
            self.dtype,
            lies=self.lies,
        )

    def sequences(
        self, here: list[tuple[int, int]], elements: int, codebook: list[int]
    ) -> tuple[list[int] | None, list[int]]:
        """Sections 6 and 6.1: gap symbols (None if positions are not coded) and symbols of a chunk."""
        code = {bits: i if self.form != SPARSE else 0 for i, bits in enumerate(self.codes_of(codebook))}
        if self.form == DENSE_SHARED:
            return None, [code[bits] for _, bits in here] if self.symbols is None else self.symbols
        if self.flags & EVERY:
            zero = sum(bits >> (8 * SIZES[self.dtype] - 1) for bits in self.codes_of(codebook) if self.form != SPARSE)
            names = {at: code[bits] + (code[bits] >= zero) for at, bits in here}
            symbols = [names.get(at, zero) for at in range(elements)]
            return None, symbols if self.symbols is None else self.symbols
        escape = (1 << self.gap_bits) - 1
        gaps: list[int] = []
        symbols = []
        last = -1
        for at, bits in here:
            run = at - last - 1
            if self.flags & FILLERS:
                while run > escape:
                    gaps, symbols, run = [*gaps, escape], [*symbols, 0], run - escape - 1
                gaps, symbols = [*gaps, run], [*symbols, code[bits] + 1]
            else:
                gaps, symbols = gaps + [escape] * (run // escape) + [run % escape], [*symbols, code[bits]]
            last = at
        return gaps if self.gaps is None else self.gaps, symbols if self.symbols is None else self.symbols

    def codes_of(self, codebook: list[int]) -> list[int]:
        """Return the codebook that assigns the codes; a false codebook has the same codes."""
        return self.codebook if self.codebook and set(codebook) <= set(self.codebook) else codebook

    def planes(self, gaps: list[int] | None, symbols: list[int], alphabet: int) -> list[list[int]]:
        """Section 6.2: gaps, then symbols in planes."""
        parts = [[symbol >> 8 * i & 255 for symbol in symbols] for i in range(len(planes(alphabet)))]
        return ([] if gaps is None else [gaps]) + parts

    def head(
        self, sequences: list[list[list[int]]], codebook: list[int], shared: bool, alphabet: int
    ) -> tuple[bytes, list[dict[int, str]]]:
        """Section 6, "Head", and the codes of the sequences."""
        coder = RangeEncoder()
        if shared:
            encode_codebook(coder, self.dtype, codebook)
        indexed = self.form != DENSE_SHARED and not self.flags & EVERY
        if indexed:
            coder.put(self.gap_bits - 1, 3)
        codes = []
        for i, size in enumerate([1 << self.gap_bits] * indexed + planes(alphabet)):
            if self.coder == 0:
                codes.append(fixed_codes(size))
                continue
            used = huffman(Counter(symbol for parts in sequences for symbol in parts[i]) or Counter([0]))
            lengths = [used.get(symbol, -1) for symbol in range(size)]
            encode_lengths(coder, size, lengths, self.tables[i] if self.tables else ())
            codes.append(canonical_codes(lengths))
        stream = coder.finish() + self.head_after
        return varint(len(stream)) + stream, codes

    def chunk(self, sequences: Sequence[Sequence[int]], codes: list[dict[int, str]], gaps: bool) -> bytes:
        """Section 6.2: a packed chunk."""
        out = varint(len(sequences[0]) if self.count is None else self.count) if gaps else b""
        bits = ""
        for symbols, code in zip(sequences, codes, strict=True):
            count = 4 if len(symbols) >= 4096 else 1
            quarter = -(-len(symbols) // count)
            streams = ["".join(code[s] for s in symbols[i * quarter : (i + 1) * quarter]) for i in range(count)]
            if count == 4:
                out += b"".join(varint(len(stream) + shift) for stream, shift in zip(streams, self.shifts, strict=True))
            bits += "".join(streams)
        return out + pack_bits(bits + self.padding)
