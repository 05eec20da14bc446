"""Coder 5: codes of eight bits, and a codebook or a scale for each place along an axis (spec, "Tables by place").

The codes form the payload of an int8 tensor, so every way to code a tensor works for them too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs.value_blocks import ValueBlock, parse_block, read_block, require_axis
from dcformat.contents import TensorInfo
from dcformat.cursor import Cursor
from dcformat.errors import EncodingError, IndexRangeError
from dcformat.model import STORAGE, Tensor
from dcformat.records import record, replace

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

CODEBOOKS, SCALES = range(2)
MAX_CODES = 256
#: Number of elements that are made at a time.
PIECE = 1 << 16


@record(eq=False)
class AxisTables:
    """The tables of a payload of coder 5.

    Attributes
    ----------
    kind : CODEBOOKS or SCALES
    inner, lines : int
        Element number i has place ``i // inner % lines``.
    size : int
        Number of values in each place's codebook; 1 for scales.
    blocks : list of ValueBlock
        The codebooks, or the scales and the zero points.
    """

    kind: int
    inner: int
    lines: int
    size: int
    blocks: list[ValueBlock]


def parse_tables(cursor: Cursor, info: TensorInfo) -> tuple[AxisTables, TensorInfo]:
    """Read everything before the codes; return the tables and the table entry of the codes."""
    field = f"tables of {info.name!r}"
    kind = cursor.u8(f"kind of {field}")
    if kind > SCALES or (kind == SCALES and info.dtype != "float32"):
        raise EncodingError(f"kind of {field}", got=kind, expected=f"one for {info.dtype}")
    inner, lines = (cursor.varint(f"axis of {field}", layout.MAX_ELEMENTS) for _ in range(2))
    require_axis(inner, lines, info.size, field)
    size = 1
    if kind == CODEBOOKS:
        size = cursor.varint(f"values in {field}", MAX_CODES)
        if not size:
            raise EncodingError(f"values in {field}", got=0, expected=f"1 to {MAX_CODES}")
    blocks = [_block(cursor, lines * size, info.dtype, field)]
    if kind == SCALES:
        blocks.append(_block(cursor, lines, "int16", f"zero points of {info.name!r}"))
    codebook_size = cursor.varint("codebook size of the codes", MAX_CODES)
    codes = replace(info, dtype="int8", codebook_size=codebook_size, scale=1.0, payload_bytes=cursor.left)
    return AxisTables(kind, inner, lines, size, blocks), codes


def _block(cursor: Cursor, count: int, dtype: str, field: str) -> ValueBlock:
    data = cursor.array(cursor.varint(f"length of {field}", layout.MAX_PAYLOAD_BYTES), field)
    return parse_block(data, count, dtype, field)


def apply_tables(tables: AxisTables, codes: Tensor, info: TensorInfo) -> Tensor:
    """Return the tensor of these codes, which is sparse if they are.

    Raises
    ------
    FormatError
        A table is damaged, a code is not below the size of its codebook, or a sparse tensor would hold a zero.
    """
    field = f"tables of {info.name!r}"
    first = read_block(tables.blocks[0], field)
    second = np.zeros(0, np.int16)
    if tables.kind == SCALES:
        second = read_block(tables.blocks[1], f"zero points of {info.name!r}")
        if not (np.isfinite(first) & (first > 0)).all():
            raise EncodingError(f"scales of {info.name!r}", got="one that is not", expected="finite and above 0")
    out = np.empty(len(codes.data), STORAGE[info.dtype])
    for start in range(0, len(out), PIECE):
        part = slice(start, min(start + PIECE, len(out)))
        places = _positions(codes, part) // tables.inner % tables.lines
        stored = np.ascontiguousarray(codes.data[part] if codes.codebook is None else codes.codebook[codes.data[part]])
        if tables.kind == SCALES:
            with np.errstate(over="ignore"):
                out[part] = first[places].astype(np.float64) * (stored.astype(np.int64) - second[places])
            continue
        numbers = stored.view(np.uint8).astype(np.int64) - codes.is_sparse
        if int(numbers.max()) >= tables.size:
            raise IndexRangeError(f"codes of {info.name!r}", got=int(numbers.max()), expected=f"below {tables.size}")
        out[part] = first[places * tables.size + numbers]
    return replace(codes, dtype=info.dtype, data=out, codebook=None, scale=info.scale)


def _positions(codes: Tensor, part: slice) -> npt.NDArray[np.int64]:
    """Return the positions of some stored elements in the flattened tensor."""
    numbers = np.arange(part.start, part.stop)
    if codes.indptr is None or codes.indices is None:
        return numbers
    rows = np.searchsorted(codes.indptr, numbers, side="right") - 1
    return rows * codes.columns + codes.indices[part]
