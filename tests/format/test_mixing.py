"""Coder 3."""

from __future__ import annotations

from math import ceil, floor, log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcformat.codecs import adaptive, logistic, mixing
from dcformat.codecs.rangecoder import Decoder, Encoder
from dcformat.codecs.values import put
from dcformat.errors import FormatError, LimitError, StreamError
from tests.format.coding import Matrix, check_decoded, check_round_trip, matrices, matrix


@settings(max_examples=30, deadline=None)
@given(matrices())
def test_round_trip(example: Matrix) -> None:
    check_round_trip(mixing, example)


@pytest.mark.parametrize("symbols, negatives", [(65536, 30000), (700, 0), (513, 513)])
def test_many_symbols(symbols: int, negatives: int) -> None:
    check_round_trip(mixing, matrix(1, 4, 20, 0.4, symbols, negatives))


def test_no_entries_take_no_bytes() -> None:
    assert check_round_trip(mixing, matrix(0, 5, 7, 0.0, 9, 4)) == b""


def test_known_bytes() -> None:
    rows = [[3, 4, 12, 13], [], [4, 13, 14, 22, 23], [0, 4, 5, 13]]
    given = Matrix(
        np.array([0, 4, 4, 9, 13], np.int64), np.array([x for row in rows for x in row], np.int32),
        np.array([1, 1, 1, 0, 2, 2, 3, 2, 2, 4, 0, 1, 1], np.uint16), 4, 27, 5, 2,
    )  # fmt: skip
    assert check_round_trip(mixing, given).hex() == "ffe101b5f57319cb3fb1ff1e"


def test_blots_cost_less_than_with_coder_2() -> None:
    """Entries that keep together in two dimensions, of one sign each."""
    random = np.random.default_rng(1)
    there, sign = np.zeros((10, 12, 12), bool), np.zeros((10, 12, 12), bool)
    for line in range(10):
        for positive in (False, True):
            y, x = random.integers(0, 8, 2)
            there[line, y : y + 4, x : x + 4] = random.random((4, 4)) < 0.8
            sign[line, y : y + 4, x : x + 4] = positive
    flat, labels = there.reshape(10, 144), sign[there].astype(np.uint16)
    pointers = np.concatenate([[0], np.cumsum(flat.sum(1))]).astype(np.int64)
    blots = Matrix(pointers, np.nonzero(flat)[1].astype(np.int32), labels, 10, 144, 2, 1)
    assert len(check_round_trip(mixing, blots)) < len(check_round_trip(adaptive, blots))


def test_dense() -> None:
    labels = np.random.default_rng(3).integers(0, 9, 12 * 25).astype(np.uint16)
    encoder = Encoder(0)
    mixing.encode_dense(encoder, labels, 12, 25, 9, 4)
    decoder = Decoder(np.frombuffer(encoder.take(), np.uint8))
    np.testing.assert_array_equal(mixing.decode_dense(decoder, 12, 25, 9, 4), labels)
    decoder.finish()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40), st.integers(1, 9), st.integers(1, 30), st.data())
def test_any_bytes_give_a_matrix_or_a_format_error(data: bytes, lines: int, length: int, more: st.DataObject) -> None:
    stored = more.draw(st.integers(1, lines * length))
    symbols = more.draw(st.sampled_from([1, 3, 6, 300]))
    try:
        result = mixing.decode(Decoder(np.frombuffer(data, np.uint8)), lines, length, stored, symbols, symbols // 2)
    except FormatError:
        return
    check_decoded(result, lines, length, stored, symbols)


def test_size_limits() -> None:
    """[A12]"""
    decoder = Decoder(np.zeros(4, np.uint8))
    with pytest.raises(LimitError):
        mixing.decode(decoder, 1, mixing.MOST_LENGTH + 1, 1, 1, 0)
    with pytest.raises(LimitError):
        mixing.decode(decoder, (mixing.MOST_CELLS >> 10) + 1, 1 << 10, 1, 1, 0)
    with pytest.raises(LimitError):
        mixing.encode(Encoder(0), *matrix(1, 1, 10, 1.0, 1, 0)[:4], mixing.MOST_LENGTH + 1, 1, 0)


def _head(*numbers: tuple[int, int]) -> Decoder:
    encoder = Encoder(0)
    for width, value in numbers:
        put(encoder, width, value)
    return Decoder(np.frombuffer(encoder.take(), np.uint8))


def test_distance_of_one() -> None:
    """[A13]"""
    with pytest.raises(StreamError, match="distance"):
        mixing.decode(_head((8, 1), (2, 0), (40, 0)), 4, 4, 2, 1, 0)


def test_too_few_live_cells() -> None:
    """[A14]"""
    with pytest.raises(StreamError, match="cells"):
        mixing.decode(_head((8, 0), (2, 3), (64, 0)), 3, 3, 2, 1, 0)


def test_tables_are_far_from_ties() -> None:
    """Any precise logarithm gives the specified tables, and these are them."""
    cases = [256 * log2((q + 0.5) / (4095.5 - q)) for q in range(4096)]
    cases += [65536 / (1 + 2 ** (-x / 256)) for x in range(-logistic.MOST, logistic.MOST + 1) if x]
    cases += [256 * log2(n) for n in range(2, 8192) if n & (n - 1)]
    assert all(min(c + 0.5 - floor(c + 0.5), ceil(c + 0.5) - c - 0.5) > 2**-20 for c in cases)
    assert logistic.STRETCH[[0, 2048, 4095]].tolist() == [-3328, 0, 3328]
    assert logistic.SQUASH[[0, 3071, 6142]].tolist() == [16, 32768, 65520]
    assert logistic.LOG[[0, 1, 3, 8191]].tolist() == [0, 0, 406, 3328]
