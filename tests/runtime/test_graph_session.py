"""Sessions of graphs with several inputs and outputs, dtypes, and batches anywhere."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from dcformat_runtime import InputError, Session, load
from dcformat_runtime.segments import evenly_padded

import dcformat
from dcformat import Model
from dcformat.errors import GraphError, MemoryLimitError, WorkLimitError
from dcformat.graph import (
    Add,
    Binary,
    Conv,
    ConvTranspose,
    Gather,
    Graph,
    Linear,
    MaxPool,
    Node,
    Output,
    Port,
    Preprocessing,
    Reduce,
    ReLU,
    Reshape,
    Softmax,
    Transpose,
    Unary,
)

#: The description of the inputs of `two_ports` in messages, as a pattern.
NAMED = r"'tokens' int64 \(batch, 4\), 'state' float32 \(2, batch, 3\)"
EMBEDDING = np.arange(21, dtype=np.float32).reshape(7, 3)


def tensors(**arrays: Any) -> dict[str, dcformat.Tensor]:
    return {name: dcformat.from_dense(name, array) for name, array in arrays.items()}


def two_ports() -> Model:
    """Tokens ``(batch, 4)`` and a state ``(2, batch, 3)`` make a sum ``(2, batch, 3)`` and a token ``(batch,)``."""
    nodes: tuple[Node, ...] = (
        Gather(("embedding", 0)),  # (4, 3)
        Reduce((2,), "sum", (0,)),  # (3,)
        Add((1, 3)),  # (2, 3)
        Reduce((3,), "argmax", (0,)),  # ()
    )
    graph = Graph(
        (Port((4,), "tokens", "int64"), Port((2, 3), "state", "float32", 1)),
        nodes,
        (Output(4, "sum", "float32", 1), Output(5, "token", "int32", 0)),
    )
    return Model(tensors(embedding=EMBEDDING), graph)


def test_names_shapes_and_dtypes() -> None:
    session = Session.from_model(two_ports())
    assert session.inputs == (("tokens", (None, 4), "int64"), ("state", (2, None, 3), "float32"))
    assert session.outputs == (("sum", (2, None, 3), "float32"), ("token", (None,), "int32"))


def test_inputs_and_outputs_by_name() -> None:
    state = np.ones((2, 5, 3), np.float32)
    tokens = np.arange(20).reshape(5, 4) % 7
    found = Session.from_model(two_ports())({"state": state, "tokens": tokens})
    sums = EMBEDDING[tokens].sum(axis=1)
    np.testing.assert_array_equal(found["sum"], state + sums)
    assert found["sum"].dtype == np.float32
    np.testing.assert_array_equal(found["token"], np.full(5, 2, np.int32))
    assert found["token"].dtype == np.int32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": None}, f"inputs: expected {NAMED}; found 'state'"),
        ({"more": np.zeros(1)}, f"inputs: expected {NAMED}; found 'tokens', 'state', 'more'"),
        ({"tokens": np.zeros((5, 3), np.int64)}, r"shape of input 'tokens': expected \(batch, 4\), found \(5, 3\)"),
        ({"tokens": np.zeros((5, 4), np.float32)}, "dtype of input 'tokens': expected int64, found float32"),
        ({"tokens": np.full((5, 4), 7)}, "index: expected whole numbers from -7 to 6"),
        ({"tokens": np.full((5, 4), -8)}, "index: expected whole numbers from -7 to 6"),
        ({"tokens": np.full((5, 4), 2**24 + 1)}, "whole numbers from -2\\^24 to 2\\^24"),
        ({"state": np.zeros((2, 4, 3), np.float32)}, "batch sizes: expected equal ones"),
        ({"state": [1.0]}, "input 'state': expected a NumPy array"),
    ],
)
def test_refused_inputs(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"tokens": np.zeros((5, 4), np.int64), "state": np.zeros((2, 5, 3), np.float32)} | change
    given = {name: array for name, array in given.items() if array is not None}
    with pytest.raises(InputError, match=message):
        Session.from_model(two_ports())(given)


def test_an_array_for_a_network_with_two_inputs() -> None:
    with pytest.raises(InputError, match="2 \\('tokens', 'state'\\); give a dict"):
        Session.from_model(two_ports())(np.zeros((1, 4), np.float32))


def test_a_network_whose_inputs_are_single_numbers() -> None:
    session = Session.from_model(Model({}, Graph.sequential((), (ReLU((0,)),))))
    x = np.array([-1, 3], np.float32)
    for good in (x, x[:, None]):
        assert session(good).tolist() == [0, 3]
    for bad in (x[0:1].reshape(()), np.ones((2, 6), np.float32), x[:, None, None]):
        with pytest.raises(InputError, match=r"expected \(batch,\) or \(batch, 1\), found"):
            session(bad)


def test_a_dict_for_a_network_with_one_input() -> None:
    x = np.array([[-1, 2]], np.float32)
    session = Session.from_model(Model({}, Graph.sequential((2,), (ReLU((0,)),))))
    np.testing.assert_array_equal(session({"input": x})["output"], [[0, 2]])
    with pytest.raises(InputError, match=r"expected 'input' float32 \(batch, 2\); found 'x'"):
        session({"x": x})


def test_a_network_without_a_batch() -> None:
    graph = Graph(
        (Port((2, 3), "a", "float32", None), Port((3,), "b", "float64", None)),
        (Binary((0, 1), "mul"),),
        (Output(2, "product", "float64", None),),
    )
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1.0, 2.0, 0.5])
    found = Session.from_model(Model({}, graph))({"a": a, "b": b})["product"]
    np.testing.assert_array_equal(found, a * b)
    assert found.dtype == np.float64


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int8", [127, -128, 2, 2, -4]), ("uint8", [255, 0, 2, 2, 0]), ("int32", [2**31 - 1, -(2**31), 2, 2, -4]),
        ("int64", [2**63 - 1, -(2**63), 2, 2, -4]), ("bool", [True, True, True, True, True]),
    ],
)  # fmt: skip
def test_outputs_of_whole_numbers_are_rounded_and_kept_in_range(dtype: str, values: list[Any]) -> None:
    graph = Graph((Port((5,), "x"),), (Unary((0,), "neg"),), (Output(1, "y", dtype),))
    found = Session.from_model(Model({}, graph))({"x": np.array([[-1e30, 1e30, -1.5, -2.5, 3.5]], np.float32)})["y"]
    np.testing.assert_array_equal(found, np.array([values], dtype), strict=True)


def test_an_empty_batch() -> None:
    given: dict[str, Any] = {"tokens": np.zeros((0, 4), np.int64), "state": np.zeros((2, 0, 3), np.float32)}
    found = Session.from_model(two_ports())(given)
    assert {name: output.shape for name, output in found.items()} == {"sum": (2, 0, 3), "token": (0,)}


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_an_empty_batch_of_every_weighted_operator(backend: Any) -> None:
    weights = tensors(line=np.ones((2, 2, 1), np.float32), plane=np.ones((2, 3, 1, 1), np.float32))
    nodes = Conv((0,), "line", None, (1,), (0,), (0,), (1,)), Reshape((1,), (2, 1, 4)), ConvTranspose((2,), "plane")
    session = Session.from_model(Model(weights, Graph.sequential((2, 4), nodes)), backend=backend)
    assert session(np.zeros((0, 2, 4), np.float32)).shape == (0, 3, 1, 4)


def test_an_input_that_is_the_same_for_the_batch() -> None:
    graph = Graph((Port((3,), "x"), Port((3,), "scale", "float32", None)), (Binary((0, 1), "mul"),), (Output(2),))
    x, scale = np.ones((4, 3), np.float32), np.array([1, 2, 3], np.float32)
    found = Session.from_model(Model({}, graph))({"x": x, "scale": scale})["output"]
    np.testing.assert_array_equal(found, x * scale)


def test_pixels() -> None:
    rule = Preprocessing((0.5,), (0.25,))
    model = Model({}, Graph.sequential((1, 2, 2), (Unary((0,), "neg"),), rule))
    x = np.array([[[[0, 255], [51, 102]]]], np.uint8)
    expected = -(x.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
    np.testing.assert_array_equal(Session.from_model(model)(x), expected)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_segments_between_other_operators(backend: Any) -> None:
    rng = np.random.default_rng(1)
    conv, linear = rng.standard_normal((4, 2, 3, 3)), rng.standard_normal((5, 4))
    model = Model(
        tensors(conv=conv.astype(np.float32), linear=linear.astype(np.float32)),
        Graph.sequential(
            (2, 6, 6),
            (
                Conv((0,), "conv"), ReLU((1,)), Unary((2,), "tanh"), Transpose((3,), (1, 2, 0)),
                Linear((4,), "linear"), Binary((5, 5), "mul"), Transpose((6,), (2, 0, 1)),
            ),
        ),
    )  # fmt: skip
    x = rng.standard_normal((3, 2, 6, 6)).astype(np.float32)
    whole = Session.from_model(model, backend=backend)(x)
    assert whole.shape == (3, 5, 4, 4)
    np.testing.assert_allclose(whole, Session.from_model(model, backend="numpy")(x), rtol=1e-5, atol=1e-5)


def test_only_uneven_padding_becomes_an_operator() -> None:
    even = Graph.sequential((2, 6, 6), (Conv((0,), "w", padding=(1, 1), padding_end=(1, 1)), ReLU((1,))))
    uneven = Graph.sequential(
        (2, 6, 6),
        (
            Conv((0,), "w", padding=(1, 0), padding_end=(0, 2)),
            MaxPool((1,), (2, 2), (2, 2), padding_end=(1, 1)),
            ReLU((2,)),
        ),
    )
    tensors = {"w": (4, 2, 3, 3)}
    shapes = even.shapes(tensors)
    assert evenly_padded(even, shapes)[1] is shapes
    assert evenly_padded(even, shapes)[0] is even
    padded, seen = evenly_padded(uneven, uneven.shapes(tensors))
    assert [node.kind for node in padded.nodes] == ["pad", "conv", "pad", "max_pool", "relu"]
    assert list(seen) == [(2, 6, 6), (2, 7, 8), (4, 5, 6), (4, 6, 7), (4, 3, 3), (4, 3, 3)] == padded.shapes(tensors)
    assert padded.outputs[0].value == 5


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_softmax_over_positions_behind_a_linear_layer(backend: Any) -> None:
    nodes = (Linear((0,), "weight"), Softmax((1,), 0))
    model = Model(tensors(weight=np.eye(2)), Graph((Port((3, 2)),), nodes, (Output(2),)))
    x = np.log(np.array([[[1, 2], [1, 3], [2, 5]]], np.float32))
    expected = [[[0.25, 0.2], [0.25, 0.3], [0.5, 0.5]]]
    np.testing.assert_allclose(Session.from_model(model, backend=backend)(x), expected, rtol=1e-6)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_softmax_along_an_axis_before_a_linear_layer(backend: Any) -> None:
    x = np.array([[[[0, 1], [2, 3]]]], np.float32)
    model = Model(
        tensors(weight=np.array([[1, 2]], np.float32)),
        Graph.sequential((1, 2, 2), (Softmax((0,), 1), Linear((1,), "weight"))),
    )
    share = 1 / (1 + np.exp(np.float32(2)))
    expected = [[[[3 * share], [3 * (1 - share)]]]]
    np.testing.assert_allclose(Session.from_model(model, backend=backend)(x), expected, rtol=1e-6)


def test_a_session_pickles() -> None:
    x: dict[str, Any] = {"tokens": np.zeros((1, 4), np.int64), "state": np.zeros((2, 1, 3), np.float32)}
    session = Session.from_model(two_ports())
    again = pickle.loads(pickle.dumps(session))  # noqa: S301
    np.testing.assert_array_equal(again(x)["sum"], session(x)["sum"])


def test_limits(tmp_path: Any) -> None:
    path = tmp_path / "two.dcf"
    dcformat.save(two_ports(), path)
    assert load(path).inputs[0].name == "tokens"
    with pytest.raises(MemoryLimitError):
        load(path, max_memory=1000)
    with pytest.raises(WorkLimitError):
        load(path, max_work=1000)


def test_a_batch_runs_in_pieces() -> None:
    session = Session.from_model(two_ports(), max_memory=1 << 20)
    rows = 50_000
    state = np.arange(6 * rows, dtype=np.float32).reshape(2, rows, 3)
    found = session({"tokens": np.zeros((rows, 4), np.int64), "state": state})["sum"]
    np.testing.assert_array_equal(found, state + EMBEDDING[0] * 4)


@pytest.mark.parametrize("model", [two_ports(), Model({}, Graph.sequential((3,), (ReLU((0,)),)))])
def test_progress_moves_with_the_pieces(model: Model) -> None:
    session = Session.from_model(model, max_memory=4 << 20)
    rows, calls = 200_000, list[tuple[int, int]]()
    given = {
        port.name: np.ones([rows if size is None else size for size in port.shape], port.dtype)
        for port in session.inputs
    }
    found = session.run(given, lambda done, total: calls.append((done, total)))
    assert found.keys() == {port.name for port in session.outputs}
    starts = [done for done, _ in calls]
    assert len(starts) > 1
    assert starts == list(range(0, rows, starts[1]))
    assert {total for _, total in calls} == {rows}
    small = {port.name: given[port.name].take([0], port.shape.index(None)) for port in session.inputs}
    calls.clear()
    session.run(small, lambda done, total: calls.append((done, total)))
    assert calls == []


def test_profile_names_steps() -> None:
    x: dict[str, Any] = {"tokens": np.zeros((1, 4), np.int64), "state": np.zeros((2, 1, 3), np.float32)}
    names = [row.name for row in Session.from_model(two_ports()).profile(x)]
    assert names == ["gather.0", "reduce.1", "add.2", "reduce.3"]
    rows = 50_000
    x = {"tokens": np.zeros((rows, 4), np.int64), "state": np.zeros((2, rows, 3), np.float32)}
    assert [row.name for row in Session.from_model(two_ports(), max_memory=1 << 20).profile(x)] == names


def test_running_out_of_memory_is_a_memory_limit_error() -> None:
    nodes: tuple[Node, ...] = (Add((0, 0)), Add((1, 1)))
    outputs = (Output(1, "double", "float32", 1), Output(2, "fourfold", "float32", 1))
    model = Model({}, Graph((Port((2, 3), "state", "float32", 1),), nodes, outputs))
    session, x = Session.from_model(model), np.broadcast_to(np.zeros((1, 1, 1), np.float32), (2, 1 << 40, 3))
    ways: list[tuple[Callable[[Any], Any], Any]] = [(session, x), (session, {"state": x}), (session.run, {"state": x})]
    for call, given in ways:
        with pytest.raises(MemoryLimitError, match=rf"running {1 << 40:,} inputs: .*no more memory"):
            call(given)


def test_deterministic_sessions_refuse_operators_whose_rounding_varies() -> None:
    exact = Model({}, Graph.sequential((2, 2), (Binary((0, 0), "mul"), Transpose((1,), (1, 0)))))
    x = np.arange(4, dtype=np.float32).reshape(1, 2, 2)
    found = Session.from_model(exact, deterministic=True)(x)
    np.testing.assert_array_equal(found, (x * x).transpose(0, 2, 1))
    varying = Model({}, Graph.sequential((2, 2), (Unary((0,), "sin"),)))
    with pytest.raises(GraphError, match=r"unary\.0 with deterministic=True"):
        Session.from_model(varying, deterministic=True)
