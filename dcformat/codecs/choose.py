"""Writing a tensor's payload: every candidate of a mode is costed, the smallest is kept (spec, "Payloads").

Ties go to the candidate that comes first, so the same tensor always gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs import context_coder, huffman, packed
from dcformat.codecs.oriented import Oriented, can_transpose, every_element, negatives_of
from dcformat.codecs.packed import Plan
from dcformat.codecs.payload import Coding, chunk_bounds
from dcformat.codecs.rangecoder import Encoder
from dcformat.codecs.values import write_codebook, write_values
from dcformat.cursor import varint
from dcformat.model import STORAGE, Tensor
from dcformat.records import record, replace

Array = npt.NDArray[Any]
Mode = Literal["fast", "small", "tiny"]
MODES: tuple[Mode, ...] = ("fast", "small", "tiny")
RelativeIndex = Literal["escape", "filler"]

#: Entries in a chunk of coders 0 and 1, elements in one of coders 2 and 3: large enough that what a chunk costs
#: (a few bytes; what an adaptive model has learnt) does not show.
_PACKED_CHUNK = 1 << 20
_CONTEXT_CHUNK = 1 << 23
#: Values in one stream, and how many `fast` codes rather than stores: coding them is slower than all else.
_VALUES_CHUNK = 1 << 20
_FAST_VALUES = 1 << 11
#: Runs below this are counted in an array.
_SHORT_RUN = 1 << 12
#: In `fast` a form along the columns must save one byte in so many: to turn it back takes time.
_TURNING = 256
#: Gap symbols may be wider than the best width if that costs less than 2 ** -_WIDER of their bits.
_WIDER = 11
#: An every-element form of a sparse tensor can only pay above this density.
_DENSE_FROM = 0.1
_DENSE_AT_MOST = 1 << 28


def write_payload(tensor: Tensor, mode: Mode, relative_index: RelativeIndex = "escape") -> bytes:
    """Return a validated tensor's payload in the form that costs least within `mode`."""
    if tensor.is_constant:
        return bytes((Coding(layout.CODER_RAW).byte,)) + _raw(tensor.data, tensor.dtype)
    if not tensor.is_sparse and tensor.codebook is None:
        return _plain(tensor, mode)
    if relative_index == "filler" and tensor.is_sparse and tensor.codebook is not None and len(tensor.codebook) < 256:
        return min(_with_fillers(tensor), key=len)
    turning = _TURNING if mode == "fast" else 0
    best = min(_best_packed(tensor), key=lambda payload: _weighed(payload, turning))
    if mode == "fast":
        return best
    coders = (layout.CODER_ADAPTIVE, layout.CODER_MIXING)[: 1 + (mode == "tiny")]
    return min([best, *_context_payloads(tensor, coders)], key=len)


def _raw(values: Array, dtype: str) -> bytes:
    return np.ascontiguousarray(values, STORAGE[dtype]).tobytes()


def _plain(tensor: Tensor, mode: Mode) -> bytes:
    """Values without codes: as they are, or coded."""
    each = _lines_each(tensor.rows, tensor.size, tensor.size, _VALUES_CHUNK)
    bounds = [(a * tensor.columns, b * tensor.columns) for a, b in chunk_bounds(tensor.rows, each)]
    raw = _raw(tensor.data, tensor.dtype)
    best = bytes((Coding(layout.CODER_RAW).byte,)) + varint(0) + raw
    if mode == "fast" and tensor.size > _FAST_VALUES:
        return best
    chunks = []
    for start, stop in bounds:
        encoder = Encoder(16)
        if stop > start:
            write_values(encoder, np.ascontiguousarray(tensor.data[start:stop], STORAGE[tensor.dtype]), tensor.dtype)
        chunks.append(encoder.take() if stop > start else b"")
    coded = bytes((Coding(layout.CODER_ADAPTIVE).byte,)) + _with_chunks(b"", each, chunks, None)
    return min([best, coded], key=len)


