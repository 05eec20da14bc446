"""Networks written as ONNX models: the same results in onnxruntime, and the same network when they are packed again."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from dcformat_interop import import_onnx
from dcformat_interop.onnx_export import to_onnx
from dcformat_runtime import InputError
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import dcformat
from dcformat import Model
from dcformat import graph as ops
from dcformat.errors import MemoryLimitError
from dcformat.graph import Graph, Output, Port, Preprocessing
from dcformat.model import Tensor
from tests.format.graph_strategies import valid_graphs
from tests.interop.onnx.exported import (
    assert_same,
    exported,
    inputs_for,
    run_exported,
    run_session,
    with_tensors,
)

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

Array = npt.NDArray[Any]
drawn = settings(suppress_health_check=list(HealthCheck))


def results(model: Model, batch: int) -> tuple[dict[str, Array], list[Array], list[Array]]:
    """Return random inputs, a session's results, and how much a tiny change of the inputs changes them."""
    inputs = inputs_for(model, batch, 2)
    random = np.random.default_rng(3)
    near = {
        name: np.asarray(x * (1 + 1e-5 * random.standard_normal(x.shape)) + 1e-6, x.dtype) if x.dtype.kind == "f" else x
        for name, x in inputs.items()
    }
    try:
        wanted, other = run_session(model, inputs), run_session(model, near)
    except InputError:  # an index out of range
        assume(False)
        raise
    with np.errstate(all="ignore"):
        apart = [
            np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)) for a, b in zip(wanted, other, strict=True)
        ]
    return inputs, wanted, [np.nan_to_num(array, nan=np.inf) for array in apart]


@drawn
@given(valid_graphs(), st.integers(1, 3), st.integers(0, 9))
def test_any_network_computes_the_same(graph: tuple[Graph, Any], batch: int, seed: int) -> None:
    assume(graph[0].nodes)
    model = with_tensors(*graph, seed)
    inputs, wanted, unsure = results(model, batch)
    for a, b, c in zip(run_exported(exported(model), inputs), wanted, unsure, strict=True):
        assert_same(a, b, c)


@drawn
@given(valid_graphs(), st.integers(1, 3), st.integers(0, 9))
def test_any_network_is_the_same_when_packed_again(graph: tuple[Graph, Any], batch: int, seed: int) -> None:
    model = with_tensors(*graph, seed)
    assume(
        graph[0].nodes and not {port.name for port in graph[0].inputs} & {output.name for output in graph[0].outputs}
    )
    inputs, wanted, unsure = results(model, batch)
    try:
        again = import_onnx(to_onnx(model)).model
    except ValueError as error:  # with the batch, some values have more dimensions than the format allows
        assert "at most 7 dimensions" in str(error)
        return
    for a, b, c in zip(run_session(again, inputs), wanted, unsure, strict=True):
        assert_same(a, b, c)


def one(node: Any, shape: tuple[int, ...], **arrays: Any) -> Model:
    tensors = {name: dcformat.from_dense(name, np.asarray(array, np.float32)) for name, array in arrays.items()}
    return Model(tensors, Graph.sequential(shape, node if isinstance(node, tuple) else (node,)))


def operators(made: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(made).graph.node]


