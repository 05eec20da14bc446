"""Coders 2 and 3: the requirements on both, then those on one of them."""

from __future__ import annotations

from math import ceil, floor, log2
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcformat import layout
from dcformat.codecs import adaptive, fits, logistic, mixing
from dcformat.codecs.alphabet import Alphabet
from dcformat.codecs.csr_view import all_elements
from dcformat.codecs.rangecoder import Decoder, Encoder, put
from dcformat.errors import FormatError, LimitError, StreamError
from tests.format.coding import Matrix, check_decoded, check_round_trip, coded, decoder, given_matrix, matrices, matrix

both = pytest.mark.parametrize("coder", [adaptive, mixing])


@both
@settings(max_examples=40)
@given(example=matrices())
def test_round_trip(coder: ModuleType, example: Matrix) -> None:
    check_round_trip(coder, example)


@both
@pytest.mark.parametrize("symbols, negatives", [(65536, 30000), (700, 0), (513, 513)])
def test_many_symbols(coder: ModuleType, symbols: int, negatives: int) -> None:
    check_round_trip(coder, matrix(1, 4, 20, 0.4, symbols, negatives))


@both
def test_no_entries_take_no_bytes(coder: ModuleType) -> None:
    assert check_round_trip(coder, matrix(0, 5, 7, 0.0, 9, 4)) == b""


@both
def test_every_element_an_entry(coder: ModuleType) -> None:
    codes = np.random.default_rng(3).integers(0, 9, 12 * 25).astype(np.uint16)
    check_round_trip(coder, Matrix(all_elements(codes, 12, 25), Alphabet(9, 4)))


@both
@settings(max_examples=80)
@given(data=st.binary(max_size=40), lines=st.integers(1, 9), length=st.integers(1, 30), more=st.data())
def test_any_bytes_give_a_matrix_or_a_format_error(
    coder: ModuleType, data: bytes, lines: int, length: int, more: st.DataObject
) -> None:
    """Code symbols are in range, and positions are in order and as many as are stored [A2]."""
    nnz = more.draw(st.integers(1, lines * length))
    symbols = more.draw(st.sampled_from([1, 3, 6, 300]))
    try:
        found = coder.decode(decoder(data), lines, length, nnz, Alphabet(symbols, symbols // 2))
    except FormatError:
        return
    check_decoded(found, lines, length, nnz, symbols)


# --- coder 2 --------------------------------------------------------------------------------------------------------


def test_known_bytes_of_coder_2() -> None:
    assert check_round_trip(adaptive, given_matrix([[1, 3], [], [0]], [0, 2, 1], 5, 3, 1)).hex() == "f73290"


def test_takes_runs_for_positions_without_pattern_and_contexts_for_others() -> None:
    scattered = check_round_trip(adaptive, matrix(5, 40, 60, 0.1, 1, 0))
    striped = check_round_trip(adaptive, given_matrix([list(range(12))] * 40, [0] * 480, 60, 1, 0))
    # The first bit is the variant; a 1 takes the lower half of the interval.
    assert scattered[0] >= 128 and striped[0] < 128
    assert len(striped) < 25


def test_entry_beyond_the_last_line() -> None:
    """[A10]"""
    wide = coded(adaptive, matrix(2, 1, 200, 0.05, 1, 0))
    with pytest.raises(StreamError, match="entries"):
        adaptive.decode(decoder(wide), 1, 10, 10, Alphabet(1, 0))


def test_contexts_only_up_to_a_size() -> None:
    """[A11]"""
    with pytest.raises(LimitError):
        adaptive.decode(_head((1, 1), (10, 0)), 1, layout.MOST_COLUMNS + 1, 3, Alphabet(1, 0))
    assert not fits(layout.CODER_ADAPTIVE, 1 << 15, 1 << 14)
    long = given_matrix([[5, 1 << 21]], [0, 0], 1 << 22, 1, 0)
    assert check_round_trip(adaptive, long)[0] >= 128


def test_zeros_without_end_are_refused() -> None:
    """[A2]"""
    with pytest.raises(StreamError):
        adaptive.decode(decoder(b"\x20\xff"), 1 << 10, 1 << 10, 1 << 19, Alphabet(256, 128))


# --- coder 3 --------------------------------------------------------------------------------------------------------


def test_known_bytes_of_coder_3() -> None:
    rows = [[3, 4, 12, 13], [], [4, 13, 14, 22, 23], [0, 4, 5, 13]]
    example = given_matrix(rows, [1, 1, 1, 0, 2, 2, 3, 2, 2, 4, 0, 1, 1], 27, 5, 2)
    assert check_round_trip(mixing, example).hex() == "ffe101b5f57319cb3fb1ff1e"


def test_blots_cost_less_than_with_coder_2() -> None:
    """The entries form two-dimensional groups, each of one sign."""
    random = np.random.default_rng(1)
    there, sign = np.zeros((10, 12, 12), bool), np.zeros((10, 12, 12), bool)
    for line in range(10):
        for positive in (False, True):
            y, x = random.integers(0, 8, 2)
            there[line, y : y + 4, x : x + 4] = random.random((4, 4)) < 0.8
            sign[line, y : y + 4, x : x + 4] = positive
    rows = [np.flatnonzero(line).tolist() for line in there]
    blots = given_matrix(rows, sign[there].tolist(), 144, 2, 1)
    assert len(check_round_trip(mixing, blots)) < len(check_round_trip(adaptive, blots))


def test_size_limits() -> None:
    """[A12]"""
    one = Alphabet(1, 0)
    with pytest.raises(LimitError):
        mixing.decode(decoder(bytes(4)), 1, layout.MOST_COLUMNS + 1, 1, one)
    with pytest.raises(LimitError):
        mixing.decode(decoder(bytes(4)), (layout.MOST_ELEMENTS[layout.CODER_MIXING] >> 10) + 1, 1 << 10, 1, one)
    with pytest.raises(LimitError):
        mixing.encode(Encoder(0), given_matrix([[0]], [0], layout.MOST_COLUMNS + 1, 1, 0).view, one)


def _head(*numbers: tuple[int, int]) -> Decoder:
    encoder = Encoder(0)
    for width, value in numbers:
        put(encoder, width, value)
    return decoder(encoder.take())


def test_lag_of_one() -> None:
    """[A13]"""
    with pytest.raises(StreamError, match="lag"):
        mixing.decode(_head((8, 1), (2, 0), (40, 0)), 4, 4, 2, Alphabet(1, 0))


def test_too_few_cells_in_nonempty_lines() -> None:
    """[A14]"""
    with pytest.raises(StreamError, match="elements"):
        mixing.decode(_head((8, 0), (2, 3), (64, 0)), 3, 3, 2, Alphabet(1, 0))


def test_tables_are_far_from_ties() -> None:
    """Any precise logarithm gives the specified tables, and the package uses these tables."""
    cases = [256 * log2((q + 0.5) / (4095.5 - q)) for q in range(4096)]
    cases += [65536 / (1 + 2 ** (-x / 256)) for x in range(-logistic.MAX_ODDS, logistic.MAX_ODDS + 1) if x]
    cases += [256 * log2(n) for n in range(2, 8192) if n & (n - 1)]
    assert all(min(c + 0.5 - floor(c + 0.5), ceil(c + 0.5) - c - 0.5) > 2**-20 for c in cases)
    assert logistic.STRETCH[[0, 2048, 4095]].tolist() == [-3328, 0, 3328]
    assert logistic.SQUASH[[0, 3071, 6142]].tolist() == [16, 32768, 65520]
    assert logistic.LOG[[0, 1, 3, 8191]].tolist() == [0, 0, 406, 3328]
