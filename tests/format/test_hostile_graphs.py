"""Graphs whose sizes, places and attributes would overflow, in files with correct checksums."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

import dcformat
from dcformat.errors import EncodingError, FormatError, GraphError, LimitError, ShapeError, TruncatedError
from tests.format.assembler import GRAPH, File, varint

ONE = struct.pack("<f", 1.0)
SMALL, LARGE, HUGE = varint(1 << 16), varint(1 << 17), varint(1 << 40)

#: The bytes of a graph, and the error.
HOSTILE: dict[str, tuple[bytes, type[FormatError]]] = {
    "an input of 2^280 elements": (b"\7" + HUGE * 7 + b"\0\0", ShapeError),
    "2^40 elements tiled 2^16 times": (b"\1" + HUGE + b"\0\1\x98\1" + SMALL, ShapeError),
    "a slice of 2^40 steps of 2^16": (b"\1\5\0\1\x96\0\0" + HUGE + LARGE, ShapeError),
    "a slice of 2^40 steps of -2^16": (b"\1\5\0\1\x96\0\0" + HUGE + varint((1 << 17) - 1), ShapeError),
    "a slice that starts at 2^40": (b"\1\5\0\1\x96\0" + HUGE + b"\1\2", ShapeError),
    "padding of 2^41": (b"\1\5\0\1\x97\1" + HUGE * 2 + b"\0" + bytes(4), ShapeError),
    "padding that joins into 2^280 elements": (b"\7" + b"\1" * 7 + b"\0\1\x97\7" + HUGE * 14 + bytes(5), ShapeError),
    "a reshape to 2^280 elements": (b"\1\5\0\1\x94\7" + HUGE * 7, ShapeError),
    "a resize to 2^80 elements": (b"\2\1\1\0\1\x9a\2" + HUGE * 2 + ONE * 2 + b"\0\0\2", ShapeError),
    "a broadcast to 2^80 elements": (
        b"\2\1" + HUGE + b"\0\2\x95\2\1\0\x29\2\0\4", ShapeError,
    ),
    "a product of 2^80 elements": (
        b"\2\1" + HUGE + b"\0\2\x95\2\1\0\x30\0\4", ShapeError,
    ),
    "a gather of 2^60 elements": (b"\2" + varint(1 << 20) * 2 + b"\0\1\x39\0\0", ShapeError),
    "gathers beyond 7 dimensions": (b"\4\1\1\1\1\0\2\x39\0\0\x39\0\0", ShapeError),
    "a pool with strides of 2^16 and a kernel of 2^16": (
        b"\1" + HUGE + b"\0\1\x84\1" + SMALL * 2 + b"\0\0\0", ShapeError,
    ),
    "a pool padded by 2^16": (b"\2\1\1\0\1\x84\1\1\1" + SMALL + b"\0\0", GraphError),
    "256 inputs of which none is there": (b"\x08\x80\2", TruncatedError),
    "257 inputs": (b"\x08\x81\2", LimitError),
    "an operator without an input": (b"\x08\0\0\1\3\1\1y\x10\0", GraphError),
    "no input": (b"\x08\0\0\0\0", GraphError),
    "an output of a value after the last": (b"\x08\1\1x\x10\1\1\0\0\1\1y\x10\1", GraphError),
    "an output 2^17 values back": (b"\x08\1\1x\x10\1\1\0\0\1\1y\x10" + LARGE, GraphError),
    "an operand 2^17 values back": (b"\1\5\0\1\x29\2\0" + varint(1 << 19), GraphError),
    "a tensor beyond the table": (b"\1\5\0\1\x29\2\0\1", GraphError),
    "a sum of constants": (b"\1\5\0\1\x29\2\2" + ONE + b"\2" + ONE, GraphError),
    "a signalling NaN": (b"\1\5\0\1\x29\2\0\2\1\0\x80\x7f", EncodingError),
    "a scale that is infinite": (b"\1\5\0\1\x8e" + b"\0\0\x80\x7f" + b"\0\0\0", GraphError),
    "axes beyond the rank": (b"\1\5\0\1\x86\0\x40\0", GraphError),
    "a recurrent layer without tensors": (b"\2\5\5\0\1\x12\0\0", GraphError),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_graph_that_would_overflow_is_refused(name: str) -> None:
    body, kind = HOSTILE[name]
    data = File(sections=[(GRAPH, body)]).bytes()
    tracemalloc.start()
    try:
        with pytest.raises(FormatError) as caught:
            dcformat.load(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert type(caught.value) is kind
    assert peak < 2 << 20 and len(str(caught.value)) < 1000