def random(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def test_names_and_the_batch() -> None:
    graph = Graph(
        (Port((4,), "tokens", "int64"), Port((2, 3), "state", "float32", 1)),
        (ops.Gather(("embedding", 0)), ops.Reduce((2,), "argmax", (0,)), ops.Unary((1,), "tanh")),
        (Output(3, "best", "int32"), Output(4, "new state", "float32", 1)),
    )
    model = Model({"embedding": dcformat.from_dense("embedding", random(7, 3))}, graph)
    session = exported(model)
    described = [(port.name, port.shape, port.type) for port in (*session.get_inputs(), *session.get_outputs())]
    assert described == [
        ("tokens", ["batch", 4], "tensor(int64)"), ("state", [2, "batch", 3], "tensor(float)"),
        ("best", ["batch", 3], "tensor(int32)"), ("new state", [2, "batch", 3], "tensor(float)"),
    ]  # fmt: skip
    assert [tensor.name for tensor in onnx.load_from_string(to_onnx(model)).graph.initializer] == ["embedding"]


def test_an_output_that_is_called_like_an_input_or_is_one() -> None:
    graph = Graph((Port((2,), "x"),), (ops.ReLU((0,)),), (Output(1, "x"), Output(0, "same"), Output(1, "again")))
    session = exported(Model({}, graph))
    assert [port.name for port in session.get_outputs()] == ["x.2", "same", "again"]
    x = np.array([[-1, 2]], np.float32)
    assert [array.tolist() for array in run_exported(session, {"x": x})] == [[[0, 2]], [[-1, 2]], [[0, 2]]]


def test_metadata() -> None:
    model = Model(
        {},
        Graph.sequential((3,), (ops.ReLU((0,)),), Preprocessing((0.5,), (0.25,))),
        ("a", "b", "c"),
        {"source": "here"},
    )
    found = {entry.key: entry.value for entry in onnx.load_from_string(to_onnx(model)).metadata_props}
    assert found == {"source": "here", "labels": "a,b,c", "mean": "0.5", "std": "0.25"}


def test_a_sparse_initializer() -> None:
    weight = np.zeros((10, 100), np.float32)
    weight[3, 7], weight[9, 99] = 0.5, -2
    model = one(ops.Linear((0,), "w"), (100,), w=weight)
    made, dense = to_onnx(model, sparse=True), to_onnx(model)
    (stored,) = onnx.load_from_string(made).graph.sparse_initializer
    assert stored.values.name == "w"
    assert onnx.numpy_helper.to_array(stored.indices).tolist() == [307, 999]
    assert len(dense) - len(made) > 3_900
    x = random(2, 100)
    np.testing.assert_array_equal(run_exported(exported(model, sparse=True), {"x": x})[0], x @ weight.T)
    assert not onnx.load_from_string(
        to_onnx(one(ops.Linear((0,), "w"), (3,), w=np.eye(3)), sparse=True)
    ).graph.sparse_initializer


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
@pytest.mark.parametrize("sparse", [False, True])
def test_tensors_keep_their_dtypes(dtype: str, sparse: bool) -> None:
    values = np.zeros((3, 40), np.float32)
    values[0, :3], values[2, 5] = [0.5, -3, 1], 2
    stored: Any = {"float16": values.astype(np.float16), "bfloat16": (values.view("<u4") >> 16).astype("<u2")}
    array = stored.get(dtype, (2 * values).astype(np.int8))
    scale = 0.5 if dtype == "int8" else 1.0
    model = Model(
        {"w": dcformat.from_dense("w", array, dtype, scale)}, Graph.sequential((40,), (ops.Linear((0,), "w"),))
    )
    graph = onnx.load_from_string(to_onnx(model, sparse=sparse)).graph
    held = graph.sparse_initializer[0].values if sparse else graph.initializer[0]
    assert onnx.TensorProto.DataType.Name(held.data_type) == dtype.upper()
    x = random(2, 40)
    np.testing.assert_allclose(run_exported(exported(model, sparse=sparse), {"x": x})[0], x @ values.T, rtol=1e-6)


def test_quantize_is_exact() -> None:
    x = np.array([[-1e9, -2.5, -0.125, 0, 0.125, 0.375, 2.5, 15.9, 1e9]], np.float32)
    for low, high, wanted in ((-128, 127, ["QuantizeLinear", "DequantizeLinear"]), (-7, 7, None)):
        model = one(ops.Quantize((0,), 0.25, 3, low, high), (9,))
        assert wanted in (None, operators(to_onnx(model)))
        np.testing.assert_array_equal(run_exported(exported(model), {"x": x}), run_session(model, {"input": x}))


def test_requantize_is_exact() -> None:
    x = np.array([[[-1e9, -2.5, -0.5, 0.5, 1.5], [1e9, 300, 7, -7, 0]]], np.float32)
    scales = np.array([[0.3], [2]], np.float32)
    for node in (ops.Requantize((0, "s"), 0.5, 0.1, -100, 120), ops.Requantize((0, 1.0), 1.0, 1.0, -128, 127)):
        model = one(node, (2, 5), s=scales)
        np.testing.assert_array_equal(run_exported(exported(model), {"x": x}), run_session(model, {"input": x}))


LSTM_WEIGHTS = {"w": random(12, 2), "r": random(12, 3), "b": random(12)}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("slices", "count"),
    [
        ((), 4), (((1, 0, 3),), 1), (((1, 3, 3),), 4), (((0, "last", 1), (1, 3, 3)), 1), (((0, 1, 1), (1, 2, 2)), 4),
        (((1, 5, 3, -2),), 4), (((1, 2, 3, -1),), 1),
    ],
)  # fmt: skip
def test_an_lstm_is_one_operator_unless_inner_cell_states_are_read(slices: Any, count: int, reverse: bool) -> None:
    nodes: list[Any] = [ops.LSTM((0,), "w", "r", "b", reverse=reverse)]
    for number, (axis, start, *rest) in enumerate(slices, 1):
        nodes.append(ops.Slice((number,), axis, (0 if reverse else 3) if start == "last" else start, *rest))
    model = one(tuple(nodes), (4, 2), **LSTM_WEIGHTS)
    assert operators(to_onnx(model)).count("LSTM") == count
    x = random(2, 4, 2)
    np.testing.assert_allclose(
        run_exported(exported(model), {"x": x})[0], run_session(model, {"input": x})[0], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    "node",
    [
        ops.AvgPool((0,), (3, 2), (2, 2), (1, 0), (1, 1), True),
        ops.AvgPool((0,), (3, 3), (3, 3), (0, 0), (0, 0), True, False),
        ops.ConvTranspose((0,), "t", "c", (2, 1), (1, 0), (1, 0), (3, 3), (2, 2)),
        ops.Resize((0,), (7, 9), (1.4, 1.5), "linear"),
        ops.Resize((0,), (10, 12), (2.0, 2.0), "nearest", "asymmetric", "floor"),
        ops.Resize((0,), (3, 4), (0.7, 0.5), "linear", "align_corners"),
    ],
    ids=["pool beyond the padding", "pool of the input", "wide output_padding", "odd scale", "twofold", "corners"],
)
def test_operators_that_onnx_means_otherwise(node: Any) -> None:
    model = one(node, (2, 5, 6), **({"t": random(2, 3, 2, 2), "c": random(3)} if node.tensors else {}))
    x = random(2, 2, 5, 6)
    np.testing.assert_allclose(
        run_exported(exported(model), {"x": x})[0], run_session(model, {"input": x})[0], rtol=1e-4, atol=1e-6
    )


