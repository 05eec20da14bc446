"""Value blocks: planes, rANS, tables; every dtype and every bit of its values."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dcformat
from dcformat.codecs import MODES, Mode, planes, rans
from dcformat.codecs.payload_layout import parse_payload
from dcformat.codecs.value_block_writer import write_block
from dcformat.codecs.value_blocks import BY_AXIS, BY_HIGHEST, CODED, RAW, parse_block, read_block
from dcformat.dense import from_dense
from dcformat.errors import EncodingError, FormatError, StreamError
from dcformat.layout import DTYPES
from dcformat.model import STORAGE, Model
from tests.format.strategies import COMPILED, equal, examples, values

Bytes = npt.NDArray[np.uint8]
NO_CLASSES = np.empty(0, np.uint8)


def decoded(block: bytes, count: int, dtype: str) -> npt.NDArray[np.generic]:
    return read_block(parse_block(as_bytes(block), count, dtype, "values"), "values")


def as_bytes(block: bytes) -> Bytes:
    return np.frombuffer(block, np.uint8)


def raw(array: npt.NDArray[np.generic]) -> bytes:
    return np.ascontiguousarray(array).tobytes()


@pytest.mark.skipif(not COMPILED, reason="kernels as Python take minutes")
@pytest.mark.parametrize("count", [1 << 18, (1 << 18) + 1])
def test_the_last_byte_of_a_long_plane_counts(count: int) -> None:
    """Long planes are counted in pairs of bytes."""
    made = np.resize(np.arange(16, dtype=np.uint8), count)
    made[-1] = 200
    block = write_block(made, "uint8", "fast")
    assert count // 2 < len(block) < count // 2 + 1000
    assert raw(decoded(block, count, "uint8")) == raw(made)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
def test_blocks_of_every_dtype(dtype: str, mode: Mode) -> None:
    random = np.random.default_rng(1)
    for count in (1, 2, 300, 5000 if COMPILED else 700):
        some = values(random, dtype, count)
        few = some[random.integers(0, min(count, 5), count)]
        for made in (some, few):
            block = write_block(made, dtype, mode, (count,))
            assert len(block) <= made.nbytes + made.dtype.itemsize
            assert raw(decoded(block, count, dtype)) == raw(made)


@settings(max_examples=examples(150))
@given(
    st.sampled_from(DTYPES), st.sampled_from(MODES), st.lists(st.integers(1, 12), max_size=4), st.integers(0, 2**32 - 1)
)  # fmt: skip
def test_blocks_round_trip(dtype: str, mode: Mode, shape: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    count = int(np.prod(shape, dtype=np.int64))
    made = values(random, dtype, count)[random.integers(0, random.integers(1, count + 1), count)]
    block = write_block(made, dtype, mode, shape)
    assert raw(decoded(block, count, dtype)) == raw(made)


def test_planes_of_a_float() -> None:
    bits = np.array([0x3F800001, 0xBF800000], "<u4")
    found = planes.split(bits.view("<f4"), "float32")
    assert [plane.tolist() for plane in found] == [[127, 127], [0, 0], [0, 0], [2, 1]]
    assert [plane.tolist() for plane in planes.split(np.array([-1, 2], "<i2"), "int16")] == [[0, 0], [1, 4]]
    halves = planes.split(np.array([complex(1, -2)], "<c8"), "complex64")
    assert [plane.tolist() for plane in halves] == [[127, 128], [0, 0], [0, 0], [0, 1]]


def test_a_constant_plane_takes_two_bytes() -> None:
    made = np.arange(1000, dtype="<i8") % 3
    block = write_block(made, "int64", "fast")
    assert block[:14] == bytes([1, 0] * 7)
    assert len(block) < 14 + 1000 // 4


def test_fast_codes_a_plane_for_one_byte_in_16_and_by_exponent_beside_positions() -> None:
    random = np.random.default_rng(8)
    exponents = random.normal(120, 6, 1 << 15).astype(int)
    lowest = random.integers(0, 128, len(exponents)) + 40 * (exponents & 3)  # 7 bits, or 7.8 without exponents
    made = (exponents << 8 | lowest).astype("<u2")
    made = made >> 1 | made << 15
    alone = write_block(made, "bfloat16", "fast")
    beside = write_block(made, "bfloat16", "fast", beside_positions=True)
    assert [alone[0], alone[3]] == [CODED, RAW] and beside[3] & 15 == CODED | BY_HIGHEST << 2
    assert len(alone) - len(beside) > len(made) // 16
    assert raw(decoded(beside, len(made), "bfloat16")) == raw(made)
    pruned = np.where(random.random(1 << 16) < 0.5, 0, np.resize(made, 1 << 16)).astype("<u2").reshape(256, 256)
    with dcformat.open(dcformat.dumps(Model({"w": from_dense("w", pruned, "bfloat16")}))) as file:
        (chunk,) = parse_payload(file.info("w"), as_bytes(file.payload("w"))).chunks
    assert chunk.block is not None and [head.kind for head in chunk.block.heads] == [CODED, CODED]


def test_fast_tries_no_tables_for_few_values() -> None:
    """By exponent, 3 bits in place of 5."""
    random = np.random.default_rng(10)
    exponents = random.integers(120, 124, 1 << 13)
    made = (exponents << 8 | (exponents & 3) << 3 | random.integers(0, 8, len(exponents))).astype("<u2")
    made = made >> 1 | made << 15
    assert write_block(made, "bfloat16", "fast", beside_positions=True)[3] == CODED
    assert write_block(made, "bfloat16", "small", beside_positions=True)[3] & 15 == CODED | BY_HIGHEST << 2


def test_few_places_have_tables_of_their_own() -> None:
    """Cut in two by their means, the heavy exponents would share a table, and the light one would have the other."""
    random = np.random.default_rng(9)
    exponents = random.choice([118, 119, 120], 1 << 15, p=[0.01, 0.5, 0.49])
    light, wide, narrow = (random.integers(*ends, len(exponents)) for ends in ((0, 9), (0, 256), (140, 204)))
    lowest = np.where(exponents == 118, light, np.where(exponents == 119, wide, narrow))
    made = (exponents << 8 | lowest).astype("<u2")
    block = write_block(made >> 1 | made << 15, "bfloat16", "small")
    assert len(block) < (1 << 15) / 8 * (8 / 2 + 6 / 2 + 1.1) * 1.02


def test_tables_by_axis_and_by_exponent() -> None:
    random = np.random.default_rng(3)
    rows = (random.normal(size=(64, 300)) * np.exp2(random.integers(-30, 30, (64, 1)))).astype("<f4")
    block = write_block(rows.reshape(-1), "float32", "small", rows.shape)
    assert block[0] & 15 == CODED | BY_AXIS << 2
    exact = np.round(random.normal(size=(64, 300)) * 4096).astype("<f4") / np.float32(65536)
    block = write_block(exact.reshape(-1), "float32", "small", exact.shape)
    contexts = {head >> 2 & 3 for head in (block[0], block[2], block[4]) if head & 3 == CODED}
    assert BY_HIGHEST in contexts or len(block) < exact.nbytes // 2
    assert raw(decoded(block, exact.size, "float32")) == raw(exact)


@pytest.mark.parametrize("count", [1, 2, 4095, 8191, 8192, 70001, pytest.param(600000, marks=pytest.mark.slow)])
def test_rans_is_the_same_with_and_without_kernels(count: int) -> None:
    random = np.random.default_rng(count)
    symbols = np.minimum(random.geometric(0.2, count), 255).astype(np.uint8)
    classes = (np.arange(count) % 3).astype(np.uint8)
    both = np.zeros((3, 256), np.int64)
    np.add.at(both, (classes, symbols), 1)
    several = np.stack([rans.normalised(row) if row.any() else rans.normalised(row + 1) for row in both])
    alone = rans.normalised(np.bincount(symbols, minlength=256))[None]
    for frequencies, chosen in ((alone, NO_CLASSES), (several, classes)):
        data = rans.encode(symbols, frequencies, chosen)
        starts = np.cumsum(frequencies, axis=1) - frequencies
        states = np.full(rans.states_for(count), rans.LEAST, np.int64)
        words = np.empty(count, np.uint16)
        first = rans.encode_plain(symbols, frequencies.ravel(), starts.ravel(), chosen, states, words)
        assert states.astype("<u4").tobytes() + words[first:].tobytes() == data
        assert (rans.decode(as_bytes(data), count, frequencies, chosen, "symbols") == symbols).all()
        for damaged in (data[:-2], data + b"\0\0"):
            with pytest.raises(StreamError):
                rans.decode(as_bytes(damaged), count, frequencies, chosen, "symbols")
        out = np.empty(count, np.uint8)
        padded = np.append(as_bytes(data).view("<u2"), np.zeros(len(states) + 1, np.uint16))
        slots = rans.slots_plain(frequencies.ravel())
        for stored, whole in ((len(data) // 2, True), (len(data) // 2 - 1, False), (len(data) // 2 + 1, False)):
            assert rans.decode_plain(padded, stored, slots, chosen, np.empty(len(states), np.uint32), out) == whole
            assert (out == symbols).all()


@pytest.mark.slow
@pytest.mark.needs_compiler
@pytest.mark.parametrize("processor", ["x86-64-v2", "haswell"])
def test_processors_without_avx512_decode_the_same(processor: str) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("these are names of x86-64 processors")
    code = """
