"""Section 6 of `dcformat.md`, "Payloads": from a tensor's payload and its entry in the table to its values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from reference_coders import BITS, CodeSymbols, RangeDecoder, adaptive_chunk, decode_codebook, decode_values
from reference_mixing import mixed_chunk
from reference_packed import Bits, Code, canonical, code_lengths, planes
from reference_planes import read_tables_by_place, value_block
from reference_prediction import predicted_chunk
from reference_reader import Entry, Reader, Tensor, check

CONSTANT, DENSE, DENSE_SHARED, SPARSE, SPARSE_SHARED = range(5)
FIXED, HUFFMAN, ADAPTIVE, MIXING, PLANES, TABLES, PREDICTION = range(7)
FOUR_STREAMS_FROM = 4096
MAX_PAYLOAD = 1 << 41
#: This decoder's own limit, because it is for small files.
MAX_STORED = 1 << 22


@dataclass
class Coding:
    """The coding byte and the head of a payload, and the properties that follow from them."""

    entry: Entry
    coder: int
    transposed: bool
    every: bool
    fillers: bool
    blocks: bool
    codebook: list[int] = field(default_factory=list)
    gap_bits: int = 0
    #: Codes of the alphabets in use: that of gaps if positions are coded, then the planes of the code symbols.
    codes: list[Code] = field(default_factory=list)

    @property
    def shared(self) -> bool:
        """Whether there is a codebook."""
        return self.entry.form in (DENSE_SHARED, SPARSE_SHARED)

    @property
    def sparse(self) -> bool:
        """Whether only elements that are not zero are stored."""
        return self.entry.form in (SPARSE, SPARSE_SHARED)

    @property
    def indexed(self) -> bool:
        """Whether positions are coded."""
        return self.sparse and not self.every

    @property
    def lines(self) -> int:
        """Section 6, "Lines": the number of lines."""
        return self.entry.columns if self.transposed else self.entry.rows

    @property
    def length(self) -> int:
        """Section 6, "Lines": the number of elements in a line."""
        return self.entry.rows if self.transposed else self.entry.columns

    @property
    def alphabet(self) -> int:
        """Section 6, "Code symbols": the number of code symbols."""
        return self.entry.codebook + (self.every or self.fillers) if self.shared else 1

    @property
    def negatives(self) -> int:
        """Section 6, "Codebook": the number of values with the sign bit set; zero's code symbol in *every element*."""
        return sum(value >> (8 * self.entry.size - 1) for value in self.codebook)


def decode_payload(reader: Reader, entry: Entry) -> Tensor:
    """Section 6: a whole payload."""
    check(entry.stored <= MAX_STORED, "E07", "[T11] more values than this decoder has memory for")
    coding = reader.u8()
    check(coding & 15 <= PREDICTION, "E02", "[P1] an unknown coder")
    positions: list[int] | None = None
    if entry.form == CONSTANT:
        check(coding == 0, "E08", "[P2] the coding byte of a constant")
        values = split_values(reader.take(reader.left()), entry, 1)
    elif read_coding(coding, entry).coder == TABLES:
        positions, values = decode_tables(reader, entry)
    else:
        positions, values = decode_chunks(reader, read_coding(coding, entry))
    reader.end("[N5] bytes left in a payload")
    check(entry.dtype != "bool" or all(value < 2 for value in values), "E08", "[T12] a bool that is neither 0 nor 1")
    check(entry.form != SPARSE or 0 not in values, "E08", "[T13] a stored zero")
    return Tensor(entry.shape, entry.dtype, entry.size, entry.scale, entry.form == CONSTANT, positions, values)


def read_coding(byte: int, entry: Entry) -> Coding:
    """Section 6, "Coding byte"."""
    coding = Coding(entry, byte & 15, bool(byte & 16), bool(byte & 32), bool(byte & 64), bool(byte & 128))
    form, coder = entry.form, coding.coder
    check(form != DENSE or coder not in (HUFFMAN, MIXING), "E08", "[P2] this coder for a dense tensor")
    check(form != DENSE or coder != ADAPTIVE or entry.dtype in BITS, "E08", "[P2] a value stream of this dtype")
    check(coder != PLANES or form == DENSE, "E08", "[P2] planes for a tensor with codes or positions")
    beside = form == SPARSE and coder <= MIXING
    check(beside or not coding.blocks, "E08", "[P2] blocks")
    need = beside and (coder <= HUFFMAN or entry.dtype not in BITS)
    check(coding.blocks or not need, "E08", "[P2] no blocks")
    check(coder != TABLES or not (coding.shared or coding.transposed), "E08", "[P2] tables for this tensor")
    check(form != DENSE or coder == PREDICTION or not coding.transposed, "E08", "[P2] transposed")
    check(coder != PREDICTION or (form == DENSE and entry.dtype == "int8"), "E08", "[P2] prediction")
    if coding.every:
        check(form == SPARSE_SHARED and entry.codebook < 1 << 16, "E08", "[P2] every element")
        check(entry.rows * entry.columns <= (1 << 16) + 64 * entry.stored, "E06", "[P14] every element of too many")
    if coding.fillers:
        good = form == SPARSE_SHARED and entry.codebook < 256 and coder in (FIXED, HUFFMAN) and not coding.every
        check(good, "E08", "[P2] fillers")
    if coding.transposed:
        check(entry.rows < 1 << 31 and entry.columns < 1 << 31, "E06", "[P3] transposed and too long")
    modelled = coder in (ADAPTIVE, MIXING) and form != DENSE
    check(not modelled or coding.length < 1 << 31, "E06", "[P3] lines too long for the coder")
    return coding


