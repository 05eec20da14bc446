"""The range coder, its adaptive models, and the end of a stream."""

from __future__ import annotations

import contextlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcformat.codecs import values
from dcformat.codecs.grid import INTEGER_MODELS
from dcformat.codecs.rangecoder import HALF, Decoder, Encoder, Stream, code_bit, fresh, get, probability, put, update
from dcformat.errors import FormatError, StreamError, TrailingDataError

_DECISIONS = st.lists(st.tuples(st.sampled_from([1, 32, 20000, 32768, 65504, 65535]), st.integers(0, 1)), max_size=300)


def _encoded(decisions: list[tuple[int, int]]) -> bytes:
    encoder = Encoder(2 * len(decisions) + 8)
    stream, interval = Stream(False, encoder.buf, 0), tuple(encoder.state.tolist())
    for p, bit in decisions:
        _, interval = code_bit(stream, interval, p, bit)
    encoder.state[:] = interval
    return encoder.take()


def _decode(data: bytes, probabilities: list[int]) -> list[int]:
    decoder = Decoder(np.frombuffer(data, np.uint8))
    stream, interval = Stream(True, decoder.buf, len(data)), tuple(decoder.state.tolist())
    out = []
    for p in probabilities:
        bit, interval = code_bit(stream, interval, p, 0)
        out.append(bit)
    decoder.state[:] = interval
    decoder.finish()
    return out


@settings(max_examples=100)
@given(_DECISIONS)
def test_round_trip(decisions: list[tuple[int, int]]) -> None:
    data = _encoded(decisions)
    assert _decode(data, [p for p, _ in decisions]) == [bit for _, bit in decisions]


@settings(max_examples=60)
@given(_DECISIONS.filter(len))
def test_length_is_the_information_and_at_most_two_bytes(decisions: list[tuple[int, int]]) -> None:
    likelihood = Fraction(1)
    for p, bit in decisions:
        likelihood *= Fraction(p if bit else 65536 - p, 65536)
    # The interval's rounding, which matters only for probabilities near 0, may cost 1 %.
    assert (
        8 * len(_encoded(decisions))
        <= 1.01 * (likelihood.denominator.bit_length() - likelihood.numerator.bit_length()) + 17
    )


@settings(max_examples=60)
@given(_DECISIONS.filter(len), st.binary(min_size=1, max_size=2))
def test_one_stream_for_each_sequence(decisions: list[tuple[int, int]], more: bytes) -> None:
    """[A1] No byte may follow or be missing, and each sequence of bits has only one form in bytes."""
    data = _encoded(decisions)
    probabilities = [p for p, _ in decisions]
    bits = [bit for _, bit in decisions]
    others = [data + more]
    if data:
        others += [data[:-1], data[:-1] + bytes((data[-1] ^ 1,))]
    for other in others:
        with contextlib.suppress(FormatError):
            assert _decode(other, probabilities) != bits


def test_wrong_ends_are_refused() -> None:
    """[A1]"""
    data = _encoded([(32768, 0), (32768, 1)])
    assert data == b"\x80" and _decode(data, [32768, 32768]) == [0, 1]
    with pytest.raises(TrailingDataError):
        _decode(data + b"\0", [32768, 32768])
    with pytest.raises(StreamError):
        _decode(b"\x81", [32768, 32768])


def test_carry_runs_through_all_bytes_before() -> None:
    bits = [(1, 0)] * 40 + [(65535, 0)] * 3
    assert _decode(_encoded(bits), [p for p, _ in bits]) == [bit for _, bit in bits]
    zeros = _encoded([(32768, 0)] * 32)
    assert zeros == b"\xff\xff\xff\xff"


def test_known_bytes() -> None:
    assert _encoded([]) == b""
    assert _encoded([(32768, 1)]) == b""
    assert _encoded([(32768, 0)]) == b"\x80"
    assert _encoded([(20000, 0), (20000, 1), (65504, 0), (32, 1), (32768, 0)]).hex() == "84613775"


def test_a_models_steps() -> None:
    models = np.array([HALF], np.int32)
    seen = []
    for bit in (1, 1, 0, 1):
        seen.append(int(probability(models, 0)))
        update(models, 0, 2, bit)
    assert seen == [32768, 54612, 58982, 42130]
    assert int(models[0]) & 511 == 2
    for _ in range(3000):
        update(models, 0, 510, 1)
    assert probability(models, 0) == 65504 and int(models[0]) & 511 == 510


def test_plain_numbers() -> None:
    encoder = Encoder(0)
    for width, value in ((0, 0), (1, 1), (8, 200), (32, 2**32 - 1), (3, 5)):
        put(encoder, width, value)
    decoder = Decoder(np.frombuffer(encoder.take(), np.uint8))
    assert [get(decoder, width) for width in (0, 1, 8, 32, 3)] == [0, 1, 200, 2**32 - 1, 5]
    decoder.finish()


@settings(max_examples=40)
@given(st.lists(st.integers(-(2**20) + 1, 2**20 - 1), min_size=1, max_size=60))
def test_integers(numbers: list[int]) -> None:
    encoder = Encoder(16 * len(numbers))
    given_numbers = np.array(numbers, np.int64)
    values.encode_integers(encoder.state, encoder.buf, 0, fresh(INTEGER_MODELS), given_numbers)
    decoder = Decoder(np.frombuffer(encoder.take(), np.uint8))
    out = np.zeros(len(numbers), np.int64)
    values.decode_integers(decoder.state, decoder.buf, len(decoder.buf), fresh(INTEGER_MODELS), out)
    assert out.tolist() == numbers
