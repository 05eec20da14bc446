"""Coders 0 and 1: symbols of a fixed width, or in canonical Huffman codes (spec, "Packed chunks").

A chunk holds gap symbols (the relative index), then code symbols in planes of eight bits, low plane first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs import huffman, index, plain
from dcformat.codecs.csr_view import CsrView, index_dtype
from dcformat.codecs.huffman import Lengths
from dcformat.codecs.rangecoder import Decoder, Encoder, get, put
from dcformat.cursor import Cursor, varint
from dcformat.errors import EncodingError, IndexRangeError, LimitError, StreamError, TruncatedError
from dcformat.jit import lacks_compiler
from dcformat.records import record
from dcformat.wording import counted

Array = npt.NDArray[Any]

#: The writer refuses a tensor that needs more escapes than this: 2^40 elements with few entries would take gigabytes of
#: them.
_MAX_ESCAPES = 1 << 28
#: This is not a gap symbol: once fillers are removed, no symbol is an escape.
_NO_ESCAPE = -1


@record(eq=False)
class Plan:
    """How a tensor's symbols are coded.

    Attributes
    ----------
    gap_bits : int
        Width of a gap symbol; 0 if positions are not coded.
    fillers : bool
        Whether fillers, as in Deep Compression, bridge long runs instead of escapes.
    gaps : code lengths of the gap symbols (empty without positions).
    planes : code lengths of each plane of code symbols (no plane for a single code symbol).
    """

    gap_bits: int
    fillers: bool
    gaps: Lengths
    planes: tuple[Lengths, ...]

    @property
    def max_gap(self) -> int:
        """The last gap symbol: the escape, or a filler's gap."""
        return (1 << self.gap_bits) - 1


def plane_sizes(symbols: int) -> list[int]:
    """Return the number of symbols in each plane of code symbols below `symbols`; there are 0 to 2 planes."""
    if symbols <= 1:
        return []
    return [symbols] if symbols <= 256 else [256, (symbols + 255) >> 8]


def planes_of(code_symbols: Array, symbols: int) -> list[Array]:
    """Split code symbols below `symbols` into uint8 planes."""
    if symbols <= 1:
        return []
    if symbols <= 256:
        return [code_symbols.astype(np.uint8)]
    return [(code_symbols & 255).astype(np.uint8), (code_symbols >> 8).astype(np.uint8)]


def fixed(size: int) -> Lengths:
    """Return the code lengths of coder 0: the least width that holds `size` symbols, for each word of that width."""
    width = max(size - 1, 0).bit_length()
    return np.full(1 << width, width, np.int64)


# --- gap symbols ------------------------------------------------------------------------------------------------


def runs_of(view: CsrView) -> npt.NDArray[np.int64]:
    """Return the number of zeros before each entry, counted across the ends of lines."""
    out = np.empty(view.nnz, np.int64)
    kernel = index.runs32 if view.indices.dtype == np.int32 else index.runs64
    kernel(view.indptr, view.indices, view.length, 0, view.lines, out)
    return out


