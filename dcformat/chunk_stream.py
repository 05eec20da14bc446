"""Decodes a large tensor chunk by chunk, without holding its payload or its dense form."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from dcformat import layout
from dcformat.codecs.chunk_readers import chunk_reader
from dcformat.codecs.memory import working_bytes
from dcformat.codecs.payload_layout import Coding, ParsedPayload, PayloadFront, parse_chunk, parse_front
from dcformat.codecs.payload_reader import read_chunk
from dcformat.codecs.work import decoding_steps
from dcformat.contents import TensorInfo
from dcformat.digest import crc32c
from dcformat.errors import ChecksumError, TruncatedError
from dcformat.limits import require_memory, require_work
from dcformat.model import Tensor
from dcformat.records import replace

#: Bytes of a payload that are checked at a time, and that are parsed first to find the chunks.
_PART = 1 << 20

#: A function that returns `count` bytes of a payload and its checksum, from `start` on.
Take = Callable[[int, int], memoryview]


def chunk_tensors(
    info: TensorInfo, take: Take, max_memory: int | None, max_work: int | None
) -> Iterator[Tensor] | None:
    """Check a payload's checksum, then return its chunks, decoded one by one, as matrices of consecutive rows.

    Parameters
    ----------
    info : TensorInfo
        A tensor that has a data block to itself.
    take : callable
    max_memory, max_work : int or None
        The limits for a chunk, and for all chunks together.

    Returns
    -------
    iterator of Tensor, or None
        None if the payload cannot be decoded chunk by chunk.

    Raises
    ------
    FormatError
        The payload is damaged, or takes more memory or work than allowed.
    """
    field = f"data block {info.block}"
    check, size = crc32c(b""), info.payload_bytes
    for start in range(0, size, _PART):
        check = crc32c(take(start, min(_PART, size - start)), check)
    stated = bytes(take(size, layout.CRC_BYTES))
    if check != stated:
        raise ChecksumError(f"CRC-32C of {field}", got=check.hex(), expected=stated.hex())
    found = _front(info, take, max_memory)
    return None if found is None else _decoded(info, take, *found, stated, max_memory, max_work)


def _front(info: TensorInfo, take: Take, max_memory: int | None) -> tuple[Coding, PayloadFront] | None:
    """Parse the beginning of a payload, as much of it as is needed."""
    count = _PART
    while True:
        count = min(count, info.payload_bytes)
        require_memory(f"tensor {info.name!r}", count, max_memory)
        try:
            return parse_front(info, np.frombuffer(take(0, count), np.uint8), max_memory)
        except TruncatedError:
            if count == info.payload_bytes:
                raise
            count *= 16


def _decoded(
    info: TensorInfo,
    take: Take,
    coding: Coding,
    front: PayloadFront,
    stated: bytes,
    max_memory: int | None,
    max_work: int | None,
) -> Iterator[Tensor]:
    # A file may change between the check and the decoding, so the bytes that are decoded are checked again.
    check, at, steps, reader = crc32c(take(0, front.size)), front.size, 0, None
    field = f"decoding tensor {info.name!r}"
    for number, (lines, stored, size) in enumerate(front.table):
        require_memory(field, size, max_memory)
        data = take(at, size)
        check, at = crc32c(data, check), at + size
        chunk = parse_chunk(info, coding, lines, stored, np.frombuffer(data, np.uint8))
        own = replace(info, shape=(lines, front.length), stored=stored)
        alone = ParsedPayload(own, coding, lines, front.length, front.head, [chunk], None, None)
        require_memory(field, size + working_bytes(alone), max_memory)
        steps += decoding_steps(alone)
        require_work(field, steps, max_work)
        if number == 0:
            payload = ParsedPayload(info, coding, front.lines, front.length, front.head, [chunk], None, None)
            reader = None if payload.is_plain else chunk_reader(payload)
        yield read_chunk(payload, reader, chunk)
    if check != stated:
        raise ChecksumError(f"CRC-32C of data block {info.block}", got=check.hex(), expected=stated.hex())