def decode_tables(reader: Reader, entry: Entry) -> tuple[list[int] | None, list[int]]:
    """Section 6.5: codes, which have a payload of their own, and tables by place."""
    tables = read_tables_by_place(reader, entry)
    form = entry.form + 1 if tables.codebook else entry.form
    codes = replace(entry, form=form, dtype="int8", size=1, codebook=tables.codebook)
    rest = Reader(reader.take(reader.left()))
    check(not rest.data or rest.data[0] & 15 != TABLES, "E08", "[V6] tables of codes")
    found = decode_payload(rest, codes)
    positions = list(range(len(found.values))) if found.positions is None else found.positions
    return found.positions, [
        tables.element(position, code, entry) for position, code in zip(positions, found.values, strict=True)
    ]


# ---------------------------------------------------------------------------------------------- head and chunks


def decode_chunks(reader: Reader, coding: Coding) -> tuple[list[int] | None, list[int]]:
    """Section 6: chunking, head, chunk table, chunks. Returns positions (sparse only) and values, row-major."""
    lines, length = coding.lines, coding.length
    per_chunk = reader.varint(max(lines - 1, 0))
    if coding.coder in (FIXED, HUFFMAN) and coding.entry.form != DENSE:
        read_head(RangeDecoder(reader.take(reader.varint(MAX_PAYLOAD))), coding)
    starts = list(range(0, lines, per_chunk)) if per_chunk else [0]
    found: list[tuple[int, int]] = []
    for start, (stored, size) in zip(starts, read_chunk_table(reader, coding, per_chunk, starts), strict=True):
        count = min(per_chunk or lines, lines - start)
        places, values = decode_chunk(reader.take(size), coding, count, stored, start == 0)
        for place, value in zip(places, values, strict=True):
            line, at = start + place // length, place % length
            found.append((at * lines + line if coding.transposed else line * length + at, value))
    found.sort()
    return ([position for position, _ in found] if coding.sparse else None), [value for _, value in found]


def read_head(coder: RangeDecoder, coding: Coding) -> None:
    """Section 6, "Head": codebook, gap width, and for coder 1 tables of code lengths."""
    read_codebook(coder, coding)
    alphabets = []
    if coding.indexed:
        coding.gap_bits = coder.direct(3) + 1
        alphabets = [1 << coding.gap_bits]
    for alphabet in alphabets + planes(coding.alphabet):
        width = (alphabet - 1).bit_length()
        coding.codes.append(
            canonical(code_lengths(coder, alphabet) if coding.coder == HUFFMAN else [width] * (1 << width))
        )
    coder.end()


def read_codebook(coder: RangeDecoder, coding: Coding) -> None:
    """Section 6, "Codebook": no zero in a sparse tensor."""
    if coding.shared:
        codebook = coding.codebook = decode_codebook(coder, coding.entry.dtype, coding.entry.codebook)
        check(not coding.sparse or 0 not in codebook, "E15", "[P6] zero in the codebook of a sparse tensor")


