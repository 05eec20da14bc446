"""Codes the positions and code symbols of a tensor for a C program, in three forms; `parts/` has a decoder for each.

A gap symbol g stands for g zeros and then an entry or, if it is the greatest symbol, for g zeros and nothing else,
as in the format (spec, "Relative index").
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.codecs.adaptive_kernels import encode_runs
from dcformat.codecs.alphabet import Alphabet
from dcformat.codecs.huffman import UNUSED, code_lengths
from dcformat.codecs.rangecoder import Encoder, fresh

Ints = npt.NDArray[np.int64]

#: The limits of bit models that are tried (spec, "Coder 2").
_LIMITS = (30, 127, 255, 510)
#: The range of a C decoder's first decision; the format begins with 2^32, which 32 bits cannot hold.
_FIRST_RANGE = (1 << 32) - 1
#: Entries from which fewer ways are tried.
_MANY = 1 << 14


class TensorEntries(NamedTuple):
    """The entries of a tensor: their positions, ascending, among `elements`; their code symbols, if there are any."""

    elements: int
    positions: Ints
    symbols: Ints
    alphabet: Alphabet

    @property
    def is_dense(self) -> bool:
        """Whether every element is an entry."""
        return len(self.positions) == self.elements


class CodedStream(NamedTuple):
    """A stream, the width of its gap symbols (0: none), and the other parameters of the decoder."""

    stream: bytes
    gap_bits: int
    tables: tuple[bytes, ...] = ()
    limit: int = 0


def adaptive(entries: TensorEntries) -> CodedStream:
    """Code entries as variant 0 of coder 2 does, without its first two fields."""
    count = max(len(entries.positions), 1)
    width = min(max((entries.elements // count).bit_length(), 1), 6)
    widths = range(max(width - 1, 1), min(width + 2, 7)) if count < _MANY else (width,)
    limits = _LIMITS if count < _MANY else _LIMITS[1:3]
    found = [CodedStream(_runs(entries, bits, limit), bits, limit=limit) for bits in widths for limit in limits]
    # Each further bit of a gap doubles its bit models, of 4 bytes.
    return min(found, key=lambda coded: (len(coded.stream), coded.gap_bits))


def _runs(entries: TensorEntries, bits: int, limit: int) -> bytes:
    alphabet = entries.alphabet
    encoder = Encoder(0)
    encoder.state[1] = _FIRST_RANGE
    parts = len(entries.positions) + entries.elements // ((1 << bits) - 1)
    encoder.reserve(3 * (bits * parts + (alphabet.magnitude_bits + 1) * len(entries.positions)) + 16)
    models = fresh((1 << bits) + (1 << alphabet.magnitude_bits) + 1)
    # A line as long as the tensor: the positions are the columns of a single row.
    indptr = np.array([0, len(entries.positions)], np.int64)
    encode_runs(
        encoder.state, encoder.buf, 0, models, limit, bits, 1, entries.elements, alphabet.magnitude_bits,
        alphabet.negatives, alphabet.positives, indptr, entries.positions.astype(np.int32),
        entries.symbols.astype(np.uint16),
    )  # fmt: skip
    return encoder.take()


def huffman(entries: TensorEntries) -> CodedStream:
    """Code entries by canonical Huffman codes, a gap and then a code symbol for each."""
    if entries.is_dense:
        return _huffman(entries, 0)
    return min((_huffman(entries, bits) for bits in range(1, 8)), key=lambda coded: len(coded.stream + coded.tables[0]))


def _huffman(entries: TensorEntries, bits: int) -> CodedStream:
    gaps, owners = gap_symbols(entries.positions, bits) if bits else (None, None)
    gap_code = _Code(gaps, 1 << bits) if gaps is not None else None
    symbol_code = _Code(entries.symbols, entries.alphabet.size) if entries.alphabet.size else None
    out: list[str] = []
    if gaps is None or owners is None:
        assert symbol_code is not None  # a dense tensor whose values have no codes has no stream
        out.extend(symbol_code.words[s] for s in entries.symbols)
    else:
        for gap, entry in zip(gaps.tolist(), owners.tolist(), strict=True):
            assert gap_code is not None
            out.append(gap_code.words[gap])
            if entry >= 0 and symbol_code is not None:
                out.append(symbol_code.words[entries.symbols[entry]])
    text = "".join(out)
    stream = int(text.ljust(-(-len(text) // 8) * 8, "0") or "0", 2).to_bytes(-(-len(text) // 8), "big")
    tables = tuple(code.table if code is not None else b"" for code in (gap_code, symbol_code))
    return CodedStream(stream, bits, tables)


class _Code:
    """A canonical Huffman code: its words as text, and its table as the C decoder reads it."""

    def __init__(self, symbols: Ints, size: int) -> None:
        lengths = code_lengths(np.bincount(symbols, minlength=size))
        lengths[lengths == 0] = 1  # a word of no bits would be a special case
        order = sorted((int(n), s) for s, n in enumerate(lengths) if n != UNUSED)
        self.words: dict[int, str] = {}
        word, last = 0, 0
        for length, symbol in order:
            word <<= length - last
            self.words[symbol] = f"{word:0{length}b}"
            word, last = word + 1, length
        counts = [sum(length == bits for length, _ in order) for bits in range(1, 13)]
        self.table = bytes(counts) + bytes(symbol for _, symbol in order)


def tables(entries: TensorEntries) -> CodedStream:
    """Write gaps of 8 or 16 bits and code symbols of 8 bits, one after the other."""
    return min((_plain(entries, bits) for bits in ((0,) if entries.is_dense else (8, 16))), key=lambda c: len(c.stream))


def _plain(entries: TensorEntries, bits: int) -> CodedStream:
    symbols = [bytes([s]) if entries.alphabet.size else b"" for s in entries.symbols.tolist()]
    if not bits:
        return CodedStream(b"".join(symbols), 0)
    gaps, owners = gap_symbols(entries.positions, bits)
    out = bytearray()
    for gap, entry in zip(gaps.tolist(), owners.tolist(), strict=True):
        out += gap.to_bytes(bits // 8, "little")
        if entry >= 0:
            out += symbols[entry]
    return CodedStream(bytes(out), bits)


def gap_symbols(positions: Ints, bits: int) -> tuple[Ints, Ints]:
    """Return the gap symbols of ascending positions, and for each the number of its entry, -1 for an escape."""
    escape = (1 << bits) - 1
    runs = np.diff(positions, prepend=-1) - 1
    counts = runs // escape + 1
    ends = np.cumsum(counts) - 1
    gaps = np.full(int(counts.sum()), escape, np.int64)
    owners = np.full(len(gaps), -1, np.int64)
    gaps[ends] = runs % escape
    owners[ends] = np.arange(len(positions))
    return gaps, owners


#: The coder of each form of weights.
CODERS = {"fast": huffman, "small": adaptive, "tables": tables}
