"""The writer of coders 0 and 1: symbols of a fixed width, or in Huffman codes (spec, "Packed chunks")."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs import Mode, huffman, packed
from dcformat.codecs.codebooks import write_codebook
from dcformat.codecs.csr_view import CsrView, dense_codes, every_element, may_pay_transposed
from dcformat.codecs.payload_layout import Coding, chunk_bounds, chunk_lines, with_chunk_table
from dcformat.codecs.rangecoder import Encoder
from dcformat.codecs.value_block_writer import write_block
from dcformat.cursor import varint
from dcformat.floats import negatives
from dcformat.model import Tensor
from dcformat.records import record, replace

Array = npt.NDArray[Any]

#: Number of entries in a chunk: large enough to make a chunk's overhead of a few bytes negligible.
_CHUNK = 1 << 20
#: An array counts the runs of zeros that are shorter than this.
_SHORT_RUN = 1 << 12
#: Gap symbols may be wider than the best width if that costs less than 2 ** -_WIDER of their bits.
_WIDER = 11
#: Coding every element of a sparse tensor can pay only above this density, and up to this number of elements.
_DENSE_FROM = 0.1
_DENSE_MAX_ELEMENTS = 1 << 28


@record(eq=False)
class _Candidate:
    """Symbols to be coded in one way.

    Attributes
    ----------
    lines_each : int
        Number of lines in a chunk, 0 for all; `parts` are the chunks.
    gap_bits : int
        Width of a gap symbol; 0 if positions are not coded.
    code_symbols : int
        The number of different code symbols.
    index_cost : int
        Estimated bits that the positions take.
    """

    coding: Coding
    tensor: Tensor
    lines_each: int
    parts: list[CsrView]
    gap_bits: int
    code_symbols: int
    index_cost: int = 0


class RunCounts(NamedTuple):
    """The distinct runs of zeros, and how often each occurs."""

    runs: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


@record(eq=False)
class _Symbols:
    """One chunk's gap symbols (None without positions) and the planes of its code symbols."""

    gaps: Array | None
    planes: list[Array]


def candidates(tensor: Tensor) -> Iterator[bytes]:
    """Yield the payloads that are worth trying, without the values of a tensor that has no codebook.

    A large tensor is coded only along the more promising axis.
    """
    found = [_candidate(tensor, coding, None) for coding in _codings(tensor)]
    if len(found) > 1 and tensor.nnz > _CHUNK:
        rows, columns = found[:2]
        # Codes cost the same either way; a thirtieth of a bit per entry does not justify transposing back.
        transpose = columns.index_cost + tensor.nnz // 32 < rows.index_cost
        del found[0 if transpose else 1]
    codebook = _begun_head(tensor.codebook, tensor.dtype)
    for candidate in found:
        symbols = _symbols(candidate)
        yield _encode(candidate, symbols, codebook)
        if tensor.size < _CHUNK:
            # Fixed widths pay if tables would cost more than they save, which is never the case for many symbols.
            yield _encode(_with_coder(candidate, layout.CODER_RAW), symbols, codebook)


def encode(tensor: Tensor, coding: Coding, lines_each: int | None = None, mode: Mode | None = None) -> bytes:
    """Return a tensor's payload; parameters as in `payload_writer.encode_payload`."""
    candidate = _candidate(tensor, coding, lines_each)
    codebook = _begun_head(tensor.codebook, tensor.dtype)
    if not coding.fillers:
        return _encode(candidate, _symbols(candidate), codebook, mode)
    widths = range(1, layout.MAX_GAP_BITS + 1)
    return min((_encode_with_fillers(replace(candidate, gap_bits=bits), codebook) for bits in widths), key=len)


def encode_chunk(part: Tensor, coding: Coding, plan: packed.Plan, mode: Mode) -> bytes:
    """Return a chunk that holds the lines of `part`, coded by rows in a plan that counts the symbols of all chunks."""
    code_symbols = (1 if part.codebook is None else len(part.codebook)) + coding.every_element
    views = [CsrView.of(part)] if part.is_sparse else _dense_parts(part, False, 0)
    (symbols,) = _symbols(_Candidate(coding, part, 0, views, plan.gap_bits, code_symbols))
    chunk = packed.write_chunk(plan, symbols.gaps, symbols.planes)
    if not coding.blocks:
        return chunk
    (block,) = value_blocks(part, False, [part.nnz], mode)
    return varint(len(block)) + block + chunk


