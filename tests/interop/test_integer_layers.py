"""The rewriting of quantised layers as layers of integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dcformat_interop.graph_builder import GraphBuilder, Value
from dcformat_interop.graph_passes import to_integers
from dcformat_runtime import Session

from dcformat.graph import Conv, Linear, Output, Port, Quantize, Requantize
from dcformat.model import Model

Array = np.ndarray[Any, Any]

STEPS = np.array([0.5, 0.01, 0.3], np.float32)


def layer(
    integers: Array, steps: Array, bias: Array | None, scale: float = 0.25, port: str = "int8", noted: bool = True
) -> tuple[GraphBuilder, Value]:
    """Return a quantised linear layer of an input with `scale` and zero point 3."""
    builder = GraphBuilder()
    x = builder.input(Port((integers.shape[1],), "x", port))
    real = builder.binary("mul", builder.binary("sub", x, 3.0), scale)
    weight = (integers * steps.reshape(-1, 1).astype(np.float64)).astype(np.float32)
    if noted:
        builder.note_steps(weight, steps)
    stored = builder.tensor(weight, "layer.weight")
    named = None if bias is None else builder.tensor(bias.astype(np.float32), "layer.bias")
    made = builder.emit(Linear, (real,), weight=stored, bias=named)
    made = builder.emit(Quantize, (made,), scale=2.0, zero_point=-5, low=-128, high=127)
    return builder, builder.add(builder.unary("round", builder.binary("div", made, 2.0)), -5.0)


def models(builder: GraphBuilder, output: Value) -> tuple[Model, Model]:
    """Return the network before and after."""
    rewritten, (made,) = to_integers(builder, [output])
    return (
        builder.model([Output(output.number, "y", "int8")]), rewritten.model([Output(made.number, "y", "int8")])
    )  # fmt: skip


def requantize(model: Model) -> Requantize:
    assert model.graph is not None
    (found,) = [node for node in model.graph.nodes if isinstance(node, Requantize)]
    return found


def inputs(features: int) -> Array:
    return np.random.default_rng(7).integers(-128, 128, (500, features)).astype(np.int8)


def test_a_layer_of_integers() -> None:
    integers = np.random.default_rng(0).integers(-127, 128, (3, 6))
    bias = np.array([1000, -20, 0])
    before, after = models(*layer(integers, STEPS, bias * (STEPS * 0.25).astype(np.float64)))
    assert after.graph is not None
    assert [node.kind for node in after.graph.nodes] == ["binary", "linear", "requantize", "add"]
    assert after.tensors["layer.weight"].dtype == "int8"
    np.testing.assert_array_equal(after.tensors["layer.weight"].to_dense(), integers)
    np.testing.assert_array_equal(after.tensors["layer.bias"].to_dense(), bias)
    np.testing.assert_array_equal(after.tensors["layer.scale"].to_dense(), STEPS)
    node = requantize(after)
    assert (node.input_scale, node.output_scale, node.low, node.high) == (0.25, 2.0, -123, 132)
    x = inputs(6)
    found, wanted = (Session.from_model(model, backend="numpy")(x).astype(int) for model in (after, before))
    assert np.abs(found - wanted).max() <= 1  # sums of numbers are rounded, sums of integers are not
    assert (found == wanted).mean() > 0.98


def test_one_scale_for_all_channels_is_a_constant() -> None:
    integers = np.arange(-9, 9).reshape(3, 6)
    _, after = models(*layer(integers, STEPS[1:2], None))
    assert requantize(after).inputs[1] == float(STEPS[1])
    assert list(after.tensors) == ["layer.weight"]


def test_channels_without_weights_are_constants() -> None:
    """Converters give them a tiny scale, and a bias near 2^30 that float32 does not hold."""
    integers = np.array([[1, 2], [0, 0], [0, 0], [0, 0]])
    steps = np.array([0.5, 3e-9, 4e-10, 7e-9], np.float32)
    bias = np.array([7, 1073741760, -1073741825, 1 << 30])
    before, after = models(*layer(integers, steps, bias * steps.astype(np.float64) * 0.25))
    wanted = np.rint(bias[1:] * (0.25 * steps[1:].astype(np.float64) / 2))
    np.testing.assert_array_equal(after.tensors["layer.bias"].to_dense()[1:], wanted)
    np.testing.assert_array_equal(after.tensors["layer.scale"].to_dense(), [0.5, 8, 8, 8])
    x = inputs(2)
    found, expected = (Session.from_model(model, backend="numpy")(x) for model in (after, before))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("what", "changes"), [
    ("steps that nobody noted", {"noted": False}),
    ("numbers of float32", {"port": "float32"}),
    ("weights beyond int8", {"integers": np.full((3, 2), 128)}),
    ("a bias between two integers", {"bias": np.array([0.3, 0, 0])}),
    ("sums beyond int32", {"bias": np.array([1.5 * 2**30, 0, 0]) * 0.125, "integers": np.full((3, 40_000), 127)}),
    ("steps for other channels", {"steps": np.array([0.5, 0.25], np.float32), "integers": np.ones((2, 3)) * 0.3}),
])  # fmt: skip
def test_what_stays_as_it_is(what: str, changes: dict[str, Any]) -> None:
    given: dict[str, Any] = {"integers": np.array([[1, -2]] * 3), "steps": STEPS, "bias": np.zeros(3), **changes}
    if len(given["steps"]) != 3:
        given["bias"] = None
    builder, output = layer(**given)
    rewritten, made = to_integers(builder, [output])
    assert rewritten is builder, what
    assert made == [output]


def test_steps_are_found_for_weights_in_another_order() -> None:
    builder = GraphBuilder()
    weight = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
    builder.note_steps(weight, STEPS)
    for moved in (weight.transpose(2, 0, 1), weight.reshape(-1), np.ascontiguousarray(weight[::-1])):
        np.testing.assert_array_equal(builder.steps(moved), STEPS)
    changed = weight.copy()
    changed[0, 0, 0] += 1
    assert builder.steps(changed) is None


def test_moves_and_pools_keep_the_integers() -> None:
    builder = GraphBuilder()
    x = builder.input(Port((2, 6, 6), "x", "uint8"))
    real = builder.pad(builder.binary("mul", x, 0.5), [0, 1, 1], [0, 1, 1])
    weight = builder.tensor(np.full((3, 2, 1, 1), 1.5, np.float32), "w")
    builder.note_steps(builder.tensors[weight], np.array([0.5], np.float32))
    made = builder.emit(Conv, (builder.transpose(real, (0, 2, 1)),), weight=weight)
    made = builder.emit(Quantize, (made,), scale=1.0, zero_point=0, low=0, high=255)
    mean = builder.reduce("mean", made, (1, 2))
    output = builder.emit(Quantize, (mean,), scale=0.5, zero_point=0, low=0, high=255)
    rewritten, _ = to_integers(builder, [builder.binary("div", output, 0.5)])
    kinds = [node.kind for node in rewritten.nodes]
    assert kinds == ["pad", "transpose", "conv", "requantize", "reduce", "requantize"]
