"""Readers of a payload's chunks: one for coders 0 and 1, one for coders 2 and 3 (spec, "Payloads")."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs import context_coder, huffman, packed
from dcformat.codecs.alphabet import Alphabet
from dcformat.codecs.codebooks import read_codebook
from dcformat.codecs.csr_view import CsrView, only_nonzero
from dcformat.codecs.payload_layout import Chunk, ParsedPayload
from dcformat.codecs.rangecoder import Decoder
from dcformat.codecs.values import read_values
from dcformat.contents import TensorInfo
from dcformat.errors import IndexRangeError, StreamError
from dcformat.floats import negatives
from dcformat.model import STORAGE
from dcformat.wording import counted

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]


class ChunkRoom(NamedTuple):
    """Arrays in which a reader may put a chunk's indices and codes."""

    indices: Array
    codes: Array


class ChunkEntries(NamedTuple):
    """A sparse chunk's entries; `values` is None if the tensor has a codebook."""

    view: CsrView
    values: Array | None


class ChunkReader(Protocol):
    """Decodes the chunks of a payload that has codes or positions."""

    @property
    def codebook(self) -> Array | None:
        """The payload's codebook."""

    @property
    def fills_room(self) -> bool:
        """Whether `read_sparse` puts indices and codes into the given arrays."""

    def read_dense(self, chunk: Chunk) -> Array:
        """Return the codes of a chunk of a dense tensor."""

    def read_sparse(self, chunk: Chunk, room: ChunkRoom | None = None) -> ChunkEntries:
        """Return the entries of a chunk of a sparse tensor."""


def chunk_reader(payload: ParsedPayload) -> ChunkReader:
    """Return the reader of a payload's chunks, after reading everything before the first chunk."""
    return PackedReader(payload) if payload.coding.is_packed else ContextReader(payload)


class PackedReader:
    """Reads chunks of coders 0 and 1."""

    def __init__(self, payload: ParsedPayload) -> None:
        self._payload, info, coding = payload, payload.info, payload.coding
        decoder = Decoder(payload.head)
        self.codebook = _read_codebook(decoder, info)
        self._negatives = negatives(self.codebook)
        plan = packed.read_plan(
            decoder,
            payload.code_symbols,
            positions=payload.has_positions,
            fillers=coding.fillers,
            tables=coding.coder == layout.CODER_HUFFMAN,
        )
        decoder.finish()
        self._streams = packed.StreamReader(plan)
        self.fills_room = payload.has_positions and 0 < info.codebook_size <= 256 and not coding.fillers

    def read_dense(self, chunk: Chunk) -> Array:
        """Return the codes of a chunk of a dense tensor."""
        return self._code_symbols(self._read(chunk), chunk)

    def read_sparse(self, chunk: Chunk, room: ChunkRoom | None = None) -> ChunkEntries:
        """Return the entries of a chunk of a sparse tensor."""
        payload = self._payload
        values = block_values(payload, chunk)
        found = self._read(chunk, None if room is None else room.codes)
        code_symbols = self._code_symbols(found, chunk)
        if found.gaps is None:
            return ChunkEntries(_stored_only(code_symbols, chunk, payload.length, self._negatives), values)
        placed = packed.place(
            self._streams.plan,
            found.gaps,
            code_symbols if payload.coding.fillers else None,
            packed.PlaceShape(chunk.lines, payload.length, chunk.stored),
            None if room is None else room.indices,
        )
        codes = code_symbols if placed.codes is None else placed.codes
        return ChunkEntries(CsrView(placed.indptr, placed.indices, codes, chunk.lines, payload.length), values)

    @property
    def code_lengths(self) -> tuple[huffman.Lengths, ...]:
        """Code lengths of the gap symbols (empty without positions), and of each plane of code symbols."""
        return self._streams.plan.gaps, *self._streams.plan.planes

    def counts(self, chunk: Chunk) -> tuple[tuple[Counts, ...], int]:
        """Return how often each symbol of `code_lengths` occurs in a chunk, and the bits of its values."""
        found = self._read(chunk)
        streams = (np.empty(0, np.uint8) if found.gaps is None else found.gaps, *found.planes)
        counts = (np.bincount(s, minlength=len(each)) for s, each in zip(streams, self.code_lengths, strict=True))
        return tuple(counts), 8 * (chunk.size - len(chunk.data))

    def _stored(self, chunk: Chunk) -> int:
        """Return the number of a chunk's code symbols, not counting fillers."""
        return chunk.stored if self._payload.has_positions else chunk.lines * self._payload.length

    def _read(self, chunk: Chunk, codes: Array | None = None) -> packed.Streams:
        room = codes if self._payload.has_positions else None
        elements = chunk.lines * self._payload.length
        return self._streams.read(chunk.data, self._stored(chunk), max_gaps=elements, code_room=room)

    def _code_symbols(self, found: packed.Streams, chunk: Chunk) -> Array:
        return packed.join(found.planes, self._payload.code_symbols, self._stored(chunk))


