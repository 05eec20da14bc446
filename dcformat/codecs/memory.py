"""The memory needed to decode a payload, computed before anything is allocated (spec, "Tensor table").

These are upper bounds, computed from the sizes of the arrays that the readers make: the result, the chunks' parts of
it, and temporary arrays. A file declares these sizes, so each is compared with the caller's limit first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dcformat import layout
from dcformat.codecs import index
from dcformat.jit import lacks_compiler
from dcformat.model import STORAGE

if TYPE_CHECKING:
    from dcformat.codecs.payload_layout import Chunk, ParsedPayload
    from dcformat.codecs.value_blocks import ValueBlock

#: Bytes of tables, bit models and objects that each payload may need, and bytes that each chunk may need.
_FIXED, CHUNK_OBJECTS = 1 << 16, 1 << 10
#: Bytes of a frequency table, of its slots, and of its slots in NumPy.
_FREQUENCIES, _SLOTS, _PLAIN_SLOTS = 1 << 12, 1 << 14, 1 << 18
#: Bytes that coder 5 needs for the elements that it makes at a time.
_TABLES_PIECE = 1 << 22
#: Bytes of a decoded tensor's objects, without the data of its arrays.
TENSOR_OBJECTS = 1 << 10
#: Bytes of the objects made from contents, for each of their bytes and for each operator, and bytes that the text coder
#: keeps for each byte.
_CONTENTS_OBJECTS, _NODE_OBJECTS, _TEXT_OBJECTS = 42, 160, 16
#: Number of these bytes that are not counted: less than the interpreter and NumPy take, and more than most files need.
_CONTENTS_FREE = 4 << 20
#: Bytes of the bit models, mixers and other arrays of coder 6, without its columns.
_PREDICTION = 1 << 16


def working_bytes(payload: ParsedPayload, threads: int = 1) -> int:
    """Return the maximum number of bytes needed to decode a payload, including the tensor but not the payload."""
    info, chunks = payload.info, payload.chunks
    if payload.codes is not None and payload.tables is not None:
        tables = sum(_block_bytes(each) + each.number * STORAGE[each.dtype].itemsize for each in payload.tables.blocks)
        return working_bytes(payload.codes, threads) + info.decoded_bytes + tables + _TABLES_PIECE
    need = _FIXED + CHUNK_OBJECTS * len(chunks) + 48 * info.codebook_size
    passing = 0
    for chunk in chunks:
        need += _piece(payload, chunk)
        block = 0 if chunk.block is None else _block_bytes(chunk.block)
        passing = max(passing, _passing(payload, chunk) + block)
    need += max(1, min(threads, len(chunks))) * passing
    if len(chunks) > 1 and not payload.is_plain:
        need += info.decoded_bytes
    return need + _transposing(payload) if payload.coding.transposed else need


def _block_bytes(block: ValueBlock) -> int:
    """Return the bytes that it takes to read a value block, without the values."""
    tables = block.tables * _FREQUENCIES + 9 * block.places
    need = 2 * len(block.data) + tables + block.units * (block.made + 3 * (block.most_tables > 1))
    if lacks_compiler(index.place32):
        # In NumPy there is a copy of all units, and a round of all states takes a few arrays.
        return need + 8 * block.units + block.most_tables * _PLAIN_SLOTS
    return need + block.most_tables * _SLOTS


def _code_bytes(payload: ParsedPayload) -> int:
    """Return the bytes of a code symbol in memory during decoding; coders 2 and 3 always use two."""
    return 1 if payload.info.codebook_size < 256 and payload.coding.is_packed else 2


def _index_bytes(payload: ParsedPayload) -> int:
    return 4 if payload.length < 1 << 31 else 8


def _piece(payload: ParsedPayload, chunk: Chunk) -> int:
    """Return the bytes of a chunk's part of the result."""
    info = payload.info
    values = 0 if info.codebook_size else STORAGE[info.dtype].itemsize
    if payload.is_plain:
        return chunk.stored * values
    if info.form == "dense":
        return chunk.stored * _code_bytes(payload)
    return 8 * (chunk.lines + 1) + chunk.stored * (_index_bytes(payload) + _code_bytes(payload) + values)


