"""What the bits of a payload are for: positions, labels, codebook, tables (the paper's tables 2 and 3)."""

from __future__ import annotations

import numpy as np

from dcformat import layout
from dcformat.codecs import CODER_NAMES, context_coder
from dcformat.codecs.oriented import Oriented
from dcformat.codecs.payload import Layout, PackedReader, read_payload
from dcformat.codecs.rangecoder import Encoder
from dcformat.codecs.values import write_codebook
from dcformat.model import Tensor
from dcformat.records import record


@record
class Usage:
    """Bits of a payload by purpose; they add up to eight times its bytes.

    Attributes
    ----------
    coder : str
        'raw', 'huffman', 'adaptive', 'mixing', or 'copy' of a tensor that has no payload.
    index_bits : float
        Positions of the stored entries. Where labels share a stream with them (adaptive, mixing), what the positions
        cost in a stream of their own.
    label_bits : float
        Codes into the codebook, or values where there is none.
    codebook_bits : float
    table_bits : float
        Code length tables, chunk tables, padding.
    """

    coder: str
    index_bits: float
    label_bits: float
    codebook_bits: float
    table_bits: float


def measure(parts: Layout) -> Usage:
    """Decode a payload and account for its bits. Raises `FormatError` as reading it does."""
    tensor = read_payload(parts)
    total = 8 * parts.info.payload_bytes
    name = CODER_NAMES[parts.coding.coder]
    if parts.is_plain:
        values = 8 * sum(len(chunk.data) for chunk in parts.chunks)
        return Usage(name, 0.0, values, 0.0, total - values)
    book = _codebook_bits(tensor)
    if parts.coding.coder > layout.CODER_HUFFMAN:
        return _of_context(tensor, parts, name, book, total)
    reader = PackedReader(parts)
    index = labels = 0
    for chunk in parts.chunks:
        of_index, of_labels = reader.bits(chunk)
        index, labels = index + of_index, labels + of_labels
    book = min(book, 8.0 * len(parts.head))
    return Usage(name, index, labels, book, total - index - labels - book)


def _codebook_bits(tensor: Tensor) -> float:
    if tensor.codebook is None:
        return 0.0
    encoder = Encoder(64)
    write_codebook(encoder, tensor.codebook, tensor.dtype)
    return 8.0 * len(encoder.take())


def _of_context(tensor: Tensor, parts: Layout, name: str, book: float, total: int) -> Usage:
    info, left = parts.info, 8.0 * sum(len(chunk.data) for chunk in parts.chunks)
    table = total - left
    # What codebook and positions take in streams of their own may be more than there is in the one that they share.
    book = min(book, left)
    index = 0.0
    if info.form == "sparse" and not parts.coding.every_element:
        index = min(8.0 * _positions_alone(tensor, parts), left - book)
    return Usage(name, index, left - book - index, book, table)


def _positions_alone(tensor: Tensor, parts: Layout) -> int:
    rows = Oriented.of(tensor)
    part = rows.transposed() if parts.coding.transposed else rows
    coder = context_coder(parts.coding.coder)
    each = parts.chunks[0].lines if len(parts.chunks) > 1 else 0
    size = 0
    for piece in part.chunks(each):
        encoder = Encoder(64)
        labels = np.zeros(len(piece.labels), np.uint8)
        coder.encode(encoder, piece.pointers, piece.indices, labels, piece.lines, piece.length, 1, 0)
        size += len(encoder.take())
    return size
