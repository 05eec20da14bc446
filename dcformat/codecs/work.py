"""What decoding a payload takes in steps of work, known before it is done (docs/limits.md).

A step is about a nanosecond of compiled code on a usual machine. The numbers are upper bounds by arithmetic, from a
tensor's table entry, its coding byte and its chunk table; a stream's own bytes bound what can be coded in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dcformat import layout
from dcformat.codecs.lags import MOST_LAG, SAMPLE
from dcformat.codecs.memory import measures_positions
from dcformat.codecs.rangecoder import MOST_DECISIONS
from dcformat.model import STORAGE

if TYPE_CHECKING:
    from dcformat.codecs.payload import Chunk, Layout
    from dcformat.contents import TensorInfo

#: Setting up a payload, and a chunk: Python, tables, fresh models.
TENSOR, CHUNK = 1 << 17, 1 << 16
#: A symbol, code or value that is read, put in its place or compared; a line that is begun.
SYMBOL, LINE = 2, 2
#: A binary decision with one model, and with the mixture of coder 3.
DECISION, MIXED_DECISION = 10, 80
#: A cell that coder 2 or 3 passes, and an entry whose contexts it looks up, whether or not anything is coded there.
CELL, MIXED_CELL, ENTRY = 3, 40, 40
#: A byte that is hashed, and the position of an entry.
HASHED_BYTE, HASHED_POSITION = 4, 50
#: A byte of a dense tensor that is written to a file.
WRITTEN_BYTE = 4
#: A byte of the contents as it is parsed (in Python), an operator, and a byte that the text coder unpacks.
_CONTENTS_BYTE, _NODE, _TEXT_BYTE = 1 << 10, 1 << 12, 1 << 8
#: Cells that coder 2 and coder 3 take one by one; longer streams of coder 2 hold runs, and coder 3 refuses them.
_MOST_CELLS = {layout.CODER_ADAPTIVE: 1 << 28, layout.CODER_MIXING: 1 << 26}
#: Ways in which coder 2 and coder 3 try to write the positions of a chunk.
_PLANS = {layout.CODER_ADAPTIVE: 28, layout.CODER_MIXING: 12}


def contents_steps(length: int, packed: bool) -> int:
    """Return the most steps that contents of `length` bytes in their plain form take."""
    parsing = _CONTENTS_BYTE * length + _NODE * min(length, layout.MAX_NODES)
    return parsing + (_TEXT_BYTE * length if packed else 0)


def decoding_steps(parts: Layout) -> int:
    """Return the most steps that decoding a payload takes, its codebook and turning it included."""
    info = parts.info
    # A data block is read, and its checksum made, for each of its tensors.
    steps = TENSOR + layout.MAX_SHARED_BLOCK_BYTES + len(parts.head)
    steps += _values(info.clusters, info.dtype)
    steps += sum(CHUNK + len(chunk.data) + _chunk(parts, chunk) for chunk in parts.chunks)
    if parts.coding.transposed:
        steps += 4 * SYMBOL * info.stored + LINE * (parts.lines + parts.length)
    return steps


def hashing_steps(info: TensorInfo) -> int:
    """Return the most steps that a tensor takes in the content digest."""
    steps = TENSOR + HASHED_BYTE * info.stored * STORAGE[info.dtype].itemsize
    return steps + (HASHED_POSITION * info.stored + LINE * info.rows if info.form == "sparse" else 0)


def writing_steps(info: TensorInfo) -> int:
    """Return the most steps that writing a tensor's dense form takes: as many bytes as it has, whatever is stored."""
    return TENSOR + WRITTEN_BYTE * info.size * STORAGE[info.dtype].itemsize


def usage_steps(parts: Layout) -> int:
    """Return the most steps that telling what the bits of a payload are for takes."""
    steps = 2 * decoding_steps(parts)
    if not measures_positions(parts):
        return steps
    coder = parts.coding.coder
    for chunk in parts.chunks:
        cells = chunk.lines * parts.length
        # Every plan codes all cells, or all runs; and before them cells are compared at every distance.
        runs = 8 * (chunk.stored + cells // 63)
        one = _decisions(coder) * (min(cells, _MOST_CELLS[coder]) + chunk.lines + parts.length + runs)
        compared = 4 * SYMBOL * MOST_LAG * min(cells, SAMPLE)
        steps += _PLANS[coder] * (one + CHUNK + ENTRY * chunk.stored) + compared
    return steps


def _decisions(coder: int) -> int:
    return MIXED_DECISION if coder == layout.CODER_MIXING else DECISION


def _values(count: int, dtype: str) -> int:
    """Return the most steps for values or a codebook in a range coder stream: up to 63 decisions for a float32."""
    return count * 2 * 8 * STORAGE[dtype].itemsize * DECISION // 2


def _chunk(parts: Layout, chunk: Chunk) -> int:
    info, elements = parts.info, chunk.lines * parts.length
    packed = parts.coding.coder <= layout.CODER_HUFFMAN
    values = 0 if info.clusters else SYMBOL * chunk.stored
    if not info.clusters and not packed:
        values += _values(chunk.stored, info.dtype)
    if parts.is_plain:
        return values
    every = info.form == "dense" or parts.coding.every_element
    entries = elements if every else chunk.stored
    steps = values + LINE * chunk.lines
    if packed:
        gaps = 0 if every else min(elements, max(chunk.stored, 8 * len(chunk.data)))
        labels = gaps if parts.coding.fillers else entries
        steps += SYMBOL * (2 * gaps + 3 * labels)
    elif entries:
        steps += _context_chunk(parts, chunk, entries)
    if parts.coding.every_element:
        steps += SYMBOL * (elements + 8 * chunk.stored)
    return steps


def _context_chunk(parts: Layout, chunk: Chunk, entries: int) -> int:
    """Return the most steps that coders 2 and 3 take for positions and labels."""
    coder, elements, length = parts.coding.coder, chunk.lines * parts.length, parts.length
    mixing = coder == layout.CODER_MIXING
    bits = 1 + min((parts.info.clusters + 1).bit_length(), 16)
    cells = elements if elements <= _MOST_CELLS[coder] else 0
    # A decoder looks for its stream's end at the end of a line.
    coded = MOST_DECISIONS * (len(chunk.data) + 16) + length * (1 + bits)
    decisions = min(coded, elements + 8 * entries + bits * entries)
    steps = _decisions(coder) * decisions + (MIXED_CELL if mixing else CELL) * cells
    steps += (ENTRY if mixing else SYMBOL) * entries + bits * entries
    # Which lines and columns are live.
    return steps + (DECISION * (chunk.lines + length) if mixing else 0)
