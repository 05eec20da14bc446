"""Codes tensors that need not fit in memory, piece by piece (spec, "Payloads").

`survey` reads all elements once to count their values, codes some rows from several places in every way to choose the
form and the coding, and reads all elements again if positions must be counted. Then each chunk can be coded alone, in
any order and in any process, by `code_chunk`. The chunks depend on nothing but the elements and the mode.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs import Mode, context_writer, fits, packed, packed_writer
from dcformat.codecs.chunk_readers import chunk_reader
from dcformat.codecs.codebooks import write_codebook
from dcformat.codecs.csr_view import CsrView, index_dtype
from dcformat.codecs.payload_layout import (
    Chunk,
    Coding,
    ParsedPayload,
    chunk_bounds,
    chunk_lines,
    chunk_table,
    parse_chunk,
)
from dcformat.codecs.payload_reader import read_chunk
from dcformat.codecs.payload_writer import encode_values
from dcformat.codecs.rangecoder import Encoder
from dcformat.contents import TensorInfo
from dcformat.contents_writer import EntryHead
from dcformat.cursor import varint
from dcformat.dense import from_dense
from dcformat.floats import bit_patterns, negatives
from dcformat.forms import smallest
from dcformat.model import Tensor, matrix_shape
from dcformat.read_back import ReadBackError
from dcformat.records import record, replace
from dcformat.value_counts import ValueCounts

Array = npt.NDArray[Any]

#: A tensor of more elements than this is coded in pieces; a smaller one is coded in one piece, as `dcformat.save` does.
PIECES_FROM = 1 << 24
#: Elements that are read at a time: a multiple of the 64 that share a mask in the digest.
PIECE = 1 << 20
#: Elements that are coded in every way, and the places from which they are taken.
_TRIAL, _PLACES = 1 << 22, 8
#: Values or entries in a chunk.
_CHUNK = 1 << 20
#: Bytes of memory that coding takes for each entry of a chunk, and for each element that is read at a time.
_ENTRY_BYTES, _ELEMENT_BYTES = 48, 40


class Elements(Protocol):
    """The elements of a tensor in a file or in memory."""

    @property
    def name(self) -> str:
        """The tensor's name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> str:
        """One of `layout.DTYPES`."""

    @property
    def scale(self) -> float:
        """The scale of an int8 tensor, else 1.0."""

    def read(self, start: int, stop: int) -> Array:
        """Return elements of the flattened tensor: 1-D, contiguous, ``STORAGE[dtype]``."""


class CodedChunk(NamedTuple):
    """A chunk's bytes and the number of its entries (or elements)."""

    data: bytes
    stored: int


