"""The golden self-test: reproducible inputs, detection of a changed network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dcformat_runtime.selftest import run_self_test, with_self_test

import dcformat
from dcformat.graph import Graph, Linear, Preprocessing
from dcformat.model import Model
from dcformat.selftest import is_robust, pixels


def model(seed: int = 1, preprocessing: Preprocessing | None = None) -> Model:
    random = np.random.default_rng(seed)
    weight = dcformat.from_dense("w", random.normal(size=(10, 20)).astype(np.float32))
    bias = dcformat.from_dense("b", np.zeros(10, np.float32))
    return Model({"w": weight, "b": bias}, Graph((20,), (Linear((0,), "w", "b"),), preprocessing))


def test_pixels_are_splitmix64_from_the_seed() -> None:
    # Reference values of SplitMix64 with seed 0: e220a8397b1dcdaf 6e789e6aa1b965f4 06c45d188009454f f88bb8a8724c81ec
    assert pixels(0, 1, (4,)).tolist() == [[0xE2, 0x6E, 0x06, 0xF8]]
    assert pixels(0, 2, (2,)).tolist() == [[0xE2, 0x6E], [0x06, 0xF8]]


@pytest.mark.parametrize("preprocessing", [None, Preprocessing((0.5,), (0.25,))])
def test_a_self_test_passes_after_a_round_trip(preprocessing: Preprocessing | None) -> None:
    made = with_self_test(model(preprocessing=preprocessing), samples=5)
    assert made.self_test is not None
    assert made.self_test.samples == 5
    back = dcformat.load(dcformat.dumps(made))
    assert back.self_test == made.self_test
    assert run_self_test(back) is True


def test_another_network_fails_it() -> None:
    made = with_self_test(model(1), samples=8)
    assert run_self_test(replace(model(2), self_test=made.self_test)) is False
    assert run_self_test(model(1)) is None


def test_a_network_without_winners_is_refused() -> None:
    flat = dcformat.from_dense("w", np.ones((10, 20), np.float32))
    bias = dcformat.from_dense("b", np.zeros(10, np.float32))
    with pytest.raises(ValueError, match="clear winner"):
        with_self_test(Model({"w": flat, "b": bias}, Graph((20,), (Linear((0,), "w", "b"),))))


def test_close_outputs_are_not_robust() -> None:
    """[S1]."""
    assert is_robust(np.array([[1.0, 0.9]], np.float32))
    assert not is_robust(np.array([[1.0, 0.9995]], np.float32))
    assert not is_robust(np.zeros((1, 2), np.float32))