class ContextReader:
    """Reads chunks of coders 2 and 3: each is a range coder stream, and the first one begins with the codebook."""

    fills_room = False

    def __init__(self, payload: ParsedPayload) -> None:
        self._payload = payload
        self._coder = context_coder(payload.coding.coder)
        self._first = payload.chunks[0] if payload.chunks else None
        self._first_decoder = None
        self.codebook = None
        if self._first is not None and payload.info.codebook_size:
            self._first_decoder = Decoder(self._first.data)
            self.codebook = _read_codebook(self._first_decoder, payload.info)
        self._alphabet = Alphabet(payload.code_symbols, negatives(self.codebook))

    def read_dense(self, chunk: Chunk) -> Array:
        """Return the codes of a chunk of a dense tensor."""
        decoder = self._decoder(chunk)
        codes = self._every_element(decoder, chunk)
        decoder.finish()
        return codes

    def read_sparse(self, chunk: Chunk, room: ChunkRoom | None = None) -> ChunkEntries:
        """Return the entries of a chunk of a sparse tensor, in arrays of their own."""
        payload, info = self._payload, self._payload.info
        values = block_values(payload, chunk)
        decoder = self._decoder(chunk)
        if payload.coding.every_element:
            code_symbols = self._every_element(decoder, chunk)
            view = _stored_only(code_symbols, chunk, payload.length, self._alphabet.negatives)
        else:
            view = self._coder.decode(decoder, chunk.lines, payload.length, chunk.stored, self._alphabet)
            if not info.codebook_size and values is None:
                values = coded_values(decoder, chunk, info) if chunk.stored else np.empty(0, STORAGE[info.dtype])
        decoder.finish()
        return ChunkEntries(view, values)

    def _decoder(self, chunk: Chunk) -> Decoder:
        """Return a chunk's decoder; for the first chunk of a shared tensor, the one that has read the codebook."""
        if chunk is self._first and self._first_decoder is not None:
            return self._first_decoder
        return Decoder(chunk.data)

    def _every_element(self, decoder: Decoder, chunk: Chunk) -> Array:
        """Return a chunk's code symbols, one for each element."""
        length = self._payload.length
        return self._coder.decode(decoder, chunk.lines, length, chunk.lines * length, self._alphabet).codes


def _read_codebook(decoder: Decoder, info: TensorInfo) -> Array | None:
    """Read the codebook if the tensor has one."""
    if not info.codebook_size:
        return None
    return read_codebook(decoder, info.codebook_size, info.dtype, sparse=info.form == "sparse")


def _stored_only(code_symbols: Array, chunk: Chunk, length: int, zero: int) -> CsrView:
    """Return the elements other than `zero` as entries, and require the stated number of them."""
    # Count them first: indices take eight times the memory of codes, and the limit was checked for the stated number
    # only.
    stored = int(np.count_nonzero(code_symbols != zero))
    if stored != chunk.stored:
        raise IndexRangeError("entries", got=stored, expected=chunk.stored)
    return only_nonzero(code_symbols, chunk.lines, length, zero)


def coded_values(decoder: Decoder, chunk: Chunk, info: TensorInfo) -> Array:
    """Read a chunk's values (one or more) from a range coder stream."""
    field = f"values of {info.name!r}"
    decoder.expect(chunk.stored, field)  # A zero on a grid takes one decision.
    return read_values(decoder, chunk.stored, info.dtype, field)


def block_values(payload: ParsedPayload, chunk: Chunk, out: Array | None = None) -> Array | None:
    """Return the values of a chunk's value block, in `out` if it is given; None if the chunk has no block."""
    if chunk.block is None:
        return None
    from dcformat.codecs.value_blocks import read_block  # few files have value blocks

    return read_block(chunk.block, f"values of {payload.info.name!r}", out)


def raw_values(data: npt.NDArray[np.uint8], count: int, dtype: str) -> Array:
    """Return `count` values that are their little-endian bytes."""
    storage = STORAGE[dtype]
    if len(data) != count * storage.itemsize:
        raise StreamError("values", got=counted(len(data), "byte"), expected=counted(count * storage.itemsize, "byte"))
    if dtype == "bool":
        from dcformat.codecs.value_blocks import require_bools

        require_bools(data, dtype, "values")
    return np.frombuffer(data, storage)
