"""Files drawn at random, with correct checksums: each parses or is refused, in little memory."""

from __future__ import annotations

import struct

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcformat import layout
from dcformat.errors import FormatError
from tests.format.assembler import (
    ADAPTIVE,
    CONSTANT,
    DENSE,
    DENSE_SHARED,
    EVERY_ELEMENT,
    FILLERS,
    GRAPH,
    HUFFMAN,
    LABELS,
    METADATA,
    MIXING,
    RAW,
    SELF_TEST,
    SPARSE,
    SPARSE_SHARED,
    TRANSPOSED,
    Bits,
    Entry,
    File,
    text,
    varint,
)
from tests.format.hostile import read
from tests.format.strategies import examples

ONE = struct.pack("<f", 1.0)
some = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

numbers = st.one_of(
    st.integers(0, 8), st.sampled_from([127, 128, 255, 256, 4095, 4096, 65535, 65536, 1 << 20, 1 << 31, 1 << 40]),
    st.integers(0, (1 << 42) - 1),
)  # fmt: skip


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Draw a head or chunk: any bytes, or a stream of plain bits."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=24))
    bits = Bits()
    for width, value in draw(st.lists(st.tuples(st.integers(1, 32), st.integers(0, (1 << 32) - 1)), max_size=6)):
        bits.put(width, value & ((1 << width) - 1))
    return bits.take()


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    coder = draw(st.sampled_from([RAW, HUFFMAN, ADAPTIVE, MIXING]))
    flags = draw(st.sampled_from([0, 0, 0, TRANSPOSED, EVERY_ELEMENT, TRANSPOSED | EVERY_ELEMENT, FILLERS]))
    each = draw(st.one_of(st.just(0), st.integers(1, 3), numbers))
    out = bytes((coder | flags,)) + varint(each)
    if coder < ADAPTIVE and draw(st.booleans()):
        out += text(draw(streams()))
    if each:
        out += b"".join(varint(n) for n in draw(st.lists(numbers, max_size=6)))
    for part in draw(st.lists(st.one_of(numbers.map(varint), streams(), st.just(ONE)), max_size=3)):
        out += part
    return out


@st.composite
def entries(draw: st.DrawFn, name: str) -> Entry:
    payload = draw(payloads())
    return Entry(
        payload,
        draw(st.sampled_from([name, name, name, "t0", ""])),
        draw(st.sampled_from([CONSTANT, DENSE, DENSE_SHARED, SPARSE, SPARSE_SHARED, 7])),
        draw(st.integers(0, 3)),
        draw(st.one_of(st.lists(st.integers(0, 5), max_size=7), st.lists(numbers, max_size=4))),
        draw(numbers),
        draw(st.one_of(st.integers(0, 4), numbers)),
        draw(st.sampled_from([1.0, 0.5, 0.0, -1.0, float("inf"), float("nan")])),
        draw(st.sampled_from([None, None, True, False])),
        draw(st.one_of(st.none(), st.none(), numbers)),
    )


@st.composite
def graphs(draw: st.DrawFn) -> bytes:
    starts = [b"\1\2\0", b"\3\3\4\4\0", b"\1\1\1" + ONE + ONE, b"\2\5\4\0", b"\x08\1\1x\x17\1\2\0"]
    out = draw(st.sampled_from(starts))
    nodes = draw(st.lists(st.lists(st.integers(0, 255), max_size=10).map(bytes), max_size=6))
    return out + varint(draw(st.one_of(st.just(len(nodes)), numbers))) + b"".join(nodes)


@st.composite
def lying_files(draw: st.DrawFn) -> bytes:
    tensors = [draw(entries(f"t{k}")) for k in range(draw(st.integers(0, 3)))]
    kinds = st.sampled_from([GRAPH, LABELS, METADATA, SELF_TEST, 6, 128, 255])
    bodies = st.one_of(
        graphs(), st.binary(max_size=20), st.lists(numbers, max_size=5).map(lambda n: b"".join(map(varint, n)))
    )
    return File(
        tensors, draw(st.lists(st.tuples(kinds, bodies), max_size=3)), draw(st.one_of(st.none(), st.none(), numbers)),
        order=draw(st.booleans()), after=draw(st.sampled_from([b"", b"", b"\0", bytes(20)])),
    ).bytes()  # fmt: skip


@given(lying_files())
@settings(some, max_examples=examples(200))
def test_a_lying_file_is_refused_in_little_memory(data: bytes) -> None:
    read(data)


@given(st.binary(max_size=200))
@settings(some)
def test_any_bytes_at_all(data: bytes) -> None:
    assert isinstance(read(data), FormatError)
    assert isinstance(read(layout.MAGIC + b"\1\0" + data), FormatError)
