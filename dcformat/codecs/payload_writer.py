"""The writer of payloads: it codes every candidate of a mode and keeps the smallest (spec, "Payloads").

Ties go to the first candidate, so the same tensor always gives the same bytes. `encode_payload` forces one candidate
instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs import Mode, RelativeIndex, context_writer, fits, packed_writer, prediction_writer
from dcformat.codecs.payload_layout import Coding, chunk_bounds, chunk_lines, chunk_table, has_streams
from dcformat.codecs.rangecoder import Encoder
from dcformat.codecs.value_block_writer import write_block
from dcformat.codecs.values import write_values
from dcformat.cursor import varint
from dcformat.model import STORAGE, Tensor
from dcformat.records import replace

Array = npt.NDArray[Any]

#: Number of values in a chunk, and the most that may be in a value stream, in `fast` and otherwise: nothing is slower
#: to decode, and beyond this number blocks are smaller too.
_VALUES_CHUNK = 1 << 20
_FAST_STREAM, _MOST_STREAM = 1 << 9, 1 << 14
#: In `small`, adaptive coding of at least _LARGE entries must save one byte in SLOWER, because it takes ten times as
#: long to decode.
_LARGE, SLOWER = 1 << 16, 200
#: The codings of coder 6: by rows and by columns.
_PREDICTIONS = (Coding(layout.CODER_PREDICTION), Coding(layout.CODER_PREDICTION, transposed=True))
#: In `fast`, a payload along the columns must save one byte in this many, because it takes time to transpose it back.
_TRANSPOSING = 256


def write_payload(tensor: Tensor, mode: Mode, relative_index: RelativeIndex = "escape") -> bytes:
    """Return the smallest payload of a validated tensor that a mode allows."""
    if tensor.is_constant:
        return encode_payload(tensor, Coding(layout.CODER_RAW))
    if _is_plain(tensor):
        return _smallest_values(tensor, mode)
    if relative_index == "filler" and tensor.is_sparse and tensor.codebook is not None and len(tensor.codebook) < 256:
        return encode_payload(tensor, Coding(layout.CODER_HUFFMAN, fillers=True))
    transposing = _TRANSPOSING if mode == "fast" else 0
    best = quick = min(packed_writer.candidates(tensor), key=lambda payload: _weight(payload, transposing))
    if mode != "fast":
        coders = (layout.CODER_ADAPTIVE, layout.CODER_MIXING)[: 1 + (mode == "tiny")]
        best = min([best, *context_writer.candidates(tensor, coders)], key=len)
    coding = Coding.of(best[0])
    if not coding.blocks:
        return best
    # The candidates hold positions only.
    found = [encode_payload(tensor, coding, mode=mode)]
    if is_slow(best, tensor, mode) and len(quick) - len(best) < len(found[0]) // SLOWER:
        return encode_payload(tensor, Coding.of(quick[0]), mode=mode)
    if not coding.is_packed and has_streams(tensor.dtype) and tensor.nnz <= _MOST_STREAM:
        found.append(encode_payload(tensor, replace(coding, blocks=False)))
    return min(found, key=len)


def is_slow(payload: bytes, tensor: Tensor, mode: Mode) -> bool:
    """Return whether a payload of a large tensor takes so long to decode that it has to save a share of its bytes."""
    return mode == "small" and not Coding.of(payload[0]).is_quick and len(tensor.data) >= _LARGE


def encode_payload(tensor: Tensor, coding: Coding, lines_each: int | None = None, mode: Mode = "small") -> bytes:
    """Return a validated tensor's payload in a given coding, for tests and research.

    Parameters
    ----------
    tensor : Tensor
    coding : Coding
        The coder, and the view of the tensor that it codes. The tensor's form must allow the coding (spec,
        "Payloads"); `codings` yields all that it allows.
    lines_each : int, optional
        Number of lines in a chunk, 0 for one chunk; by default, the number that `write_payload` chooses.
    mode : {'fast', 'small', 'tiny'}
        How value blocks are coded.

    Raises
    ------
    LimitError
        The coder cannot code a tensor of this size.
    """
    if tensor.is_constant:
        return bytes((coding.byte,)) + np.ascontiguousarray(tensor.data, STORAGE[tensor.dtype]).tobytes()
    if _is_plain(tensor):
        return _encode_values(tensor, coding, lines_each, mode)
    encode = packed_writer.encode if coding.is_packed else context_writer.encode
    return encode(tensor, coding, lines_each, mode)


def codings(tensor: Tensor) -> Iterator[Coding]:
    """Yield every coding that the format allows for a tensor's form."""
    if tensor.is_constant:
        yield Coding(layout.CODER_RAW)
        return
    if _is_plain(tensor):
        yield from (Coding(layout.CODER_RAW), Coding(layout.CODER_PLANES))
        if has_streams(tensor.dtype):
            yield Coding(layout.CODER_ADAPTIVE)
        if tensor.dtype == "int8":
            yield from _PREDICTIONS
        return
    shared = tensor.is_sparse and tensor.codebook is not None
    blocks = tensor.is_sparse and not shared
    for coder in range(layout.CODER_MIXING + 1):
        for transposed in (False, True):
            yield Coding(coder, transposed, blocks=blocks)
            if blocks and coder >= layout.CODER_ADAPTIVE and has_streams(tensor.dtype):
                yield Coding(coder, transposed)
            if shared:
                yield Coding(coder, transposed, every_element=True)
    if shared and tensor.codebook is not None and len(tensor.codebook) < 256:
        yield Coding(layout.CODER_HUFFMAN, fillers=True)


