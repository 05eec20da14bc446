"""Quantised networks compute with the numbers that integers represent, and round where the file does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from dcformat_interop import UnfitError, import_tflite, read_tflite

from dcformat.graph import Conv, Linear, Requantize
from tests.interop.tflite.support import checked, graph_of, kinds, random, run
from tests.interop.tflite.test_layers import SAME, convolution
from tests.interop.tflite.writer import Operator, Tensor, constant, model

Array = npt.NDArray[Any]
RELU, RELU6 = 1, 3
SHAPE = (1, 5, 6, 4)
IN, OUT = (0.0517, -3), (0.1243, 7)


def integers(shape: Sequence[int], seed: int = 0, dtype: str = "int8") -> Array:
    bounds = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(bounds.min, bounds.max + 1, tuple(shape)).astype(dtype)


def real(values: Array, how: tuple[float, int]) -> Array:
    return (values.astype(np.float64) - how[1]) * np.float32(how[0])


def rounded(
    values: Array, how: tuple[float, int], dtype: str = "int8", low: float = -np.inf, high: float = np.inf
) -> Array:
    bounds = np.iinfo(dtype)
    whole = np.rint(np.clip(values, low, high) / np.float32(how[0])) + how[1]
    return np.clip(whole, bounds.min, bounds.max).astype(dtype)


def quantized(shape: Sequence[int], how: tuple[float, int], dtype: str = "int8", **others: Any) -> Tensor:
    return Tensor(shape, dtype=dtype, scale=how[0], zero_point=how[1], **others)


def same(found: Any, wanted: Array) -> None:
    """Assert that integers are the same, except for a few sums in the middle of two."""
    assert found.dtype == wanted.dtype
    apart = np.abs(found.astype(int) - wanted.astype(int))
    assert apart.max() <= 1
    assert np.count_nonzero(apart) <= apart.size // 50


Function = Callable[..., Any]
FUNCTIONS: dict[str, tuple[Function, Mapping[str, Any], tuple[float, int]]] = {
    "LOGISTIC": (lambda x: 1 / (1 + np.exp(-x)), {}, (1 / 256, -128)),
    "TANH": (np.tanh, {}, (1 / 128, 0)),
    "HARD_SWISH": (lambda x: x * np.clip(x + 3, 0, 6) / 6, {}, OUT),
    "LEAKY_RELU": (lambda x: np.where(x < 0, 0.25 * x, x), {"alpha": 0.25}, OUT),
    "RELU": (lambda x: np.maximum(x, 0), {}, OUT),
    "SOFTMAX": (lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True), {"beta": 1.0}, (1 / 256, -128)),
    "QUANTIZE": (lambda x: x, {}, OUT),
}


@pytest.mark.parametrize("op_type", FUNCTIONS)
def test_functions_of_one_operand(op_type: str) -> None:
    function, options, how = FUNCTIONS[op_type]
    x = integers(SHAPE)
    data = model([quantized(SHAPE, IN), quantized(SHAPE, how)], [Operator(op_type, [0], [1], options)], [0], [1])
    same(run(data, x), rounded(function(real(x, IN)), how))


@pytest.mark.parametrize(("op_type", "function"), [("ADD", np.add), ("SUB", np.subtract), ("MUL", np.multiply)])
@pytest.mark.parametrize("activation", [0, RELU, RELU6])
def test_functions_of_two_operands(op_type: str, function: Function, activation: int) -> None:
    x, y, other = integers(SHAPE), integers(SHAPE, 1), (0.03, 5)
    tensors = [quantized(SHAPE, IN), quantized(SHAPE, other), quantized(SHAPE, OUT)]
    data = model(tensors, [Operator(op_type, [0, 1], [2], {"activation": activation})], [0, 1], [2])
    low, high = {0: (-np.inf, np.inf), RELU: (0, np.inf), RELU6: (0, 6)}[activation]
    same(run(data, x, y), rounded(function(real(x, IN), real(y, other)), OUT, low=low, high=high))


@pytest.mark.parametrize(("activation", "low", "high"), [(0, -128, 127), (RELU, 7, 127), (RELU6, 7, 55)])
def test_convolutions_with_scales_for_each_channel(activation: int, low: int, high: int) -> None:
    weight, bias = integers((3, 3, 3, 4), 1), np.array([100, -200, 300], np.int32)
    scales = np.array([0.01, 0.02, 0.005], np.float32)
    tensors = [
        quantized(SHAPE, IN), constant(weight, scale=scales, axis=0), constant(bias, scale=scales * np.float32(IN[0])),
        quantized((1, 5, 6, 3), OUT),
    ]  # fmt: skip
    options = {"stride_h": 1, "stride_w": 1, "activation": activation}
    data = model(tensors, [Operator("CONV_2D", [0, 1, 2], [3], options)], [0], [3])
    x = integers(SHAPE)
    numbers = weight * scales.astype(np.float64).reshape(-1, 1, 1, 1)
    sums = convolution(real(x, IN), numbers, bias * (scales.astype(np.float64) * IN[0]), (1, 1), SAME, (1, 1))
    same(run(data, x), np.clip(rounded(sums, OUT), low, high))
    imported = checked(data)
    rounding = next(node for node in graph_of(imported).nodes if isinstance(node, Requantize))
    assert (rounding.low, rounding.high) == (low - 7, high - 7)
    layer = next(node for node in graph_of(imported).nodes if isinstance(node, Conv))
    stored = imported.model.tensors
    assert stored[layer.weight].dtype == "int8"
    assert layer.bias is not None
    np.testing.assert_array_equal(stored[layer.weight].to_dense(), weight.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(stored[layer.bias].to_dense(), bias)
    np.testing.assert_array_equal(stored[str(rounding.inputs[1])].to_dense().reshape(-1), scales)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_fully_connected_layers_with_zero_points(dtype: str) -> None:
    weight, bias = integers((3, 8), 1, dtype), np.array([100, -200, 300], np.int32)
    point = 131 if dtype == "uint8" else 3
    how, out = (0.05, point), (0.5, point + 4)
    tensors = [
        quantized((1, 8), how, dtype), constant(weight, scale=0.02, zero_point=point if dtype == "uint8" else 0),
        constant(bias, scale=0.001), quantized((1, 3), out, dtype),
    ]  # fmt: skip
    data = model(tensors, [Operator("FULLY_CONNECTED", [0, 1, 2], [3])], [0], [3])
    x = integers((1, 8), 2, dtype)
    sums = real(x, how) @ real(weight, (0.02, point if dtype == "uint8" else 0)).T + bias * 0.001
    same(run(data, x), rounded(sums, out, dtype))


def test_activations_of_16_bits() -> None:
    weight, bias = integers((3, 8), 1), np.array([1000, -2000, 3000], np.int64)
    tensors = [
        quantized((1, 8), (1e-4, 0), "int16"), constant(weight, scale=0.02), constant(bias, scale=2e-6),
        quantized((1, 3), (1e-3, 0), "int16"),
    ]  # fmt: skip
    data = model(tensors, [Operator("FULLY_CONNECTED", [0, 1, 2], [3])], [0], [3])
    x = integers((1, 8), 2, "int16")
    same(run(data, x), rounded(real(x, (1e-4, 0)) @ real(weight, (0.02, 0)).T + bias * 2e-6, (1e-3, 0), "int16"))


def test_weights_of_4_bits() -> None:
    weight = np.random.default_rng(1).integers(-8, 8, (3, 8))
    packed = ((weight.reshape(-1, 2) & 15) << [0, 4]).sum(1).astype(np.uint8)
    tensors = [Tensor((1, 8)), Tensor((3, 8), packed, "int4", scale=[0.5, 1, 2]), Tensor((1, 3))]
    model_ = read_tflite(model(tensors, [Operator("FULLY_CONNECTED", [0, 1, -1], [2])], [0], [2]))
    np.testing.assert_array_equal(model_.tensors["tensor_1.weight"].to_dense(), weight * [[0.5], [1], [2]])


def test_integer_weights_of_a_layer_of_floats() -> None:
    """LiteRT rounds the inputs of such a layer; the check compares with a copy of the file where it does not."""
    weight, x = integers((3, 8), 1), random((1, 8))
    tensors = [Tensor((1, 8)), constant(weight, scale=0.02), constant(random((3,), 3)), Tensor((1, 3))]
    data = model(tensors, [Operator("FULLY_CONNECTED", [0, 1, 2], [3])], [0], [3])
    found = run(data, x)
    np.testing.assert_allclose(found, x @ (weight * np.float32(0.02)).T + random((3,), 3), rtol=1e-5, atol=1e-6)
    assert kinds(import_tflite(data)) == ["linear"]


def test_moved_elements_are_not_rounded_again() -> None:
    x, how = integers(SHAPE), IN
    tensors = [
        quantized(SHAPE, how), constant([[0, 0], [1, 0], [0, 2], [0, 0]]), quantized((1, 6, 8, 4), how),
        quantized((1, 3, 4, 4), how), constant([1, -1]), quantized((1, 48), how),
    ]  # fmt: skip
    pool = {"stride_h": 2, "stride_w": 2, "filter_h": 2, "filter_w": 2}
    operators = [
        Operator("PAD", [0, 1], [2]), Operator("MAX_POOL_2D", [2], [3], pool), Operator("RESHAPE", [3, 4], [5])
    ]  # fmt: skip
    data = model(tensors, operators, [0], [5])
    padded = np.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0)), constant_values=how[1])
    np.testing.assert_array_equal(run(data, x), padded.reshape(1, 3, 2, 4, 2, 4).max((2, 4)).reshape(1, -1))
    assert "quantize" not in kinds(checked(data))


def test_joined_values_of_other_scales_are_rounded() -> None:
    x, y = integers(SHAPE), integers(SHAPE, 1)
    tensors = [quantized(SHAPE, OUT), quantized(SHAPE, IN), quantized((1, 5, 6, 8), OUT)]
    data = model(tensors, [Operator("CONCATENATION", [0, 1], [2], {"axis": 3})], [0, 1], [2])
    imported = import_tflite(data)
    assert kinds(imported).count("quantize") == 1
    from dcformat_runtime import Session

    session = Session.from_model(imported.model, backend="numpy")
    found = session({"tensor_0": x, "tensor_1": y})["tensor_2"]
    same(found, np.concatenate([x, rounded(real(y, IN), OUT)], 3))


def test_floats_around_a_quantised_network() -> None:
    weight, x = integers((3, 8), 1), random((1, 8))
    tensors = [
        Tensor((1, 8)), quantized((1, 8), IN), constant(weight, scale=0.02),
        constant(np.zeros(3, np.int32), scale=0.001), quantized((1, 3), OUT), Tensor((1, 3)),
    ]  # fmt: skip
    operators = [
        Operator("QUANTIZE", [0], [1]), Operator("FULLY_CONNECTED", [1, 2, 3], [4]), Operator("DEQUANTIZE", [4], [5])
    ]  # fmt: skip
    data = model(tensors, operators, [0], [5])
    wanted = real(rounded(real(rounded(x, IN), IN) @ (weight * 0.02).T, OUT), OUT)
    np.testing.assert_allclose(run(data, x), wanted, rtol=1e-6)
    imported = checked(data)
    assert kinds(imported) == ["binary", "requantize", "linear", "requantize", "binary"]
    assert next(node for node in graph_of(imported).nodes if isinstance(node, Linear)).bias is None


def test_scales_for_channels_of_a_value_are_refused() -> None:
    tensors = [Tensor((1, 3), dtype="int8", scale=[0.1, 0.2, 0.3], axis=1), quantized((1, 3), OUT)]
    with pytest.raises(UnfitError, match=r"tensor 0 'tensor_0': expected one scale .*, found 3 scales and int8"):
        import_tflite(model(tensors, [Operator("LOGISTIC", [0], [1])], [0], [1]))
