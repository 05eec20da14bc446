"""The steps of work needed to decode a payload, computed before decoding (docs/limits.md).

A step is about a nanosecond of compiled code on an ordinary machine. The numbers are upper bounds, computed from a
tensor's table entry, its coding byte and its chunk table; the length of a stream bounds what it can hold.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from dcformat import layout
from dcformat.codecs.memory import measures_positions
from dcformat.codecs.rangecoder import MAX_DECISIONS
from dcformat.model import STORAGE

if TYPE_CHECKING:
    from dcformat.codecs.payload_layout import Chunk, ParsedPayload
    from dcformat.codecs.value_blocks import ValueBlock
    from dcformat.contents import TensorInfo

#: Steps to set up a payload, and to set up a chunk: Python, tables, new bit models.
TENSOR, CHUNK = 1 << 17, 1 << 16
#: Steps to read, place or compare a symbol, code or value, and to start a line.
SYMBOL, LINE = 2, 2
#: Steps of a binary decision with one bit model, and with the mixer of coder 3.
DECISION, MIXED_DECISION = 10, 80
#: Steps for an element that coder 2 or 3 passes, and for an entry whose contexts it looks up, even if nothing is coded.
CELL, MIXED_CELL, ENTRY = 3, 40, 40
#: Steps to predict an integer of coder 6, its scales included, without its eight decisions.
PREDICTED = 120
#: Steps to hash a byte, and to hash the position of an entry.
HASHED_BYTE, HASHED_POSITION = 4, 50
#: Steps to look up or multiply an element by the tables of coder 5, in NumPy.
_TABLE_ELEMENT = 64
#: Steps to write a byte of a dense tensor to a file.
WRITTEN_BYTE = 4
#: Steps to parse a byte of the contents (in Python), to parse an operator, and to unpack a byte with the text coder.
_CONTENTS_BYTE, _NODE, _TEXT_BYTE = 1 << 10, 1 << 12, 1 << 8
#: Number of plans that coders 2 and 3 try when they write the positions of a chunk.
_PLANS = {layout.CODER_ADAPTIVE: 28, layout.CODER_MIXING: 12}


def contents_steps(length: int, packed: bool) -> int:
    """Return the maximum number of steps needed to read contents of `length` bytes in their plain form."""
    parsing = _CONTENTS_BYTE * length + _NODE * min(length, layout.MAX_NODES)
    return parsing + (_TEXT_BYTE * length if packed else 0)


def decoding_steps(payload: ParsedPayload) -> int:
    """Return the maximum number of steps needed to decode a payload, including its codebook and its transposition."""
    info = payload.info
    # For each tensor, its data block must be read and the block's checksum computed.
    steps = TENSOR + layout.MAX_SHARED_BLOCK_BYTES + len(payload.head)
    if payload.codes is not None and payload.tables is not None:
        tables = sum(map(_block, payload.tables.blocks))
        return steps + tables + decoding_steps(payload.codes) + _TABLE_ELEMENT * info.stored + LINE * info.rows
    steps += _values(info.codebook_size, info.dtype)
    for chunk in payload.chunks:
        steps += CHUNK + chunk.size + _chunk(payload, chunk)
        if chunk.block is not None:
            steps += _block(chunk.block)
    if payload.coding.transposed:
        steps += 4 * SYMBOL * info.stored + LINE * (payload.lines + payload.length)
    return steps


def hashing_steps(info: TensorInfo) -> int:
    """Return the maximum number of steps needed to hash a tensor for the content digest."""
    steps = TENSOR + HASHED_BYTE * info.stored * STORAGE[info.dtype].itemsize
    return steps + (HASHED_POSITION * info.stored + LINE * info.rows if info.form == "sparse" else 0)


def writing_steps(info: TensorInfo) -> int:
    """Return the maximum number of steps needed to write a tensor's dense form."""
    return TENSOR + WRITTEN_BYTE * info.nbytes