def test_a_wide_batch_in_front_of_seven_dimensions() -> None:
    model = one((ops.Reshape((0,), (1, 1, 2, 1, 1, 2, 3)), ops.Transpose((1,), (6, 5, 4, 3, 2, 1, 0))), (2, 6))
    x = random(3, 2, 6)
    np.testing.assert_array_equal(run_exported(exported(model), {"x": x})[0], run_session(model, {"input": x})[0])


def test_an_empty_batch() -> None:
    model = one((ops.Reshape((0,), (2, 3)), ops.Linear((1,), "w"), ops.Concat((2, "w"), 0)), (6,), w=random(3, 3))
    assert run_exported(exported(model), {"x": random(0, 6)})[0].shape == (0, 5, 3)


def test_tensors_are_repeated_for_the_batch() -> None:
    model = one(ops.Concat((0, "row"), 0), (2,), row=[5, 6])
    assert run_exported(exported(model), {"x": np.zeros((2, 2), np.float32)})[0].tolist() == [[0, 0, 5, 6]] * 2


def test_what_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="expected a network, found only tensors"):
        to_onnx(Model({"w": dcformat.from_dense("w", random(2, 2))}))
    huge = Tensor("w", (1 << 19, 1 << 14), "float32", np.ones(1, "<f4"))
    with pytest.raises(MemoryLimitError, match="tensors of the ONNX model"):
        to_onnx(Model({"w": huge}, Graph.sequential((1 << 14,), (ops.Linear((0,), "w"),))))
