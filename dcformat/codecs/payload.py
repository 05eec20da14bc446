"""A tensor's payload: choosing what costs least, writing it, reading it (spec, "Payloads")."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs import context_coder, packed
from dcformat.codecs.huffman import cost_bits
from dcformat.codecs.memory import CHUNK_OBJECTS
from dcformat.codecs.oriented import Oriented, can_transpose, negatives_of, only_nonzero
from dcformat.codecs.packed import ChunkReader
from dcformat.codecs.rangecoder import Decoder
from dcformat.codecs.values import finite, read_codebook, read_values
from dcformat.contents import TensorInfo
from dcformat.cursor import Cursor
from dcformat.errors import EncodingError, IndexRangeError, LimitError, StreamError, VersionError
from dcformat.limits import require_memory
from dcformat.model import STORAGE, Tensor
from dcformat.records import record

Array = npt.NDArray[Any]
T = TypeVar("T")
R = TypeVar("R")


@record
class Coding:
    """A payload's first byte."""

    coder: int
    transposed: bool = False
    every_element: bool = False
    fillers: bool = False

    @property
    def byte(self) -> int:
        """The byte itself."""
        return (
            self.coder
            | layout.CODING_TRANSPOSED * self.transposed
            | layout.CODING_EVERY_ELEMENT * self.every_element
            | layout.CODING_FILLERS * self.fillers
        )

    @classmethod
    def parse(cls, byte: int, info: TensorInfo) -> Coding:
        """Read the byte and require that what it says makes sense for the tensor."""
        coder = byte & layout.CODER_MASK
        if coder >= layout.CODERS:
            raise VersionError("coder", got=coder, expected=f"below {layout.CODERS}")
        coding = cls(
            coder,
            bool(byte & layout.CODING_TRANSPOSED),
            bool(byte & layout.CODING_EVERY_ELEMENT),
            bool(byte & layout.CODING_FILLERS),
        )
        sparse = info.form == "sparse"
        wrong = (
            byte & layout.CODING_RESERVED
            or (info.form == "constant" and byte)
            or (coding.every_element and not (sparse and info.clusters and info.clusters < layout.MAX_CODEBOOK))
            or (coding.fillers and not (sparse and 0 < info.clusters < 256 and coder <= layout.CODER_HUFFMAN))
            or (coding.fillers and coding.every_element)
            or (coding.transposed and not sparse and not info.clusters)
            or (not sparse and not info.clusters and coder not in (layout.CODER_RAW, layout.CODER_ADAPTIVE))
        )
        if wrong:
            raise EncodingError("coding byte", got=f"0x{byte:02x}", expected=f"one for a {info.form} tensor")
        if coding.transposed and not can_transpose(info.rows, info.columns):
            raise LimitError("transposed tensor", got=info.shape, expected="both sides below 2^31")
        most = layout.FREE_ELEMENTS + layout.ELEMENTS_EACH * info.stored
        if coding.every_element and info.size > most:
            raise LimitError("elements of an every-element tensor", got=info.size, expected=f"at most {most}")
        length = info.rows if coding.transposed else info.columns
        if coder >= layout.CODER_ADAPTIVE and (sparse or info.clusters) and length > layout.MAX_CONTEXT_LENGTH:
            raise LimitError(f"length of a line for coder {coder}", got=length, expected="below 2^31")
        return coding


def labels_of(info: TensorInfo, coding: Coding) -> int:
    """Return the number of different labels that a payload's streams hold."""
    return (info.clusters or 1) + (coding.every_element or coding.fillers)


# --- reading ----------------------------------------------------------------------------------------------------


@record(eq=False)
class Chunk:
    """A run of lines of a payload: how many, how many entries are stored in it, and its bytes."""

    lines: int
    stored: int
    data: npt.NDArray[np.uint8]


@record(eq=False)
class Layout:
    """A payload cut into its parts; nothing is decoded yet."""

    info: TensorInfo
    coding: Coding
    lines: int
    length: int
    head: npt.NDArray[np.uint8]
    chunks: list[Chunk]

    @property
    def is_plain(self) -> bool:
        """Whether the payload holds values in place of codes and positions."""
        return self.info.form != "sparse" and not self.info.clusters