def _passing(payload: ParsedPayload, chunk: Chunk) -> int:
    """Return the number of bytes that are freed once a chunk is decoded."""
    info, elements, size = payload.info, chunk.lines * payload.length, chunk.size
    packed = payload.coding.is_packed
    item = 0 if info.codebook_size else STORAGE[info.dtype].itemsize
    # Values take two copies and a mask, or integers, their products, and an array to compare these with.
    raw = packed or payload.coding.blocks or payload.coding.coder == layout.CODER_PLANES
    values = chunk.stored * (2 * item + 1 if raw else 3 * item + 17) if item else 0
    if payload.coding.coder == layout.CODER_PREDICTION:
        return size + _PREDICTION + 8 * payload.length
    if payload.is_plain:
        return size + values
    dense = info.form == "dense" or payload.coding.every_element
    entries = elements if dense else chunk.stored
    if packed:
        need = size + values + _packed_symbols(payload, chunk, entries)
    else:
        need = size + values + _context_state(payload, chunk) + entries * 4
        need += 8 * chunk.lines + entries * 4 if dense else 0
    if payload.coding.every_element:
        # A mask; the entries' positions, lines and places in these; and a count for each line.
        need += elements + chunk.stored * 32 + 16 * chunk.lines
    return need


def _context_state(payload: ParsedPayload, chunk: Chunk) -> int:
    """Return the bytes of the state that coders 2 and 3 keep for columns, lines and code symbols."""
    width = min((payload.info.codebook_size + 1).bit_length(), 16)
    symbols = 4 * (600 << width if width <= 8 else 8 << width)
    if payload.length > layout.MOST_COLUMNS:
        return symbols
    return symbols + 96 * payload.length + 16 * chunk.lines


def _packed_symbols(payload: ParsedPayload, chunk: Chunk, entries: int) -> int:
    """Return the bytes of a packed chunk's gap symbols and planes, and of the arrays decoded from them."""
    need = 0
    plain = lacks_compiler(index.place32)  # NumPy uses eight bytes for each.
    if payload.info.form == "sparse" and not payload.coding.every_element:
        gaps = min(chunk.lines * payload.length, max(chunk.stored, 8 * len(chunk.data)))
        wide = payload.coding.fillers or _index_bytes(payload) == 8 or plain
        need = gaps * (26 if plain else 10 if wide else 1) + (24 * chunk.stored if wide else 0)
        entries = gaps if payload.coding.fillers else entries
    return need + entries * (8 if _code_bytes(payload) == 2 else 9 if plain else 1)


def _transposing(payload: ParsedPayload) -> int:
    """Return the number of bytes needed to transpose a tensor back: the result, with codes of two bytes."""
    info = payload.info
    if info.form == "dense":
        return info.stored * _code_bytes(payload)
    return info.decoded_bytes + 2 * info.stored


def contents_bytes(length: int, packed: bool) -> int:
    """Return the maximum number of bytes needed to hold and read contents of `length` bytes in their plain form.

    The first 4 MiB do not count.
    """
    objects = _CONTENTS_OBJECTS * length + _NODE_OBJECTS * min(length, layout.MAX_NODES)
    return max(objects + (_TEXT_OBJECTS * length if packed else 0) - _CONTENTS_FREE, 0)


def usage_bytes(payload: ParsedPayload) -> int:
    """Return the maximum number of bytes needed to account for the bits of a payload, including the tensor."""
    from dcformat.codecs.lags import SAMPLE

    need = working_bytes(payload)
    if payload.codes is not None:
        return need + usage_bytes(payload.codes)
    if not measures_positions(payload):
        return need
    # Besides the tensor, this takes its entries along the other axis, an encoder's reserved room, and its state.
    cells, stored, lines = (
        max(chunk.lines * payload.length for chunk in payload.chunks),
        max(chunk.stored for chunk in payload.chunks),
        max(chunk.lines for chunk in payload.chunks),
    )
    coded = min(cells, layout.MOST_ELEMENTS[layout.CODER_ADAPTIVE])
    room = 2 * (coded + 8 * (stored + cells // 63) + lines + payload.length)
    state = 160 * payload.length + 40 * (lines + min(cells, SAMPLE)) if payload.length <= layout.MOST_COLUMNS else 0
    return need + (_transposing(payload) if payload.coding.transposed else 0) + room + state + 20 * stored + 8 * lines


def measures_positions(payload: ParsedPayload) -> bool:
    """Return whether accounting codes positions separately, because they share a stream with codes (coders 2 and 3)."""
    sparse = payload.info.form == "sparse" and not payload.coding.every_element
    return sparse and payload.coding.coder in (layout.CODER_ADAPTIVE, layout.CODER_MIXING)