def _lines_each(lines: int, stored: int, weight: int, target: int) -> int:
    """Return how many lines make a chunk of about `target`, of `weight` in all; 0 if one chunk is enough."""
    if weight <= target or lines < 2:
        return 0
    most = layout.FREE_CHUNKS + (stored + lines) // layout.CHUNK_LEAST
    each = max(1, lines * target // weight, -(-lines // most))
    return 0 if each >= lines else each


def _with_chunks(head: bytes, each: int, chunks: Sequence[bytes], stored: Sequence[int] | None) -> bytes:
    """Return lines in a chunk, head, chunk table, chunks."""
    out = bytearray(varint(each) + head)
    if each:
        for number, chunk in enumerate(chunks):
            out += (varint(stored[number]) if stored is not None else b"") + varint(len(chunk))
    return bytes(out) + b"".join(chunks)


# --- coders 0 and 1 ---------------------------------------------------------------------------------------------


@record(eq=False)
class _Candidate:
    """Symbols to be coded one way.

    Attributes
    ----------
    each : int
        Lines in a chunk, 0 for all; `parts` are the chunks.
    bits : int
        Width of a gap symbol; 0 where positions are not coded.
    symbols : int
        How many different labels there are.
    index_cost : int
        Bits that the positions take, about.
    """

    coding: Coding
    tensor: Tensor
    each: int
    parts: list[Oriented]
    bits: int
    symbols: int
    index_cost: int = 0


def _packed_candidates(tensor: Tensor) -> Iterator[_Candidate]:
    """Yield the ways to see a tensor: by rows, by columns, or element by element."""
    clusters = 1 if tensor.codebook is None else len(tensor.codebook)
    if not tensor.is_sparse:
        part = Oriented(np.empty(0, np.int64), np.empty(0, np.int32), tensor.data, tensor.rows, tensor.columns)
        each = _lines_each(tensor.rows, tensor.size, tensor.size, _PACKED_CHUNK)
        yield _Candidate(Coding(layout.CODER_HUFFMAN), tensor, each, [part], 0, clusters)
        return
    rows = Oriented.of(tensor)
    for part, transposed in _orientations(rows):
        each = _lines_each(part.lines, tensor.nnz, tensor.nnz, _PACKED_CHUNK)
        parts = part.chunks(each)
        bits, cost = _gap_bits(parts)
        coding = Coding(layout.CODER_HUFFMAN, transposed=transposed)
        yield _Candidate(coding, tensor, each, parts, bits, clusters, cost)
    if _may_be_dense(tensor):
        each = _lines_each(rows.lines, tensor.nnz, tensor.size, _PACKED_CHUNK)
        coding = Coding(layout.CODER_HUFFMAN, every_element=True)
        yield _Candidate(coding, tensor, each, rows.chunks(each), 0, clusters + 1)


def _orientations(rows: Oriented) -> Iterator[tuple[Oriented, bool]]:
    yield rows, False
    if can_transpose(rows.lines, rows.length) and rows.lines > 1 and rows.length > 1:
        yield rows.transposed(), True


def _may_be_dense(tensor: Tensor) -> bool:
    return (
        tensor.codebook is not None
        and len(tensor.codebook) < layout.MAX_CODEBOOK
        and tensor.nnz >= _DENSE_FROM * tensor.size
        and tensor.size <= _DENSE_AT_MOST
    )


def _gap_bits(parts: Sequence[Oriented]) -> tuple[int, int]:
    """Return the width of gap symbols that is best in Huffman codes, and its cost in bits, tables included."""
    runs, counts = _run_counts(parts)
    costs = []
    for bits in range(1, layout.MAX_GAP_BITS + 1):
        symbols = packed.escaped_counts(runs, counts, bits)
        lengths = code_lengths(symbols)
        costs.append(huffman.cost_bits(lengths, symbols) + 8 * _table_bytes(lengths))
    # Wide symbols need few escapes, which are slow to decode: they may cost a little more.
    allowed = min(costs) + (min(costs) >> _WIDER)
    bits = max(bits for bits, cost in enumerate(costs, start=1) if cost <= allowed)
    return bits, costs[bits - 1]


def _run_counts(parts: Sequence[Oriented]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the different runs of zeros, and how often each occurs."""
    short = np.zeros(_SHORT_RUN, np.int64)
    long = [np.empty(0, np.int64)]
    for part in parts:
        runs = packed.runs_of(part)
        within = runs < _SHORT_RUN
        if not within.all():
            long.append(runs[~within])
            runs = runs[within]
        short += np.bincount(runs, minlength=_SHORT_RUN)
    values, counts = np.unique(np.concatenate(long), return_counts=True)
    used = np.flatnonzero(short)
    return np.concatenate((used, values)), np.concatenate((short[used], counts))


def _table_bytes(lengths: packed.Lengths) -> int:
    encoder = Encoder(16)
    huffman.write_lengths(encoder, lengths)
    return len(encoder.take())


def _best_packed(tensor: Tensor) -> Iterator[bytes]:
    """Yield the payload for each candidate; of a large tensor only for the orientation that promises more."""
    candidates = list(_packed_candidates(tensor))
    if len(candidates) > 1 and tensor.nnz > _PACKED_CHUNK:
        rows, columns = candidates[:2]
        # Labels cost the same either way; a thirtieth of a bit an entry is not worth turning it back.
        turned = columns.index_cost + tensor.nnz // 32 < rows.index_cost
        del candidates[0 if turned else 1]
    for candidate in candidates:
        gaps, planes = _symbols(candidate)
        yield _packed_payload(candidate, gaps, planes, coder=layout.CODER_HUFFMAN)
        if tensor.size < _PACKED_CHUNK:
            # Where tables would cost more than they save; never so for many symbols.
            yield _packed_payload(candidate, gaps, planes, coder=layout.CODER_RAW)


def _weighed(payload: bytes, turning: int) -> int:
    turned = bool(payload[0] & layout.CODING_TRANSPOSED)
    return len(payload) + (turned and turning and len(payload) // turning)


_Symbols = tuple[list[Array | None], list[list[Array]]]


def _symbols(candidate: _Candidate) -> _Symbols:
    """Return each chunk's gap symbols and label planes."""
    tensor = candidate.tensor
    if not tensor.is_sparse:
        bounds = chunk_bounds(tensor.rows, candidate.each)
        labels = [tensor.data[a * tensor.columns : b * tensor.columns] for a, b in bounds]
        return [None] * len(labels), [packed.planes_of(part, candidate.symbols) for part in labels]
    if candidate.coding.every_element:
        negatives = negatives_of(tensor.codebook, tensor.dtype)
        labels = [every_element(part, negatives) for part in candidate.parts]
        return [None] * len(labels), [packed.planes_of(part, candidate.symbols) for part in labels]
    gaps: list[Array | None] = [packed.escaped(packed.runs_of(part), candidate.bits) for part in candidate.parts]
    return gaps, [packed.planes_of(part.labels, candidate.symbols) for part in candidate.parts]


def _packed_payload(candidate: _Candidate, gaps: list[Array | None], planes: list[list[Array]], *, coder: int) -> bytes:
    tensor, tables = candidate.tensor, coder == layout.CODER_HUFFMAN
    coding = replace(candidate.coding, coder=coder)
    plan = _plan(candidate, gaps, planes, tables=tables)
    encoder = Encoder(64)
    if tensor.codebook is not None:
        write_codebook(encoder, tensor.codebook, tensor.dtype)
    packed.write_plan(encoder, plan, tables=tables)
    head = encoder.take()
    values = _chunk_values(candidate)
    chunks = [packed.write_chunk(plan, g, p, v) for g, p, v in zip(gaps, planes, values, strict=True)]
    stored = [len(part.indices) for part in candidate.parts] if tensor.is_sparse else None
    return bytes((coding.byte,)) + _with_chunks(varint(len(head)) + head, candidate.each, chunks, stored)


def _plan(candidate: _Candidate, gaps: list[Array | None], planes: list[list[Array]], *, tables: bool) -> Plan:
    sizes = packed.plane_sizes(candidate.symbols)
    gap_lengths = np.empty(0, np.int64)
    if candidate.bits:
        gap_lengths = _lengths([g for g in gaps if g is not None], 1 << candidate.bits, tables=tables)
    labels = tuple(_lengths([chunk[k] for chunk in planes], size, tables=tables) for k, size in enumerate(sizes))
    return Plan(candidate.bits, candidate.coding.fillers, gap_lengths, labels)


def _lengths(streams: Sequence[Array], size: int, *, tables: bool) -> packed.Lengths:
    if not tables:
        return packed.fixed(size)
    counts = np.zeros(size, np.int64)
    for symbols in streams:
        counts += np.bincount(symbols, minlength=size)
    return code_lengths(counts)


def code_lengths(counts: npt.NDArray[np.int64]) -> packed.Lengths:
    """Return Huffman code lengths; where nothing is to be coded, those of a code with one symbol."""
    lengths = huffman.code_lengths(counts)
    if not counts.any():
        lengths[0] = 0
    return lengths


def _chunk_values(candidate: _Candidate) -> list[bytes]:
    """Return the raw values of each chunk of a sparse tensor without a codebook."""
    tensor = candidate.tensor
    if tensor.codebook is not None:
        return [b""] * (
            len(candidate.parts) if tensor.is_sparse else len(list(chunk_bounds(tensor.rows, candidate.each)))
        )
    values = ordered_values(tensor, candidate.coding.transposed)
    ends = np.cumsum([len(part.indices) for part in candidate.parts])
    return [_raw(part, tensor.dtype) for part in np.split(values, ends[:-1])]


def ordered_values(tensor: Tensor, transposed: bool) -> Array:
    """Return a sparse tensor's values in the order of its lines."""
    if not transposed:
        return tensor.data
    rows = Oriented.of(tensor)
    numbered = Oriented(rows.pointers, rows.indices, np.arange(len(rows.indices)), rows.lines, rows.length)
    return tensor.data[numbered.transposed().labels]


def _with_fillers(tensor: Tensor) -> Iterator[bytes]:
    """Yield the payload with the paper's relative index, for every width of gaps."""
    rows = Oriented.of(tensor)
    clusters = 0 if tensor.codebook is None else len(tensor.codebook)
    each = _lines_each(rows.lines, tensor.nnz, tensor.nnz, _PACKED_CHUNK)
    parts = rows.chunks(each)
    for bits in range(1, layout.MAX_GAP_BITS + 1):
        coding = Coding(layout.CODER_HUFFMAN, fillers=True)
        candidate = _Candidate(coding, tensor, each, parts, bits, clusters + 1)
        pairs = [packed.filled(packed.runs_of(part), part.labels, bits) for part in parts]
        yield _packed_payload(
            candidate, [g for g, _ in pairs], [[labels] for _, labels in pairs], coder=layout.CODER_HUFFMAN
        )


# --- coders 2 and 3 ---------------------------------------------------------------------------------------------


def _context_payloads(tensor: Tensor, coders: Sequence[int]) -> Iterator[bytes]:
    negatives = negatives_of(tensor.codebook, tensor.dtype)
    for coder in coders:
        if not tensor.is_sparse:
            if _suits(coder, tensor, tensor.rows, tensor.columns):
                yield _context_dense(tensor, coder, negatives, transposed=False)
            turns = tensor.rows > 1 and tensor.columns > 1 and can_transpose(tensor.rows, tensor.columns)
            if turns and _suits(coder, tensor, tensor.columns, tensor.rows):
                yield _context_dense(tensor, coder, negatives, transposed=True)
            continue
        rows = Oriented.of(tensor)
        for part, transposed in _orientations(rows):
            if not _suits(coder, tensor, part.lines, part.length):
                continue
            yield _context_sparse(tensor, coder, part, negatives, transposed=transposed)
            if _may_be_dense(tensor):
                yield _context_every(tensor, coder, part, negatives, transposed=transposed)


def _suits(coder: int, tensor: Tensor, lines: int, length: int) -> bool:
    """Whether a coder can take a tensor's chunks, cut along lines of `length`."""
    if coder != layout.CODER_MIXING:
        return length <= layout.MAX_CONTEXT_LENGTH
    each = _lines_each(lines, tensor.nnz if tensor.is_sparse else tensor.size, tensor.size, _CONTEXT_CHUNK)
    return bool(context_coder(coder).suits(each or lines, length))


def _context_dense(tensor: Tensor, coder: int, negatives: int, *, transposed: bool) -> bytes:
    labels = tensor.data.reshape(tensor.rows, tensor.columns)
    labels = np.ascontiguousarray(labels.T if transposed else labels)
    lines, length = labels.shape
    each = _lines_each(lines, tensor.size, tensor.size, _CONTEXT_CHUNK)
    assert tensor.codebook is not None  # for the type checker: a dense tensor without one is `_plain`
    chunks = []
    for a, b in chunk_bounds(lines, each):
        encoder = _stream(tensor, first=a == 0)
        part = labels[a:b].reshape(-1)
        context_coder(coder).encode_dense(encoder, part, b - a, length, len(tensor.codebook), negatives)
        chunks.append(encoder.take())
    return bytes((Coding(coder, transposed).byte,)) + _with_chunks(b"", each, chunks, None)


def _context_every(tensor: Tensor, coder: int, part: Oriented, negatives: int, *, transposed: bool) -> bytes:
    each = _lines_each(part.lines, tensor.nnz, tensor.size, _CONTEXT_CHUNK)
    assert tensor.codebook is not None
    chunks, stored = [], []
    for number, piece in enumerate(part.chunks(each)):
        encoder = _stream(tensor, first=number == 0)
        labels = every_element(piece, negatives)
        symbols = len(tensor.codebook) + 1
        context_coder(coder).encode_dense(encoder, labels, piece.lines, piece.length, symbols, negatives)
        chunks.append(encoder.take())
        stored.append(len(piece.indices))
    coding = Coding(coder, transposed, every_element=True)
    return bytes((coding.byte,)) + _with_chunks(b"", each, chunks, stored)


def _context_sparse(tensor: Tensor, coder: int, part: Oriented, negatives: int, *, transposed: bool) -> bytes:
    each = _lines_each(part.lines, tensor.nnz, tensor.size, _CONTEXT_CHUNK)
    symbols = 1 if tensor.codebook is None else len(tensor.codebook)
    values = ordered_values(tensor, transposed) if tensor.codebook is None else None
    chunks, stored, at = [], [], 0
    for number, piece in enumerate(part.chunks(each)):
        encoder = _stream(tensor, first=number == 0)
        count = len(piece.indices)
        context_coder(coder).encode(
            encoder,
            piece.pointers,
            piece.indices,
            piece.labels,
            piece.lines,
            piece.length,
            symbols,
            negatives,
        )
        if values is not None and count:
            write_values(encoder, np.ascontiguousarray(values[at : at + count]), tensor.dtype)
        at += count
        chunks.append(encoder.take())
        stored.append(count)
    return bytes((Coding(coder, transposed).byte,)) + _with_chunks(b"", each, chunks, stored)


def _stream(tensor: Tensor, *, first: bool) -> Encoder:
    """Return a new stream; the first of a payload begins with the codebook."""
    encoder = Encoder(64)
    if first and tensor.codebook is not None:
        write_codebook(encoder, tensor.codebook, tensor.dtype)
    return encoder