def usage_steps(payload: ParsedPayload) -> int:
    """Return the maximum number of steps needed to account for the bits of a payload."""
    from dcformat.codecs.lags import MAX_LAG, SAMPLE

    steps = 2 * decoding_steps(payload)
    if payload.codes is not None:
        return steps + usage_steps(payload.codes)
    if not measures_positions(payload):
        return steps
    coder = payload.coding.coder
    for chunk in payload.chunks:
        cells = chunk.lines * payload.length
        # Before the plans, elements are compared at every lag; then every plan codes all elements or all runs.
        runs = 8 * (chunk.stored + cells // 63)
        one = _decisions(coder) * (min(cells, layout.MOST_ELEMENTS[coder]) + chunk.lines + payload.length + runs)
        compared = 4 * SYMBOL * MAX_LAG * min(cells, SAMPLE)
        steps += _PLANS[coder] * (one + CHUNK + ENTRY * chunk.stored) + compared
    return steps


def _decisions(coder: int) -> int:
    return MIXED_DECISION if coder == layout.CODER_MIXING else DECISION


def _values(count: int, dtype: str) -> int:
    """Return the maximum number of steps for values or a codebook in a range coder stream: 63 decisions per float32."""
    return count * 2 * 8 * STORAGE[dtype].itemsize * DECISION // 2


def _block(block: ValueBlock) -> int:
    """Return the most steps for a value block: its tables, and for each byte a symbol and its part of the value."""
    size = block.number * STORAGE[block.dtype].itemsize
    if not block.tables:
        return SYMBOL * size
    table, place = _table_steps()
    return block.tables * table + block.places * place + 3 * SYMBOL * size


@cache
def _table_steps() -> tuple[int, int]:
    """Return the most steps for a frequency table, and for a place of a map."""
    from dcformat.codecs.plane_tables import NUMBER_DECISIONS, TREE_BITS  # few files have value blocks
    from dcformat.codecs.rans import TOTAL
    from dcformat.codecs.value_blocks import SYMBOLS

    return SYMBOLS * NUMBER_DECISIONS * DECISION + SYMBOL * TOTAL, TREE_BITS * DECISION


def _chunk(payload: ParsedPayload, chunk: Chunk) -> int:
    info, elements = payload.info, chunk.lines * payload.length
    packed = payload.coding.is_packed
    if payload.coding.coder == layout.CODER_PREDICTION:
        return LINE * chunk.lines + (PREDICTED + 8 * MIXED_DECISION + SYMBOL) * chunk.stored
    values = 0 if info.codebook_size else SYMBOL * chunk.stored
    if not (info.codebook_size or packed or payload.coding.has_blocks):
        values += _values(chunk.stored, info.dtype)
    if payload.is_plain:
        return values
    every = info.form == "dense" or payload.coding.every_element
    entries = elements if every else chunk.stored
    steps = values + LINE * chunk.lines
    if packed:
        gaps = 0 if every else min(elements, max(chunk.stored, 8 * len(chunk.data)))
        code_symbols = gaps if payload.coding.fillers else entries
        steps += SYMBOL * (2 * gaps + 3 * code_symbols)
    elif entries:
        steps += _context_chunk(payload, chunk, entries)
    if payload.coding.every_element:
        steps += SYMBOL * (elements + 8 * chunk.stored)
    return steps


def _context_chunk(payload: ParsedPayload, chunk: Chunk, entries: int) -> int:
    """Return the maximum number of steps that coders 2 and 3 take for positions and code symbols."""
    coder, elements, length = payload.coding.coder, chunk.lines * payload.length, payload.length
    mixing = coder == layout.CODER_MIXING
    bits = 1 + min((payload.info.codebook_size + 1).bit_length(), 16)
    cells = elements if elements <= layout.MOST_ELEMENTS[coder] else 0
    # A decoder checks for the end of its stream at the end of a line.
    coded = MAX_DECISIONS * (len(chunk.data) + 16) + length * (1 + bits)
    decisions = min(coded, elements + 8 * entries + bits * entries)
    steps = _decisions(coder) * decisions + (MIXED_CELL if mixing else CELL) * cells
    steps += (ENTRY if mixing else SYMBOL) * entries + bits * entries
    # The last term counts the decisions that say which lines and columns are nonempty.
    return steps + (DECISION * (chunk.lines + length) if mixing else 0)
