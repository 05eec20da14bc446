"""Models that are refused, each with one line that names the file and the node, input or tensor."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from dcformat_interop import UnfitError, UnsupportedOperatorsError, import_onnx, read_onnx
from onnx import TensorProto, helper

from tests.interop.onnx.models import kinds, model, node, proto, random


def refused(data, match, **options):
    with pytest.raises(UnfitError, match=match) as caught:
        import_onnx(data, **options)
    assert "\n" not in str(caught.value)


def relu(**attributes):
    return [node("Relu", ["x"], ["y"], name="the relu", **attributes)]


def simple(nodes, tensors=None, **options):
    return model(nodes, {"x": ["n", 4]}, {"y": ["n", 4]}, tensors, **options)


def test_bytes_that_are_no_model():
    refused(b"\x08\x07\x12\xffnothing", "expected an ONNX model, found truncated or damaged bytes")
    refused(b"", "expected an ONNX model, found an empty file")
    refused(b"\x08\x08", "expected an ONNX model, found one without a graph")


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "half.onnx"
    path.write_bytes(simple(relu())[:-20])
    refused(path, r"half\.onnx: expected an ONNX model")


def test_operator_sets_that_are_too_old_or_too_new():
    refused(simple(relu(), opset=6), r"operator set 7 to \d+, found 6 \(convert it: onnx.version_converter")
    refused(simple(relu(), opset=999), "operator set 7 to .* found 999")


def test_a_model_without_an_operator_set():
    made = onnx.ModelProto.FromString(simple(relu()))
    del made.opset_import[:]
    refused(made.SerializeToString(), "expected an operator set of ONNX, found none")


def test_a_cycle():
    nodes = [node("Add", ["x", "b"], ["a"], name="first"), node("Neg", ["a"], ["b"]), node("Relu", ["a"], ["y"])]
    refused(simple(nodes), r"node 'first' \(Add\): expected a graph without cycles")


def test_a_missing_initializer():
    refused(
        simple([node("MatMul", ["x", "w"], ["y"], name="dense")]), r"node 'dense' \(MatMul\): .* called 'w', found none"
    )


def test_a_result_that_two_nodes_make():
    refused(simple([*relu(), node("Neg", ["x"], ["y"], name="again")]), r"node 'again' \(Neg\): .* found 'y' twice")


def test_nodes_may_come_in_any_order():
    imported = import_onnx(simple([node("Relu", ["a"], ["y"]), node("Neg", ["x"], ["a"])]))
    assert kinds(imported) == ["unary", "relu"]


def test_an_output_that_nothing_makes():
    refused(model(relu(), {"x": ["n", 4]}, {"z": ["n", 4]}), "output 'z': expected a node that makes it, found none")


def test_shapes_that_do_not_fit():
    nodes = [node("MatMul", ["x", "w"], ["y"], name="dense")]
    refused(
        simple(nodes, {"w": random(5, 4)}), r"node 'dense' \(MatMul\): linear 'w' input: expected 5 in the last place"
    )


def test_an_attribute_that_the_operator_does_not_have():
    refused(simple(relu(slope=0.5)), r"node 'the relu' \(Relu\): expected attributes of Relu: none, found 'slope'")


def test_an_operator_of_a_later_operator_set():
    nodes = [node("HardSwish", ["x"], ["y"], name="swish")]
    refused(simple(nodes, opset=13), r"node 'swish' \(HardSwish\): expected an operator of operator set 13")


@pytest.mark.parametrize("sizes", [[1 << 62, 1 << 62, 4], [-1, 3], [-1, -1], [-2, 2], [0, 0, 0]])
def test_a_shape_to_which_a_value_cannot_be_reshaped(sizes):
    nodes = [node("Reshape", ["x", "shape"], ["y"], name="view")]
    refused(simple(nodes, {"shape": np.array(sizes)}), r"node 'view' \(Reshape\): ")


@pytest.mark.parametrize(
    ("op_type", "tensors"),
    [
        ("ConstantOfShape", {"a": np.array([1 << 40])}),
        ("Expand", {"a": np.zeros(1, np.float32), "b": np.array([1 << 40])}),
        ("Tile", {"a": np.zeros(1, np.float32), "b": np.array([1 << 40])}),
        ("Range", {"a": np.array(0), "b": np.array(1 << 40), "c": np.array(1)}),
        ("Gather", {"a": np.zeros((1, 1 << 20), np.float32), "b": np.zeros(1 << 20, np.int64)}),
        ("MatMul", {"a": np.zeros((1 << 18, 1), np.float32), "b": np.zeros((1, 1 << 18), np.float32)}),
        ("Pad", {"a": np.zeros(1, np.float32), "b": np.array([1 << 40, 0])}),
    ],
)
def test_a_constant_that_takes_too_much_memory_is_not_made(op_type, tensors):
    nodes = [node(op_type, list(tensors), ["big"], name="grow"), node("Add", ["x", "big"], ["y"])]
    refused(
        simple(nodes, tensors), r"result of \w+ 'grow': expected .* at most 1,073,741,824 bytes", max_memory=1 << 30
    )


def test_all_operators_that_cannot_be_imported_are_named():
    nodes = [
        node("Det", ["x"], ["a"], name="d1"),
        node("Relu", ["a"], ["b"]),
        node("GridSample", ["b", "a"], ["c"], name="g1"),
        node("Det", ["c"], ["d"], name="d2"),
        node("TopK", ["x", "many"], ["e", "f"], name="t1"),
        node("Mystery", ["d"], ["y"], name="m1", domain="com.microsoft"),
    ]
    with pytest.raises(UnsupportedOperatorsError) as caught:
        import_onnx(simple(nodes, {"many": np.array([4000])}))
    text = str(caught.value)
    assert "4 operators cannot be imported" in text
    for part in ("Det (nodes 'd1', 'd2')", "GridSample (node 'g1')", "TopK for 4000 elements (node 't1')", "Mystery"):
        assert part in text
    assert caught.value.operators == {"Det": ["d1", "d2"], "GridSample": ["g1"], "TopK": ["t1"], "Mystery": ["m1"]}
    assert "\n" not in text


def test_values_that_a_file_cannot_hold():
    nodes = [node("Add", ["x", "w"], ["y"], name="sum")]
    refused(simple(nodes, {"w": np.array([1, 2, np.nan, 4])}), r"tensor 'w': expected finite values")
    nodes = [node("Cast", ["x"], ["i"], to=TensorProto.INT64), node("Add", ["i", "w"], ["y"], name="sum")]
    refused(simple(nodes, {"w": np.array([1, 2, 3, 1 << 40])}), "whole numbers up to 2")


def test_inputs_that_a_network_cannot_take():
    refused(
        model(relu(), {"x": (TensorProto.UINT64, ["n", 4])}, {"y": ["n", 4]}), "input 'x': expected an input of float32"
    )
    refused(model([node("Neg", ["w"], ["y"])], {}, {"y": [4]}, {"w": random(4)}), "expected a network with an input")
    sequence = proto(relu(), {"x": ["n", 4]}, {"y": ["n", 4]})
    sequence.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [4]))
    refused(sequence.SerializeToString(), "input 'x': expected arrays as inputs, found sequence_type")


def external(location, offset="0", length="64", dims=(4, 4)):
    made = proto([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 4]}, {"y": ["n", 4]}, {"w": random(4, 4)})
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.dims[:] = dims
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=value)
    return made


def test_external_data_in_the_folder_of_the_model_is_read(tmp_path):
    weights = random(4, 4)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.bin").write_bytes(b"12345678" + weights.tobytes())
    path = tmp_path / "model.onnx"
    path.write_bytes(external("data/w.bin", offset="8").SerializeToString())
    np.testing.assert_array_equal(read_onnx(path).tensors["w"].to_dense(), weights.T)
    refused(path.read_bytes(), "tensor 'w': expected tensors inside the model, which is not read from a file")


@pytest.mark.parametrize(
    ("location", "offset", "length"),
    [
        ("../w.bin", "0", "64"), ("/etc/passwd", "0", "64"), ("inner/../../w.bin", "0", "64"), ("link.bin", "0", "64"),
        ("folder/w.bin", "0", "64"), ("missing.bin", "0", "64"), ("", "0", "64"), ("inside.bin", "1", "64"),
        ("inside.bin", "-1", "64"), ("inside.bin", "0", "63"), ("inside.bin", "x", "64"),
        ("inside.bin", str(1 << 80), "64"), ("in\0side.bin", "0", "64"),
    ],
)  # fmt: skip
def test_external_data_elsewhere_is_refused(tmp_path, location, offset, length):
    (tmp_path / "w.bin").write_bytes(bytes(64))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "inside.bin").write_bytes(bytes(64))
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    (folder / "folder").symlink_to(tmp_path)
    path = folder / "model.onnx"
    path.write_bytes(external(location, offset, length).SerializeToString())
    refused(path, r"model\.onnx: tensor 'w': expected ")


def test_a_tensor_with_another_number_of_values_than_its_shape():
    made = proto([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 4]}, {"y": ["n", 4]}, {"w": random(4, 4)})
    made.graph.initializer[0].dims[:] = [4, 5]
    refused(made.SerializeToString(), "tensor 'w': expected the 20 values of its shape")
    made.graph.initializer[0].dims[:] = [4, -4]
    refused(made.SerializeToString(), "tensor 'w': expected dimensions of at least 0")


@pytest.mark.parametrize("linear", [False, True])
def test_sparse_initializers_become_dense(linear):
    dense = np.zeros((4, 4), np.float32)
    dense[[0, 1, 3], [2, 1, 3]] = [1, -2, 3]
    indices = np.array([2, 5, 15]) if linear else np.array([[0, 2], [1, 1], [3, 3]])
    made = proto([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 4]}, {"y": ["n", 4]})
    values = onnx.numpy_helper.from_array(np.array([1, -2, 3], np.float32), "w")
    made.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, onnx.numpy_helper.from_array(indices, "places"), [4, 4])
    )
    np.testing.assert_array_equal(import_onnx(made.SerializeToString()).model.tensors["w"].to_dense(), dense.T)
    for wrong in (indices + 100, indices - 100, indices[:2], indices * 0):
        made.graph.sparse_initializer[0].indices.CopyFrom(onnx.numpy_helper.from_array(wrong, "places"))
        refused(made.SerializeToString(), "sparse tensor 'w': expected ")
    made.graph.sparse_initializer[0].dims[:] = [4, 0]
    refused(made.SerializeToString(), "sparse tensor 'w': expected a shape without 0 and a list of values")


def test_external_data_of_half_bytes(tmp_path):
    path = tmp_path / "a.onnx"
    (tmp_path / "w.bin").write_bytes(bytes(8))
    made = external("w.bin", length="8")
    made.graph.initializer[0].data_type = TensorProto.INT4
    path.write_bytes(made.SerializeToString())
    refused(path, "expected numbers of at least 8 bits as external data, found int4")


def test_text():
    made = proto([node("Add", ["x", "w"], ["y"], name="sum")], {"x": ["n", 4]}, {"y": ["n", 4]})
    made.graph.initializer.append(helper.make_tensor("w", TensorProto.STRING, [1], [b"text"]))
    refused(made.SerializeToString(), r"node 'sum' \(Add\): ")


def test_functions_that_call_themselves():
    made = proto([node("f", ["x"], ["y"], domain="own")], {"x": ["n", 4]}, {"y": ["n", 4]})
    made.opset_import.append(helper.make_opsetid("own", 1))
    made.functions.append(
        helper.make_function(
            "own", "f", ["a"], ["b"], [node("f", ["a"], ["b"], domain="own")], [helper.make_opsetid("own", 1)]
        )
    )
    refused(made.SerializeToString(), "at most 32 functions or subgraphs within each other")


def test_a_loop_that_never_ends():
    body = helper.make_graph(
        [node("Identity", ["c"], ["c1"]), node("Neg", ["v"], ["v1"])], "body",
        [helper.make_empty_tensor_value_info(name) for name in ("i", "c", "v")],
        [helper.make_empty_tensor_value_info(name) for name in ("c1", "v1")],
    )  # fmt: skip
    refused(
        simple([node("Loop", ["", "yes", "x"], ["y"], body=body)], {"yes": np.array(True)}), "more than 1024 iterations"
    )


def test_functions_that_double_the_work_at_each_level():
    made = proto([node("f0", ["x"], ["y"], domain="own")], {"x": ["n", 4]}, {"y": ["n", 4]})
    imports = [helper.make_opsetid("own", 1), helper.make_opsetid("", 18)]
    made.opset_import.append(imports[0])
    for level in range(30):
        calls = [node(f"f{level + 1}", [a], [b], domain="own") for a, b in (("a", "b"), ("b", "c"))]
        made.functions.append(helper.make_function("own", f"f{level}", ["a"], ["c"], calls, imports))
    made.functions.append(helper.make_function("own", "f30", ["a"], ["c"], [node("Identity", ["a"], ["c"])], imports))
    refused(made.SerializeToString(), "at most 65,536 nodes with all calls and iterations")


def test_operators_that_nobody_knows_are_named_all_at_once():
    nodes = [node("Frobnicate", ["x"], ["a"], name="first"), node("Blorb", ["a"], ["y"], name="second")]
    refused(simple(nodes), r"Blorb.*second.*Frobnicate.*first|Frobnicate.*first.*Blorb.*second")


def test_known_attributes_are_named_in_order():
    nodes = [node("Gemm", ["x", "x"], ["y"], name="product", transZ=1)]
    refused(simple(nodes), r"expected attributes of Gemm: alpha, beta, transA, transB, found 'transZ'")
