"""Huffman symbols and positions without a compiler, compared with the kernels and with arithmetic."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import dcformat
from dcformat.codecs import huffman, index, plain
from dcformat.codecs.packed_writer import code_lengths
from tests.format.assembler import BLOCKS, RAW, SPARSE, Bits, block, one, text

ROOT = Path(__file__).resolve().parents[2]

symbols = st.lists(st.integers(0, 40), min_size=1, max_size=300).map(lambda v: np.array(v, np.uint8))


def written(values: npt.NDArray[np.uint8], at: int) -> tuple[npt.NDArray[np.uint8], huffman.Lengths, int]:
    lengths = code_lengths(np.bincount(values, minlength=64))
    out = np.zeros(len(values) * 2 + 16, np.uint8)
    end = huffman.write_codes(values, huffman.canonical_codes(lengths), lengths, out, at)
    return out[: (int(end) + 7) // 8], lengths, int(end)


@settings(max_examples=40)
@given(symbols, st.integers(0, 20))
def test_symbols_equal_those_of_the_kernels(values: npt.NDArray[np.uint8], at: int) -> None:
    data, lengths, end = written(values, at)
    found = np.empty(len(values), np.uint8)
    assert plain.read_symbols(data, at, end, lengths, found) == end
    assert found.tolist() == values.tolist()
    out = np.full(len(values) + 1, 99, np.uint8)
    after = huffman.read_one(data, at, end, *huffman.decoding_tables(lengths), out, len(values))
    assert (after, out.tolist()) == (end, [*values.tolist(), 99])  # and nothing is written behind them


def test_a_stream_that_ends_early_is_noticed() -> None:
    values = np.arange(40, dtype=np.uint8)
    data, lengths, end = written(values, 3)
    assert plain.read_symbols(data, 3, end - 1, lengths, np.empty(40, np.uint8)) == -1
    assert plain.read_symbols(data, 3, end, lengths, np.empty(41, np.uint8)) == -1


@settings(max_examples=60)
@given(st.lists(st.integers(0, 7), max_size=60), st.integers(0, 9), st.integers(1, 30), st.integers(0, 60))
@example([0, 0], 0, 2, 2)  # no lines for two entries
def test_positions_equal_those_of_the_kernel(gaps: list[int], lines: int, length: int, stored: int) -> None:
    given_gaps = np.array(gaps, np.uint8)
    indptr, indices = np.zeros(lines + 1, np.int64), np.empty(stored, np.int32)
    bad = index.place32(given_gaps, len(gaps), 7, length, lines, indptr, indices)
    found = plain.place(given_gaps, 7, stored, lines, length)
    assert (found is None) == bool(bad)
    if found is not None:
        assert found[0].tolist() == indptr.tolist()
        assert found[1].tolist() == indices.tolist()


def test_escapes_stand_for_zeros_alone() -> None:
    # Runs of 7 + 2 zeros and of none: entries at 9 and 10 of three lines of 5.
    found = plain.place(np.array([7, 2, 0], np.uint8), 7, 2, 3, 5)
    assert found is not None
    assert found[0].tolist() == [0, 0, 1, 2]
    assert found[1].tolist() == [4, 0]


_WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None
sys.modules["llvmlite"] = None
from importlib import util
real = util.find_spec
util.find_spec = lambda name, *rest: None if name in ("numba", "llvmlite") else real(name, *rest)
import dcformat, dcformat.jit
from dcformat.codecs import huffman
model = dcformat.load(sys.argv[1])
assert dcformat.jit.lacks_compiler(huffman.read_one)
print(sum(int(t.data.sum()) + int(t.indices.sum()) for t in model.tensors.values()))
try:
    dcformat.load(sys.argv[2])
except dcformat.FormatError as error:
    print(error.code, error.got)
"""


def test_files_are_read_or_refused_without_numba(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    weight = random.integers(-3, 4, (120, 200)) * (random.random((120, 200)) < 0.4)
    model = dcformat.Model({"w": dcformat.from_dense("w", weight.astype(np.float32))})
    path = tmp_path / "w.dcf"
    dcformat.save(model, path)
    values = block(struct.pack("<f", 1.0))
    past_the_end = bytes((RAW | BLOCKS, 0)) + text(Bits().put(3, 2).take()) + values + bytes((1, 0b011))
    damaged = tmp_path / "damaged.dcf"
    damaged.write_bytes(one(past_the_end, form=SPARSE, shape=(1, 3), stored=1))
    # An empty cache, because the process would also run saved machine code.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    run = subprocess.run(
        [sys.executable, "-c", _WITHOUT_NUMBA, str(path), str(damaged)],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "DCFORMAT_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    tensor = model.tensors["w"]
    assert tensor.indices is not None
    assert len(tensor.data) > 4096
    total = int(tensor.data.sum()) + int(tensor.indices.sum())
    assert run.stdout.splitlines() == [str(total), "E14 gaps that do not fit"]


@pytest.mark.parametrize("count", [0, 5])
def test_an_alphabet_of_one_symbol_takes_no_bits(count: int) -> None:
    lengths = np.full(8, huffman.UNUSED, np.int64)
    lengths[3] = 0
    found = np.zeros(count, np.uint8)
    assert plain.read_symbols(np.zeros(8, np.uint8), 2, 2, lengths, found) == 2
    assert found.tolist() == [3] * count
