"""What decoding a payload takes in memory, known before anything is allocated (spec, "Tensor table").

Upper bounds, from the sizes of the arrays that the readers make: what is returned, the chunks' parts of it, and what a
chunk needs on the way. A file declares all of these numbers, so none is believed before it has been compared with what
the caller allows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dcformat import layout
from dcformat.codecs import index
from dcformat.codecs.lags import SAMPLE
from dcformat.jit import lacks_compiler
from dcformat.model import STORAGE

if TYPE_CHECKING:
    from dcformat.codecs.payload import Chunk, Layout

#: Tables, models and objects that every payload may need whatever it holds, and every chunk.
_FIXED, CHUNK_OBJECTS = 1 << 16, 1 << 10
#: The objects that a decoded tensor is, beside its arrays' data.
TENSOR_OBJECTS = 1 << 10
#: Objects that contents become: for each of their bytes, for each operator (of a byte or more), and what the text coder
#: remembers of each byte.
_CONTENTS_OBJECTS, _NODE_OBJECTS, _TEXT_OBJECTS = 42, 160, 16
#: Of those, what is not counted: less than the interpreter and NumPy take by themselves, and more than most files need.
_CONTENTS_FREE = 4 << 20
#: Longest line for which coders 2 and 3 keep a state for each column.
_CONTEXT_STATE = 1 << 20
#: Most cells that coders 2 and 3 code one by one.
_MOST_CELLS = 1 << 28


def working_bytes(parts: Layout, threads: int = 1) -> int:
    """Return the most bytes that decoding a payload takes, with the tensor that it gives, but not the payload."""
    info, chunks = parts.info, parts.chunks
    pieces = sum(_piece(parts, chunk) for chunk in chunks)
    busy = max(1, min(threads, len(chunks)))
    passing = busy * max(_passing(parts, chunk) for chunk in chunks)
    together = info.decoded_bytes if len(chunks) > 1 else 0
    turned = _turned(parts) if parts.coding.transposed else 0
    codebook = 0 if not info.clusters else 48 * info.clusters
    return _FIXED + CHUNK_OBJECTS * len(chunks) + codebook + pieces + passing + together + turned


def _label_bytes(parts: Layout) -> int:
    """Bytes of a label in memory while a chunk is decoded: coders 2 and 3 make two of every one."""
    return 1 if parts.info.clusters < 256 and parts.coding.coder <= layout.CODER_HUFFMAN else 2


def _index_bytes(parts: Layout) -> int:
    return 4 if parts.length < 1 << 31 else 8


def _piece(parts: Layout, chunk: Chunk) -> int:
    """Bytes of a chunk's part of the result."""
    info = parts.info
    values = 0 if info.clusters else STORAGE[info.dtype].itemsize
    if parts.is_plain:
        return chunk.stored * values
    if info.form == "dense":
        return chunk.stored * _label_bytes(parts)
    return 8 * (chunk.lines + 1) + chunk.stored * (_index_bytes(parts) + _label_bytes(parts) + values)


def _passing(parts: Layout, chunk: Chunk) -> int:
    """Bytes that are free again once a chunk is decoded."""
    info, elements, size = parts.info, chunk.lines * parts.length, len(chunk.data)
    packed = parts.coding.coder <= layout.CODER_HUFFMAN
    item = 0 if info.clusters else STORAGE[info.dtype].itemsize
    # Values: two copies of the stored ones and a mask, or integers, their products and what they are compared with.
    values = chunk.stored * (2 * item + 1 if packed else 3 * item + 17) if item else 0
    if parts.is_plain:
        return size + values
    dense = info.form == "dense" or parts.coding.every_element
    entries = elements if dense else chunk.stored
    if packed:
        need = size + values + _packed_symbols(parts, chunk, entries)
    else:
        need = (
            size + values + _context_state(parts, chunk) + entries * 4 + (8 * chunk.lines + entries * 4 if dense else 0)
        )
    if parts.coding.every_element:
        # A mask, then positions of the stored ones, their lines and places in them, and a count for each line.
        need += elements + chunk.stored * 32 + 16 * chunk.lines
    return need


def _context_state(parts: Layout, chunk: Chunk) -> int:
    """Bytes of what coders 2 and 3 know of columns, lines and labels."""
    width = min((parts.info.clusters + 1).bit_length(), 16)
    labels = 4 * (600 << width if width <= 8 else 8 << width)
    if parts.length > _CONTEXT_STATE:
        return labels
    return labels + 96 * parts.length + 16 * chunk.lines


def _packed_symbols(parts: Layout, chunk: Chunk, entries: int) -> int:
    """Bytes of a packed chunk's gap symbols and label planes, and of what they become."""
    need = 0
    plain = lacks_compiler(index.place32)  # NumPy counts in eight bytes
    if parts.info.form == "sparse" and not parts.coding.every_element:
        gaps = min(chunk.lines * parts.length, max(chunk.stored, 8 * len(chunk.data)))
        wide = parts.coding.fillers or _index_bytes(parts) == 8 or plain
        need = gaps * (26 if plain else 10 if wide else 1) + (24 * chunk.stored if wide else 0)
        entries = gaps if parts.coding.fillers else entries
    return need + entries * (8 if _label_bytes(parts) == 2 else 9 if plain else 1)


def _turned(parts: Layout) -> int:
    """Bytes for giving a transposed tensor its rows back: the result, and a counting sort of the entries."""
    info = parts.info
    if info.form == "dense":
        return info.stored * _label_bytes(parts)
    each = 20 if info.clusters and _label_bytes(parts) == 1 else 56
    return info.decoded_bytes + each * info.stored + 24 * info.rows


def contents_bytes(length: int, packed: bool) -> int:
    """Return the most bytes that contents of `length` bytes in their plain form take, and reading them.

    The first 4 MiB are not counted.
    """
    objects = _CONTENTS_OBJECTS * length + _NODE_OBJECTS * min(length, layout.MAX_NODES)
    return max(objects + (_TEXT_OBJECTS * length if packed else 0) - _CONTENTS_FREE, 0)


def usage_bytes(parts: Layout) -> int:
    """Return the most bytes that telling what the bits of a payload are for takes, the tensor included."""
    need = working_bytes(parts)
    if not measures_positions(parts):
        return need
    # Beside the tensor: its entries along the other axis, the room that an encoder reserves, and what it knows.
    cells, stored, lines = (
        max(chunk.lines * parts.length for chunk in parts.chunks),
        max(chunk.stored for chunk in parts.chunks),
        max(chunk.lines for chunk in parts.chunks),
    )
    room = 2 * (min(cells, _MOST_CELLS) + 8 * (stored + cells // 63) + lines + parts.length)
    state = 160 * parts.length + 40 * (lines + min(cells, SAMPLE)) if parts.length <= _CONTEXT_STATE else 0
    return need + (_turned(parts) if parts.coding.transposed else 0) + room + state + 20 * stored + 8 * lines


def measures_positions(parts: Layout) -> bool:
    """Whether positions are coded alone to tell what they cost: they share a stream with labels (coders 2 and 3)."""
    sparse = parts.info.form == "sparse" and not parts.coding.every_element
    return sparse and parts.coding.coder > layout.CODER_HUFFMAN
