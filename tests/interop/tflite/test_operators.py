"""Every operator that can be imported computes what TensorFlow Lite defines, and what LiteRT computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import erf, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from dcformat_interop import UnfitError, read_tflite

from tests.interop.tflite.support import random, run
from tests.interop.tflite.writer import Operator, Tensor, constant, model

Array = npt.NDArray[Any]
X = random((1, 4, 6, 3))
Y = random((1, 4, 6, 3), 1)
RELU, RELU_N1_TO_1, RELU6, TANH = 1, 2, 3, 4


def one(
    op_type: str, inputs: Sequence[Array | Tensor], options: Mapping[str, Any] | None = None, results: int = 1,
    dtype: str = "float32",
) -> bytes:  # fmt: skip
    """Return a model of one operator; arrays are its inputs, which the network gets."""
    tensors = [x if isinstance(x, Tensor) else Tensor(x.shape, dtype=x.dtype.name) for x in inputs]
    given = [number for number, x in enumerate(inputs) if not isinstance(x, Tensor)]
    made = list(range(len(tensors), len(tensors) + results))
    operator = Operator(op_type, range(len(tensors)), made, options or {})
    return model([*tensors, *(Tensor(dtype=dtype) for _ in made)], [operator], given, made)


def close(found: Any, wanted: npt.ArrayLike) -> None:
    wanted = np.asarray(wanted)
    assert np.shape(found) == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * max(1, np.abs(wanted).max(initial=0)))


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


UNARY: dict[str, tuple[Callable[[Array], Any], Mapping[str, Any]]] = {
    "ABS": (np.abs, {}), "CEIL": (np.ceil, {}), "COS": (np.cos, {}), "EXP": (np.exp, {}), "FLOOR": (np.floor, {}),
    "NEG": (np.negative, {}), "ROUND": (np.round, {}), "SIGN": (np.sign, {}), "SIN": (np.sin, {}),
    "SQUARE": (np.square, {}), "TANH": (np.tanh, {}), "LOGISTIC": (sigmoid, {}), "RELU": (relu, {}),
    "RELU6": (lambda x: np.clip(x, 0, 6), {}), "RELU_N1_TO_1": (lambda x: np.clip(x, -1, 1), {}),
    "RELU_0_TO_1": (lambda x: np.clip(x, 0, 1), {}), "ELU": (lambda x: np.where(x < 0, np.exp(x) - 1, x), {}),
    "HARD_SWISH": (lambda x: x * np.clip(x + 3, 0, 6) / 6, {}),
    "LEAKY_RELU": (lambda x: np.where(x < 0, 0.25 * x, x), {"alpha": 0.25}),
    "GELU": (lambda x: x * 0.5 * (1 + np.vectorize(erf)(x / sqrt(2))), {"approximate": False}),
    "SOFTMAX": (lambda x: np.exp(2 * x) / np.exp(2 * x).sum(-1, keepdims=True), {"beta": 2.0}),
    "LOG_SOFTMAX": (lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True)), {}),
    "L2_NORMALIZATION": (lambda x: x / np.sqrt((x * x).sum(-1, keepdims=True)), {}),
}  # fmt: skip


@pytest.mark.parametrize("op_type", UNARY)
def test_functions_of_one_operand(op_type: str) -> None:
    function, options = UNARY[op_type]
    close(run(one(op_type, [X], options), X), function(X))


@pytest.mark.parametrize(("op_type", "function"), [("SQRT", np.sqrt), ("LOG", np.log), ("RSQRT", lambda x: x**-0.5)])
def test_functions_of_positive_numbers(op_type: str, function: Callable[[Array], Array]) -> None:
    tensors = [Tensor(X.shape), Tensor(X.shape), constant(1.0), Tensor(X.shape), Tensor(X.shape)]
    operators = [
        Operator("SQUARE", [0], [1]), Operator("ADD", [1, 2], [3], {}), Operator(op_type, [3], [4])
    ]  # fmt: skip
    close(run(model(tensors, operators, [0], [4]), X), function(X * X + 1))


BINARY: dict[str, Callable[[Array, Array], Any]] = {
    "ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "DIV": np.divide, "MAXIMUM": np.maximum,
    "MINIMUM": np.minimum, "SQUARED_DIFFERENCE": lambda x, y: (x - y) ** 2,
    "FLOOR_DIV": lambda x, y: np.floor(x / y), "FLOOR_MOD": lambda x, y: x - y * np.floor(x / y),
}  # fmt: skip


@pytest.mark.parametrize("op_type", BINARY)
@pytest.mark.parametrize("shape", [(1, 4, 6, 3), (3,), (1, 1, 1, 3), ()])
@pytest.mark.parametrize("is_constant", [False, True])
def test_functions_of_two_operands(op_type: str, shape: tuple[int, ...], is_constant: bool) -> None:
    y = np.abs(random(shape, 1)) + np.float32(0.5)
    if is_constant:
        close(run(one(op_type, [X, constant(y)]), X), BINARY[op_type](X, y))
    elif shape[:1] == (1,):
        close(run(one(op_type, [X, y]), X, y), BINARY[op_type](X, y))


@pytest.mark.parametrize("power", [2.0, 3.0, 0.5])
def test_powers(power: float) -> None:
    close(run(one("POW", [X, constant(power)]), np.abs(X)), np.abs(X) ** np.float32(power))


COMPARISONS = {
    "EQUAL": np.equal, "NOT_EQUAL": np.not_equal, "LESS": np.less, "LESS_EQUAL": np.less_equal,
    "GREATER": np.greater, "GREATER_EQUAL": np.greater_equal,
}  # fmt: skip


@pytest.mark.parametrize("op_type", COMPARISONS)
def test_comparisons(op_type: str) -> None:
    x = np.round(X)
    found = run(one(op_type, [x, constant(np.float32(1))], dtype="bool"), x)
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, COMPARISONS[op_type](x, 1))


@pytest.mark.parametrize("op_type", ["LOGICAL_AND", "LOGICAL_OR"])
def test_logic(op_type: str) -> None:
    x, y = X > 0, Y > 0
    found = run(one(op_type, [x, y], dtype="bool"), x, y)
    np.testing.assert_array_equal(found, x & y if op_type == "LOGICAL_AND" else x | y)
    np.testing.assert_array_equal(run(one("LOGICAL_NOT", [x], dtype="bool"), x), ~x)


def test_selections() -> None:
    chosen = Y > 0
    close(run(one("SELECT_V2", [chosen, X, constant(0.5)]), chosen, X), np.where(chosen, X, 0.5))
    close(run(one("SELECT", [chosen, X, Y]), chosen, X, Y), np.where(chosen, X, Y))


def test_sums_of_many() -> None:
    close(run(one("ADD_N", [X, Y, X * 2]), X, Y, X * 2), 3 * X + Y)


def test_slopes_for_each_channel() -> None:
    slope = np.array([0.25, 0.5, 2], np.float32).reshape(1, 1, 3)
    close(run(one("PRELU", [X, constant(slope)]), X), np.where(X < 0, slope * X, X))


@pytest.mark.parametrize(("activation", "low", "high"), [(RELU, 0, np.inf), (RELU6, 0, 6), (RELU_N1_TO_1, -1, 1)])
def test_activations_of_results(activation: int, low: float, high: float) -> None:
    tensors = [Tensor(X.shape), constant(4.0), Tensor(X.shape)]
    data = model(tensors, [Operator("MUL", [0, 1], [2], {"activation": activation})], [0], [2])
    close(run(data, X), np.clip(4 * X, low, high))


def test_activations_that_layers_do_not_have() -> None:
    tensors = [Tensor(X.shape), constant(4.0), Tensor(X.shape)]
    for activation, message in ((TANH, "MUL with activation TANH"), (9, "activation: expected 0 to 5, found 9")):
        data = model(tensors, [Operator("MUL", [0, 1], [2], {"activation": activation})], [0], [2])
        with pytest.raises(UnfitError, match=message):
            read_tflite(data)


REDUCTIONS: dict[str, Callable[..., Array]] = {
    "MEAN": np.mean, "SUM": np.sum, "REDUCE_MAX": np.max, "REDUCE_MIN": np.min, "REDUCE_PROD": np.prod,
}  # fmt: skip


@pytest.mark.parametrize("op_type", REDUCTIONS)
@pytest.mark.parametrize("axes", [[1, 2], [-1], [3, 1]])
@pytest.mark.parametrize("keep", [False, True])
def test_reductions(op_type: str, axes: list[int], keep: bool) -> None:
    data = one(op_type, [X, constant(axes)], {"keep_dims": keep})
    close(run(data, X), REDUCTIONS[op_type](X, axis=tuple(axes), keepdims=keep))


@pytest.mark.parametrize("op_type", ["ARG_MAX", "ARG_MIN"])
@pytest.mark.parametrize("axis", [1, 3, -1])
def test_places_of_extremes(op_type: str, axis: int) -> None:
    found = run(one(op_type, [X, constant(axis)], {"output_type": 2}, dtype="int32"), X)
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, (np.argmax if op_type == "ARG_MAX" else np.argmin)(X, axis))


def test_truths_of_any_and_all() -> None:
    x = X > 0
    for op_type, function in (("REDUCE_ANY", np.any), ("REDUCE_ALL", np.all)):
        found = run(one(op_type, [x, constant([1, 2])], {"keep_dims": False}, dtype="bool"), x)
        np.testing.assert_array_equal(found, function(x, axis=(1, 2)))


def test_changes_of_dtype() -> None:
    np.testing.assert_array_equal(run(one("CAST", [X * 3], dtype="int32"), X * 3), (X * 3).astype(np.int32))
    whole = np.arange(72, dtype=np.int32).reshape(X.shape)
    close(run(one("CAST", [whole]), whole), whole)


def test_positions_as_ones() -> None:
    places = np.array([[2, 0, 4]], np.int32)
    data = one("ONE_HOT", [places, constant(5), constant(3.0), constant(-1.0)], {"axis": -1})
    close(run(data, places), np.where(np.eye(5)[places], 3, -1))
