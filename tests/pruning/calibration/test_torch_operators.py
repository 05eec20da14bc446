"""The operators in PyTorch against those of the runtime, and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from dcformat_pruning.calibration.torch_network import TorchNetwork
from dcformat_runtime import Session

import dcformat
from dcformat import Model
from dcformat.graph import BINARY, GRU, LSTM, REDUCTIONS, Binary, Graph, Node, Output, Port, Quantize, Reduce, Where
from tests.runtime.test_any_operator import CASES, model_of, random


def compare(model: Model, *inputs: Any) -> None:
    """Compare the outputs of both for a batch of each input."""
    assert model.graph is not None
    session = Session.from_model(model, backend="numpy")
    given = {port.name: array for port, array in zip(model.graph.inputs, inputs, strict=True)}
    expected = session(given)
    found = TorchNetwork(model).run([torch.from_numpy(array.astype(np.float32)) for array in inputs])
    for output, values in zip(model.graph.outputs, found, strict=True):
        np.testing.assert_allclose(values.numpy(), expected[output.name], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("name", "shape", "nodes", "_"), CASES, ids=[case[0] for case in CASES])
def test_operator(name: str, shape: tuple[int, ...], nodes: list[Node], _: object) -> None:
    compare(model_of(shape, nodes), random(3, *shape))


@pytest.mark.parametrize("function", BINARY)
def test_function_of_two(function: str) -> None:
    nodes = (Binary((0, 1), function), Where((2, 0, 1)))
    graph = Graph((Port((4,), "a"), Port((4,), "b")), nodes, (Output(2, "c"), Output(3, "d")))
    compare(Model({}, graph), np.abs(random(3, 4)), np.abs(random(3, 4)[:, ::-1]))


@pytest.mark.parametrize("function", REDUCTIONS)
@pytest.mark.parametrize("keepdims", [False, True])
def test_reduction(function: str, keepdims: bool) -> None:
    axes = (1,) if function.startswith("arg") else (0, 2)
    compare(Model({}, Graph.sequential((3, 4, 2), [Reduce((0,), function, axes, keepdims)])), random(2, 3, 4, 2))


@pytest.mark.parametrize("reverse", [False, True])
def test_lstm(reverse: bool) -> None:
    shapes = {"w": (12, 4), "r": (12, 3), "b": (12,), "rb": (12,)}
    tensors = {name: dcformat.from_dense(name, random(*shape)) for name, shape in shapes.items()}
    ports = (Port((5, 4), "x"), Port((3,), "h"), Port((3,), "c"))
    graph = Graph(ports, (LSTM((0, 1, 2), "w", "r", "b", "rb", reverse),), (Output(3, "y"),))
    compare(Model(tensors, graph), random(2, 5, 4), random(2, 3), random(2, 3))


@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize("biases", [("b", "rb"), (None, None)])
def test_gru(reset_after: bool, biases: tuple[str | None, str | None]) -> None:
    shapes = {"w": (9, 4), "r": (9, 3), "b": (9,), "rb": (9,)}
    tensors = {name: dcformat.from_dense(name, random(*shape)) for name, shape in shapes.items()}
    node = GRU((0,), "w", "r", *biases, False, reset_after)
    used = {name: tensors[name] for name in node.tensors}
    compare(Model(used, Graph.sequential((5, 4), [node])), random(2, 5, 4))


def test_rounding_has_the_gradient_of_the_number_before_it() -> None:
    model = Model({}, Graph.sequential((3,), [Quantize((0,), 0.5, 10, 0, 20)]))
    x = torch.tensor([[0.3, -1.2, 100.0]], requires_grad=True)
    (y,) = TorchNetwork(model).run([x])
    y.sum().backward()
    assert y.tolist() == [[0.5, -1.0, 5.0]]
    assert x.grad is not None and x.grad.tolist() == [[1.0, 1.0, 0.0]]
