"""The self-test's inputs have every dtype that a graph's inputs may have."""

from __future__ import annotations

import numpy as np
import pytest

from dcformat.graph import Graph, Output, Port, Preprocessing
from dcformat.graph.graph import PORT_DTYPES
from dcformat.selftest import digest, inputs, pixels, winners

#: The first bytes of SplitMix64 with seed 0.
DRAWN = [0xE2, 0x6E, 0x06, 0xF8]
EXPECTED = {
    "uint8": DRAWN,
    "int8": [0x62, -0x12, -0x7A, 0x78],
    **{dtype: [1, 0, 0, 1] for dtype in ("int16", "int32", "int64", "bool")},
    **{dtype: [float(np.float32(p) / np.float32(255)) for p in DRAWN] for dtype in ("float32", "float64")},
    "float16": [float(np.float16(np.float32(p) / np.float32(255))) for p in DRAWN],
}


@pytest.mark.parametrize("dtype", PORT_DTYPES)
def test_dtypes(dtype: str) -> None:
    graph = Graph((Port((2, 2), "x", dtype, 1),), (), (Output(0),))
    (made,) = inputs(graph, 0, 1).values()
    assert made.dtype == dtype and made.shape == (1, 2, 2)
    assert made.reshape(-1).tolist() == EXPECTED[dtype]


def test_preprocessing_takes_pixels() -> None:
    graph = Graph.sequential((4,), (), Preprocessing((0.5,), (0.5,)))
    made = inputs(graph, 0, 1)["input"]
    assert made.dtype == np.uint8 and made.tolist() == [DRAWN]


def test_several_inputs_take_turns() -> None:
    """A sample's inputs come one after the other; an input of no dimension has one element."""
    ports = (Port((2,), "a", "uint8"), Port((), "b", "uint8", None), Port((3,), "c", "uint8"))
    made = inputs(Graph(ports, (), (Output(0),)), 7, 3, first=2)
    rows = pixels(7, 5, (6,))[2:]
    assert np.array_equal(made["a"], rows[:, :2])
    assert np.array_equal(made["b"], rows[:, 2])
    assert np.array_equal(made["c"], rows[:, 3:])


def test_winners_come_by_samples_then_outputs() -> None:
    first = np.array([[1, 3, 2], [5, 5, 0]], np.float32)
    second = np.array([[[0, 1], [9, 2]], [[7, 0], [1, 0]]], np.float32)
    found = winners(first, second)
    assert found.tolist() == [[1, 2], [0, 0]]
    assert digest([found]) == digest([np.array([1, 2, 0, 0], "<u4")])
    assert digest([winners(first)]) == digest([np.array([1, 0], "<u4")])
