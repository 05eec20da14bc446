"""The coder of the table of contents."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dcformat import layout
from dcformat.codecs.rangecoder import Encoder, put
from dcformat.codecs.text import pack, unpack
from dcformat.errors import (
    FormatError,
    LimitError,
    MemoryLimitError,
    StreamError,
    TrailingDataError,
    WorkLimitError,
)
from tests.format.strategies import COMPILED

PRESET = b"fc1.weight fc1.bias fc2.weight fc2.bias conv1.weight"


@settings(max_examples=60)
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


@pytest.mark.skipif(not COMPILED, reason="needs compiled kernels")
@pytest.mark.parametrize(("size", "as_python"), [(100, True), (9000, False)])
def test_the_first_text_on_a_machine_without_saved_code(tmp_path: Path, size: int, as_python: bool) -> None:
    script = (
        "import json, sys\nfrom dcformat import layout\nfrom dcformat.codecs.text import pack, unpack\n"
        f"data = bytes(i * i % 251 for i in range({size}))\n"
        "packed = pack(data, layout.CONTENTS_PRESET)\n"
        "same = unpack(packed, 1 << 20, layout.CONTENTS_PRESET) == data\n"
        "print(json.dumps([len(packed), same, 'numba' not in sys.modules]))"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "DCFORMAT_"))}
    env |= {"DCFORMAT_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, check=True)
    assert json.loads(done.stdout) == [{100: 125, 9000: 288}[size], True, as_python]


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
    """[A2] Nothing follows the length."""
    encoder = Encoder(0)
    put(encoder, 5, 16)
    put(encoder, 15, 0)
    with pytest.raises(StreamError, match="its end"):
        unpack(encoder.take() + b"\xff", 1 << 16)


@settings(max_examples=150)
@given(st.binary(max_size=40))
def test_any_bytes_give_bytes_or_a_format_error(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert len(unpack(data, 500, PRESET)) <= 500


def test_work_and_memory_are_bounded_before_they_are_needed() -> None:
    packed = pack(bytes(40_000))
    assert len(packed) < 100
    assert unpack(packed, 40_000, max_memory=2_832_512, max_work=64 * 40_000) == bytes(40_000)
    with pytest.raises(WorkLimitError, match="2,560,000 steps"):
        unpack(packed, 40_000, max_work=64 * 40_000 - 1)
    with pytest.raises(MemoryLimitError, match="2,832,512 bytes"):
        unpack(packed, 40_000, max_memory=2_832_511)


@pytest.mark.skipif(not COMPILED, reason="kernels as Python take minutes")
def test_long_texts_and_displaced_contexts() -> None:
    data = np.random.default_rng(2).integers(97, 101, 1 << 19, np.uint8).tobytes() + b"the end"
    packed = pack(data, PRESET)
    assert len(packed) < len(data) // 3
    assert unpack(packed, len(data), PRESET) == data
