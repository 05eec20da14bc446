"""Codebooks and value streams."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcformat.codecs.codebooks import encode_steps, read_codebook, write_codebook
from dcformat.codecs.rangecoder import GAMMA_MODELS, Decoder, Encoder, fresh, put
from dcformat.codecs.values import encode_integers, read_values, write_values
from dcformat.errors import CodebookError, EncodingError, FormatError
from dcformat.floats import ranks
from dcformat.model import STORAGE
from tests.format.strategies import VECTOR_DTYPES, codebook, values

DTYPES = VECTOR_DTYPES[:4]

Array = npt.NDArray[np.generic]


def _bits(array: Array) -> list[int]:
    found: list[int] = array.view(f"<u{array.dtype.itemsize}").tolist()
    return found


def _coded(array: Array, dtype: str = "float32") -> bytes:
    encoder = Encoder(0)
    write_values(encoder, array, dtype)
    return encoder.take()


def _check(array: Array, dtype: str = "float32") -> int:
    data = _coded(array, dtype)
    decoder = Decoder(np.frombuffer(data, np.uint8))
    assert _bits(read_values(decoder, len(array), dtype, "values")) == _bits(array)
    decoder.finish()
    return len(data)


def _check_codebook(array: Array, dtype: str = "float32") -> int:
    encoder = Encoder(0)
    write_codebook(encoder, array, dtype)
    data = encoder.take()
    decoder = Decoder(np.frombuffer(data, np.uint8))
    assert _bits(read_codebook(decoder, len(array), dtype, sparse=False)) == _bits(array)
    decoder.finish()
    return len(data)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from(DTYPES), st.integers(1, 150), st.booleans())
def test_values_round_trip(seed: int, dtype: str, count: int, grid: bool) -> None:
    _check(values(np.random.default_rng(seed), dtype, count, grid=grid), dtype)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from(DTYPES), st.integers(1, 150))
def test_codebooks_round_trip(seed: int, dtype: str, size: int) -> None:
    array = codebook(np.random.default_rng(seed), dtype, size, zero=True)
    assert (np.diff(ranks(array, dtype)) > 0).all()
    _check_codebook(array, dtype)


@pytest.mark.parametrize("scale", [1 / 64, 0.05, 0.0123456, 3.0, 1e-30])
@pytest.mark.parametrize("spread", [3, 20, 300])
def test_grids_cost_little(scale: float, spread: int) -> None:
    """Multiples of one float32 take about as many bits as their integers."""
    numbers = np.rint(np.random.default_rng(2).normal(0, spread, 100)) + 0.0
    array = (np.float64(np.float32(scale)) * numbers).astype("<f4")
    assert _check(array) < 100 * (np.log2(4.13 * spread) + 0.5) / 8 + 6
    distinct = np.unique(array)
    assert _check_codebook(distinct) < len(distinct) * (np.log2(4.13 * spread) + 2) / 8 + 10


def test_known_bytes() -> None:
    assert _coded(np.array([0.5, -0.25, 0, 1], "<f4")).hex() == "7e096f0a39"
    assert _coded(np.array([0.1, -1e-40, -0.0], "<f4")).hex() == "ff84b33332ff88d10aa528abee"


@pytest.mark.parametrize("array", [[0.0], [-0.0, 0.0], [1e-45, -1e-45], [3.4e38, 1e-45], [0.1, 0.2, 0.30000001]])
def test_special_values(array: list[float]) -> None:
    _check(np.array(array, "<f4"))
    _check_codebook(np.unique(np.array(array, "<f4")))


def _decoder(*numbers: tuple[int, int]) -> Decoder:
    encoder = Encoder(0)
    for width, value in numbers:
        put(encoder, width, value)
    return Decoder(np.frombuffer(encoder.take(), np.uint8))


@pytest.mark.parametrize("scale", [(24, 100, 0), (0, 0, 0), (0, 255, 0), (1, 255, 1)])
def test_invalid_scales(scale: tuple[int, int, int]) -> None:
    """[A6]"""
    width, exponent, mantissa = scale
    head = (1, 1), (5, width), (8, exponent), (width, mantissa), (32, 2**32 - 1)
    with pytest.raises(EncodingError):
        read_values(_decoder(*head), 1, "float32", "values")
    with pytest.raises(EncodingError):
        read_codebook(_decoder(*head), 1, "float32", sparse=True)


def _grid_of(number: int, models: int) -> Decoder:
    encoder = Encoder(64)
    for width, value in ((1, 1), (5, 0), (8, 127)):
        put(encoder, width, value)
    numbers = np.array([number], np.int64)
    if models:
        encode_steps(encoder.state, encoder.buf, 0, fresh(models), 1, 0, numbers)
    else:
        encode_integers(encoder.state, encoder.buf, 0, fresh(64), numbers)
    return Decoder(np.frombuffer(encoder.take(), np.uint8))


def test_integers_of_a_grid_are_bounded() -> None:
    """[A3] [A7]"""
    assert read_values(_grid_of(2**20 - 1, 0), 1, "float32", "values")[0] == 2**20 - 1
    with pytest.raises(EncodingError):
        read_values(_grid_of(2**20, 0), 1, "float32", "values")
    assert read_codebook(_grid_of(1 - 2**20, GAMMA_MODELS), 1, "float32", sparse=True)[0] == 1 - 2**20
    with pytest.raises(CodebookError):
        read_codebook(_grid_of(-(2**20), GAMMA_MODELS), 1, "float32", sparse=True)


def test_dropped_bits() -> None:
    """[A4] [A8]"""
    with pytest.raises(EncodingError):
        read_codebook(_decoder((5, 16), (32, 1)), 1, "float16", sparse=True)
    with pytest.raises(EncodingError):
        read_values(_decoder((5, 11), (2, 0), (32, 1)), 1, "float16", "values")
    with pytest.raises(EncodingError):
        read_values(_decoder((5, 1), (2, 0), (32, 1)), 1, "int8", "values")


def test_codebook_beyond_the_last_pattern() -> None:
    """[A5]"""
    encoder = Encoder(64)
    put(encoder, 5, 0)
    numbers = np.array([65534, 65537], np.int64)
    encode_steps(encoder.state, encoder.buf, 0, fresh(GAMMA_MODELS), 0, 16, numbers)
    with pytest.raises(CodebookError, match="range"):
        read_codebook(Decoder(np.frombuffer(encoder.take(), np.uint8)), 2, "float16", sparse=True)


@pytest.mark.parametrize("bits", [0x7F800000, 0xFF800000, 0x7FC00001, 0xFFFFFFFF])
def test_values_that_are_not_finite(bits: int) -> None:
    data = _coded(np.array([bits], "<u4").view("<f4"))
    found = read_values(Decoder(np.frombuffer(data, np.uint8)), 1, "float32", "values")
    assert found.view("<u4").tolist() == [bits]


def test_grids_are_finite() -> None:
    """[A9] [P5]"""
    huge = np.array([1, 2], np.int64)
    encoder = Encoder(64)
    for width, value in ((1, 1), (5, 0), (8, 254)):
        put(encoder, width, value)
    encode_integers(encoder.state, encoder.buf, 0, fresh(64), huge)
    with pytest.raises(EncodingError, match="infinite"):
        read_values(Decoder(np.frombuffer(encoder.take(), np.uint8)), 2, "float32", "values")
    encoder = Encoder(64)
    for width, value in ((1, 1), (5, 0), (8, 254)):
        put(encoder, width, value)
    encode_steps(encoder.state, encoder.buf, 0, fresh(GAMMA_MODELS), 1, 0, huge)
    with pytest.raises(CodebookError, match="infinite"):
        read_codebook(Decoder(np.frombuffer(encoder.take(), np.uint8)), 2, "float32", sparse=True)


def test_a_zero_in_a_sparse_codebook() -> None:
    encoder = Encoder(0)
    write_codebook(encoder, np.array([-1, 0, 1], "<f4"), "float32")
    with pytest.raises(CodebookError, match="zero"):
        read_codebook(Decoder(np.frombuffer(encoder.take(), np.uint8)), 3, "float32", sparse=True)


@settings(max_examples=100)
@given(st.binary(max_size=60), st.sampled_from(DTYPES), st.integers(1, 40), st.booleans())
def test_any_bytes_give_values_or_a_format_error(data: bytes, dtype: str, count: int, shared: bool) -> None:
    decoder = Decoder(np.frombuffer(data, np.uint8))
    try:
        if shared:
            found = read_codebook(decoder, count, dtype, sparse=False)
            assert (np.diff(ranks(found, dtype)) > 0).all()
        else:
            found = read_values(decoder, count, dtype, "values")
    except FormatError:
        return
    assert len(found) == count and found.dtype == STORAGE[dtype]
