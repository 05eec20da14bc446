"""The golden self-test has reproducible inputs, and detects a changed network."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from dcformat_runtime import InputError, Session
from dcformat_runtime.compile.memory_prediction import predict
from dcformat_runtime.network import outline
from dcformat_runtime.self_testing import run_self_test, with_self_test

import dcformat
from dcformat.errors import MemoryLimitError
from dcformat.graph import (
    Add,
    Binary,
    Gather,
    Graph,
    Linear,
    Node,
    Output,
    Port,
    Preprocessing,
    Reduce,
    ReLU,
    Unary,
)
from dcformat.model import Model, SelfTest
from dcformat.records import replace
from dcformat.selftest import digest, is_robust, pixels, winners
from tests.runtime.example_networks import BACKENDS


def model(seed: int = 1, preprocessing: Preprocessing | None = None) -> Model:
    random = np.random.default_rng(seed)
    weight = dcformat.from_dense("w", random.normal(size=(10, 20)).astype(np.float32))
    bias = dcformat.from_dense("b", np.zeros(10, np.float32))
    return Model({"w": weight, "b": bias}, Graph.sequential((20,), (Linear((0,), "w", "b"),), preprocessing))


def test_pixels_are_splitmix64_from_the_seed() -> None:
    # Reference values of SplitMix64 with seed 0: e220a8397b1dcdaf 6e789e6aa1b965f4 06c45d188009454f f88bb8a8724c81ec
    assert pixels(0, 1, (4,)).tolist() == [[0xE2, 0x6E, 0x06, 0xF8]]
    assert pixels(0, 2, (2,)).tolist() == [[0xE2, 0x6E], [0x06, 0xF8]]


def test_pixels_are_the_same_in_pieces() -> None:
    whole = pixels(7, 5, (3, 50_000))
    assert np.array_equal(np.concatenate([pixels(7, 2, (3, 50_000), 0), pixels(7, 3, (3, 50_000), 2)]), whole)
    assert whole[4, 2, 49_999] == 72


@pytest.mark.parametrize("preprocessing", [None, Preprocessing((0.5,), (0.25,))])
def test_samples_run_in_pieces_within_the_memory(preprocessing: Preprocessing | None) -> None:
    graph = Graph.sequential((4, 500, 500), (Reduce((0,), "max", (1, 2)),), preprocessing)
    test = SelfTest(1, 40, digest([winners(np.ones((40, 4), np.float32))]))  # every channel holds a 255
    made = Model({}, graph, self_test=test)
    limit = 40 << 20
    session = Session.from_model(made, backend="numpy", threads=1, max_memory=limit)
    session(np.zeros((2, 4, 500, 500), np.float32))
    tracemalloc.start()
    assert run_self_test(made, session) is True
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < limit < 40 * 4 * 500 * 500 * 4


def test_one_sample_that_takes_too_much_memory_is_refused() -> None:
    made = Model({}, Graph.sequential((1 << 20,), (ReLU((0,)),)), self_test=SelfTest(1, 2, bytes(8)))
    plain = outline(made.graph, {})
    least = predict(plain, 0, 1, "numpy", False, None).total
    session = Session.from_model(made, backend="numpy", max_memory=least)
    with pytest.raises(MemoryLimitError, match="running 1 input:"):
        run_self_test(made, session)
    assert run_self_test(made, Session.from_model(made, backend="numpy", max_memory=least + (9 << 20))) is False


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
        with_self_test(Model({"w": flat, "b": bias}, Graph.sequential((20,), (Linear((0,), "w", "b"),))))


def by_spec(test_inputs: list[dict[str, Any]], run: Callable[..., list[Any]]) -> bytes:
    """Return the digest of a self-test whose samples are run one after the other."""
    winners = [int(np.argmax(output)) for given in test_inputs for output in run(**given)]
    return hashlib.sha256(np.array(winners, "<u4").tobytes()).digest()[:8]


def test_several_inputs_and_outputs_of_any_dtype() -> None:
    """Every sample draws its inputs in order; winners are those of each output before it becomes its dtype."""
    table = (np.random.default_rng(3).standard_normal((2, 3)) / 16).astype(np.float32)
    nodes: tuple[Node, ...] = (
        Gather(("table", 0)),  # (4, 3)
        Reduce((3,), "sum", (0,)),  # (3,)
        Add((1, 4)),  # (2, 3)
        Binary((4, 2), "mul"),  # (3,)
        Reduce((5,), "argmax", (1,)),  # (2,)
    )
    graph = Graph(
        (Port((4,), "tokens", "int64"), Port((2, 3), "state", "float64", 1), Port((3,), "scale", "int8", None)),
        nodes,
        (Output(5, "next", "float32", 1), Output(6, "rounded", "int8"), Output(7, "tokens", "int64", 1)),
    )
    made = with_self_test(Model({"table": dcformat.from_dense("table", table)}, graph), samples=3)
    test = made.self_test
    assert test is not None
    drawn = [pixels(test.seed, 1, (13,), sample)[0] for sample in range(3)]
    samples = [
        {"tokens": one[:4] >> 7, "state": (one[4:10] / np.float32(255)).reshape(2, 3), "scale": one[10:] - 128.0}
        for one in drawn
    ]

    def run(tokens: Any, state: Any, scale: Any) -> list[Any]:
        total = table[tokens].sum(0)
        return [state + total, total * scale, (state + total).argmax(1)]

    assert test.digest == by_spec(samples, run)
    assert dcformat.load(dcformat.dumps(made)).self_test == test
    for backend in BACKENDS:
        assert run_self_test(made, Session.from_model(made, backend=backend)) is True
    other = {"table": dcformat.from_dense("table", -table)}
    assert run_self_test(replace(made, tensors=other)) is False


def test_a_network_without_a_batch() -> None:
    graph = Graph((Port((2, 3), "a", "float32", None),), (Unary((0,), "neg"),), (Output(1, "b", "float16", None),))
    made = with_self_test(Model({}, graph), samples=4)
    assert made.self_test is not None
    drawn = [pixels(made.self_test.seed, 1, (6,), sample)[0] for sample in range(4)]
    assert made.self_test.digest == by_spec([{"a": one / np.float32(255)} for one in drawn], lambda a: [-a])
    assert run_self_test(made) is True


def test_indices_beyond_a_table_are_refused() -> None:
    one_row = {"table": dcformat.from_dense("table", np.ones((1, 3), np.float32))}
    made = Model(one_row, Graph((Port((4,), "tokens", "int64"),), (Gather(("table", 0)),), (Output(1),)))
    with pytest.raises(InputError, match="index: expected whole numbers from -1 to 0"):
        with_self_test(made)
    with pytest.raises(InputError, match="index: expected whole numbers from -1 to 0"):
        run_self_test(replace(made, self_test=SelfTest(0, 2, bytes(8))))


def test_outputs_that_cannot_differ_are_refused() -> None:
    scalar = Graph((Port((4,), "x"),), (Reduce((0,), "argmax", (0,)),), (Output(1, "class", "int64"),))
    with pytest.raises(ValueError, match="expected an output of two or more elements"):
        with_self_test(Model({}, scalar))


def test_close_outputs_are_not_robust() -> None:
    """[S1]."""
    assert is_robust(np.array([[1.0, 0.9]], np.float32))
    assert not is_robust(np.array([[1.0, 0.9995]], np.float32))
    assert not is_robust(np.zeros((1, 2), np.float32))
