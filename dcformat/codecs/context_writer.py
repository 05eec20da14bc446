"""The writer of coders 2 and 3: each chunk is a range coder stream, and the first one begins with the codebook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.codecs import Mode, context_coder
from dcformat.codecs.alphabet import Alphabet
from dcformat.codecs.codebooks import write_codebook
from dcformat.codecs.csr_view import CsrView, all_elements, dense_codes, every_element, may_pay_transposed
from dcformat.codecs.packed_writer import has_values, may_be_dense, ordered_values, value_blocks
from dcformat.codecs.payload_layout import Coding, chunk_bounds, chunk_lines, with_chunk_table
from dcformat.codecs.rangecoder import Encoder
from dcformat.codecs.values import write_values
from dcformat.cursor import varint
from dcformat.floats import negatives
from dcformat.model import Tensor

Array = npt.NDArray[Any]

#: Number of elements in a chunk: large enough that the cost of starting the models afresh in each is negligible.
_CHUNK = 1 << 23


class _Pieces(NamedTuple):
    """A tensor as its coder sees it: the chunks, and the number of entries in each (None for a dense tensor)."""

    chunks: list[CsrView]
    stored: list[int] | None


def candidates(tensor: Tensor, coders: Sequence[int]) -> Iterator[bytes]:
    """Yield the payloads that are worth trying, without the values of a tensor that has no codebook."""
    turns = may_pay_transposed(tensor)
    for coder in coders:
        for transposed in (False, True) if turns else (False,):
            lines, length = (tensor.columns, tensor.rows) if transposed else (tensor.rows, tensor.columns)
            if not context_coder(coder).suits(
                lines_of_chunks(tensor.size, tensor.nnz if tensor.is_sparse else tensor.size, lines) or lines, length
            ):
                continue
            yield encode(tensor, Coding(coder, transposed, blocks=has_values(tensor)))
            if may_be_dense(tensor):
                yield encode(tensor, Coding(coder, transposed, every_element=True))


def encode(tensor: Tensor, coding: Coding, lines_each: int | None = None, mode: Mode | None = None) -> bytes:
    """Return a tensor's payload; parameters as in `payload_writer.encode_payload`."""
    if lines_each is None:
        lines = tensor.columns if coding.transposed else tensor.rows
        lines_each = lines_of_chunks(tensor.size, tensor.nnz if tensor.is_sparse else tensor.size, lines)
    chunks, stored = _chunks(tensor, coding, lines_each, mode)
    return bytes((coding.byte,)) + varint(lines_each) + with_chunk_table(lines_each, chunks, stored)


def encode_chunk(part: Tensor, coding: Coding, mode: Mode, *, begins: bool) -> bytes:
    """Return a chunk that holds the lines of `part`, coded by rows; a tensor's first `begins` with the codebook."""
    (chunk,), _ = _chunks(part, coding, 0, mode, begins=begins)
    return chunk


def _chunks(
    tensor: Tensor, coding: Coding, lines_each: int, mode: Mode | None, *, begins: bool = True
) -> tuple[list[bytes], list[int] | None]:
    """Return the chunks of a tensor, and the number of entries in each (None for a dense tensor)."""
    sparse = _sparse_pieces if tensor.is_sparse else _dense_pieces
    pieces = sparse(tensor, coding, lines_each)
    codebook_size = 1 if tensor.codebook is None else len(tensor.codebook)
    alphabet = Alphabet(codebook_size + coding.every_element, negatives(tensor.codebook))
    in_stream = ordered_values(tensor, coding.transposed) if has_values(tensor) and not coding.blocks else None
    chunks, at = [], 0
    for number, piece in enumerate(pieces.chunks):
        encoder = Encoder(64)
        if number == 0 and begins and tensor.codebook is not None:
            write_codebook(encoder, tensor.codebook, tensor.dtype)
        context_coder(coding.coder).encode(encoder, piece, alphabet)
        if in_stream is not None and piece.nnz:
            write_values(encoder, np.ascontiguousarray(in_stream[at : at + piece.nnz]), tensor.dtype)
        at += piece.nnz
        chunks.append(encoder.take())
    if coding.blocks and pieces.stored is not None:
        blocks = value_blocks(tensor, coding.transposed, pieces.stored, mode)
        chunks = [varint(len(block)) + block + chunk for chunk, block in zip(chunks, blocks, strict=True)]
    return chunks, pieces.stored


def lines_of_chunks(size: int, stored: int, lines: int) -> int:
    """Return the number of lines in a chunk of a tensor with `lines` lines, `size` elements and `stored` entries."""
    return chunk_lines(lines, stored, size, _CHUNK)


def _dense_pieces(tensor: Tensor, coding: Coding, lines_each: int) -> _Pieces:
    codes, lines, length = dense_codes(tensor, coding.transposed)
    bounds = chunk_bounds(lines, lines_each)
    return _Pieces([all_elements(codes[a * length : b * length], b - a, length) for a, b in bounds], None)


def _sparse_pieces(tensor: Tensor, coding: Coding, lines_each: int) -> _Pieces:
    rows = CsrView.of(tensor)
    pieces = (rows.transposed() if coding.transposed else rows).chunks(lines_each)
    stored = [piece.nnz for piece in pieces]
    if coding.every_element:
        zero = negatives(tensor.codebook)
        pieces = [all_elements(every_element(piece, zero), piece.lines, piece.length) for piece in pieces]
    return _Pieces(pieces, stored)
