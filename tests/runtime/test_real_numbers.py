"""The rewriting of networks of integers with the numbers that they represent."""

from __future__ import annotations

import numpy as np
import pytest
from dcformat_runtime import Session
from dcformat_runtime.c_export.real_numbers import with_real_numbers

from dcformat import graph as g
from tests.runtime.test_integers import bytes_of, model, weights_of


def test_the_integers_are_the_same() -> None:
    """Sums of integers are exact, and those of the numbers that they represent are rounded, so some ties differ."""
    nodes = [
        g.Conv((1,), "a", "p", (2, 2), (1, 1), (1, 1)), g.Requantize((2, "s"), 0.5, 0.25, -100, 120),
        g.Conv((3,), "b", None, groups=6), g.Requantize((4, 0.01), 0.25, 0.3, -128, 127), g.Binary((5, 0.3), "mul"),
        g.Add((6, 6)), g.Requantize((7, 1.0), 1.0, 0.7, -128, 127), g.MaxPool((8,), (2, 2), (2, 2), (0, 0), (0, 0)),
        g.Reduce((9,), "mean", (1, 2)), g.Requantize((10, 1.0), 0.7, 0.6, -128, 127), g.Linear((11,), "c"),
        g.Requantize((12, 0.004), 0.6, 1.0, -120, 120), g.Binary((13, 3.0), "sub"),
    ]  # fmt: skip
    scales = np.random.default_rng(2).uniform(0.002, 0.01, (6, 1, 1)).astype(np.float32)
    tensors = {"a": weights_of((6, 3, 3, 3)), "b": weights_of((6, 1, 3, 3)), "c": weights_of((30, 6)), "s": scales}
    integers = model((3, 14, 13), nodes, {**tensors, "p": np.arange(6, dtype=np.float32) * 50})
    real = with_real_numbers(integers)
    assert real.graph is not None
    assert not any(isinstance(node, g.Requantize) for node in real.graph.nodes)
    x = bytes_of((3, 14, 13), batch=20)
    found, wanted = (Session.from_model(m, backend="numpy")(x).astype(int) for m in (real, integers))
    assert np.abs(found - wanted).max() <= 1
    assert (found == wanted).mean() > 0.98


def test_a_network_of_floats_stays_as_it_is() -> None:
    network = model((4,), [g.Unary((1,), "abs")])
    assert with_real_numbers(network) is network


def test_scales_for_each_channel_need_a_layer() -> None:
    varied = model((2, 1, 1), [g.Requantize((1, "s"), 1.0, 1.0, -1, 1)], {"s": np.array([[[1.5]], [[2]]], np.float32)})
    with pytest.raises(ValueError, match="a scale for each channel"):
        with_real_numbers(varied)