def _codings(tensor: Tensor) -> Iterator[Coding]:
    """Yield the codings that may pay for a tensor: by rows, by columns, or element by element."""
    blocks = has_values(tensor)
    yield Coding(layout.CODER_HUFFMAN, blocks=blocks)
    if not tensor.is_sparse:
        return
    if may_pay_transposed(tensor):
        yield Coding(layout.CODER_HUFFMAN, transposed=True, blocks=blocks)
    if may_be_dense(tensor):
        yield Coding(layout.CODER_HUFFMAN, every_element=True)


def has_values(tensor: Tensor) -> bool:
    """Return whether values are stored beside positions: the tensor is sparse and has no codebook."""
    return tensor.is_sparse and tensor.codebook is None


def may_be_dense(tensor: Tensor) -> bool:
    """Return whether it may pay to code every element: the tensor is moderately sparse and has a codebook."""
    return (
        tensor.is_sparse
        and tensor.codebook is not None
        and len(tensor.codebook) < layout.MAX_CODEBOOK
        and tensor.nnz >= _DENSE_FROM * tensor.size
        and tensor.size <= _DENSE_MAX_ELEMENTS
    )


def _candidate(tensor: Tensor, coding: Coding, lines_each: int | None) -> _Candidate:
    stored = tensor.nnz if tensor.is_sparse else tensor.size
    if lines_each is None:
        lines = tensor.columns if coding.transposed else tensor.rows
        lines_each = chunk_lines(lines, stored, tensor.size if coding.every_element else stored, _CHUNK)
    codebook_size = 1 if tensor.codebook is None else len(tensor.codebook)
    code_symbols = codebook_size + (coding.every_element or coding.fillers)
    if not tensor.is_sparse:
        parts = _dense_parts(tensor, coding.transposed, lines_each)
        return _Candidate(coding, tensor, lines_each, parts, 0, code_symbols)
    rows = CsrView.of(tensor)
    parts = (rows.transposed() if coding.transposed else rows).chunks(lines_each)
    bits, cost = (0, 0) if coding.every_element or coding.fillers else best_gap_bits(run_counts(parts))
    return _Candidate(coding, tensor, lines_each, parts, bits, code_symbols, cost)


def _dense_parts(tensor: Tensor, transposed: bool, lines_each: int) -> list[CsrView]:
    """Return the chunks of a dense tensor, which hold only codes."""
    codes, lines, length = dense_codes(tensor, transposed)
    indptr, indices = np.empty(0, np.int64), np.empty(0, np.int32)
    bounds = chunk_bounds(lines, lines_each)
    return [CsrView(indptr, indices, codes[a * length : b * length], b - a, length) for a, b in bounds]


# --- gap symbols ------------------------------------------------------------------------------------------------


def best_gap_bits(counted: RunCounts) -> tuple[int, int]:
    """Return the best width of gap symbols in Huffman codes, and its cost in bits, including tables."""
    costs = []
    for bits in range(1, layout.MAX_GAP_BITS + 1):
        symbols = packed.escaped_counts(*counted, bits)
        lengths = code_lengths(symbols)
        costs.append(huffman.cost_bits(lengths, symbols) + 8 * _table_bytes(lengths))
    # Wide symbols may cost a little more, because they need fewer escapes, which are slow to decode.
    allowed = min(costs) + (min(costs) >> _WIDER)
    bits = max(bits for bits, cost in enumerate(costs, start=1) if cost <= allowed)
    return bits, costs[bits - 1]


def run_counts(parts: Iterable[CsrView]) -> RunCounts:
    """Return how often each run of zeros occurs in chunks."""
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
    return RunCounts(np.concatenate((used, values)), np.concatenate((short[used], counts)))


def _table_bytes(lengths: huffman.Lengths) -> int:
    encoder = Encoder(16)
    huffman.write_lengths(encoder, lengths)
    return len(encoder.take())


# --- payloads ---------------------------------------------------------------------------------------------------


def _symbols(candidate: _Candidate) -> list[_Symbols]:
    """Return each chunk's symbols."""
    tensor, size = candidate.tensor, candidate.code_symbols
    if not tensor.is_sparse:
        return [_Symbols(None, packed.planes_of(part.codes, size)) for part in candidate.parts]
    if candidate.coding.every_element:
        zero = negatives(tensor.codebook)
        return [_Symbols(None, packed.planes_of(every_element(part, zero), size)) for part in candidate.parts]
    return [
        _Symbols(packed.escaped(packed.runs_of(part), candidate.gap_bits), packed.planes_of(part.codes, size))
        for part in candidate.parts
    ]