def read_chunk_table(reader: Reader, coding: Coding, per_chunk: int, starts: list[int]) -> list[tuple[int, int]]:
    """Section 6, "Chunk table": the number of entries and of bytes of each chunk."""
    if not per_chunk:
        return [(coding.entry.stored, reader.left())]
    max_chunks = min(16 + (coding.entry.stored + coding.lines) // 4096, reader.left())
    check(len(starts) <= max_chunks, "E06", "[P11] too many chunks")
    table, left = [], coding.entry.stored
    for start in starts:
        elements = min(per_chunk, coding.lines - start) * coding.length
        stored = reader.varint(min(elements, left)) if coding.sparse else elements  # [P12]
        left -= stored
        table.append((stored, reader.varint(MAX_PAYLOAD)))
    check(left == 0, "E14", "[P4] entries of the chunks")
    return table


def decode_chunk(data: bytes, coding: Coding, lines: int, stored: int, first: bool) -> tuple[list[int], list[int]]:
    """Section 6: a chunk of `lines` lines; places in it, counted over its lines end to end, and values."""
    entry, elements = coding.entry, lines * coding.length
    if entry.form == DENSE and coding.coder == FIXED:
        return list(range(elements)), split_values(data, entry, elements)
    if entry.form == DENSE and coding.coder == PLANES:
        return list(range(elements)), value_block(data, entry.dtype, entry.size, elements)
    if entry.form == DENSE and elements == 0:
        check(not data, "E13", "[P13] a chunk of no values")
        return [], []
    values: list[int] | None = None
    if coding.blocks:
        reader = Reader(data)
        block = reader.take(reader.varint(len(data)))
        data = reader.take(reader.left())
        values = value_block(block, entry.dtype, entry.size, stored)
    if coding.coder in (FIXED, HUFFMAN):
        places, codes = packed_chunk(data, coding, elements, stored)
    else:
        coder = RangeDecoder(data)
        if first:
            read_codebook(coder, coding)
        places, codes = modelled_chunk(coder, coding, lines, stored)
        if coding.coder == PREDICTION:
            values = predicted_chunk(coder, lines, coding.length)
        elif entry.form == DENSE or (entry.form == SPARSE and values is None):
            values = decode_values(coder, entry.dtype, len(places)) if places else []
        coder.end()
    return places, [coding.codebook[code] for code in codes] if values is None else values


def modelled_chunk(coder: RangeDecoder, coding: Coding, lines: int, stored: int) -> tuple[list[int], list[int]]:
    """Section 6, "Coders 2 and 3": places and codes, as `coders.md` specifies."""
    elements = lines * coding.length
    if coding.entry.form == DENSE:
        return list(range(elements)), []
    decode = adaptive_chunk if coding.coder == ADAPTIVE else mixed_chunk
    symbols = CodeSymbols(coding.alphabet, coding.negatives)
    cells = elements if coding.every or not coding.sparse else stored
    places, codes = decode(coder, symbols, lines, coding.length, cells)
    return every_element(codes, coding, stored) if coding.every else (places, codes)


def split_values(data: bytes, entry: Entry, count: int) -> list[int]:
    """Section 6, "Values": uncoded and little-endian."""
    check(len(data) == count * entry.size, "E13", "[P10] values of another length")
    return [int.from_bytes(data[i : i + entry.size], "little") for i in range(0, len(data), entry.size)]


# ------------------------------------------------------------------------------------------- 6.1 Relative index


def every_element(symbols: list[int], coding: Coding, stored: int) -> tuple[list[int], list[int]]:
    """Section 6, "Code symbols": *every element* has one. Return the places and codes of nonzero elements."""
    zero = coding.negatives
    places = [place for place, symbol in enumerate(symbols) if symbol != zero]
    check(len(places) == stored, "E14", "[P7] code symbols that are not zero")
    return places, [symbols[place] - (symbols[place] > zero) for place in places]


def relative_index(
    gaps: list[int], symbols: list[int], coding: Coding, elements: int, stored: int
) -> tuple[list[int], list[int]]:
    """Section 6.1, "Relative index": gap symbols and code symbols to places and codes."""
    escape = (1 << coding.gap_bits) - 1
    places, codes, at, entry = [], [], 0, True
    following = iter(symbols)
    for gap in gaps:
        at += gap
        entry = coding.fillers or gap < escape
        if not entry:  # an escape: zeros, no code symbol
            continue
        symbol = next(following, None)
        check(symbol is not None, "E14", "[P9] more entries than the chunk stores")
        code = symbol if not coding.fillers else symbol - 1
        entry = code != -1
        check(at < elements, "E14", "[P9] a position past the end")
        if not entry:
            check(gap == escape, "E14", "[P8] a filler after a short gap")
        else:
            places.append(at)
            codes.append(code)
        at += 1
    check(entry, "E14", "[P9] the last symbol belongs to no entry")
    check(len(places) == stored, "E14", "[P9] the number of entries")
    return places, codes


# ------------------------------------------------------------------------------------------- 6.2 Packed chunks


def packed_chunk(data: bytes, coding: Coding, elements: int, stored: int) -> tuple[list[int], list[int]]:
    """Section 6.2, "Packed chunks": places and codes."""
    reader = Reader(data)
    symbols, counts = stored, []
    if coding.indexed:
        symbols = reader.varint(elements)  # [K9]
        check(stored <= symbols <= max(stored, 8 * len(data)), "E13", "[K1] number of gap symbols")
        counts = [symbols]
    count = elements if not coding.sparse or coding.every else symbols if coding.fillers else stored
    counts += [count] * len(planes(coding.alphabet))
    lengths = [[reader.varint(8 * len(data)) for _ in range(4)] if n >= FOUR_STREAMS_FROM else [] for n in counts]
    bits = Bits(reader.take(reader.left()))
    check(sum(map(sum, lengths)) <= 8 * len(bits.data), "E03", "[K2] streams longer than the chunk")
    sequences = [bits.sequence(n, code, four) for n, code, four in zip(counts, coding.codes, lengths, strict=True)]
    bits.end()
    gaps = sequences.pop(0) if coding.indexed else []
    found = [0] * count
    for shift, plane in zip((0, 8), sequences, strict=False):
        found = [symbol | part << shift for symbol, part in zip(found, plane, strict=True)]
    check(all(symbol < coding.alphabet for symbol in found), "E14", "[K5] a code symbol past the alphabet")
    if coding.every:
        return every_element(found, coding, stored)
    if coding.sparse:
        return relative_index(gaps, found, coding, elements, stored)
    return list(range(elements)), found