@record(eq=False)
class Survey:
    """The properties of all elements that must be known before a chunk can be coded.

    Attributes
    ----------
    head : EntryHead
    digest : bytes
        The `tensor_digest`.
    mode : {'fast', 'small', 'tiny'}
    coding : Coding
        Never transposed, nor of coder 5.
    lines_each : int
        Lines in a chunk, 0 for one chunk.
    codebook : ndarray or None
    plan : packed.Plan or None
        The code tables of coder 1.
    """

    head: EntryHead
    digest: bytes
    mode: Mode
    coding: Coding
    lines_each: int
    codebook: Array | None
    plan: packed.Plan | None

    @property
    def is_sparse(self) -> bool:
        """Whether zeros are left out."""
        return self.head.form in (layout.FORM_SPARSE, layout.FORM_SPARSE_SHARED)

    @property
    def is_constant(self) -> bool:
        """Whether all elements are equal; the one chunk is then the value."""
        return self.head.form == layout.FORM_CONSTANT

    @property
    def rows(self) -> int:
        """Rows of the matrix form."""
        return matrix_shape(self.head.shape, self.is_sparse)[0]

    @property
    def columns(self) -> int:
        """Columns of the matrix form."""
        return matrix_shape(self.head.shape, self.is_sparse)[1]

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """Each chunk's first line, and the line after its last."""
        return list(chunk_bounds(self.rows, self.lines_each))

    @property
    def working_bytes(self) -> int:
        """Bytes of memory that coding a chunk takes, estimated from the average number of entries in a chunk."""
        elements = prod(self.head.shape)
        stored = self.head.nnz if self.is_sparse else elements
        return _ENTRY_BYTES * -(-stored // len(self.chunks)) + _ELEMENT_BYTES * PIECE

    def front(self, sizes: Sequence[int], stored: Sequence[int]) -> bytes:
        """Return the payload before its chunks, which have these sizes and numbers of entries."""
        if self.is_constant:
            return bytes((self.coding.byte,))
        packed_head = b"" if self.plan is None else self._packed_head()
        head = varint(len(packed_head)) + packed_head if self.plan is not None else b""
        table = chunk_table(self.lines_each, sizes, stored if self.is_sparse else None)
        return bytes((self.coding.byte,)) + varint(self.lines_each) + head + table

    def payload(self) -> ParsedPayload:
        """Return the payload with one chunk, which holds the codebook and no lines."""
        kinds = ("constant", "dense", "dense", "sparse", "sparse")
        head = b"" if self.plan is None else self._packed_head()
        encoder = Encoder(64)
        if self.codebook is not None:
            write_codebook(encoder, self.codebook, self.head.dtype)
        data = np.frombuffer(encoder.take(), np.uint8)
        first = Chunk(0, 0, len(data), data, None)
        name, form, dtype, shape, scale, nnz, codebook_size = self.head
        info = TensorInfo(name, shape, dtype, kinds[form], nnz, codebook_size, scale, 0, 0, 0)
        return ParsedPayload(
            info, self.coding, self.rows, self.columns, np.frombuffer(head, np.uint8), [first], None, None
        )

    def _packed_head(self) -> bytes:
        assert self.plan is not None  # coder 1 has one
        return packed_writer.encode_head(self.codebook, self.head.dtype, self.plan, tables=True)


def pieces_of(elements: Elements) -> Iterator[Array]:
    """Yield all elements, `PIECE` at a time."""
    size = prod(elements.shape)
    for start in range(0, size, PIECE):
        yield elements.read(start, min(start + PIECE, size))


def survey(elements: Elements, mode: Mode, pieces: Iterable[Array] | None = None) -> Survey:
    """Choose how to code a tensor.

    Parameters
    ----------
    elements : Elements
        Two or more.
    mode : {'fast', 'small', 'tiny'}
    pieces : iterable of ndarray, optional
        The pieces of `pieces_of`, for callers that look at the elements too.

    Returns
    -------
    Survey
    """
    counts = ValueCounts(elements.dtype, elements.shape, elements.scale)
    for values in pieces_of(elements) if pieces is None else pieces:
        counts.add(values)
    digest = counts.digest.take(counts.only)
    name, shape, dtype, scale = elements.name, elements.shape, elements.dtype, elements.scale
    if counts.only is not None:
        head = EntryHead(name, layout.FORM_CONSTANT, dtype, shape, scale, 0, 0)
        return Survey(head, digest, mode, Coding(layout.CODER_RAW), 0, None, None)
    form, payload = smallest(_trial(elements), mode)
    sparse = form.is_sparse or (form.is_constant and 2 * counts.nonzero < counts.size)
    codebook, uses = counts.codebook(sparse) if form.codebook is not None else (None, np.zeros(0, np.int64))
    coding = _coding(Coding.of(payload[0]), sparse, codebook is not None, prod(shape[1:]))
    forms = (layout.FORM_DENSE, layout.FORM_DENSE_SHARED, layout.FORM_SPARSE, layout.FORM_SPARSE_SHARED)
    codebook_size = 0 if codebook is None else len(codebook)
    head = EntryHead(
        name, forms[2 * sparse + (codebook is not None)], dtype, shape, scale, counts.nonzero, codebook_size
    )
    rows, stored = matrix_shape(shape, sparse)[0], counts.nonzero if sparse else counts.size
    if coding.coder in (layout.CODER_ADAPTIVE, layout.CODER_MIXING):
        lines_each = context_writer.lines_of_chunks(counts.size, stored, rows)
        return Survey(head, digest, mode, coding, lines_each, codebook, None)
    lines_each = chunk_lines(rows, stored, counts.size if coding.every_element else stored, _CHUNK)
    if not sparse and codebook is None:
        return Survey(head, digest, mode, coding, lines_each, None, None)
    plan = packed.Plan(0, False, np.empty(0, np.int64), ())
    found = Survey(head, digest, mode, coding, lines_each, codebook, plan)
    return replace(found, plan=_plan(elements, found, uses))


def code_chunk(elements: Elements, found: Survey, number: int) -> CodedChunk:
    """Code a chunk of a surveyed tensor, decode it again and compare.

    Raises
    ------
    ReadBackError
        The two differ.
    """
    if found.is_constant:
        return CodedChunk(elements.read(0, 1).tobytes(), 1)
    first, last = found.chunks[number]
    part = _part(elements, found, first, last)
    stored = part.nnz if found.is_sparse else part.size
    data = _encoded(part, found, elements.shape, begins=number == 0)
    payload = found.payload()
    chunk = parse_chunk(payload.info, found.coding, last - first, stored, np.frombuffer(data, np.uint8))
    if number == 0:
        payload = replace(payload, chunks=[chunk])
    _compare(read_chunk(payload, None if payload.is_plain else chunk_reader(payload), chunk), part)
    return CodedChunk(data, stored)


def _trial(elements: Elements) -> Tensor:
    """Return some rows from several places, as a tensor."""
    shape, size = elements.shape, prod(elements.shape)
    columns = prod(shape[1:])
    each = _TRIAL // (_PLACES * columns)
    if not each or shape[0] < _PLACES * each:
        # If there are few, long rows, take their beginning.
        data = elements.read(0, min(_TRIAL, size))
        return from_dense(elements.name, data[None], elements.dtype, elements.scale, exact=True)
    starts = [(shape[0] - each) * place // (_PLACES - 1) * columns for place in range(_PLACES)]
    data = np.concatenate([elements.read(start, start + each * columns) for start in starts])
    rows = data.reshape(_PLACES * each, *shape[1:])
    return from_dense(elements.name, rows, elements.dtype, elements.scale, exact=True)


def _coding(tried: Coding, sparse: bool, shared: bool, length: int) -> Coding:
    """Return the coding of all rows, which have `length` elements, given the best one of some rows."""
    if not sparse and not shared:
        if tried.coder == layout.CODER_PREDICTION and fits(tried.coder, 1, length):
            return Coding(tried.coder)
        raw = tried.coder == layout.CODER_RAW and not tried.blocks
        return Coding(layout.CODER_RAW if raw else layout.CODER_PLANES)
    is_context = tried.coder in (layout.CODER_ADAPTIVE, layout.CODER_MIXING)
    coder = tried.coder if is_context else layout.CODER_HUFFMAN
    return Coding(coder, every_element=tried.every_element and shared, blocks=sparse and not shared)


def _plan(elements: Elements, found: Survey, uses: Array) -> packed.Plan:
    """Return the code tables that suit all chunks together."""
    symbols, counts = np.arange(max(len(uses), 1)), uses
    if found.coding.every_element:
        zero = negatives(found.codebook)
        counts = np.insert(uses, zero, prod(found.head.shape) - found.head.nnz)
        symbols = np.arange(len(counts))
    planes = []
    for number, size in enumerate(packed.plane_sizes(len(symbols))):
        of_plane = np.zeros(size, np.int64)
        np.add.at(of_plane, (symbols >> 8 * number) & 255 if size == 256 or number else symbols, counts)
        planes.append(packed_writer.code_lengths(of_plane))
    if not found.is_sparse or found.coding.every_element:
        return packed.Plan(0, False, np.empty(0, np.int64), tuple(planes))
    parts = (CsrView.of(_part(elements, found, first, last)) for first, last in found.chunks)
    counted = packed_writer.run_counts(parts)
    bits, _ = packed_writer.best_gap_bits(counted)
    gaps = packed_writer.code_lengths(packed.escaped_counts(*counted, bits))
    return packed.Plan(bits, False, gaps, tuple(planes))


def _part(elements: Elements, found: Survey, first: int, last: int) -> Tensor:
    """Return lines of a tensor in the form in which they are stored."""
    begin, end, columns = first * found.columns, last * found.columns, found.columns
    code = _coder(found)
    places, stored = [], []
    for start in range(begin, end, PIECE):
        values = elements.read(start, min(start + PIECE, end))
        if found.is_sparse:
            there = np.flatnonzero(bit_patterns(values))
            places.append(there + (start - begin))
            values = values[there]
        stored.append(code(values))
    data = np.concatenate(stored) if len(stored) != 1 else stored[0]
    name, _, dtype, _, scale, _, _ = found.head
    shape = (last - first, columns)
    if not found.is_sparse:
        return Tensor(name, shape, dtype, data, found.codebook, scale=scale)
    at = np.concatenate(places)
    indptr = np.zeros(last - first + 1, np.int64)
    np.cumsum(np.bincount(at // columns, minlength=last - first), out=indptr[1:])
    indices = (at % columns).astype(index_dtype(columns))
    return Tensor(name, shape, dtype, data, found.codebook, indptr, indices, scale)


def _coder(found: Survey) -> Any:
    """Return a function that turns values into what is stored: themselves, or codes."""
    codebook = found.codebook
    if codebook is None:
        return lambda values: values
    patterns, kind = bit_patterns(codebook), np.uint8 if len(codebook) <= 256 else np.uint16
    if patterns.dtype.itemsize <= 2:
        table = np.zeros(1 << 8 * patterns.dtype.itemsize, kind)
        table[patterns] = np.arange(len(codebook))
        return lambda values: table[bit_patterns(values)]
    order = np.argsort(patterns)
    ascending, codes = patterns[order], order.astype(kind)
    return lambda values: codes[np.searchsorted(ascending, bit_patterns(values))]


def _encoded(part: Tensor, found: Survey, shape: tuple[int, ...], *, begins: bool) -> bytes:
    if found.plan is not None:
        return packed_writer.encode_chunk(part, found.coding, found.plan, found.mode)
    if found.coding.coder in (layout.CODER_ADAPTIVE, layout.CODER_MIXING):
        return context_writer.encode_chunk(part, found.coding, found.mode, begins=begins)
    rows = part.data.reshape(part.shape)
    return encode_values(rows, part.dtype, found.coding, found.mode, (part.shape[0], *shape[1:]))


def _compare(made: Tensor, part: Tensor) -> None:
    """Raise unless two tensors hold the same bits in the same form."""
    pairs = [(made.data, part.data), (made.indptr, part.indptr), (made.indices, part.indices)]
    pairs.append((made.codebook, part.codebook))
    for found, given in pairs:
        if (found is None) != (given is None):
            raise ReadBackError(f"{part.name}: expected the same form when read back, found another")
        if found is not None and given is not None and not np.array_equal(bit_patterns(found), bit_patterns(given)):
            raise ReadBackError(f"{part.name}: expected the same values when read back, found others")