def escaped(runs: npt.NDArray[np.int64], bits: int) -> npt.NDArray[np.uint8]:
    """Return the gap symbols of runs, with escapes."""
    escape = (1 << bits) - 1
    escapes = int((runs // escape).sum())
    if escapes > _MAX_ESCAPES:
        raise LimitError("zeros between entries", got=f"{escapes} escapes", expected=f"at most {_MAX_ESCAPES}")
    out = np.empty(len(runs) + escapes, np.int64)
    index.escape(runs, escape, out)
    return out.astype(np.uint8)


def escaped_counts(runs: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], bits: int) -> npt.NDArray[np.int64]:
    """Return how often `escaped` would use each gap symbol, given how often each run occurs."""
    escape = (1 << bits) - 1
    out = np.zeros(escape + 1, np.int64)
    np.add.at(out, runs % escape, counts)
    out[escape] += int((runs // escape * counts).sum())
    return out


def filled(runs: npt.NDArray[np.int64], codes: Array, bits: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return gap symbols and code symbols with fillers: a code symbol is the code plus 1, or 0 for a filler."""
    filler = (1 << bits) - 1
    room = len(runs) + int((runs // (filler + 1)).sum())
    gaps, out = np.empty(room, np.int64), np.empty(room, np.uint8)
    index.fill(runs, codes.astype(np.uint8), filler, gaps, out)
    return gaps.astype(np.uint8), out


# --- heads ------------------------------------------------------------------------------------------------------


def write_plan(encoder: Encoder, plan: Plan, *, tables: bool) -> None:
    """Append the gap width and, for coder 1, the tables of code lengths."""
    if plan.gap_bits:
        put(encoder, 3, plan.gap_bits - 1)
    if tables:
        for lengths in (*((plan.gaps,) if plan.gap_bits else ()), *plan.planes):
            huffman.write_lengths(encoder, lengths)


def read_plan(decoder: Decoder, symbols: int, *, positions: bool, fillers: bool, tables: bool) -> Plan:
    """Read what `write_plan` wrote; `symbols` is the number of different code symbols."""
    bits = get(decoder, 3) + 1 if positions else 0

    def lengths(size: int, field: str) -> Lengths:
        return huffman.read_lengths(decoder, size, field) if tables else fixed(size)

    gaps = lengths(1 << bits, "gap code lengths") if positions else np.empty(0, np.int64)
    planes = tuple(lengths(size, "code symbols' code lengths") for size in plane_sizes(symbols))
    return Plan(bits, fillers, gaps, planes)


# --- chunks -----------------------------------------------------------------------------------------------------


def write_chunk(plan: Plan, gaps: Array | None, planes: Sequence[Array]) -> bytes:
    """Return a chunk: counts and stream lengths, then the streams' bits."""
    head = bytearray()
    streams: list[tuple[Array, Lengths]] = []
    if gaps is not None:
        head += varint(len(gaps))
        streams += _cut(gaps, plan.gaps)
    for symbols, lengths in zip(planes, plan.planes, strict=True):
        streams += _cut(symbols, lengths)
    bits = [huffman.cost_bits(lengths, np.bincount(s, minlength=len(lengths))) for s, lengths in streams]
    out = np.zeros(sum(bits) // 8 + 9, np.uint8)
    at = 0
    for symbols, lengths in streams:
        at = huffman.write_codes(symbols, huffman.canonical_codes(lengths), lengths, out, at)
    position = 0
    for symbols in ([gaps] if gaps is not None else []) + list(planes):
        count = 4 if len(symbols) >= layout.INTERLEAVE_FROM else 1
        if count == 4:
            head += b"".join(varint(n) for n in bits[position : position + 4])
        position += count
    return bytes(head) + out[: (at + 7) // 8].tobytes()


def _cut(symbols: Array, lengths: Lengths) -> list[tuple[Array, Lengths]]:
    """Cut symbols into one stream, or into four of equal length except the last."""
    if len(symbols) < layout.INTERLEAVE_FROM:
        return [(symbols, lengths)]
    quarter = (len(symbols) + 3) // 4
    return [(symbols[k * quarter : (k + 1) * quarter], lengths) for k in range(4)]


class Streams(NamedTuple):
    """The symbols of a chunk: gap symbols (None without positions), and planes of code symbols."""

    gaps: npt.NDArray[np.uint8] | None
    planes: list[npt.NDArray[np.uint8]]


class StreamReader:
    """Decodes the streams of one tensor's chunks; the lookup tables are made once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._gaps = _Alphabet(plan.gaps) if plan.gap_bits else None
        self._planes = [_Alphabet(lengths) for lengths in plan.planes]

    def read(
        self,
        data: npt.NDArray[np.uint8],
        stored: int,
        *,
        max_gaps: int,
        code_room: npt.NDArray[np.uint8] | None = None,
    ) -> Streams:
        """Decode a chunk.

        Parameters
        ----------
        data : uint8 array
            The chunk.
        stored : int
            Number of its code symbols, not counting fillers.
        max_gaps : int
            Maximum number of gap symbols: each covers at least one of the chunk's elements.
        code_room : uint8 array, optional
            Room for the `stored` code symbols if they have a single plane.
        """
        cursor = Cursor(data)
        count = stored if self._gaps is None else _read_gap_count(cursor, stored, max_gaps)
        each = count if self.plan.fillers else stored
        room = code_room if len(self._planes) == 1 and each == stored else None
        sequences = ([(count, self._gaps, None)] if self._gaps is not None else []) + [
            (each, alphabet, room) for alphabet in self._planes
        ]
        sizes = [
            [cursor.varint("stream length", 8 * len(data)) for _ in range(4)] if n >= layout.INTERLEAVE_FROM else []
            for n, _, _ in sequences
        ]
        stream_bytes = cursor.left
        streams = cursor.array(stream_bytes, "streams")
        out, at = [], 0
        for (n, alphabet, own), lengths in zip(sequences, sizes, strict=True):
            symbols = np.empty(n, np.uint8) if own is None else own
            at = alphabet.read(streams, at, 8 * stream_bytes, symbols, lengths)
            out.append(symbols)
        _check_end(streams, at, stream_bytes)
        gaps = out.pop(0) if self._gaps is not None else None
        return Streams(gaps, out)


def _read_gap_count(cursor: Cursor, stored: int, max_gaps: int) -> int:
    count, bits = cursor.varint("gap symbols", max_gaps), 8 * len(cursor.data)
    if count < stored or count > max(stored, bits):
        # An escape or filler is never the only symbol, so each takes at least one bit.
        raise StreamError("gap symbols", got=count, expected=f"{stored}, and at most one more for each bit")
    return count


class _Alphabet:
    """Decodes the symbols of one alphabet with kernels, or with `plain` if nothing can compile them."""

    def __init__(self, lengths: Lengths) -> None:
        self._lengths = lengths
        self._tables = None if lacks_compiler(huffman.read_one) else huffman.decoding_tables(lengths)

    def read(self, data: npt.NDArray[np.uint8], at: int, end: int, out: npt.NDArray[np.uint8], sizes: list[int]) -> int:
        """Fill `out` from bit `at` on, and return the bit after; `sizes` are those of four streams, or empty."""
        if not sizes:
            return self._one(data, at, end, out)
        count, quarter = len(out), (len(out) + 3) // 4
        ends = [at + size for size in accumulate(sizes)]
        if ends[-1] > end:
            raise TruncatedError(
                "Huffman streams", got=counted(end - at, "bit"), expected=counted(ends[-1] - at, "bit")
            )
        starts = [at, *ends[:-1]]
        if self._tables is None:
            cuts = [0, quarter, 2 * quarter, 3 * quarter, count]
            after = [self._one(data, starts[k], ends[k], out[cuts[k] : cuts[k + 1]]) for k in range(4)]
        else:
            reached = np.array(starts, np.int64)
            huffman.read_four(data, reached, np.array(ends, np.int64), *self._tables, out, count)
            after = reached.tolist()  # -1 for a stream that has run out
        if after != ends:
            raise StreamError("Huffman streams", got="another length", expected=f"{sizes} bits")
        return ends[-1]

    def _one(self, data: npt.NDArray[np.uint8], at: int, end: int, out: npt.NDArray[np.uint8]) -> int:
        if self._tables is None:
            after = plain.read_symbols(data, at, end, self._lengths, out)
        else:
            after = huffman.read_one(data, at, end, *self._tables, out, len(out))
        if after < 0:
            raise StreamError("Huffman stream", got="its end", expected=counted(len(out), "symbol"))
        return after


def _check_end(data: npt.NDArray[np.uint8], at: int, size: int) -> None:
    """Require that the streams fill `size` bytes except for fewer than eight zero bits."""
    if (at + 7) // 8 != size:
        raise StreamError("Huffman streams", got=counted(size, "byte"), expected=counted((at + 7) // 8, "byte"))
    if at % 8 and int(data[size - 1]) >> (at % 8):
        raise EncodingError("padding", got="bits set", expected="zero bits")


class PlaceShape(NamedTuple):
    """The matrix that holds the positions of gap symbols."""

    lines: int
    length: int
    nnz: int


class Placed(NamedTuple):
    """Positions of entries; `codes` is None unless fillers were taken out of the codes."""

    indptr: Array
    indices: Array
    codes: Array | None


def place(
    plan: Plan,
    gaps: npt.NDArray[np.uint8],
    code_symbols: Array | None,
    shape: PlaceShape,
    room: Array | None = None,
) -> Placed:
    """Return the positions that a chunk's gap symbols stand for.

    Parameters
    ----------
    plan : Plan
    gaps : uint8 array
    code_symbols : uint8 array or None
        The code symbols if there are fillers, which the returned codes no longer contain; None without fillers.
    shape : PlaceShape
    room : array, optional
        Room for the indices: ``shape.nnz`` items of their dtype.

    Raises
    ------
    IndexRangeError
        The positions lie outside the matrix, or their number differs from that of its entries.
    """
    nnz = shape.nnz
    if code_symbols is None:
        indptr, indices = _place(gaps, plan.max_gap, shape, room)
        return Placed(indptr, indices, None)
    symbols = gaps.astype(np.int64)
    codes = np.empty(len(gaps), np.uint8)
    if index.unfill(symbols, code_symbols, plan.max_gap, codes) != nnz:
        raise IndexRangeError("fillers", got="gaps that do not fit", expected=counted(nnz, "entry", "entries"))
    indptr, indices = _place(symbols[:nnz], _NO_ESCAPE, shape, room)
    return Placed(indptr, indices, codes[:nnz])


def _place(symbols: Array, escape: int, shape: PlaceShape, room: Array | None) -> tuple[Array, Array]:
    """Return `indptr` and `indices`; the kernels check that positions are in range, and fail otherwise."""
    lines, length, nnz = shape
    index_type = index_dtype(length)
    indptr = np.zeros(lines + 1, np.int64)
    indices = np.empty(nnz, index_type) if room is None else room
    if lacks_compiler(index.place32):
        found = plain.place(symbols, escape, nnz, lines, length)
        failed = found is None
        if found is not None:
            indptr, indices[:] = found
    elif symbols.dtype == np.uint8 and index_type == np.int32:
        failed = index.place32(symbols, len(symbols), escape, length, lines, indptr, indices)
    else:
        wide = np.empty(nnz, np.int64)
        failed = index.place64(symbols.astype(np.int64), len(symbols), escape, length, lines, indptr, wide)
        if not failed:
            indices[:] = wide
    if failed:
        raise IndexRangeError(
            "positions",
            got="gaps that do not fit",
            expected=f"{counted(nnz, 'entry', 'entries')} in {counted(lines, 'line')}",
        )
    return indptr, indices


def join(planes: Sequence[npt.NDArray[np.uint8]], symbols: int, count: int) -> Array:
    """Return `count` code symbols from their planes; raise `IndexRangeError` unless all are below `symbols`."""
    if not planes:
        return np.zeros(count, np.uint8)
    joined: Array = planes[0]
    if len(planes) == 2:
        joined = planes[0] | planes[1].astype(np.uint16) << np.uint16(8)
    if len(joined) and int(joined.max()) >= symbols:
        raise IndexRangeError("code symbol", got=int(joined.max()), expected=f"below {symbols}")
    return joined
