"""Which dimension is the batch, and what happens to the others."""

from __future__ import annotations

import numpy as np
import pytest
from dcformat_interop import UnfitError, import_onnx
from dcformat_runtime import Session

from tests.interop.onnx.models import INT64, checked, graph_of, kinds, model, node, random


def ports_of(imported):
    graph = graph_of(imported)
    return (
        [(port.name, port.shape, port.batch_axis) for port in graph.inputs],
        [(output.name, output.batch_axis) for output in graph.outputs],
    )


def test_an_open_first_dimension_is_the_batch():
    data = model([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": random(4, 3)})
    imported = checked(data)
    assert ports_of(imported) == ([("x", (4,), 0)], [("y", 0)])
    assert kinds(imported) == ["linear"]


def test_a_first_dimension_of_1_is_the_batch():
    data = model([node("Relu", ["x"], ["y"])], {"x": [1, 3, 4]}, {"y": [1, 3, 4]})
    imported = checked(data)
    assert ports_of(imported) == ([("x", (3, 4), 0)], [("y", 0)])
    x = random(5, 3, 4)
    found = Session.from_model(imported.model, backend="numpy")({"x": x})["y"]
    np.testing.assert_array_equal(found, np.maximum(x, 0))


def test_a_greater_first_dimension_is_none():
    data = model([node("Relu", ["x"], ["y"])], {"x": [2, 3]}, {"y": [2, 3]})
    assert ports_of(checked(data)) == ([("x", (2, 3), None)], [("y", None)])


def test_a_state_has_the_batch_in_the_middle():
    weights = {"w": random(1, 16, 5), "r": random(1, 16, 4, seed=1), "b": random(1, 32, seed=2)}
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        node("LSTM", ["t", "w", "r", "b", "", "h", "c"], ["s", "h1", "c1"], hidden_size=4),
        node("Squeeze", ["s", "one"], ["q"]),
        node("Transpose", ["q"], ["y"], perm=[1, 0, 2]),
    ]
    data = model(
        nodes, {"x": ["n", 7, 5], "h": [1, "n", 4], "c": [1, "n", 4]},
        {"y": ["n", 7, 4], "h1": [1, "n", 4], "c1": [1, "n", 4]}, {**weights, "one": np.array([1])},
    )  # fmt: skip
    imported = checked(data)
    assert ports_of(imported) == (
        [("x", (7, 5), 0), ("h", (1, 4), 1), ("c", (1, 4), 1)], [("y", 0), ("h1", 1), ("c1", 1)]
    )  # fmt: skip
    assert kinds(imported).count("lstm") == 1
    assert "transpose" not in kinds(imported)


def test_a_batch_without_a_name_is_found_by_running_the_model():
    nodes = [node("Unsqueeze", ["x", "zero"], ["u"]), node("Relu", ["u"], ["y"])]
    data = model(nodes, {"x": [None, 4]}, {"y": [1, None, 4]}, {"zero": np.array([0])})
    assert ports_of(checked(data)) == ([("x", (4,), 0)], [("y", 1)])


def test_a_batch_folded_into_other_dimensions_is_followed():
    """Attention joins the batch and the heads, and splits them again."""
    nodes = [
        node("Reshape", ["x", "split"], ["s"]), node("Transpose", ["s"], ["t"], perm=[0, 2, 1, 3]),
        node("Reshape", ["t", "join"], ["j"]), node("Transpose", ["j"], ["k"], perm=[0, 2, 1]),
        node("MatMul", ["j", "k"], ["m"]), node("Softmax", ["m"], ["p"]), node("MatMul", ["p", "j"], ["o"]),
        node("Reshape", ["o", "apart"], ["a"]), node("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3]),
        node("Reshape", ["b", "back"], ["y"]),
    ]  # fmt: skip
    shapes = {"split": [-1, 6, 2, 3], "join": [-1, 6, 3], "apart": [-1, 2, 6, 3], "back": [-1, 6, 6]}
    data = model(
        nodes, {"x": ["n", 6, 6]}, {"y": ["n", 6, 6]}, {name: np.array(shape) for name, shape in shapes.items()}
    )
    assert ports_of(checked(data)) == ([("x", (6, 6), 0)], [("y", 0)])


def test_a_network_that_mixes_the_inputs_of_a_batch_is_refused():
    nodes = [node("ReduceMean", ["x", "zero"], ["m"]), node("Sub", ["x", "m"], ["y"])]
    data = model(nodes, {"x": ["n", 4]}, {"y": ["n", 4]}, {"zero": np.array([0])})
    with pytest.raises(UnfitError, match=r"batch of 3 depend on each other\? give --dim n=1"):
        checked(data)
    assert ports_of(checked(data, dims={"n": 1})) == ([("x", (4,), 0)], [("y", 0)])


def test_a_network_that_takes_a_batch_of_1_only_is_refused():
    data = model([node("Reshape", ["x", "one"], ["y"])], {"x": ["n", 4]}, {"y": ["n", 4]}, {"one": np.array([1, 4])})
    with pytest.raises(UnfitError, match=r"with a batch of 3; if it takes 1 only, give --dim n=1"):
        checked(data)
    assert ports_of(checked(data, dims={"n": 1})) == ([("x", (4,), 0)], [("y", 0)])


def test_an_output_without_the_batch_is_refused():
    data = model([node("ReduceMax", ["x"], ["y"], keepdims=0)], {"x": ["n", 4]}, {"y": []})
    with pytest.raises(UnfitError, match="output 'y': expected a dimension that grows with the batch"):
        import_onnx(data)


def test_another_open_dimension_has_to_be_given():
    data = model([node("Relu", ["x"], ["y"])], {"x": ["n", "length", None]}, {"y": ["n", "length", None]})
    with pytest.raises(UnfitError, match=r"give --dim length=SIZE, found 'length' of input 'x', 'x.2' of input 'x'"):
        import_onnx(data)
    assert ports_of(checked(data, dims={"length": 5, "x.2": 2})) == ([("x", (5, 2), 0)], [("y", 0)])


def test_a_dimension_that_the_model_does_not_leave_open_is_refused():
    data = model([node("Relu", ["x"], ["y"])], {"x": ["n", 3]}, {"y": ["n", 3]})
    with pytest.raises(UnfitError, match=r"a dimension that the model leaves open \(n, x.0\), found 'm'"):
        import_onnx(data, dims={"m": 3})


def test_an_input_becomes_constant():
    nodes = [
        node("Equal", ["rate", "high"], ["is"]),
        node("If", ["is"], ["y"], then_branch=branch("Relu"), else_branch=branch("Neg")),
    ]
    data = model(nodes, {"x": ["n", 3], "rate": (INT64, [])}, {"y": ["n", 3]}, {"high": np.array(16000)})
    assert kinds(checked(data, values={"rate": 16000})) == ["relu"]
    assert kinds(checked(data, values={"rate": 8000})) == ["unary"]
    assert set(kinds(checked(data))) == {"binary", "relu", "unary", "where"}
    with pytest.raises(UnfitError, match=r"an input of the model \(x, rate\), found 'sr'"):
        import_onnx(data, values={"sr": 1})
    with pytest.raises(UnfitError, match=r"--set rate: expected shape \(\), found \(2,\)"):
        import_onnx(data, values={"rate": [1, 2]})


def branch(op_type):
    from onnx import helper

    return helper.make_graph([node(op_type, ["x"], ["z"])], op_type, [], [helper.make_empty_tensor_value_info("z")])


def test_inputs_of_whole_numbers_keep_their_dtype():
    nodes = [node("Gather", ["table", "ids"], ["e"]), node("ReduceMean", ["e", "axis"], ["y"], keepdims=0)]
    data = model(nodes, {"ids": (INT64, ["n", 6])}, {"y": ["n", 4]}, {"table": random(50, 4), "axis": np.array([1])})
    imported = checked(data)
    assert [(p.dtype, p.shape) for p in graph_of(imported).inputs] == [("int64", (6,))]
    assert imported.source.random_inputs(200)["ids"].max() == 49
