"""`dcformat pack` of ONNX models: options, the check, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, load, numpy_helper, save

import dcformat
from dcformat.graph import Preprocessing
from tests.cli.support import PACK, Invoke, refused, save_npz

pytestmark = pytest.mark.needs_compiler


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Write a small classifier, whose input is a picture of 3 channels."""
    random = np.random.default_rng(0)
    tensors = {"conv": random.standard_normal((4, 3, 3, 3)), "fc": random.standard_normal((5, 4))}
    nodes = [
        helper.make_node("Conv", ["image", "conv"], ["a"]), helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]), helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "fc"], ["logits"], transB=1),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "network", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, "width"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in tensors.items()],
    )  # fmt: skip
    path = tmp_path / "network.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_network_is_packed_after_a_check(invoke: Invoke, tmp_path: Path, network: Path) -> None:
    packed = tmp_path / "network.dcf"
    options = ("--labels", "a,b,c,d,e", "--mean", "0.5,0.25,0.75", "--std", "1,2,4")
    result = invoke(*PACK, network, "-o", packed, "--dim", "width=9", *options)
    assert result.exit_code == 0
    assert "checked against onnx" in result.stderr
    assert "with batches of 1 and 3: largest difference" in result.stderr
    model = dcformat.load(packed)
    assert model.graph is not None
    assert [node.kind for node in model.graph.nodes] == ["conv", "relu", "reduce", "linear"]
    assert model.graph.inputs[0].shape == (3, 8, 9)
    assert model.graph.preprocessing == Preprocessing((0.5, 0.25, 0.75), (1.0, 2.0, 4.0))
    assert model.labels == tuple("abcde")
    assert set(model.tensors) == {"conv", "fc"}


def test_the_summary_as_json(invoke: Invoke, tmp_path: Path, network: Path) -> None:
    result = invoke(*PACK, network, "-o", tmp_path / "a.dcf", "--dim", "width=9", "--json")
    document = json.loads(result.stdout)
    assert document["file"] == str(tmp_path / "a.dcf")
    assert document["left_out"] == {}


def test_an_open_dimension_is_named_and_nothing_is_written(invoke: Invoke, tmp_path: Path, network: Path) -> None:
    packed = tmp_path / "a.dcf"
    packed.write_bytes(b"what was there")
    refused(invoke(*PACK, network, "-f", "-o", packed), network, "give --dim width=SIZE")
    assert packed.read_bytes() == b"what was there"


def test_an_operator_that_cannot_be_imported(invoke: Invoke, tmp_path: Path, network: Path) -> None:
    model = load(network)
    model.graph.node[1].op_type = "Det"
    save(model, network)
    result = invoke(*PACK, network, "-o", tmp_path / "a.dcf", "--dim", "width=9")
    refused(result, "1 operator cannot be imported: Det (node 'b')")
    assert not (tmp_path / "a.dcf").exists()


def test_misuse(invoke: Invoke, tmp_path: Path, network: Path) -> None:
    for options, message in (
        (("--architecture", "lenet-5"), "an ONNX model holds its own network"),
        (("--skip", "fc"), "an ONNX model holds its own network"),
        (("--dim", "width"), "--dim: expected NAME=VALUE, each name once, found 'width'"),
        (("--dim", "width=1", "--dim", "width=2"), "each name once, found 'width=2'"),
        (("--dim", "width=-1"), "--dim width: expected a size of at least 1, found '-1'"),
        (("--set", "image=nine"), "--set image: expected numbers separated by commas or @FILE, found 'nine'"),
    ):
        refused(invoke(*PACK, network, "-o", tmp_path / "a.dcf", *options), message, code=2)
    np.savez(tmp_path / "a.npz", a=np.zeros(3, np.float32))
    refused(invoke(*PACK, tmp_path / "a.npz", "-o", tmp_path / "a.dcf", "--dim", "n=1"), "need an ONNX model", code=2)


