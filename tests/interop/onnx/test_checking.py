"""The check of an import refuses every network that computes something else, however little it differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from dcformat_interop import OnnxImport, UnfitError, import_onnx
from dcformat_runtime import Session

from dcformat import Model, from_dense
from dcformat.graph import AvgPool, Binary, Conv, Node, ReLU, Requantize
from dcformat.records import replace
from tests.interop.onnx.models import UINT8, model, node, random

Change = Callable[[Node], Node]


def floats() -> bytes:
    nodes = [
        node("Conv", ["x", "w1"], ["a"], pads=[1, 1, 0, 0]), node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w2"], ["c"], pads=[1, 1, 1, 1]), node("Sub", ["b", "c"], ["d"]),
        node("AveragePool", ["d"], ["e"], kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Flatten", ["e"], ["f"]), node("Gemm", ["f", "w3"], ["y"], transB=1),
    ]  # fmt: skip
    tensors = {"w1": random(8, 3, 2, 2), "w2": random(8, 8, 3, 3), "w3": random(10, 200)}
    return model(nodes, {"x": ["n", 3, 8, 8]}, {"y": ["n", 10]}, tensors)


def halves() -> bytes:
    nodes = [
        node("Cast", ["x"], ["h"], to=10), node("MatMul", ["h", "w1"], ["a"]), node("Relu", ["a"], ["b"]),
        node("MatMul", ["b", "w2"], ["c"]), node("Cast", ["c"], ["y"], to=1),
    ]  # fmt: skip
    tensors = {"w1": random(64, 64).astype(np.float16), "w2": random(64, 10).astype(np.float16)}
    return model(nodes, {"x": ["n", 64]}, {"y": ["n", 10]}, tensors)


def integers() -> bytes:
    tensors: dict[str, Any] = {"z": np.uint8(128), "zw": np.int8(0)}
    nodes: list[Any] = []

    def rounded(name: str, scale: float) -> str:
        tensors[f"{name}.s"] = np.float32(scale)
        nodes.append(node("QuantizeLinear", [name, f"{name}.s", "z"], [f"{name}.q"]))
        nodes.append(node("DequantizeLinear", [f"{name}.q", f"{name}.s", "z"], [f"{name}.r"]))
        return f"{name}.r"

    def weight(name: str, *shape: int) -> str:
        tensors[name] = np.random.default_rng(len(name)).integers(-127, 128, shape).astype(np.int8)
        tensors[f"{name}.s"] = np.float32(0.01)
        nodes.append(node("DequantizeLinear", [name, f"{name}.s", "zw"], [f"{name}.r"]))
        return f"{name}.r"

    nodes.append(node("Conv", [rounded("x", 0.03), weight("w1", 8, 3, 3, 3)], ["a"], pads=[1, 1, 1, 1]))
    nodes.append(node("Relu", ["a"], ["b"]))
    nodes.append(node("Conv", [rounded("b", 0.1), weight("w2.", 8, 8, 3, 3)], ["c"], pads=[1, 1, 1, 1]))
    nodes.append(node("Flatten", [rounded("c", 0.4)], ["d"]))
    nodes.append(node("Gemm", ["d", weight("w3..", 10, 512)], ["e"], transB=1))
    tensors["e.s"] = np.float32(2)
    nodes.append(node("QuantizeLinear", ["e", "e.s", "z"], ["y"]))
    return model(nodes, {"x": ["n", 3, 8, 8]}, {"y": (UINT8, ["n", 10])}, tensors)


def deep() -> bytes:
    """Return a network whose layers of integers multiply a step of rounding, so that it moves most of the outputs."""
    nodes: list[Any] = []
    tensors: dict[str, Any] = {"z": np.uint8(128), "zw": np.int8(0), "s": np.float32(0.03), "ws": np.float32(0.0016)}
    last = "x"
    for layer in range(12):
        name = f"c{layer}"
        tensors[f"{name}.w"] = np.random.default_rng(layer).integers(-127, 128, (8, 8 if layer else 3, 3, 3), np.int8)
        nodes += [
            node("QuantizeLinear", [last, "s", "z"], [f"{name}.q"]),
            node("DequantizeLinear", [f"{name}.q", "s", "z"], [f"{name}.x"]),
            node("DequantizeLinear", [f"{name}.w", "ws", "zw"], [f"{name}.v"]),
            node("Conv", [f"{name}.x", f"{name}.v"], [name], pads=[1, 1, 1, 1]),
        ]
        last = name
    nodes.append(node("QuantizeLinear", [last, "s", "z"], ["y"]))
    return model(nodes, {"x": ["n", 3, 20, 20]}, {"y": (UINT8, ["n", 8, 20, 20])}, tensors)


def refused(imported: OnnxImport, wrong: Model) -> None:
    with pytest.raises(UnfitError, match="output 'y': expected "):
        imported.check(Session.from_model(wrong, backend="numpy"))


def flipped(right: Model, name: str) -> Model:
    """Change the sign of one weight, of the usual size."""
    tensor = right.tensors[name]
    values = tensor.to_dense().copy()
    flat = np.abs(values.astype(np.float64)).reshape(-1)
    place = int(np.argmin(np.abs(flat - flat.mean())))
    values.reshape(-1)[place] *= -1
    return replace(right, tensors={**right.tensors, name: from_dense(name, values, tensor.dtype, tensor.scale)})


def with_node(right: Model, kind: type[Node], change: Any) -> Model:
    """Change the first operator of a kind."""
    assert right.graph is not None
    nodes = list(right.graph.nodes)
    place = next(number for number, made in enumerate(nodes) if isinstance(made, kind))
    nodes[place] = change(nodes[place])
    return replace(right, graph=replace(right.graph, nodes=tuple(nodes)))


def mirrored(made: Any) -> Any:
    return replace(made, padding=made.padding_end, padding_end=made.padding)


def moved(made: Any) -> Any:
    return replace(made, padding=(2, 1), padding_end=(0, 1))


@pytest.mark.parametrize("source", [floats, halves, integers])
def test_a_network_passes_its_own_check(source: Callable[[], bytes]) -> None:
    imported = import_onnx(source())
    found = imported.check(Session.from_model(imported.model, backend="numpy"))
    assert (found.rounding is not None) == (source is integers)


@pytest.mark.parametrize("source", [floats, halves, integers])
def test_a_flipped_weight(source: Callable[[], bytes]) -> None:
    imported = import_onnx(source())
    names = [name for name, tensor in imported.model.tensors.items() if len(tensor.shape) > 1 and tensor.size > 100]
    assert len(names) == (2 if source is halves else 3) - (source is floats)
    for name in names:
        refused(imported, flipped(imported.model, name))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (Conv, mirrored),
        (Binary, lambda made: replace(made, inputs=made.inputs[::-1])),
        (AvgPool, lambda made: replace(made, count_include_pad=not made.count_include_pad)),
        (ReLU, lambda made: Binary((*made.inputs, 0.1), "maximum")),
    ],
    ids=["padding", "operands", "pool", "function"],
)
def test_another_operator(kind: type[Node], change: Any) -> None:
    imported = import_onnx(floats())
    refused(imported, with_node(imported.model, kind, change))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (Conv, moved),
        (Requantize, lambda made: replace(made, output_scale=made.output_scale * 1.02)),
        (Requantize, lambda made: replace(made, high=made.high // 8)),
    ],
    ids=["padding", "scale", "range"],
)
def test_another_operator_of_integers(kind: type[Node], change: Any) -> None:
    imported = import_onnx(integers())
    refused(imported, with_node(imported.model, kind, change))


def test_layers_that_multiply_a_step_of_rounding() -> None:
    imported = import_onnx(deep())
    session = Session.from_model(imported.model, backend="numpy")

    def rounded(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Round a number of each image to the other side, as another order of a sum may."""
        images = inputs["x"].copy()
        images[:, 1, 5, 5] += 0.03
        return session({"x": images})

    found = imported.check(rounded).rounding
    assert found is not None
    assert found.share > 0.1
    assert found.steps > 1
    names = [name for name, tensor in imported.model.tensors.items() if len(tensor.shape) > 1]
    assert len(names) == 12
    for name in (names[0], names[6], names[11]):
        refused(imported, flipped(imported.model, name))
