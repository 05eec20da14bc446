"""Networks of integers: every operator against an oracle in NumPy's int64, and graphs that do not qualify."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from dcformat_runtime import InputError, Session
from dcformat_runtime.compile import integer_network, integer_program
from dcformat_runtime.integer_engine import IntegerEngine
from numpy.lib.stride_tricks import sliding_window_view

from dcformat import Model, from_dense
from dcformat import graph as g

Array = np.ndarray[Any, Any]

SCALES = {"input_scale": 0.5, "output_scale": 2.0}


def model(
    shape: tuple[int, ...], nodes: list[g.Node], tensors: dict[str, Array] | None = None, dtype: str = "int8"
) -> Model:
    """Return a network of integers; the input's zero point is 3 for int8, and 7 for uint8."""
    zero = 3 if dtype == "int8" else 7
    first = g.Binary((0, float(zero)), "sub")
    ports = (g.Port(shape, "x", dtype),)
    graph = g.Graph(ports, (first, *nodes), (g.Output(1 + len(nodes), "y", "int8"),))
    stored = {name: from_dense(name, values) for name, values in (tensors or {}).items()}
    return Model(stored, graph)


def compiled(network: Model) -> IntegerEngine:
    """Return the engine of a network, which must be a network of integers."""
    found = integer_network.read(network)
    assert found is not None
    program = integer_program.build(found, None)
    assert program is not None
    return IntegerEngine(network, program)


def bytes_of(shape: tuple[int, ...], seed: int = 0, dtype: str = "int8", batch: int = 3) -> Array:
    limits = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(limits.min, limits.max + 1, (batch, *shape)).astype(dtype)


def weights_of(shape: tuple[int, ...], seed: int = 1) -> Array:
    found = np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)
    found.reshape(-1)[:2] = (-128, 127)[: found.size]
    return found


def convolved(x: Array, weight: Array, bias: Array, node: g.Conv) -> Array:
    """Return the sums of a convolution, exactly."""
    pads = list(zip(node.padding, node.padding_end, strict=True))
    padded = np.pad(x.astype(np.int64), [(0, 0), (0, 0), *pads])
    reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], node.dilation, strict=True)]
    windows = sliding_window_view(padded, reach, axis=(2, 3))
    windows = windows[:, :, :: node.stride[0], :: node.stride[1], :: node.dilation[0], :: node.dilation[1]]
    if node.groups == 1:
        sums = np.einsum("bcijkl,ockl->boij", windows, weight.astype(np.int64))
    else:
        sums = np.einsum("bcijkl,ckl->bcij", windows, weight[:, 0].astype(np.int64))
    return np.asarray(sums + bias.astype(np.int64).reshape(-1, 1, 1))


def requantized(sums: Array, node: g.Requantize, scales: Array | float) -> Array:
    """Return the results of Requantize for numbers."""
    factor = np.float32(node.input_scale) * np.float32(scales) / np.float32(node.output_scale)
    return np.clip(np.rint(sums.astype(np.float32) * factor), node.low, node.high).astype(np.int64)