def _is_plain(tensor: Tensor) -> bool:
    return not tensor.is_sparse and tensor.codebook is None


def _weight(payload: bytes, transposing: int) -> int:
    """Return the number of a payload's bytes, plus a share of them if it must be transposed back."""
    transposed = bool(payload[0] & layout.CODING_TRANSPOSED)
    return len(payload) + (len(payload) // transposing if transposed and transposing else 0)


def _smallest_values(tensor: Tensor, mode: Mode) -> bytes:
    """Return the smallest payload of a tensor that has neither codes nor positions."""
    best = encode_payload(tensor, Coding(layout.CODER_PLANES), mode=mode)
    if has_streams(tensor.dtype) and tensor.size <= (_FAST_STREAM if mode == "fast" else _MOST_STREAM):
        best = min(best, encode_payload(tensor, Coding(layout.CODER_ADAPTIVE)), key=len)
    if mode == "tiny" and tensor.dtype == "int8":
        for coding, length in zip(_PREDICTIONS, (tensor.columns, tensor.rows), strict=True):
            if fits(coding.coder, 1, length):
                best = min(best, encode_payload(tensor, coding), key=len)
    raw_bytes = len(_front(Coding(layout.CODER_RAW), 0)) + tensor.size * STORAGE[tensor.dtype].itemsize
    return best if len(best) < raw_bytes else encode_payload(tensor, Coding(layout.CODER_RAW), 0)


def _front(coding: Coding, lines_each: int) -> bytes:
    return bytes((coding.byte,)) + varint(lines_each)


def _encode_values(tensor: Tensor, coding: Coding, lines_each: int | None, mode: Mode) -> bytes:
    matrix = tensor.data.reshape(tensor.rows, tensor.columns)
    matrix = matrix.T if coding.transposed else matrix
    if lines_each is None:
        lines_each = chunk_lines(len(matrix), tensor.size, tensor.size, _VALUES_CHUNK)
    chunks = []
    for first, last in chunk_bounds(len(matrix), lines_each):
        part = np.ascontiguousarray(matrix[first:last], STORAGE[tensor.dtype])
        shape = matrix.shape if coding.transposed else tensor.shape
        chunks.append(encode_values(part, tensor.dtype, coding, mode, (last - first, *shape[1:]) if shape else ()))
    return b"".join((_front(coding, lines_each), chunk_table(lines_each, [len(chunk) for chunk in chunks]), *chunks))


def encode_values(part: Array, dtype: str, coding: Coding, mode: Mode, shape: tuple[int, ...]) -> bytes:
    """Return a chunk of values: a matrix of whole lines, which are those of a tensor of `shape`."""
    values = part.reshape(-1)
    if not len(values) or coding.coder == layout.CODER_RAW:
        return values.tobytes()
    if coding.coder == layout.CODER_ADAPTIVE:
        return _value_stream(values, dtype)
    if coding.coder == layout.CODER_PREDICTION:
        return prediction_writer.smallest(part, shape)
    return write_block(values, dtype, mode, shape)


def _value_stream(values: Array, dtype: str) -> bytes:
    encoder = Encoder(16)
    write_values(encoder, values, dtype)
    return encoder.take()
