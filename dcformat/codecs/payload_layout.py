"""A payload's parts: its coding byte, its head and its chunks (spec, "Payloads")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs.csr_view import can_transpose
from dcformat.codecs.memory import CHUNK_OBJECTS
from dcformat.contents import TensorInfo
from dcformat.cursor import Cursor, varint
from dcformat.errors import (
    EncodingError,
    IndexRangeError,
    LimitError,
    TrailingDataError,
    TruncatedError,
    VersionError,
)
from dcformat.limits import require_memory
from dcformat.model import matrix_shape
from dcformat.records import record
from dcformat.wording import counted

if TYPE_CHECKING:
    from dcformat.codecs.axis_tables import AxisTables
    from dcformat.codecs.value_blocks import ValueBlock

Bytes = npt.NDArray[np.uint8]

_NO_BYTES = np.empty(0, np.uint8)

#: The number of pairs of a coding and a form that are known to fit, or not to.
_FORMS_KEPT = 1 << 8
_STREAMED = frozenset(layout.DTYPES[: layout.KERNEL_DTYPES])
#: The coders of a dense tensor without a codebook.
_FOR_VALUES = (
    layout.CODER_RAW, layout.CODER_ADAPTIVE, layout.CODER_PLANES, layout.CODER_TABLES, layout.CODER_PREDICTION,
)  # fmt: skip


def has_streams(dtype: str) -> bool:
    """Return whether values of a dtype may be in a value stream."""
    return dtype in _STREAMED


@record
class Coding:
    """How a payload is coded: its first byte."""

    coder: int
    transposed: bool = False
    every_element: bool = False
    fillers: bool = False
    blocks: bool = False

    @property
    def byte(self) -> int:
        """The byte itself."""
        return (
            self.coder
            | layout.CODING_TRANSPOSED * self.transposed
            | layout.CODING_EVERY_ELEMENT * self.every_element
            | layout.CODING_FILLERS * self.fillers
            | layout.CODING_BLOCKS * self.blocks
        )

    @property
    def is_packed(self) -> bool:
        """Whether positions and codes have code words of whole bits (coders 0 and 1)."""
        return self.coder <= layout.CODER_HUFFMAN

    @property
    def is_quick(self) -> bool:
        """Whether no bit depends on adaptive models."""
        return self.coder not in (layout.CODER_ADAPTIVE, layout.CODER_MIXING, layout.CODER_PREDICTION)

    @property
    def has_blocks(self) -> bool:
        """Whether chunks hold value blocks: beside positions (`blocks`), or nothing else."""
        return self.blocks or self.coder == layout.CODER_PLANES

    @classmethod
    @cache
    def of(cls, byte: int) -> Coding:
        """Return the meaning of the byte."""
        return cls(
            byte & layout.CODER_MASK,
            bool(byte & layout.CODING_TRANSPOSED),
            bool(byte & layout.CODING_EVERY_ELEMENT),
            bool(byte & layout.CODING_FILLERS),
            bool(byte & layout.CODING_BLOCKS),
        )

    @classmethod
    def parse(cls, byte: int, info: TensorInfo) -> Coding:
        """Parse the byte and require that it suits the tensor."""
        coder = byte & layout.CODER_MASK
        if coder >= layout.CODERS:
            raise VersionError("coder", got=coder, expected=f"below {layout.CODERS}")
        coding = cls.of(byte)
        if _contradict(byte, info.form, info.codebook_size, info.dtype):
            raise EncodingError("coding byte", got=f"0x{byte:02x}", expected=f"one for a {info.form} tensor")
        coding._require_limits(info)
        return coding

    def _require_limits(self, info: TensorInfo) -> None:
        if self.transposed and not can_transpose(info.rows, info.columns):
            raise LimitError("transposed tensor", got=info.shape, expected="both sides below 2^31")
        if self.every_element:
            max_elements = layout.FREE_ELEMENTS + layout.ELEMENTS_EACH * info.stored
            if info.size > max_elements:
                raise LimitError(
                    "elements of an every-element tensor", got=info.size, expected=f"at most {max_elements}"
                )
        if self.is_quick or (info.form != "sparse" and not info.codebook_size):  # no coder of contexts
            return
        length = info.rows if self.transposed else info.columns
        if length > layout.MAX_CONTEXT_LENGTH:
            raise LimitError(f"length of a line for coder {self.coder}", got=length, expected="below 2^31")


@lru_cache(_FORMS_KEPT)
def _contradict(byte: int, form: str, codebook_size: int, dtype: str) -> bool:
    """Return whether a coding byte cannot apply to a tensor of this form."""
    coding, sparse, shared = Coding.of(byte), form == "sparse", codebook_size > 0
    # Values of a sparse tensor are stored beside positions.
    has_values = sparse and not shared and coding.coder != layout.CODER_TABLES
    return (
        (form == "constant" and byte != 0)
        or (coding.every_element and not (sparse and shared and codebook_size < layout.MAX_CODEBOOK))
        or (coding.fillers and not (sparse and 0 < codebook_size < 256 and coding.is_packed))
        or (coding.fillers and coding.every_element)
        or (coding.transposed and not sparse and not shared and coding.coder != layout.CODER_PREDICTION)
        or (form == "dense" and not shared and coding.coder not in _FOR_VALUES)
        or (coding.blocks and not has_values)
        or (has_values and not coding.blocks and (coding.is_packed or not has_streams(dtype)))
        or (coding.coder == layout.CODER_PLANES and (sparse or shared))
        or (coding.coder == layout.CODER_TABLES and (shared or coding.transposed))
        or (coding.coder == layout.CODER_PREDICTION and (sparse or shared or dtype != "int8"))
        or (coding.coder == layout.CODER_ADAPTIVE and not sparse and not has_streams(dtype))
    )


class Chunk(NamedTuple):
    """A run of a payload's lines.

    Attributes
    ----------
    lines, stored : int
        Number of lines, and of their entries (or elements).
    size : int
        Number of bytes.
    data : uint8 array
        All bytes but those of the value block.
    block : ValueBlock or None
    """

    lines: int
    stored: int
    size: int
    data: Bytes
    block: ValueBlock | None


def parse_chunk(info: TensorInfo, coding: Coding, lines: int, stored: int, data: Bytes) -> Chunk:
    """Split a chunk's bytes into its value block, if the coding has one, and the rest. Raises `FormatError`."""
    if not coding.has_blocks:
        return Chunk(lines, stored, len(data), data, None)
    from dcformat.codecs.value_blocks import parse_block  # few files have value blocks

    field, rest, own = f"values of {info.name!r}", data[:0], data
    if coding.blocks:
        cursor = Cursor(data)
        own = cursor.array(cursor.varint(f"length of the {field}", len(data)), field)
        rest = cursor.array(cursor.left, "positions")
    return Chunk(lines, stored, len(data), rest, parse_block(own, stored, info.dtype, field))