def _encode_with_fillers(candidate: _Candidate, codebook: Encoder) -> bytes:
    """Return the payload with the relative index of Deep Compression, for the candidate's gap width."""
    symbols = []
    for part in candidate.parts:
        gaps, code_symbols = packed.filled(packed.runs_of(part), part.codes, candidate.gap_bits)
        symbols.append(_Symbols(gaps, packed.planes_of(code_symbols, candidate.code_symbols)))
    return _encode(candidate, symbols, codebook)


def _with_coder(candidate: _Candidate, coder: int) -> _Candidate:
    return replace(candidate, coding=replace(candidate.coding, coder=coder))


def _encode(candidate: _Candidate, symbols: list[_Symbols], codebook: Encoder, mode: Mode | None = None) -> bytes:
    """Return a payload; `codebook` holds the beginning of its head, which all candidates for a tensor share."""
    tensor, coding = candidate.tensor, candidate.coding
    tables = coding.coder == layout.CODER_HUFFMAN
    plan = _plan(candidate, symbols, tables=tables)
    head = _ended_head(codebook.copy(), plan, tables=tables)
    chunks = [packed.write_chunk(plan, s.gaps, s.planes) for s in symbols]
    stored = [part.nnz for part in candidate.parts] if tensor.is_sparse else None
    if stored is not None and coding.blocks:
        blocks = value_blocks(tensor, coding.transposed, stored, mode)
        chunks = [varint(len(block)) + block + chunk for chunk, block in zip(chunks, blocks, strict=True)]
    front = bytes((coding.byte,)) + varint(candidate.lines_each) + varint(len(head)) + head
    return front + with_chunk_table(candidate.lines_each, chunks, stored)


def encode_head(codebook: Array | None, dtype: str, plan: packed.Plan, *, tables: bool) -> bytes:
    """Return what all chunks share: the codebook and the plan."""
    return _ended_head(_begun_head(codebook, dtype), plan, tables=tables)


def _begun_head(codebook: Array | None, dtype: str) -> Encoder:
    encoder = Encoder(64)
    if codebook is not None:
        write_codebook(encoder, codebook, dtype)
    return encoder


def _ended_head(encoder: Encoder, plan: packed.Plan, *, tables: bool) -> bytes:
    packed.write_plan(encoder, plan, tables=tables)
    return encoder.take()


def _plan(candidate: _Candidate, symbols: list[_Symbols], *, tables: bool) -> packed.Plan:
    sizes = packed.plane_sizes(candidate.code_symbols)
    gap_lengths = np.empty(0, np.int64)
    if candidate.gap_bits:
        gap_lengths = _lengths([s.gaps for s in symbols if s.gaps is not None], 1 << candidate.gap_bits, tables=tables)
    planes = tuple(_lengths([s.planes[k] for s in symbols], size, tables=tables) for k, size in enumerate(sizes))
    return packed.Plan(candidate.gap_bits, candidate.coding.fillers, gap_lengths, planes)


def _lengths(streams: Sequence[Array], size: int, *, tables: bool) -> huffman.Lengths:
    if not tables:
        return packed.fixed(size)
    counts = np.zeros(size, np.int64)
    for symbols in streams:
        counts += np.bincount(symbols, minlength=size)
    return code_lengths(counts)


def code_lengths(counts: npt.NDArray[np.int64]) -> huffman.Lengths:
    """Return Huffman code lengths; if there are no symbols to code, those of a code with one symbol."""
    lengths = huffman.code_lengths(counts)
    if not counts.any():
        lengths[0] = 0
    return lengths


def value_blocks(tensor: Tensor, transposed: bool, stored: list[int], mode: Mode | None) -> list[bytes]:
    """Return the value block of each chunk of a sparse tensor without a codebook; empty ones without a mode."""
    if mode is None:
        return [b""] * len(stored)
    pieces = np.split(ordered_values(tensor, transposed), np.cumsum(stored)[:-1])
    return [write_block(piece, tensor.dtype, mode, beside_positions=True) if len(piece) else b"" for piece in pieces]


def ordered_values(tensor: Tensor, transposed: bool) -> Array:
    """Return a sparse tensor's values in the order of its lines."""
    data = np.ascontiguousarray(tensor.data)
    return CsrView.of(tensor).values_transposed(data)[1] if transposed else data
