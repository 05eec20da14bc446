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
from dcformat.codecs import Mode, RelativeIndex, context_writer, packed_writer
from dcformat.codecs.payload_layout import Coding, chunk_bounds, chunk_lines, with_chunk_table
from dcformat.codecs.rangecoder import Encoder
from dcformat.codecs.values import write_values
from dcformat.cursor import varint
from dcformat.model import STORAGE, Tensor

Array = npt.NDArray[Any]

#: Number of values in a stream, and the largest number that `fast` codes rather than stores raw, because nothing is
#: slower to decode.
_VALUES_CHUNK = 1 << 20
_FAST_VALUES = 1 << 11
#: In `fast`, a payload along the columns must save one byte in this many, because it takes time to transpose it back.
_TRANSPOSING = 256


def write_payload(tensor: Tensor, mode: Mode, relative_index: RelativeIndex = "escape") -> bytes:
    """Return the smallest payload of a validated tensor that a mode allows."""
    if tensor.is_constant or _is_plain(tensor):
        return min(_value_payloads(tensor, mode), key=len)
    if relative_index == "filler" and tensor.is_sparse and tensor.codebook is not None and len(tensor.codebook) < 256:
        return encode_payload(tensor, Coding(layout.CODER_HUFFMAN, fillers=True))
    transposing = _TRANSPOSING if mode == "fast" else 0
    best = min(packed_writer.candidates(tensor), key=lambda payload: _weight(payload, transposing))
    if mode == "fast":
        return best
    coders = (layout.CODER_ADAPTIVE, layout.CODER_MIXING)[: 1 + (mode == "tiny")]
    return min([best, *context_writer.candidates(tensor, coders)], key=len)


def encode_payload(tensor: Tensor, coding: Coding, lines_each: int | None = None) -> bytes:
    """Return a validated tensor's payload in a given coding, for tests and research.

    Parameters
    ----------
    tensor : Tensor
    coding : Coding
        The coder, and the view of the tensor that it codes. The tensor's form must allow the coding (spec,
        "Payloads"); `codings` yields all that it allows.
    lines_each : int, optional
        Number of lines in a chunk, 0 for one chunk; by default, the number that `write_payload` chooses.

    Raises
    ------
    LimitError
        The coder cannot code a tensor of this size.
    """
    if tensor.is_constant:
        return bytes((coding.byte,)) + _raw(tensor.data, tensor.dtype)
    if _is_plain(tensor):
        return _encode_values(tensor, coding, lines_each)
    encode = packed_writer.encode if coding.is_packed else context_writer.encode
    return encode(tensor, coding, lines_each)


def codings(tensor: Tensor) -> Iterator[Coding]:
    """Yield every coding that the format allows for a tensor's form."""
    if tensor.is_constant:
        yield Coding(layout.CODER_RAW)
        return
    if _is_plain(tensor):
        yield from (Coding(layout.CODER_RAW), Coding(layout.CODER_ADAPTIVE))
        return
    shared = tensor.is_sparse and tensor.codebook is not None
    for coder in range(layout.CODERS):
        for transposed in (False, True):
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


def _raw(values: Array, dtype: str) -> bytes:
    return np.ascontiguousarray(values, STORAGE[dtype]).tobytes()


def _value_payloads(tensor: Tensor, mode: Mode) -> Iterator[bytes]:
    """Yield the payloads of a tensor that has neither codes nor positions: its values raw, and coded."""
    yield encode_payload(tensor, Coding(layout.CODER_RAW), 0)
    if not tensor.is_constant and (mode != "fast" or tensor.size <= _FAST_VALUES):
        yield encode_payload(tensor, Coding(layout.CODER_ADAPTIVE))


def _encode_values(tensor: Tensor, coding: Coding, lines_each: int | None) -> bytes:
    if lines_each is None:
        lines_each = chunk_lines(tensor.rows, tensor.size, tensor.size, _VALUES_CHUNK)
    chunks = []
    for first, last in chunk_bounds(tensor.rows, lines_each):
        part = tensor.data[first * tensor.columns : last * tensor.columns]
        raw = coding.coder == layout.CODER_RAW
        chunks.append(_raw(part, tensor.dtype) if raw else _value_stream(part, tensor.dtype))
    return bytes((coding.byte,)) + varint(lines_each) + with_chunk_table(lines_each, chunks)


def _value_stream(values: Array, dtype: str) -> bytes:
    if not len(values):
        return b""
    encoder = Encoder(16)
    write_values(encoder, np.ascontiguousarray(values, STORAGE[dtype]), dtype)
    return encoder.take()
