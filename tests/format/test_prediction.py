"""Coder 6: what its predictor finds, what its files take, and what a reader refuses."""

from __future__ import annotations

import numpy as np
import pytest

import dcformat
from dcformat import layout
from dcformat.codecs import prediction
from dcformat.codecs.grid import INTEGER_MODELS
from dcformat.codecs.payload_layout import Coding, parse_payload
from dcformat.codecs.payload_reader import read_payload
from dcformat.codecs.payload_writer import encode_payload
from dcformat.codecs.prediction_kernels import Frame
from dcformat.codecs.prediction_writer import smallest
from dcformat.codecs.rangecoder import Decoder, Encoder, fresh, put
from dcformat.codecs.values import encode_integers
from dcformat.contents import TensorInfo
from dcformat.errors import LimitError, StreamError
from dcformat.model import Model, Tensor

LINES = 24


def spectra(lines: int, seed: int = 1) -> np.ndarray:
    """Return int8 lines of five spectra of 32 frequencies: smooth, and similar from one spectrum to the next."""
    source = np.random.Generator(np.random.PCG64(seed))
    steps = source.integers(-9, 10, (lines, 5, 32))
    smooth = np.cumsum(steps, axis=2)
    smooth += np.cumsum(source.integers(-2, 3, (lines, 5, 32)), axis=1) - smooth.mean(axis=2, keepdims=True).astype(int)
    smooth[:, 1:] = smooth[:, :1] + source.integers(-3, 4, (lines, 4, 32))
    return np.clip(smooth, -128, 127).astype(np.int8).reshape(lines, 160)


def int8(values: np.ndarray) -> Tensor:
    return Tensor("w", values.shape, "int8", values.reshape(-1), scale=0.5)


def coded(values: np.ndarray, frame: Frame) -> int:
    encoder = Encoder(16)
    prediction.encode(encoder, values, frame)
    return len(encoder.take())


def none(length: int) -> Frame:
    return Frame(np.zeros(0, np.int64), length, 1)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (1, 9), (9, 1), (5, 6), (3, 2, 3, 3), (0, 4)])
def test_integers_return_from_both_orientations(shape, transposed) -> None:
    source = np.random.Generator(np.random.PCG64(2))
    tensor = Tensor("w", shape, "int8", source.integers(-128, 128, int(np.prod(shape))).astype(np.int8), scale=0.5)
    payload = encode_payload(tensor, Coding(layout.CODER_PREDICTION, transposed=transposed))
    info = TensorInfo("w", shape, "int8", "dense", tensor.size, 0, 0.5, len(payload), 0, 0)
    again = read_payload(parse_payload(info, np.frombuffer(payload, np.uint8)))
    assert np.array_equal(again.data, tensor.data) and again.shape == shape


@pytest.mark.parametrize("lines_each", [1, 2])
def test_chunks_begin_afresh(lines_each) -> None:
    values = spectra(3)
    payload = encode_payload(int8(values), Coding(layout.CODER_PREDICTION), lines_each)
    info = TensorInfo("w", values.shape, "int8", "dense", values.size, 0, 0.5, len(payload), 0, 0)
    parsed = parse_payload(info, np.frombuffer(payload, np.uint8))
    assert [chunk.lines for chunk in parsed.chunks] == [lines_each] * (3 // lines_each) + [1] * (3 % lines_each)
    assert np.array_equal(read_payload(parsed).data, values.reshape(-1))


@pytest.mark.needs_compiler
def test_a_predictor_that_fits_saves_what_it_explains() -> None:
    values = spectra(LINES)
    frame = Frame(np.array([0, 0, 0, 0, 64]), 32, 5)
    assert coded(values, frame) < 0.75 * coded(values, none(160))


@pytest.mark.needs_compiler
def test_the_writer_finds_the_distance_of_similar_integers() -> None:
    values = spectra(LINES)
    found = smallest(values, values.shape)
    decoder = Decoder(np.frombuffer(found, np.uint8))
    again = np.zeros_like(values)
    prediction.decode(decoder, again)
    decoder.finish()
    assert np.array_equal(again, values)
    assert len(found) < 0.7 * coded(values, none(160))


@pytest.mark.needs_compiler
def test_kernels_are_blocks_of_their_own() -> None:
    """In each 3 x 3 kernel, all integers resemble the first one, and kernels have nothing in common."""
    source = np.random.Generator(np.random.PCG64(3))
    centre = source.integers(-100, 100, (4 * LINES, 4, 1, 1))
    values = (centre + source.integers(-3, 4, (4 * LINES, 4, 3, 3))).astype(np.int8)
    matrix = values.reshape(len(values), -1)
    assert len(smallest(matrix, values.shape)) < 0.92 * len(smallest(matrix, matrix.shape))


@pytest.mark.needs_compiler
def test_only_tiny_predicts() -> None:
    model = Model({"w": int8(spectra(LINES))})
    coders = {}
    for mode in ("fast", "small", "tiny"):
        with dcformat.open(dcformat.dumps(model, mode=mode)) as file:
            coders[mode] = file.usage("w").coder
            assert np.array_equal(file.tensor("w").to_dense(), model.tensors["w"].to_dense())
    assert coders["tiny"] == "prediction" and "prediction" not in (coders["fast"], coders["small"])


@pytest.mark.needs_compiler
def test_transposed_values_are_predicted_along_columns() -> None:
    values = np.ascontiguousarray(spectra(LINES).T)
    with dcformat.open(dcformat.dumps(Model({"w": int8(values)}), mode="tiny")) as file:
        assert Coding.of(file.payload("w")[0]) == Coding(layout.CODER_PREDICTION, transposed=True)
        assert np.array_equal(file.tensor("w").data, values.reshape(-1))


def test_a_line_that_is_too_long_is_refused_before_anything_is_decoded() -> None:
    with pytest.raises(
        LimitError, match="coder 6's elements: expected at most 67,108,864, in lines of at most 1,048,576, found 1 x"
    ):
        prediction.decode(Decoder(np.zeros(4, np.uint8)), np.zeros((1, (1 << 20) + 1), np.int8))


def test_a_few_bytes_cannot_stand_for_millions_of_integers() -> None:
    encoder = Encoder(16)
    put(encoder, 4, 0)
    with pytest.raises(StreamError, match="enough for 8,388,608 binary decisions"):
        prediction.decode(Decoder(np.frombuffer(encoder.take(), np.uint8)), np.zeros((1024, 1024), np.int8))


@pytest.mark.parametrize(("taps", "width", "height", "message"), [
    ((0,) * 15, 1, 1, "taps: expected at most 14, found 15"),
    ((1,), 0, 1, "block: expected within a line of 6, found 0 x 1"),
    ((1,), 3, 3, "block: expected within a line of 6, found 3 x 3"),
    ((257,), 6, 1, "coefficients: expected at most 256, found 257"),
])  # fmt: skip
def test_predictors_out_of_range_are_refused(taps, width, height, message) -> None:
    encoder = Encoder(64)
    put(encoder, 4, len(taps))
    encoder.reserve(256)
    encode_integers(
        encoder.state, encoder.buf, 0, fresh(INTEGER_MODELS), np.array([width - 1, height - 1, *taps], np.int64)
    )
    with pytest.raises(StreamError, match=message):
        prediction.decode(Decoder(np.frombuffer(encoder.take(), np.uint8)), np.zeros((2, 6), np.int8))
