"""Codebooks and scales of the places along an axis: those that the writer recognises give back every bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dcformat
from dcformat.codecs import Mode
from dcformat.codecs.axis_tables_writer import found_in
from dcformat.dense import from_dense
from dcformat.forms import as_shared
from dcformat.model import Model, Tensor
from tests.format.strategies import COMPILED, examples

Array = npt.NDArray[Any]


def read_back(array: Array) -> Array:
    """Return what a file in `fast` holds."""
    packed = dcformat.dumps(Model({"w": from_dense("w", array, exact=True)}))
    return dcformat.load(packed).tensors["w"].to_dense()


def nearly(value: float, spread: float, *shape: int) -> Array:
    """Return values that differ from one another by much less than a 256th."""
    random = np.random.default_rng(3)
    return (value * (1 + spread * random.standard_normal(shape))).astype(np.float32)


@pytest.mark.parametrize(
    "array",
    [
        nearly(1, 1e-5, 768),
        nearly(1, 1e-5, 48, 32),
        nearly(-3e-7, 1e-6, 6, 64),
        np.linspace(1000, 1000.1, 512, dtype=np.float32),
        np.float32(1) + np.arange(192, dtype=np.float32) * np.float32(2**-23),
        np.concatenate((nearly(1, 1e-5, 16), np.arange(48, dtype=np.float32))),
    ],
    ids=["norm", "matrix", "tiny", "ramp", "next floats", "only one group"],
)
def test_nearly_equal_values_are_no_multiples_of_a_scale(array: Array) -> None:
    """No scale fits them, though no two of them are far enough apart to rule out a scale immediately."""
    assert found_in(from_dense("w", array, exact=True)) is None
    assert read_back(array).tobytes() == array.tobytes()


def test_a_scale_for_each_row_is_found() -> None:
    random = np.random.default_rng(1)
    scales = random.uniform(0.01, 0.02, (32, 1)).astype(np.float32)
    array = (random.integers(-127, 128, (32, 64)) * scales).astype(np.float32)
    found = found_in(from_dense("w", array))
    assert found is not None
    assert found.lines == 32
    assert found.first.tobytes() == scales.tobytes()
    assert read_back(array).tobytes() == array.tobytes()


@given(
    st.lists(
        st.tuples(st.floats(-1e3, 1e3, width=32), st.sampled_from([0.0, 1e-7, 1e-5, 2e-4, 1e-3, 0.5])),
        min_size=2, max_size=6,
    ),
    st.sampled_from([4, 16, 32, 48]),
    st.sampled_from([1, 2, 100, 256]),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=examples(150))
def test_rows_of_any_kind_survive(rows: list[tuple[float, float]], columns: int, integers: int, seed: int) -> None:
    """Each row has a magnitude and a spread, and is drawn or consists of small multiples of its magnitude."""
    random = np.random.default_rng(seed)
    whole = random.integers(0, integers, (len(rows), columns))
    drawn = np.stack([value * (1 + spread * random.standard_normal(columns)) for value, spread in rows])
    array = (drawn * whole if integers > 1 else drawn).astype(np.float32)
    assert read_back(array).tobytes() == array.tobytes()


@pytest.mark.needs_compiler
@pytest.mark.parametrize("fraction", [4, 256])
def test_scales_cost_a_file_less_than_two_bytes_each(fraction: int) -> None:
    """Few scales let the values of all rows fit one codebook of eight bits, which takes more bytes than the scales."""
    random = np.random.default_rng(5)
    whole = np.rint(6 * random.standard_normal((48, 32))).astype(np.float32)
    whole[random.random(whole.shape) < 0.3] = 0
    scales = random.integers(fraction // 2, fraction, (48, 1)).astype(np.float32) / np.float32(fraction)
    with_scales, without = (
        dcformat.dumps(Model({"w": from_dense("w", array)}), mode="tiny") for array in (whole * scales, whole)
    )
    assert len(with_scales) - len(without) < 2 * 48
    np.testing.assert_array_equal(dcformat.load(with_scales).tensors["w"].to_dense(), whole * scales)


@pytest.mark.parametrize("mode", ["fast", "tiny"])
@pytest.mark.parametrize("numbers", [3, 9, 20] if COMPILED else [3])
def test_rows_with_scales_are_the_same_bytes_with_and_without_a_codebook(mode: Mode, numbers: int) -> None:
    random = np.random.default_rng(6)
    array = (
        random.integers(1, numbers, (32, 40)).astype(np.float32) * (1 + np.arange(32, dtype=np.float32) % 16)[:, None]
    )
    plain = Tensor("w", array.shape, "float32", array.reshape(-1))
    shared = as_shared(plain)
    assert shared is not None and shared.codebook is not None
    first, second = (dcformat.dumps(Model({"w": tensor}), mode=mode) for tensor in (plain, shared))
    assert first == second