import numpy as np
from dcformat import jit
from dcformat.codecs import rans
symbols = np.minimum(np.random.default_rng(5).geometric(0.2, 100_003), 255).astype(np.uint8)
classes = (np.arange(len(symbols)) % 2).astype(np.uint8)
frequencies = rans.normalised(np.bincount(symbols, minlength=256))[None].repeat(2, axis=0)
for chosen in (classes[:0], classes):
    data = np.frombuffer(rans.encode(symbols, frequencies, chosen), np.uint8)
    assert (rans.decode(data, len(symbols), frequencies, chosen, "symbols") == symbols).all()
assert {kernel.state for kernel in jit.kernels() if kernel.name == "dcformat.codecs.rans._decode"} == {"compiled"}
"""
    chosen = {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": "+popcnt,+sse4.2", "DCFORMAT_CACHE": "off"}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **chosen}, check=True)


def test_frequencies_add_up_and_keep_rare_symbols() -> None:
    counts = np.zeros(256, np.int64)
    counts[:200], counts[255] = 1, 10**9
    found = rans.normalised(counts)
    assert found.sum() == 4096 and (found[:200] == 1).all() and found[200] == 0
    assert rans.normalised(np.ones(256, np.int64)).tolist() == [16] * 256
    assert rans.normalised(np.eye(256, dtype=np.int64)[7]).tolist() == [4096 * (n == 7) for n in range(256)]


@settings(max_examples=examples(300))
@given(st.sampled_from(DTYPES), st.integers(1, 300), st.binary(max_size=80), st.integers(0, 2**32 - 1))
def test_any_bytes_give_values_or_a_format_error(dtype: str, count: int, data: bytes, seed: int) -> None:
    random = np.random.default_rng(seed)
    block = bytearray(write_block(values(random, dtype, count), dtype, "small", (count,)))
    for place, byte in zip(random.integers(0, len(block), len(data)), data, strict=True):
        block[place] = byte
    for damaged in (data, bytes(block), bytes(block[: random.integers(0, len(block))])):
        try:
            found = decoded(damaged, count, dtype)
        except FormatError:
            continue
        assert len(found) == count and found.dtype == STORAGE[dtype]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_survives_a_file(dtype: str, mode: Mode) -> None:
    random = np.random.default_rng(5)
    for shape in ((), (1,), (7,), (20, 30), (0, 4), (3, 2, 2)) if COMPILED else ((), (0, 4), (3, 2, 2)):
        made = values(random, dtype, int(np.prod(shape, dtype=np.int64))).reshape(shape)
        for array in (made, np.where(random.random(shape) < 0.2, made, made.dtype.type(0)), np.zeros_like(made)):
            tensor = from_dense("t", array, dtype, exact=True)
            data = dcformat.dumps(Model({"t": tensor}), mode=mode)
            assert equal(dcformat.load(data).tensors["t"], tensor)


def test_bit_patterns_and_complex_numbers_are_given_by_dtype() -> None:
    with pytest.raises(EncodingError, match="bit patterns of float8_e5m2 as uint8"):
        from_dense("t", np.ones(3, np.float32), "float8_e5m2")
    with pytest.raises(EncodingError, match="complex64"):
        from_dense("t", np.ones(3, np.complex64))
    assert from_dense("t", np.ones(3, np.complex64), "complex64").dtype == "complex64"
    assert from_dense("t", np.ones(3)).dtype == "float32"
    assert from_dense("t", np.array([1 << 62]), "int64").data.tolist() == [1 << 62]


@pytest.mark.skipif(not COMPILED, reason="kernels as Python take minutes")
@pytest.mark.parametrize("mode", MODES)
def test_a_file_is_never_much_larger_than_its_values(mode: Mode) -> None:
    random = np.random.default_rng(6)
    for dtype in DTYPES:
        made = random.integers(0, 256, 1 << 12, np.uint8)
        array = (made & 1 if dtype == "bool" else made).view(STORAGE[dtype])
        size = len(dcformat.dumps(Model({"t": from_dense("t", array, dtype, exact=True)}), mode=mode))
        assert size <= array.nbytes + 64, dtype


@pytest.mark.slow
@pytest.mark.skipif(not COMPILED, reason="kernels as Python take minutes")
@pytest.mark.parametrize("mode", MODES)
def test_one_zero_costs_little(mode: Mode) -> None:
    array = np.random.default_rng(7).normal(size=(512, 512)).astype(np.float32)
    whole = len(dcformat.dumps(Model({"t": from_dense("t", array)}), mode=mode))
    array[100, 100] = 0
    assert len(dcformat.dumps(Model({"t": from_dense("t", array)}), mode=mode)) <= whole + 40


@pytest.mark.parametrize("columns", [3, 5, 9] if COMPILED else [3])
def test_scales_of_short_rows(columns: int) -> None:
    """A few integers are often further apart than 1, and the smallest difference is a multiple of the scale."""
    random = np.random.default_rng(8)
    scales = np.float32(0.01) * (1 + random.random((256, 1), np.float32))
    codes = random.integers(-127, 128, (256, columns))
    array = (codes.astype(np.float32) * scales).astype(np.float32)
    array[:, 0], array[7] = 127 * scales[:, 0], 0
    tensor = from_dense("t", array)
    data = dcformat.dumps(Model({"t": tensor}), mode="small")
    assert equal(dcformat.load(data).tensors["t"], tensor)
    assert len(data) < 256 * columns + 256 * 4 + 64
