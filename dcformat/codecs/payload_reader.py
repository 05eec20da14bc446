"""Decoding of payloads (spec, "Payloads"): each chunk is decoded, then they are joined and put in row order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs.chunk_readers import (
    ChunkEntries,
    ChunkReader,
    ChunkRoom,
    block_values,
    chunk_reader,
    coded_values,
    raw_values,
)
from dcformat.codecs.csr_view import CsrView, index_dtype
from dcformat.codecs.payload_layout import Chunk, ParsedPayload
from dcformat.codecs.rangecoder import Decoder
from dcformat.contents import TensorInfo
from dcformat.errors import EncodingError, StreamError
from dcformat.floats import bit_patterns
from dcformat.model import STORAGE, Tensor
from dcformat.records import replace
from dcformat.wording import counted

Array = npt.NDArray[Any]
T = TypeVar("T")
R = TypeVar("R")


def read_payload(payload: ParsedPayload, threads: int = 1) -> Tensor:
    """Decode a payload; `memory.working_bytes` and `work.decoding_steps` predict its memory and work.

    Raises
    ------
    FormatError
        The payload is damaged. Every number that is used as an index is first proved to be in range.
    """
    info = payload.info
    if payload.codes is not None and payload.tables is not None:
        from dcformat.codecs.axis_tables import apply_tables  # few files use coder 5

        made = apply_tables(payload.tables, read_payload(payload.codes, threads), info)
        _require_nonzero(made.is_sparse, made.data, info)
        return made
    if payload.is_plain:
        return _tensor(info, _read_plain(payload, threads), None)
    reader = chunk_reader(payload)
    if info.form == "dense":
        return _tensor(info, _read_dense(payload, reader, threads), reader.codebook)
    entries = _read_sparse(payload, reader, threads)
    _require_nonzero(entries.values is not None, entries.values, info)
    view, values = _row_major(entries) if payload.coding.transposed else entries
    return _tensor(info, view.codes if values is None else values, reader.codebook, view)


def read_chunk(payload: ParsedPayload, reader: ChunkReader | None, chunk: Chunk) -> Tensor:
    """Decode one chunk of a payload that is neither transposed nor of coder 5, as a matrix of its own.

    Parameters
    ----------
    payload : ParsedPayload
        Of its chunks, only the first must be there.
    reader : ChunkReader or None
        The `chunk_reader` of the payload; None for values alone (`ParsedPayload.is_plain`).
    chunk : Chunk

    Raises
    ------
    FormatError
        The chunk is damaged.
    """
    info = replace(payload.info, shape=(chunk.lines, payload.length), stored=chunk.stored)
    if reader is None:
        return _tensor(info, _read_plain(replace(payload, info=info, chunks=[chunk]), 1), None)
    if info.form == "dense":
        return _tensor(info, reader.read_dense(chunk), reader.codebook)
    entries = reader.read_sparse(chunk)
    _require_nonzero(entries.values is not None, entries.values, info)
    codes = entries.view.codes if entries.values is None else entries.values
    return _tensor(info, codes, reader.codebook, entries.view)


def _tensor(info: TensorInfo, data: Array, codebook: Array | None, view: CsrView | None = None) -> Tensor:
    indptr, indices = (None, None) if view is None else (view.indptr, view.indices)
    if codebook is not None:
        data = data.astype(_code_dtype(info), copy=False)
    return Tensor(info.name, info.shape, info.dtype, data, codebook, indptr, indices, info.scale)


def _require_nonzero(is_sparse: bool, values: Array | None, info: TensorInfo) -> None:
    if is_sparse and values is not None and len(values) and not int(bit_patterns(values).min()):
        raise EncodingError(f"values of {info.name!r}", got="a stored zero", expected="none in a sparse tensor")


def _code_dtype(info: TensorInfo) -> type[np.uint8 | np.uint16]:
    return np.uint8 if info.code_bytes == 1 else np.uint16


def _each(function: Callable[[T], R], items: list[T], threads: int) -> Iterable[R]:
    if threads < 2 or len(items) < 2:
        return map(function, items)
    from concurrent.futures import ThreadPoolExecutor  # This import costs milliseconds at start.

    with ThreadPoolExecutor(min(threads, len(items))) as pool:
        return list(pool.map(function, items))


def _read_plain(payload: ParsedPayload, threads: int) -> Array:
    """Return the values of a payload that holds only values."""
    info = payload.info
    out = np.empty(info.stored, STORAGE[info.dtype])
    if len(payload.chunks) == 1:
        _read_values(payload, payload.chunks[0], out)
    else:
        # Decode chunks into their final places, as `_read_sparse` does.
        ends = list(accumulate(chunk.stored for chunk in payload.chunks))
        places = zip(payload.chunks, ends, strict=True)
        tasks = [(chunk, out[end - chunk.stored : end]) for chunk, end in places]
        for _ in _each(lambda task: _read_values(payload, *task), tasks, threads):
            pass
    if payload.coding.transposed:
        out = np.ascontiguousarray(out.reshape(payload.lines, payload.length).T).reshape(-1)
    return out


def _read_values(payload: ParsedPayload, chunk: Chunk, out: Array) -> None:
    """Read a chunk that holds only values."""
    if payload.coding.coder in (layout.CODER_ADAPTIVE, layout.CODER_PREDICTION):
        _read_value_stream(payload, chunk, out)
    elif block_values(payload, chunk, out) is None:
        out[:] = raw_values(chunk.data, chunk.stored, payload.info.dtype)


def _read_value_stream(payload: ParsedPayload, chunk: Chunk, out: Array) -> None:
    if not chunk.stored:
        if len(chunk.data):
            raise StreamError("values", got=counted(len(chunk.data), "byte"), expected="none for no values")
        return
    decoder = Decoder(chunk.data)
    if payload.coding.coder == layout.CODER_PREDICTION:
        from dcformat.codecs import prediction  # few files use coder 6

        prediction.decode(decoder, out.reshape(chunk.lines, payload.length))
    else:
        out[:] = coded_values(decoder, chunk, payload.info)
    decoder.finish()


def _read_dense(payload: ParsedPayload, reader: ChunkReader, threads: int) -> Array:
    """Return the codes of a dense tensor, row by row."""
    info = payload.info
    pieces = list(_each(reader.read_dense, payload.chunks, threads))
    codes = np.concatenate(pieces) if len(pieces) > 1 else pieces[0]
    if payload.coding.transposed:
        codes = np.ascontiguousarray(codes.reshape(info.columns, info.rows).T).reshape(-1)
    return codes


def _read_sparse(payload: ParsedPayload, reader: ChunkReader, threads: int) -> ChunkEntries:
    """Return the entries of all chunks as one view."""
    info = payload.info
    if len(payload.chunks) == 1:
        return reader.read_sparse(payload.chunks[0], _room(payload) if reader.fills_room else None)
    # Decode chunks into their final places: joining them afterwards would take longer than decoding them.
    room = _room(payload)
    indptr = np.zeros(payload.lines + 1, np.int64)
    values = None if info.codebook_size else np.empty(info.stored, STORAGE[info.dtype])

    def decode(place: tuple[Chunk, int, int]) -> None:
        chunk, line, entry = place
        own = slice(entry, entry + chunk.stored)
        own_room = ChunkRoom(room.indices[own], room.codes[own])
        view, found = reader.read_sparse(chunk, own_room)
        if view.indices is not own_room.indices:
            own_room.indices[:] = view.indices
        if view.codes is not own_room.codes:
            own_room.codes[:] = view.codes
        indptr[line + 1 : line + 1 + chunk.lines] = view.indptr[1:] + entry
        if values is not None:
            values[own] = found

    places, line, entry = [], 0, 0
    for chunk in payload.chunks:
        places.append((chunk, line, entry))
        line, entry = line + chunk.lines, entry + chunk.stored
    for _ in _each(decode, places, threads):
        pass
    return ChunkEntries(CsrView(indptr, room.indices, room.codes, payload.lines, payload.length), values)


def _room(payload: ParsedPayload) -> ChunkRoom:
    """Return arrays for a sparse tensor's indices and codes.

    They share one block of memory: from 4 MiB on, NumPy asks the system for huge pages, and the first touch of small
    pages takes as long as decoding.
    """
    index, code = np.dtype(index_dtype(payload.length)), np.dtype(_code_dtype(payload.info))
    both = np.empty(payload.info.stored * (index.itemsize + code.itemsize), np.uint8)
    split = payload.info.stored * index.itemsize
    return ChunkRoom(both[:split].view(index), both[split:].view(code))


def _row_major(entries: ChunkEntries) -> ChunkEntries:
    """Return the entries of a transposed tensor by rows."""
    view, values = entries
    if values is None:
        return ChunkEntries(view.transposed(), None)
    return ChunkEntries(*view.values_transposed(values))