def test_labels_that_do_not_fit(invoke: Invoke, tmp_path: Path, network: Path) -> None:
    result = invoke(*PACK, network, "-o", tmp_path / "a.dcf", "--dim", "width=9", "--labels", "a,b")
    refused(result, "--labels: expected 5 labels, found 2")


def test_an_input_is_set_to_an_array_in_a_file(invoke: Invoke, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "scale"], ["y"])], "scaled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3]),
         helper.make_tensor_value_info("scale", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
    )  # fmt: skip
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "a.onnx")
    np.save(tmp_path / "scale.npy", np.array([1, 2, 3], np.float32))
    for given in (f"@{tmp_path / 'scale.npy'}", "1,2,3"):
        result = invoke(*PACK, tmp_path / "a.onnx", "-f", "-o", tmp_path / "a.dcf", "--set", f"scale={given}")
        assert result.exit_code == 0
        model = dcformat.load(tmp_path / "a.dcf")
        np.testing.assert_array_equal(next(iter(model.tensors.values())).to_dense().reshape(-1), [1, 2, 3])
    save_npz(tmp_path / "scale.npz", {"scale": np.array([1, 2, 3], np.float32)})
    for name, message in (
        ("a.onnx", "a.onnx: not a NumPy .npy array or .npz archive of numbers ("),
        ("scale.npz", "scale.npz: expected a NumPy .npy array of numbers, found an .npz archive"),
    ):
        given = f"scale=@{tmp_path / name}"
        refused(invoke(*PACK, tmp_path / "a.onnx", "-f", "-o", tmp_path / "a.dcf", "--set", given), message)


@pytest.mark.parametrize("rows", [5, 1])
def test_a_self_test_of_a_network_with_several_inputs(invoke: Invoke, tmp_path: Path, rows: int) -> None:
    value = helper.make_tensor_value_info
    table = np.random.default_rng(1).standard_normal((rows, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "token"], ["a"]), helper.make_node("Add", ["a", "state"], ["next"]),
         helper.make_node("ReduceMax", ["next"], ["best"], axes=[1], keepdims=0)],
        "recurrent",
        [value("token", TensorProto.INT64, ["n"]), value("state", TensorProto.FLOAT, ["n", 4])],
        [value("next", TensorProto.FLOAT, ["n", 4]), value("best", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(table, "table")],
    )  # fmt: skip
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "a.onnx")
    packed = tmp_path / "a.dcf"
    result = invoke(*PACK, tmp_path / "a.onnx", "-o", packed, "--self-test", "3", "--reorder-units", "--fold-scales")
    if rows == 1:
        refused(result, "a.onnx: self-test: index: expected whole numbers from -1 to 0")
        assert not packed.exists()
        return
    assert result.exit_code == 0, result.output
    assert invoke("verify", packed).stdout.endswith("self-test of 3 inputs passed\n")
    save_npz(tmp_path / "x.npz", {"token": np.array([1, 4]), "state": np.ones((2, 4), np.float32)})
    assert invoke("run", packed, "--input", tmp_path / "x.npz", "-o", tmp_path / "y.npz").exit_code == 0
    np.testing.assert_allclose(np.load(tmp_path / "y.npz")["best"], table[[1, 4]].max(axis=1) + 1, rtol=1e-6)


def test_one_deviation_for_all_channels_and_the_sign_of_zeros(invoke: Invoke, tmp_path: Path, network: Path) -> None:
    model = load(network)
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0] = -0.0
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "conv"))
    save(model, network)
    rule = ("--dim", "width=9", "--mean", "0.5,0.25,0.75", "--std", "2")
    arguments = (*PACK, network, "-f", "-o", tmp_path / "a.dcf", *rule)
    for exact in (False, True):
        assert invoke(*arguments, *["--exact"] * exact).exit_code == 0
        packed = dcformat.load(tmp_path / "a.dcf")
        assert packed.graph is not None
        assert packed.graph.preprocessing == Preprocessing((0.5, 0.25, 0.75), (2.0, 2.0, 2.0))
        assert np.signbit(packed.tensors["conv"].to_dense()[0, 0]).all() == exact
