"""Plain fields are read as they were written, in one form only, and never past the end."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcformat.cursor import VARINT_BYTES, Cursor, text, varint
from dcformat.errors import EncodingError, LimitError, TrailingDataError, TruncatedError

MOST = (1 << 7 * VARINT_BYTES) - 1


@given(st.integers(0, MOST))
def test_a_varint_is_read_back(value: int) -> None:
    cursor = Cursor(varint(value) + b"\xff")
    assert cursor.varint("n", MOST) == value and cursor.left == 1


@pytest.mark.parametrize("value", [0, 127, 128, 16383, 16384, MOST])
def test_varints_at_the_edges_of_a_byte(value: int) -> None:
    raw = varint(value)
    assert len(raw) == max(1, -(-value.bit_length() // 7))
    assert Cursor(raw).varint("n", value) == value
    for length in range(len(raw)):
        with pytest.raises(TruncatedError):
            Cursor(raw[:length]).varint("n", MOST)
    if value:
        with pytest.raises(LimitError) as caught:
            Cursor(raw, 7).varint("n", value - 1)
        assert (caught.value.got, caught.value.offset) == (value, 7)


@given(st.binary(max_size=8))
def test_a_varint_has_one_encoding(data: bytes) -> None:
    cursor = Cursor(data)
    try:
        value = cursor.varint("n", MOST)
    except (EncodingError, TruncatedError):
        return
    assert varint(value) == data[: cursor.offset]


@pytest.mark.parametrize("data", [b"\x80\0", b"\xff\xff\0", b"\xff" * 6 + b"\1", b"\xff" * 20])
def test_overlong_varints_are_refused(data: bytes) -> None:
    with pytest.raises(EncodingError):
        Cursor(data).varint("n", MOST)


@given(st.text(max_size=40))
def test_text_is_read_back(value: str) -> None:
    raw = text(value)
    cursor = Cursor(raw)
    assert cursor.text("t", 200) == value
    cursor.finish("t")
    for length in range(len(raw)):
        with pytest.raises(TruncatedError):
            Cursor(raw[:length]).text("t", 200)


@pytest.mark.parametrize("raw", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"])
def test_text_that_is_not_utf8_is_refused(raw: bytes) -> None:
    with pytest.raises(EncodingError) as caught:
        Cursor(bytes((len(raw),)) + raw, 100).text("t", 10)
    assert caught.value.offset == 101


def test_text_has_a_least_and_a_greatest_length() -> None:
    with pytest.raises(EncodingError):
        Cursor(b"\0").text("t", 10, min_bytes=1)
    with pytest.raises(LimitError):
        Cursor(b"\3abc").text("t", 2)


def test_floats_are_finite() -> None:
    assert Cursor(struct.pack("<f", -0.5)).f32("x") == -0.5
    for value in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(EncodingError):
            Cursor(struct.pack("<f", value)).f32("x")


def test_leftover_bytes_are_refused_and_offsets_count_from_the_base() -> None:
    cursor = Cursor(bytes(4), 10)
    cursor.take(3, "x")
    with pytest.raises(TrailingDataError) as left:
        cursor.finish("x")
    assert left.value.offset == 13
    with pytest.raises(TruncatedError) as short:
        cursor.take(2, "x")
    assert (short.value.offset, short.value.got, short.value.expected) == (13, "1 byte", "2 bytes")


@pytest.mark.parametrize("data", [b"\1\2", bytearray(b"\1\2"), memoryview(b"\1\2"), np.array([1, 2], np.uint8)])
def test_any_buffer_will_do(data: bytes) -> None:
    cursor = Cursor(data)
    assert cursor.u8("x") == 1 and cursor.array(1, "x").tolist() == [2]
    assert Cursor(np.empty(0, np.uint8)).left == 0
