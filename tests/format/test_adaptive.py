"""Coder 2."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcformat.codecs import adaptive
from dcformat.codecs.rangecoder import Decoder, Encoder
from dcformat.codecs.values import put
from dcformat.errors import FormatError, LimitError, StreamError
from tests.format.coding import Matrix, check_decoded, check_round_trip, coded, matrices, matrix


@settings(max_examples=40, deadline=None)
@given(matrices())
def test_round_trip(example: Matrix) -> None:
    check_round_trip(adaptive, example)


@pytest.mark.parametrize("symbols, negatives", [(65536, 30000), (700, 0), (513, 513)])
def test_many_symbols(symbols: int, negatives: int) -> None:
    check_round_trip(adaptive, matrix(1, 4, 20, 0.4, symbols, negatives))


def test_no_entries_take_no_bytes() -> None:
    assert check_round_trip(adaptive, matrix(0, 5, 7, 0.0, 9, 4)) == b""


def test_known_bytes() -> None:
    given = Matrix(
        np.array([0, 2, 2, 3], np.int64), np.array([1, 3, 0], np.int32), np.array([0, 2, 1], np.uint16), 3, 5, 3, 1
    )
    assert check_round_trip(adaptive, given).hex() == "f73290"


def test_takes_runs_for_positions_without_pattern_and_contexts_for_others() -> None:
    scattered = check_round_trip(adaptive, matrix(5, 40, 60, 0.1, 1, 0))
    striped = np.arange(40 * 60).reshape(40, 60) % 60 < 12
    pointers = np.arange(41, dtype=np.int64) * 12
    lined = Matrix(pointers, np.nonzero(striped)[1].astype(np.int32), np.zeros(480, np.uint16), 40, 60, 1, 0)
    # The first bit is the variant; a 1 takes the lower half of the interval.
    assert scattered[0] >= 128 and check_round_trip(adaptive, lined)[0] < 128
    assert len(check_round_trip(adaptive, lined)) < 25


def test_dense() -> None:
    labels = np.random.default_rng(3).integers(0, 9, 12 * 25).astype(np.uint16)
    encoder = Encoder(0)
    adaptive.encode_dense(encoder, labels, 12, 25, 9, 4)
    decoder = Decoder(np.frombuffer(encoder.take(), np.uint8))
    np.testing.assert_array_equal(adaptive.decode_dense(decoder, 12, 25, 9, 4), labels)
    decoder.finish()


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=40), st.integers(1, 9), st.integers(1, 30), st.data())
def test_any_bytes_give_a_matrix_or_a_format_error(data: bytes, lines: int, length: int, more: st.DataObject) -> None:
    """Labels below their number, positions in order, as many as are stored [A2]."""
    stored = more.draw(st.integers(1, lines * length))
    symbols = more.draw(st.sampled_from([1, 3, 6, 300]))
    try:
        result = adaptive.decode(Decoder(np.frombuffer(data, np.uint8)), lines, length, stored, symbols, symbols // 2)
    except FormatError:
        return
    check_decoded(result, lines, length, stored, symbols)


def test_entry_beyond_the_last_line() -> None:
    """[A10]"""
    wide = coded(adaptive, matrix(2, 1, 200, 0.05, 1, 0))
    with pytest.raises(StreamError, match="entries"):
        adaptive.decode(Decoder(np.frombuffer(wide, np.uint8)), 1, 10, 10, 1, 0)


def test_contexts_only_up_to_a_size() -> None:
    """[A11]"""
    encoder = Encoder(0)
    put(encoder, 1, 1)
    put(encoder, 10, 0)
    with pytest.raises(LimitError):
        adaptive.decode(Decoder(np.frombuffer(encoder.take(), np.uint8)), 1, adaptive.MOST_LENGTH + 1, 3, 1, 0)
    assert not adaptive.suits_contexts(1 << 15, 1 << 14)
    long = Matrix(
        np.array([0, 2], np.int64), np.array([5, 1 << 21], np.int32), np.zeros(2, np.uint16), 1, 1 << 22, 1, 0
    )
    assert check_round_trip(adaptive, long)[0] >= 128


def test_zeros_without_end_are_refused() -> None:
    """[A2]"""
    with pytest.raises(StreamError):
        adaptive.decode(Decoder(np.frombuffer(b"\x20\xff", np.uint8)), 1 << 10, 1 << 10, 1 << 19, 256, 128)
