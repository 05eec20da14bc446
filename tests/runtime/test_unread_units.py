"""Exported C leaves out the hidden units on which no output depends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from dcformat_runtime.c_export import ExportOptions, export_c
from dcformat_runtime.c_export.unread_units import without_unread_units

import dcformat
from dcformat.dense import from_dense
from dcformat.graph import (
    Add,
    AvgPool,
    Conv,
    Flatten,
    Graph,
    Linear,
    MaxPool,
    Node,
    Reduce,
    ReLU,
    Softmax,
    Transpose,
    Unary,
)
from dcformat.model import Model
from tests.runtime.c_programs import needs_c_compiler, run_tests

ROOT = Path(__file__).parents[2]
Floats = npt.NDArray[np.float32]


def trimmed(shape: tuple[int, ...], nodes: tuple[Node, ...], tensors: dict[str, Floats]) -> dict[str, Floats]:
    graph = Graph.sequential(shape, nodes)
    shapes = graph.shapes({name: tensor.shape for name, tensor in tensors.items()})
    made = without_unread_units(graph, shapes, tensors)
    graph.shapes({name: tensor.shape for name, tensor in made.items()})  # raises if the shapes do not fit
    return made


def floats(*rows: list[float]) -> Floats:
    return np.array(rows, np.float32)


def test_hidden_units_that_nothing_reads_are_removed_with_their_biases() -> None:
    tensors = {
        "w": floats([1, 2], [3, 4], [5, 6]), "b": np.array([7, 8, 9], np.float32), "v": floats([1, 0, 2], [3, 0, 4]),
    }  # fmt: skip
    made = trimmed((2,), (Linear((0,), "w", "b"), ReLU((1,)), Linear((2,), "v")), tensors)
    np.testing.assert_array_equal(made["w"], [[1, 2], [5, 6]])
    np.testing.assert_array_equal(made["b"], [7, 9])
    np.testing.assert_array_equal(made["v"], [[1, 2], [3, 4]])


def test_units_are_removed_through_several_layers() -> None:
    # Only the first unit of the last hidden layer is read; it reads the second one of the layer before.
    tensors = {"w": np.eye(3, dtype=np.float32), "v": floats([0, 5, 0], [6, 0, 7]), "u": floats([8, 0])}
    made = trimmed((3,), (Linear((0,), "w"), Linear((1,), "v"), Linear((2,), "u")), tensors)
    assert {name: tensor.tolist() for name, tensor in made.items()} == {"w": [[0, 1, 0]], "v": [[5]], "u": [[8]]}


def test_inputs_and_outputs_stay_whole() -> None:
    tensors = {"w": floats([0, 0, 0], [0, 1, 0])}
    assert trimmed((3,), (Linear((0,), "w"),), tensors)["w"].shape == (2, 3)


def test_a_layer_that_nothing_reads_keeps_one_unit() -> None:
    tensors = {"w": floats([1], [2]), "v": floats([0, 0])}
    made = trimmed((1,), (Linear((0,), "w"), Linear((1,), "v")), tensors)
    assert made["w"].tolist() == [[1]]
    assert made["v"].tolist() == [[0]]


def test_a_channel_of_an_image_stays_if_any_of_its_elements_is_read() -> None:
    kernel = np.arange(1, 5, dtype=np.float32).reshape(4, 1, 1, 1)
    nodes = (Conv((0,), "k"), MaxPool((1,), (2, 2), (2, 2), (0, 0), (0, 0)), Flatten((2,)), Linear((3,), "w"))
    weight = np.zeros((1, 16), np.float32)
    weight[0, [7, 8]] = 9  # the last element of the second channel, the first of the third
    made = trimmed((1, 4, 4), nodes, {"k": kernel, "w": weight})
    assert made["k"].reshape(-1).tolist() == [2, 3]
    assert made["w"].tolist() == [[0, 0, 0, 9, 9, 0, 0, 0]]


def test_operands_of_a_sum_keep_the_same_units() -> None:
    first, second = (np.arange(1, 4, dtype=np.float32).reshape(3, 1, 1, 1) * n for n in (1, 10))
    nodes = (
        Conv((0,), "first"), Conv((0,), "second"), Add((1, 2)), AvgPool((3,), (2, 2), (2, 2), (0, 0), (0, 0)),
        Reduce((4,), "mean", (1, 2)), Unary((5,), "sigmoid"), Linear((6,), "w"),
    )  # fmt: skip
    made = trimmed((1, 4, 4), nodes, {"first": first, "second": second, "w": floats([0, 0, 4])})
    assert [made[name].reshape(-1).tolist() for name in ("first", "second", "w")] == [[3], [30], [4]]


def test_units_are_followed_through_a_transpose_of_other_dimensions() -> None:
    kernel = np.arange(1, 4, dtype=np.float32).reshape(3, 1, 1, 1)
    nodes = (Conv((0,), "k"), Transpose((1,), (0, 2, 1)), Flatten((2,)), Linear((3,), "w"))
    weight = np.zeros((1, 12), np.float32)
    weight[0, 5] = 7
    made = trimmed((1, 2, 2), nodes, {"k": kernel, "w": weight})
    assert made["k"].reshape(-1).tolist() == [2]
    assert made["w"].tolist() == [[0, 7, 0, 0]]


def test_a_sum_with_the_input_keeps_all_units() -> None:
    tensors = {"w": np.eye(2, dtype=np.float32), "v": floats([0, 1])}
    made = trimmed((2,), (Linear((0,), "w"), Add((0, 1)), Linear((2,), "v")), tensors)
    assert made["w"].shape == (2, 2)


@pytest.mark.parametrize("operator", [Softmax((1,)), Reduce((1,), "mean", (0,), True)])
def test_operators_that_mix_units_keep_them(operator: Node) -> None:
    width = 1 if isinstance(operator, Reduce) else 2
    tensors = {"w": floats([1], [2]), "v": np.eye(1, width, dtype=np.float32)}
    assert trimmed((1,), (Linear((0,), "w"), operator, Linear((2,), "v")), tensors)["w"].shape == (2, 1)


def test_a_weight_of_two_layers_is_not_changed() -> None:
    tensors = {"w": floats([1, 0], [1, 0])}
    made = trimmed((2,), (Linear((0,), "w"), Linear((1,), "w")), tensors)
    assert made["w"].tolist() == [[1, 0], [1, 0]]


def test_grouped_convolutions_keep_all_units() -> None:
    tensors = {"k": np.ones((4, 1, 1, 1), np.float32), "w": floats([1, 0, 0, 0])}
    nodes = (Conv((0,), "k", groups=2), Flatten((1,)), Linear((2,), "w"))
    assert trimmed((2, 1, 1), nodes, tensors)["k"].shape == (4, 1, 1, 1)


@needs_c_compiler
def test_the_outputs_of_a_network_without_its_unread_units_keep_their_bits(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    tensors = {
        "k": random.standard_normal((6, 2, 3, 3)), "b": random.standard_normal(6),
        "w": random.standard_normal((9, 6 * 16)), "c": random.standard_normal(9), "v": random.standard_normal((4, 9)),
    }  # fmt: skip
    tensors["v"][:, ::2] = 0
    tensors["w"][:, 32:64] = tensors["w"][:, :16] = 0
    nodes = (
        Conv((0,), "k", "b", padding=(1, 1), padding_end=(1, 1)), MaxPool((1,), (2, 2), (2, 2), (0, 0), (0, 0)),
        Flatten((2,)), Linear((3,), "w", "c"), ReLU((4,)), Linear((5,), "v"),
    )  # fmt: skip
    stored = {name: from_dense(name, values.astype(np.float32)) for name, values in tensors.items()}
    made = export_c(Model(stored, Graph.sequential((2, 8, 8), nodes)), ExportOptions("float32"))
    assert made.arena_bytes == 4 * (3 * 16 + 4)
    run_tests(tmp_path, made.files)


def test_lenet_5_needs_half_of_its_units() -> None:
    made = export_c(dcformat.load(ROOT / "models" / "lenet-5.dcf"), ExportOptions("float32"))
    assert made.arena_bytes == 4 * (10 * 12 * 12 + 25 * 4 * 4)
