"""Layers with weights, pools, and recurrent layers compute what TensorFlow Lite defines, and what LiteRT computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from dcformat_interop import UnsupportedOperatorsError, import_tflite

from tests.interop.tflite.support import checked, graph_of, kinds, random, run
from tests.interop.tflite.test_operators import close, one
from tests.interop.tflite.writer import Operator, Tensor, constant, model

Array = npt.NDArray[Any]
SAME, VALID = 0, 1
RELU = 1
X = random((1, 7, 9, 4))


Pair = tuple[int, int]


def windows(x: Array, kernel: Pair, stride: Pair, padding: int, dilation: Pair, fill: float) -> Array:
    """Return the windows of an NHWC array: ``(height, width, kernel height, kernel width, channels)``."""
    pads = []
    for size, k, s, d in zip(x.shape[1:3], kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0) if padding == SAME else 0
        pads.append((total // 2, total - total // 2))
    padded = np.pad(x[0], (*pads, (0, 0)), constant_values=fill)
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(padded, span, (0, 1))[:: stride[0], :: stride[1]]
    return views[..., :: dilation[0], :: dilation[1]].transpose(0, 1, 3, 4, 2)


def convolution(x: Array, weight: Array, bias: Array, stride: Pair, padding: int, dilation: Pair) -> Array:
    _, height, width, per_group = weight.shape
    groups = x.shape[3] // per_group
    parts = [
        np.tensordot(windows(part, (height, width), stride, padding, dilation, 0), kernel, ([2, 3, 4], [1, 2, 3]))
        for part, kernel in zip(np.split(x, groups, 3), np.split(weight, groups), strict=True)
    ]
    return np.concatenate(parts, -1)[None] + bias


@pytest.mark.parametrize("padding", [SAME, VALID])
@pytest.mark.parametrize(
    ("stride", "dilation"), [((1, 1), (1, 1)), ((2, 3), (1, 1)), ((1, 1), (2, 3)), ((3, 1), (1, 1))]
)
@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions(padding: int, stride: tuple[int, int], dilation: tuple[int, int], groups: int) -> None:
    weight, bias = random((6, 3, 2, 4 // groups), 1), random((6,), 2)
    options = {
        "padding": padding, "stride_h": stride[0], "stride_w": stride[1], "dilation_h": dilation[0],
        "dilation_w": dilation[1], "activation": RELU,
    }  # fmt: skip
    data = one("CONV_2D", [X, constant(weight), constant(bias)], options)
    close(run(data, X), np.maximum(convolution(X, weight, bias, stride, padding, dilation), 0))


@pytest.mark.parametrize("padding", [SAME, VALID])
@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_convolutions(padding: int, multiplier: int, stride: int) -> None:
    weight, bias = random((1, 3, 3, 4 * multiplier), 1), random((4 * multiplier,), 2)
    options = {"padding": padding, "stride_h": stride, "stride_w": stride, "depth_multiplier": multiplier}
    data = one("DEPTHWISE_CONV_2D", [X, constant(weight), constant(bias)], options)
    close(run(data, X), convolution(X, weight.transpose(3, 1, 2, 0), bias, (stride, stride), padding, (1, 1)))


@pytest.mark.parametrize(("padding", "size"), [(SAME, (14, 18)), (SAME, (13, 17)), (VALID, (15, 19))])
def test_transposed_convolutions(padding: int, size: tuple[int, int]) -> None:
    weight, bias = random((5, 3, 3, 4), 1), random((5,), 2)
    shape = np.array([1, *size, 5], np.int32)
    options = {"padding": padding, "stride_h": 2, "stride_w": 2}
    data = one("TRANSPOSE_CONV", [constant(shape), constant(weight), X, constant(bias)], options)
    full = np.zeros((2 * 7 + 3, 2 * 9 + 3, 5), np.float32)
    for row in range(7):
        for column in range(9):
            product = np.tensordot(weight, X[0, row, column], (3, 0)).transpose(1, 2, 0)
            full[2 * row : 2 * row + 3, 2 * column : 2 * column + 3] += product
    cut = [
        max((n - 1) * 2 + 3 - length, 0) // 2 if padding == SAME else 0
        for n, length in zip((7, 9), size, strict=True)
    ]  # fmt: skip
    close(run(data, X), full[None, cut[0] : cut[0] + size[0], cut[1] : cut[1] + size[1]] + bias)


@pytest.mark.parametrize("padding", [SAME, VALID])
@pytest.mark.parametrize(("kernel", "stride"), [((2, 2), (2, 2)), ((3, 2), (1, 2)), ((7, 9), (1, 1))])
def test_pools(padding: int, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
    options = {
        "padding": padding, "stride_h": stride[0], "stride_w": stride[1], "filter_h": kernel[0], "filter_w": kernel[1]
    }  # fmt: skip
    largest = windows(X, kernel, stride, padding, (1, 1), -np.inf)
    close(run(one("MAX_POOL_2D", [X], options), X), largest.max((2, 3))[None])
    valid = windows(X, kernel, stride, padding, (1, 1), np.nan)
    close(run(one("AVERAGE_POOL_2D", [X], options), X), np.nanmean(valid, (2, 3))[None])


@pytest.mark.parametrize("keep", [False, True])
def test_fully_connected_layers(keep: bool) -> None:
    x, weight, bias = random((1, 5, 8)), random((3, 8), 1), random((3,), 2)
    data = one("FULLY_CONNECTED", [x, constant(weight), constant(bias)], {"keep_num_dims": keep})
    wanted = x @ weight.T + bias
    close(run(data, x), wanted if keep else wanted.reshape(5, 3))


def test_a_layer_without_a_bias() -> None:
    x, weight = random((1, 8)), random((3, 8), 1)
    tensors = [Tensor((1, 8)), constant(weight), Tensor((1, 3))]
    data = model(tensors, [Operator("FULLY_CONNECTED", [0, 1, -1], [2])], [0], [2])
    close(run(data, x), x @ weight.T)
    assert checked(data).model.tensors.keys() == {"tensor_1.weight"}


def test_weights_take_the_order_of_a_convolution_s_results() -> None:
    kernel, weight = random((5, 3, 3, 4), 1), random((3, 7 * 9 * 5), 2)
    tensors = [
        Tensor(X.shape, name="image"), constant(kernel, name="net/conv/Conv2D"), constant(random((5,), 3), name="b"),
        Tensor((1, 7, 9, 5)), constant([1, -1]), Tensor((1, 315)), constant(weight, name="net/dense/MatMul"),
        Tensor((1, 3), name="scores"),
    ]  # fmt: skip
    operators = [
        Operator("CONV_2D", [0, 1, 2], [3], {"stride_h": 1, "stride_w": 1}), Operator("RESHAPE", [3, 4], [5]),
        Operator("FULLY_CONNECTED", [5, 6, -1], [7]),
    ]  # fmt: skip
    data = model(tensors, operators, [0], [7])
    features = convolution(X, kernel, random((5,), 3), (1, 1), SAME, (1, 1))
    close(run(data, X), features.reshape(1, -1) @ weight.T)
    imported = checked(data)
    assert kinds(imported) == ["transpose", "conv", "flatten", "linear"]
    assert set(imported.model.tensors) == {"conv.weight", "conv.bias", "dense.weight"}
    assert graph_of(imported).inputs[0].name == "image"
    assert graph_of(imported).outputs[0].name == "scores"


@pytest.mark.parametrize("constant_right", [False, True])
@pytest.mark.parametrize(("left", "right"), [(False, False), (True, False), (False, True)])
def test_products_of_matrices(constant_right: bool, left: bool, right: bool) -> None:
    x, y = random((1, 3, 4, 5)), random((1, 3, 5, 2), 1)
    a, b = np.swapaxes(x, 2, 3) if left else x, np.swapaxes(y, 2, 3) if right else y
    given = [a, constant(b) if constant_right else b]
    data = one("BATCH_MATMUL", given, {"adj_x": left, "adj_y": right})
    close(run(data, a) if constant_right else run(data, a, b), x @ y)


def lstm(x: Array, weights: list[Array], recurrent: list[Array], biases: list[Array]) -> Array:
    hidden = cell = np.zeros(len(biases[0]), np.float32)
    out = []
    for step in x:
        sums = [w @ step + r @ hidden + b for w, r, b in zip(weights, recurrent, biases, strict=True)]
        i, f, o = (1 / (1 + np.exp(-sums[number])) for number in (0, 1, 3))
        cell = f * cell + i * np.tanh(sums[2])
        hidden = o * np.tanh(cell)
        out.append(hidden)
    return np.stack(out)


@pytest.mark.parametrize("time_major", [False, True])
def test_recurrent_layers(time_major: bool) -> None:
    steps, features, units = 5, 4, 3
    weights = [random((units, features), seed) for seed in range(4)]
    recurrent = [random((units, units), seed) for seed in range(4, 8)]
    biases = [random((units,), seed) for seed in range(8, 12)]
    shape = (steps, 1, features) if time_major else (1, steps, features)
    states = [Tensor((1, units), others={5: _true()}) for _ in range(2)]
    tensors = [Tensor(shape), *map(constant, weights), *map(constant, recurrent), *map(constant, biases), *states,
               Tensor((*shape[:2], units))]  # fmt: skip
    inputs = [0, *range(1, 9), -1, -1, -1, *range(9, 13), -1, -1, 13, 14, -1, -1, -1, -1]
    options = {"cell_activation": 4, "time_major": time_major}
    data = model(tensors, [Operator("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [15], options)], [0], [15])
    x = random(shape, 20)
    close(run(data, x).reshape(steps, units), lstm(x.reshape(steps, features), weights, recurrent, biases))  # type: ignore[union-attr]


def _true() -> Any:
    from tests.interop.tflite.writer import Number

    return Number("?", 1)


def test_weights_of_half_precision() -> None:
    weight = random((3, 8), 1).astype(np.float16)
    x = random((1, 8))
    tensors = [Tensor((1, 8)), constant(weight), Tensor((3, 8)), Tensor((1, 3))]
    operators = [Operator("DEQUANTIZE", [1], [2]), Operator("FULLY_CONNECTED", [0, 2, -1], [3])]
    close(run(model(tensors, operators, [0], [3]), x), x @ weight.astype(np.float32).T)


def test_a_variant_that_is_not_supported_is_named() -> None:
    data = one("FULLY_CONNECTED", [random((1, 8)), constant(random((3, 8)))], {"weights_format": 1})
    with pytest.raises(UnsupportedOperatorsError, match="FULLY_CONNECTED with shuffled weights"):
        import_tflite(data)