def cut(info: TensorInfo, payload: npt.NDArray[np.uint8], max_memory: int | None = None) -> Layout:
    """Split a payload into head and chunks, every length checked, unless their list takes more than `max_memory`."""
    cursor = Cursor(payload)
    coding = Coding.parse(cursor.u8("coding byte"), info)
    lines, length = (info.columns, info.rows) if coding.transposed else (info.rows, info.columns)
    if info.form == "constant":
        return Layout(info, coding, 1, 1, cursor.array(0, "head"), [Chunk(1, 1, cursor.array(cursor.left, "value"))])
    each = cursor.varint("lines in a chunk", max(lines - 1, 0))
    head = cursor.array(0, "head")
    if coding.coder <= layout.CODER_HUFFMAN and (info.form == "sparse" or info.clusters):
        head = cursor.array(cursor.varint("head length", layout.MAX_PAYLOAD_BYTES), "head")
    if not each:
        return Layout(
            info, coding, lines, length, head, [Chunk(lines, info.stored, cursor.array(cursor.left, "chunk"))]
        )
    require_memory(f"chunks of tensor {info.name!r}", CHUNK_OBJECTS * min(-(-lines // each), cursor.left), max_memory)
    table = _chunk_table(cursor, info, coding, lines, length, each)
    chunks = [Chunk(n, stored, cursor.array(size, "chunk")) for n, stored, size in table]
    cursor.finish("payload")
    return Layout(info, coding, lines, length, head, chunks)


def _chunk_table(
    cursor: Cursor, info: TensorInfo, coding: Coding, lines: int, length: int, each: int
) -> list[tuple[int, int, int]]:
    count = -(-lines // each)
    most = min(layout.FREE_CHUNKS + (info.stored + lines) // layout.CHUNK_LEAST, cursor.left)
    if count > most:
        raise LimitError("chunks", got=count, expected=f"at most {most}")
    table, left = [], info.stored
    for number in range(count):
        n = min(each, lines - number * each)
        stored = n * length
        if info.form == "sparse":
            stored = cursor.varint("entries in a chunk", min(left, n * length))
        left -= stored
        table.append((n, stored, cursor.varint("chunk length", layout.MAX_PAYLOAD_BYTES)))
    if left:
        raise IndexRangeError("entries in chunks", got=info.stored - left, expected=info.stored)
    return table


def read_payload(parts: Layout, threads: int = 1) -> Tensor:
    """Decode a payload; `memory.working_bytes` and `work.decoding_steps` say what that takes.

    Raises
    ------
    FormatError
        Whatever is wrong with it; nothing that was read has reached an index unproved.
    """
    info = parts.info
    if parts.is_plain:
        return _tensor(info, _read_plain(parts, threads), None)
    reader = _reader(parts)
    codebook = reader.codebook
    if info.form == "dense":
        pieces = list(_each(lambda chunk: reader.read(chunk)[0], parts.chunks, threads))
        labels = np.concatenate(pieces) if len(pieces) > 1 else pieces[0]
        if parts.coding.transposed:
            labels = np.ascontiguousarray(labels.reshape(info.columns, info.rows).T).reshape(-1)
        return _tensor(info, labels, codebook)
    entries, values = _entries(parts, reader, threads)
    if values is not None and not values.view(f"<u{values.dtype.itemsize}").all():
        raise EncodingError(f"values of {info.name!r}", got="a stored zero", expected="none in a sparse tensor")
    if parts.coding.transposed:
        entries, values = _row_major(entries, values)
    data = entries.labels if values is None else values
    return _tensor(info, data, codebook, entries)


def _each(function: Callable[[T], R], items: list[T], threads: int) -> Iterable[R]:
    if threads < 2 or len(items) < 2:
        return map(function, items)
    from concurrent.futures import ThreadPoolExecutor  # costs milliseconds at start

    with ThreadPoolExecutor(min(threads, len(items))) as pool:
        return list(pool.map(function, items))


def _tensor(info: TensorInfo, data: Array, codebook: Array | None, entries: Oriented | None = None) -> Tensor:
    indptr, indices = (None, None) if entries is None else (entries.pointers, entries.indices)
    if codebook is not None:
        data = data.astype(np.uint8 if info.code_bytes == 1 else np.uint16, copy=False)
    return Tensor(info.name, info.shape, info.dtype, data, codebook, indptr, indices, info.scale)


def _entries(parts: Layout, reader: PackedReader | _ContextReader, threads: int) -> tuple[Oriented, Array | None]:
    """Decode a sparse tensor's chunks into one; also the values of one without a codebook."""
    info = parts.info
    if len(parts.chunks) == 1:
        room = _room(parts) if reader.fills else ()
        only: tuple[Oriented, Array | None] = reader.read(parts.chunks[0], *room)
        return only
    indices, labels = _room(parts)
    # Chunks are decoded into their places: to put them together afterwards would take longer than decoding.
    pointers = np.zeros(parts.lines + 1, np.int64)
    values = None if info.clusters else np.empty(info.stored, STORAGE[info.dtype])

    def decode(place: tuple[Chunk, int, int]) -> None:
        chunk, line, entry = place
        own = slice(entry, entry + chunk.stored)
        own_indices, own_labels = indices[own], labels[own]
        part, stored = reader.read(chunk, own_indices, own_labels)
        if part.indices is not own_indices:
            own_indices[:] = part.indices
        if part.labels is not own_labels:
            own_labels[:] = part.labels
        pointers[line + 1 : line + 1 + chunk.lines] = part.pointers[1:] + entry
        if values is not None:
            values[own] = stored

    places, line, entry = [], 0, 0
    for chunk in parts.chunks:
        places.append((chunk, line, entry))
        line, entry = line + chunk.lines, entry + chunk.stored
    for _ in _each(decode, places, threads):
        pass
    return Oriented(pointers, indices, labels, parts.lines, parts.length), values


def _room(parts: Layout) -> tuple[Array, Array]:
    """Return arrays for a sparse tensor's indices and labels.

    They share one piece of memory: NumPy asks the system for huge pages from 4 MiB on, and to touch small ones for the
    first time takes as long as decoding.
    """
    index = np.dtype(np.int32 if parts.length < 1 << 31 else np.int64)
    label = np.dtype(np.uint8 if parts.info.code_bytes == 1 else np.uint16)
    both = np.empty(parts.info.stored * (index.itemsize + label.itemsize), np.uint8)
    split = parts.info.stored * index.itemsize
    return both[:split].view(index), both[split:].view(label)


def _row_major(entries: Oriented, values: Array | None) -> tuple[Oriented, Array | None]:
    if values is None:
        return entries.transposed(), None
    numbered = Oriented(entries.pointers, entries.indices, np.arange(len(values)), entries.lines, entries.length)
    turned = numbered.transposed()
    return turned, values[turned.labels]


def _read_plain(parts: Layout, threads: int) -> Array:
    info = parts.info
    storage = STORAGE[info.dtype]

    def read(chunk: Chunk) -> Array:
        if parts.coding.coder == layout.CODER_ADAPTIVE:
            return _range_values(chunk, info)
        return raw_values(chunk.data, chunk.stored, info.dtype)

    pieces = list(_each(read, parts.chunks, threads))
    return np.concatenate(pieces) if len(pieces) != 1 else pieces[0].astype(storage, copy=False)


def _range_values(chunk: Chunk, info: TensorInfo) -> Array:
    if not chunk.stored:
        if len(chunk.data):
            raise StreamError("values", got=f"{len(chunk.data)} bytes", expected="none for no values")
        return np.empty(0, STORAGE[info.dtype])
    decoder = Decoder(chunk.data)
    values = _coded_values(decoder, chunk, info)
    decoder.finish()
    return values


def _coded_values(decoder: Decoder, chunk: Chunk, info: TensorInfo) -> Array:
    field = f"values of {info.name!r}"
    decoder.expect(chunk.stored, field)  # a zero of a grid takes one
    return read_values(decoder, chunk.stored, info.dtype, field)


def raw_values(data: npt.NDArray[np.uint8] | bytes, count: int, dtype: str) -> Array:
    """Return `count` values from as many little-endian ones; all must be finite."""
    storage = STORAGE[dtype]
    if len(data) != count * storage.itemsize:
        raise StreamError("values", got=f"{len(data)} bytes", expected=f"{count * storage.itemsize} bytes")
    values = np.frombuffer(data, storage).copy()
    if not finite(values, dtype):
        raise EncodingError("values", got="an infinity or not a number", expected="finite values")
    return values


class PackedReader:
    """Chunks of coders 0 and 1."""

    def __init__(self, parts: Layout) -> None:
        self._parts, info = parts, parts.info
        self._symbols = labels_of(info, parts.coding)
        self._positions = info.form == "sparse" and not parts.coding.every_element
        decoder = Decoder(parts.head)
        self.codebook = codebook_of(decoder, info)
        plan = packed.read_plan(
            decoder,
            self._symbols,
            positions=self._positions,
            fillers=parts.coding.fillers,
            tables=parts.coding.coder == layout.CODER_HUFFMAN,
        )
        decoder.finish()
        self._negatives = negatives_of(self.codebook, info.dtype)
        self._reader = ChunkReader(plan)
        #: Whether entries are put where `read` is told to.
        self.fills = self._positions and 0 < info.clusters <= 256 and not parts.coding.fillers

    def read(self, chunk: Chunk, indices: Array | None = None, labels: Array | None = None) -> tuple[Any, Array | None]:
        """Return labels of a dense tensor or entries of a sparse one, and values where there is no codebook.

        `indices`, `labels`: where those of the entries may be put.
        """
        parts, info = self._parts, self._parts.info
        stored = chunk.stored if self._positions else chunk.lines * parts.length
        gaps, planes, raw = self._streams(chunk, labels if self._positions else None)
        values = None if info.clusters else raw_values(raw, chunk.stored, info.dtype)
        codes = packed.join(planes, self._symbols, stored)
        if gaps is None:
            return (codes if info.form == "dense" else self._sparse(codes, chunk)), values
        pointers, placed, found = packed.place(
            self._reader.plan,
            gaps,
            codes if parts.coding.fillers else None,
            stored,
            chunk.lines,
            parts.length,
            indices,
        )
        return Oriented(pointers, placed, codes if found is None else found, chunk.lines, parts.length), values

    def bits(self, chunk: Chunk) -> tuple[int, int]:
        """Return the bits of a chunk's gap symbols, and of its labels or values."""
        gaps, planes, raw = self._streams(chunk)
        plan = self._reader.plan
        index = 0 if gaps is None else _bits(plan.gaps, gaps)
        labels = sum(_bits(lengths, plane) for lengths, plane in zip(plan.planes, planes, strict=True))
        return index, labels + 8 * len(raw)

    def _streams(
        self, chunk: Chunk, labels: Array | None = None
    ) -> tuple[Array | None, list[npt.NDArray[np.uint8]], bytes]:
        info, elements = self._parts.info, chunk.lines * self._parts.length
        stored = chunk.stored if self._positions else elements
        item = 0 if info.clusters else STORAGE[info.dtype].itemsize
        return self._reader.read(chunk.data, stored, most=elements, value_bytes=item * chunk.stored, labels=labels)

    def _sparse(self, labels: Array, chunk: Chunk) -> Oriented:
        return _stored_only(labels, chunk, self._parts.length, self._negatives)


def _stored_only(labels: Array, chunk: Chunk, length: int, negatives: int) -> Oriented:
    # Counted first: positions take eight times the memory of labels, which was allowed for `stored` of them.
    stored = int(np.count_nonzero(labels != negatives))
    if stored != chunk.stored:
        raise IndexRangeError("entries", got=stored, expected=chunk.stored)
    return only_nonzero(labels, chunk.lines, length, negatives)


def _bits(lengths: packed.Lengths, symbols: Array) -> int:
    return cost_bits(lengths, np.bincount(symbols, minlength=len(lengths)))


class _ContextReader:
    """Chunks of coders 2 and 3: each one range coder stream, the first of them with the codebook before it."""

    fills = False

    def __init__(self, parts: Layout) -> None:
        self._parts = parts
        self._coder = context_coder(parts.coding.coder)
        self._symbols = labels_of(parts.info, parts.coding)
        self._decoders = {id(chunk): Decoder(chunk.data) for chunk in parts.chunks[:1]}
        first = self._decoders.get(id(parts.chunks[0])) if parts.chunks else None
        self.codebook = codebook_of(first, parts.info) if first is not None else None
        self._negatives = negatives_of(self.codebook, parts.info.dtype)

    def read(self, chunk: Chunk, indices: Array | None = None, labels: Array | None = None) -> tuple[Any, Array | None]:
        """As `PackedReader.read`; always makes arrays of its own."""
        parts, info, coder = self._parts, self._parts.info, self._coder
        decoder = self._decoders.get(id(chunk)) or Decoder(chunk.data)
        out: Any
        values = None
        if info.form == "dense" or parts.coding.every_element:
            codes = coder.decode_dense(decoder, chunk.lines, parts.length, self._symbols, self._negatives)
            out = codes
            if info.form == "sparse":
                out = _stored_only(codes, chunk, parts.length, self._negatives)
        else:
            pointers, own, codes = coder.decode(
                decoder, chunk.lines, parts.length, chunk.stored, self._symbols, self._negatives
            )
            out = Oriented(pointers, own, codes, chunk.lines, parts.length)
            if not info.clusters:
                values = np.empty(0, STORAGE[info.dtype])
                if chunk.stored:
                    values = _coded_values(decoder, chunk, info)
        decoder.finish()
        return out, values


def _reader(parts: Layout) -> PackedReader | _ContextReader:
    return PackedReader(parts) if parts.coding.coder <= layout.CODER_HUFFMAN else _ContextReader(parts)


def codebook_of(decoder: Decoder, info: TensorInfo) -> Array | None:
    """Read the codebook, if there is one."""
    if not info.clusters:
        return None
    return read_codebook(decoder, info.clusters, info.dtype, sparse=info.form == "sparse")


def chunk_bounds(lines: int, each: int) -> Iterator[tuple[int, int]]:
    """Yield the first line of each chunk and the one after its last."""
    if not each:
        yield 0, lines
        return
    for first in range(0, lines, each):
        yield first, min(first + each, lines)
