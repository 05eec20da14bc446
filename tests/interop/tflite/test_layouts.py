"""Networks with channels last become networks with channels first, and few operators move dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.interop.tflite.support import checked, graph_of, kinds, random, run
from tests.interop.tflite.test_operators import close
from tests.interop.tflite.writer import Operator, Tensor, constant, model

CONV = {"stride_h": 1, "stride_w": 1}


def network(shape: tuple[int, ...], between: list[tuple[str, list[Tensor], dict[str, int]]]) -> bytes:
    """Return a network of a convolution, other operators, and another convolution of 4 channels."""
    tensors = [
        Tensor(shape),
        constant(random((4, 3, 3, shape[3]), 1)),
        constant(random((4,), 2)),
        Tensor((*shape[:3], 4)),
    ]
    operators = [Operator("CONV_2D", [0, 1, 2], [3], CONV)]
    last = 3
    for op_type, others, options in between:
        numbers = list(range(len(tensors), len(tensors) + len(others)))
        tensors += [*others, Tensor((*shape[:3], 4))]
        operators.append(Operator(op_type, [last, *numbers], [len(tensors) - 1], options))
        last = len(tensors) - 1
    tensors += [constant(random((2, 3, 3, 4), 3)), constant(random((2,), 4)), Tensor((*shape[:3], 2))]
    operators.append(Operator("CONV_2D", [last, len(tensors) - 3, len(tensors) - 2], [len(tensors) - 1], CONV))
    return model(tensors, operators, [0], [len(tensors) - 1])


BETWEEN: dict[str, list[Any]] = {
    "channels": [("MUL", [constant(random((4,), 5))], {}), ("ADD", [constant(random((1, 1, 1, 4), 6))], {})],
    "places": [("MUL", [constant(random((1, 5, 6, 1), 5))], {}), ("ADD", [constant(random((5, 6, 4), 6))], {})],
    "padding": [("PAD", [constant([[0, 0], [1, 1], [0, 0], [0, 0]])], {}), ("RELU", [], {})],
    "softmax": [("SOFTMAX", [], {}), ("LEAKY_RELU", [], {})],
    "slope": [("PRELU", [constant(np.abs(random((1, 1, 4), 5)))], {}), ("LOGISTIC", [], {})],
    "means": [("MEAN", [constant([1, 2])], {"keep_dims": 1}), ("RELU6", [], {})],
    "twice": [("TRANSPOSE", [constant([0, 2, 1, 3])], {}), ("TRANSPOSE", [constant([0, 2, 1, 3])], {})],
}


@pytest.mark.parametrize("name", BETWEEN)
def test_dimensions_move_at_the_ends_only(name: str) -> None:
    imported = checked(network((1, 5, 6, 3), BETWEEN[name]))
    moved = kinds(imported).count("transpose")
    assert moved == (1 if name == "means" else 2)  # a picture of one place need not be moved
    assert kinds(imported)[0] == "transpose"


def test_ends_of_one_channel_or_one_place_are_reshaped() -> None:
    imported = checked(network((1, 5, 6, 1), []))
    assert kinds(imported)[0] == "reshape"
    imported = checked(network((1, 1, 1, 3), []))
    assert "transpose" not in kinds(imported)


def test_branches_that_meet() -> None:
    tensors = [
        Tensor((1, 4, 4, 3)), constant(random((5, 1, 1, 3), 1)), constant(random((5,), 2)), Tensor((1, 4, 4, 5)),
        Tensor((1, 4, 4, 3)), Tensor((1, 4, 4, 8)), Tensor((1, 2, 2, 8)), constant([1, 2]), Tensor((1, 8)),
        constant(random((2, 8), 3)), constant(random((2,), 4)), Tensor((1, 2)),
    ]  # fmt: skip
    pool = {"stride_h": 2, "stride_w": 2, "filter_h": 2, "filter_w": 2}
    operators = [
        Operator("CONV_2D", [0, 1, 2], [3], CONV), Operator("RELU", [0], [4]),
        Operator("CONCATENATION", [3, 4], [5], {"axis": 3}), Operator("AVERAGE_POOL_2D", [5], [6], pool),
        Operator("MEAN", [6, 7], [8], {"keep_dims": False}), Operator("FULLY_CONNECTED", [8, 9, 10], [11]),
    ]  # fmt: skip
    imported = checked(model(tensors, operators, [0], [11]))
    assert kinds(imported).count("transpose") == 1 + 1  # of the input, for the convolution and after the ReLU
    assert kinds(imported)[-2:] == ["reduce", "linear"]


def test_a_convolution_along_time() -> None:
    """Keras writes it as a convolution of a picture that is one high."""
    x, weight = random((1, 10, 3)), random((5, 1, 4, 3), 1)
    tensors = [
        Tensor(x.shape), constant(1), Tensor((1, 1, 10, 3)), constant(weight), constant(random((5,), 2)),
        Tensor((1, 1, 7, 5)), Tensor((1, 7, 5)),
    ]  # fmt: skip
    operators = [
        Operator("EXPAND_DIMS", [0, 1], [2]), Operator("CONV_2D", [2, 3, 4], [5], {**CONV, "padding": 1}),
        Operator("SQUEEZE", [5], [6], {"squeeze_dims": [1]}),
    ]  # fmt: skip
    data = model(tensors, operators, [0], [6])
    windows = np.lib.stride_tricks.sliding_window_view(x[0], 4, 0)
    close(run(data, x), np.einsum("tck,okc->to", windows, weight[:, 0])[None] + random((5,), 2))
    assert kinds(checked(data)).count("transpose") == 2


def test_a_batch_of_any_size_and_none() -> None:
    x = random((5, 4))
    tensors = [
        Tensor((1, 4), signature=(-1, 4)),
        constant(random((3, 4), 1)),
        constant(random((3,), 2)),
        Tensor((1, 3)),
    ]
    data = model(tensors, [Operator("FULLY_CONNECTED", [0, 1, 2], [3])], [0], [3])
    close(run(data, x), x @ random((3, 4), 1).T + random((3,), 2))
    assert graph_of(checked(data)).inputs[0].batch_axis == 0
    fixed = [Tensor((5, 4)), *tensors[1:3], Tensor((5, 3))]
    data = model(fixed, [Operator("FULLY_CONNECTED", [0, 1, 2], [3])], [0], [3])
    close(run(data, x), x @ random((3, 4), 1).T + random((3,), 2))
    assert graph_of(checked(data)).inputs[0].batch_axis is None


def test_an_open_dimension_gets_a_size() -> None:
    tensors = [Tensor((1, 1, 3), signature=(-1, -1, 3), name="x"), constant([1]), Tensor((1, 3))]
    data = model(tensors, [Operator("MEAN", [0, 1], [2])], [0], [2])
    imported = checked(data, dims={"x.1": 5})
    assert graph_of(imported).inputs[0].shape == (5, 3)
    assert kinds(imported) == ["reduce"]


def test_inputs_and_outputs_by_name() -> None:
    tensors = [Tensor((1, 4), name="a"), Tensor((1, 4), name="a"), Tensor((1, 4), name="sum"), Tensor((1, 4))]
    operators = [Operator("ADD", [0, 1], [2]), Operator("SUB", [0, 1], [3])]
    imported = checked(model(tensors, operators, [0, 1], [3, 2, 0]))
    assert [port.name for port in graph_of(imported).inputs] == ["a.0", "a.1"]
    assert [output.name for output in graph_of(imported).outputs] == ["tensor_3", "sum", "a"]


def test_constant_outputs() -> None:
    tensors = [Tensor((1, 2), name="x"), constant(np.array([[1.5, 2.5]], np.float32)), Tensor((1, 2))]
    found = run(model(tensors, [Operator("ABS", [0], [2])], [0], [2, 1]), random((1, 2)))
    np.testing.assert_array_equal(found[1], [[1.5, 2.5]])
