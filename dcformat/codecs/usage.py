"""A payload's bits by purpose: positions, codes, codebook, tables (tables 2 and 3 of Deep Compression)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs import CODER_NAMES, context_coder
from dcformat.codecs.alphabet import Alphabet
from dcformat.codecs.chunk_readers import PackedReader
from dcformat.codecs.codebooks import write_codebook
from dcformat.codecs.csr_view import CsrView
from dcformat.codecs.huffman import cost_bits
from dcformat.codecs.payload_layout import ParsedPayload
from dcformat.codecs.payload_reader import read_payload
from dcformat.codecs.rangecoder import Encoder
from dcformat.model import Tensor
from dcformat.records import record, replace

Ints = npt.NDArray[np.int64]


class CodeTable(NamedTuple):
    """The code of a stream of coder 0 or 1: for each symbol, the length of its code word in bits, and its count."""

    lengths: Ints
    counts: Ints


@record
class Usage:
    """Bits of a payload by purpose; they add up to eight times its bytes.

    Attributes
    ----------
    coder : str
        'raw', 'huffman', 'adaptive', 'mixing', 'planes', 'tables' or 'prediction'; 'copy' for a copy, which has no
        payload.
    index_bits : float
        Bits of the entries' positions. If codes share their stream (adaptive, mixing), these are the bits that the
        positions take in a stream of their own.
    code_bits : float
        Bits of the codes, or of the values if there is no codebook.
    codebook_bits : float
    table_bits : float
        Bits of code length tables, chunk tables and padding.
    gap_code : CodeTable or None
        The code of the gap symbols under coders 0 and 1, if positions are coded.
    code_codes : tuple of CodeTable
        The codes of the planes of code symbols, the low plane first, under coders 0 and 1.
    """

    coder: str
    index_bits: float
    code_bits: float
    codebook_bits: float
    table_bits: float
    gap_code: CodeTable | None = None
    code_codes: tuple[CodeTable, ...] = ()


def measure(payload: ParsedPayload, tensor: Tensor | None = None) -> Usage:
    """Account for the bits of a payload, which is decoded unless its `tensor` is given.

    Raises
    ------
    FormatError
        The payload is damaged.
    """
    if payload.codes is not None:
        inner = measure(payload.codes)
        tables = 8.0 * (payload.info.payload_bytes - payload.codes.info.payload_bytes)
        return replace(inner, coder=CODER_NAMES[payload.coding.coder], codebook_bits=inner.codebook_bits + tables)
    if tensor is None:
        tensor = read_payload(payload)
    total = 8 * payload.info.payload_bytes
    name = CODER_NAMES[payload.coding.coder]
    if payload.is_plain:
        values = 8 * sum(chunk.size for chunk in payload.chunks)
        return Usage(name, 0.0, values, 0.0, total - values)
    codebook_bits = _codebook_bits(tensor)
    if payload.coding.coder > layout.CODER_HUFFMAN:
        return _of_context(tensor, payload, name, codebook_bits, total)
    reader, values = PackedReader(payload), 0
    streams = [CodeTable(lengths, np.zeros(len(lengths), np.int64)) for lengths in reader.code_lengths]
    for chunk in payload.chunks:
        counts, bits = reader.counts(chunk)
        values += bits
        for stream, more in zip(streams, counts, strict=True):
            stream.counts[:] += more
    index, *planes = (cost_bits(*stream) for stream in streams)
    codes = sum(planes) + values
    codebook_bits = min(codebook_bits, 8.0 * len(payload.head))
    gaps = streams[0] if payload.has_positions else None
    return Usage(name, index, codes, codebook_bits, total - index - codes - codebook_bits, gaps, tuple(streams[1:]))


def _codebook_bits(tensor: Tensor) -> float:
    if tensor.codebook is None:
        return 0.0
    encoder = Encoder(64)
    write_codebook(encoder, tensor.codebook, tensor.dtype)
    return 8.0 * len(encoder.take())


def _of_context(tensor: Tensor, payload: ParsedPayload, name: str, codebook_bits: float, total: int) -> Usage:
    info, left = payload.info, 8.0 * sum(chunk.size for chunk in payload.chunks)
    table = total - left
    # In separate streams, codebook and positions may take more bits than in their shared stream.
    codebook_bits = min(codebook_bits, left)
    index = 0.0
    if info.form == "sparse" and not payload.coding.every_element:
        index = min(8.0 * _positions_alone(tensor, payload), left - codebook_bits)
    return Usage(name, index, left - codebook_bits - index, codebook_bits, table)


def _positions_alone(tensor: Tensor, payload: ParsedPayload) -> int:
    rows = CsrView.of(tensor)
    view = rows.transposed() if payload.coding.transposed else rows
    coder = context_coder(payload.coding.coder)
    lines_each = payload.chunks[0].lines if len(payload.chunks) > 1 else 0
    size = 0
    for piece in view.chunks(lines_each):
        encoder = Encoder(64)
        coder.encode(encoder, replace(piece, codes=np.zeros(piece.nnz, np.uint8)), Alphabet(1, 0))
        size += len(encoder.take())
    return size