class ParsedPayload(NamedTuple):
    """A payload cut into its parts; nothing is decoded yet. Under coder 5, `tables` and `codes` replace the chunks."""

    info: TensorInfo
    coding: Coding
    lines: int
    length: int
    head: Bytes
    chunks: list[Chunk]
    tables: AxisTables | None
    codes: ParsedPayload | None

    @property
    def is_plain(self) -> bool:
        """Whether the payload holds values instead of codes and positions."""
        return self.info.form != "sparse" and not self.info.codebook_size

    @property
    def has_positions(self) -> bool:
        """Whether the payload codes positions of entries; otherwise it has a value or code symbol for each element."""
        return self.info.form == "sparse" and not self.coding.every_element

    @property
    def code_symbols(self) -> int:
        """The number of distinct code symbols in the streams."""
        return (self.info.codebook_size or 1) + (self.coding.every_element or self.coding.fillers)


def parse_payload(info: TensorInfo, payload: Bytes, max_memory: int | None = None) -> ParsedPayload:
    """Split a payload into its head and chunks, and check every length.

    Raises
    ------
    FormatError
        The coding byte or a length is wrong.
    MemoryLimitError
        The list of chunks takes more than `max_memory` bytes.
    """
    cursor = Cursor(payload)
    coding = Coding.parse(cursor.u8("coding byte"), info)
    if coding.coder == layout.CODER_TABLES:
        return _parse_tables(info, coding, cursor, max_memory)
    if info.form == "constant":
        chunk = parse_chunk(info, coding, 1, 1, cursor.array(cursor.left, "value"))
        return ParsedPayload(info, coding, 1, 1, _NO_BYTES, [chunk], None, None)
    front = _front(cursor, info, coding, len(payload), max_memory)
    if not front.lines_each:
        chunks = [parse_chunk(info, coding, front.lines, info.stored, cursor.array(cursor.left, "chunk"))]
        return ParsedPayload(info, coding, front.lines, front.length, front.head, chunks, None, None)
    chunks = [parse_chunk(info, coding, n, stored, cursor.array(size, "chunk")) for n, stored, size in front.table]
    cursor.finish("payload")
    return ParsedPayload(info, coding, front.lines, front.length, front.head, chunks, None, None)


class PayloadFront(NamedTuple):
    """A payload before its chunks.

    Attributes
    ----------
    lines, length : int
        Number of lines, and of elements in a line.
    head : uint8 array
    lines_each : int
        Lines in a chunk; 0 for one chunk, which has no table.
    table : list of (int, int, int)
        Each chunk's lines, entries and bytes.
    size : int
        Bytes up to the first chunk.
    """

    lines: int
    length: int
    head: Bytes
    lines_each: int
    table: list[tuple[int, int, int]]
    size: int


