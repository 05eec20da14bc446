"""The coder of the table of contents."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dcformat import layout
from dcformat.codecs.rangecoder import Encoder
from dcformat.codecs.text import pack, unpack
from dcformat.codecs.values import put
from dcformat.errors import FormatError, LimitError, StreamError, TrailingDataError

PRESET = b"fc1.weight fc1.bias fc2.weight fc2.bias conv1.weight"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"x", PRESET, layout.CONTENTS_PRESET]))
@example(b"", b"")
@example(bytes(300), PRESET)
@example(bytes(range(256)) * 2, b"")
def test_round_trip(data: bytes, preset: bytes) -> None:
    assert unpack(pack(data, preset), len(data), preset) == data


def test_known_bytes() -> None:
    assert pack(b"") == b"\xf8"
    assert pack(b"abracadabra").hex() == "dc9e71624773ae"
    assert pack(b"fc3.weight", PRESET).hex() == "ddbd395c4f"


def test_the_preset_helps() -> None:
    assert len(pack(PRESET, PRESET)) < len(PRESET) // 4 < len(pack(PRESET)) // 2


def test_random_bytes_grow_little() -> None:
    data = np.random.default_rng(1).bytes(1000)
    assert len(pack(data)) < 1080


def test_longer_than_allowed() -> None:
    """[A15]"""
    with pytest.raises(LimitError):
        unpack(pack(b"abc"), 2)
    encoder = Encoder(0)
    put(encoder, 5, 31)
    put(encoder, 30, 0)
    with pytest.raises(LimitError):
        unpack(encoder.take(), 1 << 16)


def test_end() -> None:
    data = pack(b"fc1.weight and so on", PRESET)
    with pytest.raises(TrailingDataError):
        unpack(data + b"\0", 100, PRESET)
    for size in range(len(data)):
        with contextlib.suppress(FormatError):
            assert unpack(data[:size], 100, PRESET) != b"fc1.weight and so on"


def test_zeros_without_end_are_refused() -> None:
    """[A2] A length with nothing after it."""
    encoder = Encoder(0)
    put(encoder, 5, 16)
    put(encoder, 15, 0)
    with pytest.raises(StreamError, match="its end"):
        unpack(encoder.take() + b"\xff", 1 << 16)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_give_bytes_or_a_format_error(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert len(unpack(data, 500, PRESET)) <= 500