def check_layer(shape: tuple[int, int, int], out: int, dtype: str = "int8", **attributes: Any) -> None:
    """Compare a convolution with the oracle."""
    groups = attributes.get("groups", 1)
    kernel = attributes.pop("kernel")
    weight, random = weights_of((out, shape[0] // groups, *kernel)), np.random.default_rng(5)
    bias = random.integers(-9999, 10000, out).astype(np.float32)
    scales = random.uniform(0.5, 2, (out, 1, 1)).astype(np.float32) * np.float32(1 / weight[0].size)
    conv = g.Conv((1,), "w", "b", **attributes)
    rounding = g.Requantize((2, "s"), 0.25, 3.0, -128, 127)
    network = model(shape, [conv, rounding], {"w": weight, "b": bias, "s": scales}, dtype)
    x = bytes_of(shape, dtype=dtype)
    wanted = requantized(convolved(x.astype(np.int64) - (3 if dtype == "int8" else 7), weight, bias, conv), rounding,
                         scales)  # fmt: skip
    assert len(np.unique(wanted)) > 3
    np.testing.assert_array_equal(compiled(network).run_bytes(x), wanted)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize(("channels", "out"), list(product((1, 3, 8, 16, 20), (1, 16, 33, 70))))
def test_convolutions(channels: int, out: int, dtype: str) -> None:
    check_layer((channels, 7, 6), out, dtype, kernel=(3, 3), padding=(1, 1), padding_end=(1, 1))


@pytest.mark.parametrize("attributes", [
    {"kernel": (1, 1)}, {"kernel": (10, 4), "stride": (2, 2), "padding": (4, 1), "padding_end": (5, 1)},
    {"kernel": (3, 2), "stride": (2, 1), "padding_end": (1, 0)}, {"kernel": (2, 3), "dilation": (2, 3)},
    {"kernel": (1, 1), "stride": (3, 2)}, {"kernel": (11, 12)},
])  # fmt: skip
@pytest.mark.parametrize("channels", [1, 5, 16])
def test_windows_of_convolutions(channels: int, attributes: dict[str, Any]) -> None:
    check_layer((channels, 11, 12), 18, **attributes)


@pytest.mark.parametrize("kernel", [(1, 1), (1, 3), (3, 3), (5, 5), (7, 7)])
@pytest.mark.parametrize("channels", [2, 16, 40])
def test_depthwise_convolutions(channels: int, kernel: tuple[int, int]) -> None:
    padding = kernel[0] // 2, kernel[1] // 2
    check_layer((channels, 9, 8), channels, kernel=kernel, groups=channels, padding=padding, padding_end=(1, 2),
                stride=(2, 1))  # fmt: skip


@pytest.mark.parametrize(("features", "out"), [(1, 1), (7, 5), (640, 128), (64, 12), (33, 200)])
def test_linear_layers(features: int, out: int) -> None:
    weight, bias = weights_of((out, features)), np.arange(out, dtype=np.float32) * 100 - 50
    rounding = g.Requantize((2, 1 / features), 0.25, 1.0, -100, 120)
    network = model((features,), [g.Linear((1,), "w", "b"), rounding], {"w": weight, "b": bias})
    x = bytes_of((features,))
    sums = (x.astype(np.int64) - 3) @ weight.astype(np.int64).T + bias.astype(np.int64)
    np.testing.assert_array_equal(
        compiled(network).run_bytes(x), requantized(sums, rounding, 1 / features)
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_words_of_zeros_are_left_out(seed: int) -> None:
    random = np.random.default_rng(seed)
    weight = weights_of((40, 24, 3, 2)) * (random.random((1, 24, 3, 2)) < 0.1)
    weight[:16] = 0
    scales = np.full((40, 1, 1), 0.02, np.float32)
    conv, rounding = g.Conv((1,), "w", "b"), g.Requantize((2, "s"), 1.0, 1.0, -128, 127)
    bias = np.arange(40, dtype=np.float32) * 100
    network = model((24, 6, 7), [conv, rounding], {"w": weight, "b": bias, "s": scales})
    found, x = integer_network.read(network), bytes_of((24, 6, 7))
    assert found is not None
    program = integer_program.build(found, None)
    assert program is not None
    assert program.mem.nbytes < weight.size
    sums = convolved(x.astype(np.int64) - 3, weight, bias, conv)
    np.testing.assert_array_equal(IntegerEngine(network, program).run_bytes(x), requantized(sums, rounding, 0.02))


def test_a_linear_layer_reads_a_flattened_image() -> None:
    conv_weight, weight = weights_of((5, 2, 1, 1)), weights_of((4, 60), 2)
    first, second = (g.Requantize((k, 0.01), 1.0, 1.0, -128, 127) for k in (2, 5))
    nodes = [g.Conv((1,), "v"), first, g.Flatten((3,)), g.Linear((4,), "w"), second]
    network = model((2, 4, 3), nodes, {"v": conv_weight, "w": weight})
    x = bytes_of((2, 4, 3))
    sums = convolved(x.astype(np.int64) - 3, conv_weight, np.zeros(5), g.Conv((1,), "v"))
    inner = requantized(sums, first, 0.01).reshape(3, 60)
    wanted = requantized(inner @ weight.astype(np.int64).T, second, 0.01)
    np.testing.assert_array_equal(compiled(network).run_bytes(x), wanted)


def test_images_with_their_channels_last() -> None:
    weight = weights_of((6, 3, 2, 2))
    rounding = g.Requantize((3, 0.01), 1.0, 1.0, -128, 127)
    nodes = [g.Transpose((1,), (2, 0, 1)), g.Conv((2,), "w"), rounding]
    x = bytes_of((5, 4, 3))
    found = compiled(model((5, 4, 3), nodes, {"w": weight})).run_bytes(x)
    sums = convolved(x.transpose(0, 3, 1, 2).astype(np.int64) - 3, weight, np.zeros(6), g.Conv((2,), "w"))
    np.testing.assert_array_equal(found, requantized(sums, rounding, 0.01))


@pytest.mark.parametrize("channels", [1, 4, 24])
def test_sums_of_two_values(channels: int) -> None:
    """Products, their sum and the rounding are separate steps in float32."""
    shape = (channels, 5, 3)
    first, second = (g.Requantize((1, scale), 1.0, 1.0, low, 120) for scale, low in ((0.7, -100), (-0.3, -50)))
    rounding = g.Requantize((6, 1.0), 1.0, 0.11, -128, 127)
    nodes = [
        first, second, g.Binary((2, 0.123), "mul"), g.Binary((3, 0.0456), "mul"), g.Add((4, 5)), rounding,
    ]  # fmt: skip
    x = bytes_of(shape)
    a, b = (requantized(x.astype(np.int64) - 3, node, float(node.inputs[1])) for node in (first, second))
    total = a.astype(np.float32) * np.float32(0.123) + b.astype(np.float32) * np.float32(0.0456)
    np.testing.assert_array_equal(compiled(model(shape, nodes)).run_bytes(x), requantized(total, rounding, 1.0))


@pytest.mark.parametrize("kind", ["avg", "max", "mean"])
def test_pools(kind: str) -> None:
    shape, x = (18, 6, 5), bytes_of((18, 6, 5))
    numbers = x.astype(np.int64) - 3
    rounding = g.Requantize((2, 1.0), 0.75, 0.5, -128, 127)
    windows = sliding_window_view(numbers, (3, 2), axis=(2, 3))[:, :, ::2, ::1]
    pool: g.Node
    if kind == "avg":
        pool = g.AvgPool((1,), (3, 2), (2, 1), (0, 0), (0, 0))
        made = windows.sum(axis=(4, 5)).astype(np.float32) / np.float32(6)
    elif kind == "max":
        pool, made = g.MaxPool((1,), (3, 2), (2, 1), (0, 0), (0, 0)), windows.max(axis=(4, 5))
    else:
        pool, made = g.Reduce((1,), "mean", (1, 2)), numbers.sum(axis=(2, 3)).astype(np.float32) / np.float32(30)
    found = compiled(model(shape, [pool, rounding])).run_bytes(x)
    np.testing.assert_array_equal(found, requantized(made, rounding, 1.0))


def test_a_softmax() -> None:
    nodes = [g.Binary((1, 0.05), "mul"), g.Softmax((2,)), g.Requantize((3, 1.0), 1.0, 1 / 256, 0, 255),
             g.Binary((4, 128.0), "sub")]  # fmt: skip
    x = bytes_of((12,), batch=50)
    found = compiled(model((12,), nodes)).run_bytes(x)
    e = np.exp((x.astype(np.float64) - x.max(axis=1, keepdims=True)) * np.float32(0.05))
    np.testing.assert_array_equal(found, np.rint(e / e.sum(axis=1, keepdims=True) * 256).clip(0, 255) - 128)


@pytest.mark.needs_compiler
def test_a_session_computes_the_same_as_numpy() -> None:
    weight, scales = weights_of((9, 4, 3, 3)), np.linspace(0.001, 0.01, 9, dtype=np.float32).reshape(-1, 1, 1)
    nodes = [g.Conv((1,), "w"), g.Requantize((2, "s"), 1.0, 1.0, -128, 127)]
    network = model((4, 6, 5), nodes, {"w": weight, "s": scales})
    x = bytes_of((4, 6, 5), batch=4)
    session = Session.from_model(network, backend="numba")
    wanted = Session.from_model(network, backend="numpy")(x)
    assert wanted.dtype == np.int8
    for found in (session(x), session(x.astype(np.int64)), session({"x": x})["y"], session(x[:, ::-1].copy()[:, ::-1])):
        np.testing.assert_array_equal(found, wanted)
    assert [row.name for row in session.profile(x)] == ["input", "w", "output"]
    assert session(x[:0]).shape == (0, *wanted.shape[1:])
    with pytest.raises(InputError, match="expected whole numbers from -128 to 127"):
        session(np.full((1, 4, 6, 5), 128))
    with pytest.raises(InputError, match="shape of input 'x'"):
        session(x[:, :2])


@pytest.mark.needs_compiler
def test_many_weights_are_no_reason_to_compute_with_floats() -> None:
    """The estimate of their memory is above what the same network of floats needs."""
    nodes = [
        g.Linear((1,), "w"), g.Requantize((2, 0.01), 0.25, 1.0, -128, 127), g.Linear((3,), "v"),
        g.Requantize((4, 0.01), 0.25, 1.0, -128, 127),
    ]  # fmt: skip
    network = model((640,), nodes, {"w": weights_of((256, 640)), "v": weights_of((640, 256), 2)})
    session = Session.from_model(network, backend="numba")
    assert [row.name for row in session.profile(bytes_of((640,)))] == ["input", "w", "v", "output"]


def _layer(weight: Array, bias: Array | None = None, **changes: Any) -> Model:
    fields = {**SCALES, "low": -128, "high": 127, "scale": 1.0, **changes}
    rounding = g.Requantize((2, fields.pop("scale")), **fields)
    tensors = {"w": weight} if bias is None else {"w": weight, "b": bias}
    nodes = [g.Linear((1,), "w", None if bias is None else "b"), rounding]
    return model((weight.shape[1],), nodes, tensors)


@pytest.mark.parametrize(("network", "what"), [
    (_layer(np.full((2, 3), 0.5, np.float32)), "weights that are no integers"),
    (_layer(np.full((2, 3), 128, np.float32)), "weights beyond int8"),
    (_layer(np.full((2, 3), 5, np.int8), np.array([0.5, 1], np.float32)), "biases that are no integers"),
    (_layer(np.full((2, 3), 5, np.int8), np.array([0, 2.0**31], np.float32)), "a bias beyond int32"),
    (_layer(np.full((2, 3), 5, np.int8), np.array([0, 3e38], np.float32)), "a bias far beyond int32"),
    (_layer(np.full((1, 66_400), 127, np.int8)), "sums beyond int32"),
    (_layer(np.full((2, 3), 5, np.int8), low=-129), "results that are more than 255 apart"),
    (_layer(np.full((2, 3), 5, np.int8), low=0, high=255), "results beyond the output's dtype"),
    (_layer(np.full((2, 3), 5, np.int8), scale=float("inf")), "infinite factors"),
    (_layer(np.full((2, 3), 5, np.int8), input_scale=3e38, output_scale=1e-38), "factors that become infinite"),
    (model((4,), [g.Unary((1,), "abs"), g.Requantize((2, 1.0), 1.0, 1.0, -128, 127)]), "another operator"),
    (model((4,), [g.Binary((1, 500.0), "sub"), g.Requantize((2, 1.0), 1.0, 1.0, -128, 127)]), "a large zero point"),
    (model((4,), [g.Binary((1, 0.5), "sub"), g.Requantize((2, 1.0), 1.0, 1.0, -128, 127)]), "half a zero point"),
    (model((4,), [g.Binary((1, 3e38), "mul"), g.Binary((1, -3e38), "mul"), g.Add((2, 3)),
                  g.Requantize((4, 1.0), 1.0, 1.0, -128, 127)]), "sums that are no numbers"),
    (model((5,), [g.Binary((1, -0.7), "mul"), g.Softmax((2,)), g.Requantize((3, 1.0), 1.0, 1 / 256, 0, 127)]),
     "a softmax with a negative scale"),
    (model((2, 3, 1), [g.Requantize((1, 1.0), 1.0, 1.0, -128, 127), g.Flatten((2,)),
                       g.Requantize((3, "s"), 1.0, 1.0, -128, 127)], {"s": np.arange(1, 7, dtype=np.float32)}),
     "a scale for each element of a flattened value"),
    (model((4,), [g.Softmax((1,)), g.Requantize((2, 1.0), 1.0, 1.0, -128, 127)]), "a softmax without a scale"),
])  # fmt: skip
def test_what_is_no_network_of_integers(network: Model, what: str) -> None:
    assert integer_network.read(network) is None
    session, x = Session.from_model(network, backend="numba"), bytes_of(network.graph.inputs[0].shape)  # type: ignore[union-attr]
    np.testing.assert_array_equal(session(x), Session.from_model(network, backend="numpy")(x))


@pytest.mark.parametrize("pool", [
    g.Reduce((0,), "mean", (1, 2)), g.AvgPool((0,), (2048, 2057), (1, 1), (0, 0), (0, 0)),
])  # fmt: skip
def test_sums_of_pools_beyond_int32(pool: g.Node) -> None:
    graph = g.Graph((g.Port((1, 2048, 2057), "x", "uint8"),), (pool, g.Requantize((1, 1.0), 1.0, 1.0, 0, 127)),
                    (g.Output(2, "y", "int8"),))  # fmt: skip
    assert integer_network.read(Model({}, graph)) is None


@pytest.mark.parametrize("scale", [0.0, -0.1, 1e-45, 3e38])
def test_odd_scales(scale: float) -> None:
    weight = weights_of((5, 8))
    network, x = _layer(weight, scale=scale, input_scale=1.0, output_scale=1.0), bytes_of((8,))
    sums = (x.astype(np.int64) - 3) @ weight.astype(np.int64).T
    with np.errstate(over="ignore"):
        wanted = np.clip(np.rint(sums.astype(np.float32) * np.float32(scale)), -128, 127)
    np.testing.assert_array_equal(compiled(network).run_bytes(x), wanted)


def test_the_greatest_sums() -> None:
    """Sums of more weights could overflow."""
    weight = np.full((2, 43_000), -128, np.int8)
    weight[1] = 127
    bias = np.array([-10_000, 10_000], np.float32)
    network = _layer(weight, bias, input_scale=1e-7, output_scale=1.0)
    x = np.stack([np.full(43_000, value, np.int8) for value in (-128, 127, 3)])
    sums = (x.astype(np.int64) - 3) @ weight.astype(np.int64).T + bias.astype(np.int64)
    assert np.abs(sums).max() > 1 << 29
    wanted = np.clip(np.rint(sums.astype(np.float32) * np.float32(1e-7)), -128, 127)
    np.testing.assert_array_equal(compiled(network).run_bytes(x), wanted)


def test_a_network_of_many_channels_stays_within_the_memory() -> None:
    weight = from_dense("w", np.ones((1, 1, 1, 1), np.int8))
    nodes = (g.Conv((0,), "w"), g.Requantize((1, 1.0), 1.0, 1.0, -128, 127))
    graph = g.Graph((g.Port((1, 1 << 12, 1 << 12), "x", "int8"),), nodes, (g.Output(2, "y", "int8"),))
    found = integer_network.read(Model({"w": weight}, graph))
    assert found is not None
    assert integer_program.build(found, 1 << 28) is None