def parse_front(
    info: TensorInfo, beginning: Bytes, max_memory: int | None = None
) -> tuple[Coding, PayloadFront] | None:
    """Parse what comes before the chunks, given only the beginning of a payload.

    Returns
    -------
    Coding and PayloadFront, or None if the payload cannot be decoded chunk by chunk: it has one chunk, or is
    transposed, or is of coder 5.

    Raises
    ------
    TruncatedError
        The beginning is too short, or the chunks need more bytes than the payload has.
    FormatError
        As in `parse_payload`.
    """
    cursor = Cursor(beginning)
    coding = Coding.parse(cursor.u8("coding byte"), info)
    if coding.transposed or coding.coder == layout.CODER_TABLES or info.form == "constant":
        return None
    front = _front(cursor, info, coding, info.payload_bytes, max_memory)
    if not front.lines_each:
        return None
    end = front.size + sum(size for _, _, size in front.table)
    if end != info.payload_bytes:
        kind = TruncatedError if end > info.payload_bytes else TrailingDataError
        raise kind("payload", got=counted(info.payload_bytes, "byte"), expected=f"{end:,}")
    return coding, front


def _front(cursor: Cursor, info: TensorInfo, coding: Coding, total: int, max_memory: int | None) -> PayloadFront:
    """Read what follows the coding byte of a payload of `total` bytes, up to the chunks."""
    lines, length = matrix_shape(info.shape, info.form == "sparse")
    if coding.transposed:
        lines, length = length, lines
    lines_each = cursor.varint("lines in a chunk", max(lines - 1, 0))
    head = _NO_BYTES
    if coding.is_packed and (info.form == "sparse" or info.codebook_size):
        head = cursor.array(cursor.varint("head length", layout.MAX_PAYLOAD_BYTES), "head")
    table: list[tuple[int, int, int]] = []
    if lines_each:
        left = total - cursor.offset
        most_chunks = min(-(-lines // lines_each), left)
        require_memory(f"chunks of tensor {info.name!r}", CHUNK_OBJECTS * most_chunks, max_memory)
        table = _read_chunk_table(cursor, info, (lines, length, lines_each), left)
    return PayloadFront(lines, length, head, lines_each, table, cursor.offset)


def _parse_tables(info: TensorInfo, coding: Coding, cursor: Cursor, max_memory: int | None) -> ParsedPayload:
    from dcformat.codecs.axis_tables import parse_tables  # few files use coder 5

    tables, entry = parse_tables(cursor, info)
    payload = cursor.array(cursor.left, "codes")
    if len(payload) and payload[0] & layout.CODER_MASK == layout.CODER_TABLES:
        raise EncodingError("coder of codes", got=layout.CODER_TABLES, expected="another coder")
    codes = parse_payload(entry, payload, max_memory)
    return ParsedPayload(info, coding, codes.lines, codes.length, payload[:0], [], tables, codes)


def _read_chunk_table(
    cursor: Cursor, info: TensorInfo, lines_length_each: tuple[int, int, int], payload_left: int
) -> list[tuple[int, int, int]]:
    """Return each chunk's lines, entries and bytes; `payload_left` bytes of the payload are left for all of it."""
    lines, length, lines_each = lines_length_each
    count = -(-lines // lines_each)
    max_chunks = min(layout.FREE_CHUNKS + (info.stored + lines) // layout.CHUNK_LEAST, payload_left)
    if count > max_chunks:
        raise LimitError("chunks", got=count, expected=f"at most {max_chunks}")
    table, left = [], info.stored
    for first, last in chunk_bounds(lines, lines_each):
        stored = (last - first) * length
        if info.form == "sparse":
            stored = cursor.varint("entries in a chunk", min(left, stored))
        left -= stored
        table.append((last - first, stored, cursor.varint("chunk length", layout.MAX_PAYLOAD_BYTES)))
    if left:
        raise IndexRangeError("entries in chunks", got=info.stored - left, expected=info.stored)
    return table


def chunk_bounds(lines: int, lines_each: int) -> Iterator[tuple[int, int]]:
    """Yield each chunk's first line and the line after its last; 0 `lines_each` means one chunk."""
    if not lines_each:
        yield 0, lines
        return
    for first in range(0, lines, lines_each):
        yield first, min(first + lines_each, lines)


def chunk_lines(lines: int, stored: int, weight: int, target: int) -> int:
    """Return the number of lines in a chunk of about `target`, given a total `weight`; 0 if one chunk is enough.

    Parameters
    ----------
    lines, stored : int
        Number of the tensor's lines, and of its entries (or elements); these bound the number of chunks.
    weight, target : int
        Number of what the writer counts (entries or elements) in the tensor, and in a chunk.
    """
    if weight <= target or lines < 2:
        return 0
    max_chunks = layout.FREE_CHUNKS + (stored + lines) // layout.CHUNK_LEAST
    each = max(1, lines * target // weight, -(-lines // max_chunks))
    return 0 if each >= lines else each


def with_chunk_table(lines_each: int, chunks: Sequence[bytes], stored: Sequence[int] | None = None) -> bytes:
    """Return the chunks after their table; `stored` counts a sparse tensor's entries."""
    return chunk_table(lines_each, [len(chunk) for chunk in chunks], stored) + b"".join(chunks)


def chunk_table(lines_each: int, sizes: Sequence[int], stored: Sequence[int] | None = None) -> bytes:
    """Return the table of chunks of these sizes, which is empty if `lines_each` is 0."""
    table = bytearray()
    if lines_each:
        for number, size in enumerate(sizes):
            table += (varint(stored[number]) if stored is not None else b"") + varint(size)
    return bytes(table)
