"""Graphs that break ONNX's own rules, or hold contents that no network can use, are refused by node or tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dcformat_interop import UnfitError, import_onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.interop.onnx.models import FLOAT, checked, node, proto, random

DOUBLE = TensorProto.DOUBLE


def refused(made: Any, *parts: str, **options: Any) -> None:
    data = made if isinstance(made, bytes) else made.SerializeToString()
    with pytest.raises(UnfitError) as caught:
        import_onnx(data, **options)
    message = str(caught.value)
    assert message.startswith("ONNX model: ")
    assert message.count("ONNX model: ") == 1
    assert "\n" not in message
    for part in parts:
        assert part in message


def simple(*nodes: Any, **tensors: Any) -> Any:
    return proto(nodes, {"x": ["n", 4]}, {"y": ["n", 4]}, tensors)


def with_tensor(tensor: Any) -> Any:
    made = simple(node("MatMul", ["x", "w"], ["y"], name="dense"))
    made.graph.initializer.append(tensor)
    return made


@pytest.mark.parametrize(
    ("made", "parts"),
    [
        (node("Relu", ["x", "x", "x"], ["y"], name="relu"), "'relu' (Relu): ... inputs: expected 1, found 3"),
        (node("Add", ["x"], ["y"], name="add"), "'add' (Add): ... inputs: expected 2, found 1"),
        (node("Relu", ["x"], ["y", "z"], name="relu"), "'relu' (Relu): ... results: expected 1, found 2"),
        (node("Relu", ["x"], [], name="relu"), "'relu' (Relu): ... results: expected 1, found 0"),
        (node("Clip", ["x", "", "", "x"], ["y"], name="clip"), "'clip' (Clip): ... inputs: expected 1 to 3, found 4"),
    ],
)
def test_numbers_of_inputs_and_results(made: Any, parts: str) -> None:
    refused(simple(made, *([node("Relu", ["x"], ["y"])] if "y" not in made.output else [])), *parts.split(" ... "))


def test_constants_of_another_type() -> None:
    reshape = node("Reshape", ["x", "s"], ["y"], name="view")
    refused(
        simple(reshape, s=np.array([1, 4], np.float32)),
        "node 'view' (Reshape)",
        "input shape: expected int64, found float",
    )
    product = node("MatMul", ["x", "w"], ["y"], name="dense")
    refused(simple(product, w=np.ones((4, 4), "c8")), "node 'dense' (MatMul)", "input B: ", "found complex64")
    text = helper.make_tensor("w", TensorProto.STRING, [4], [b"a", b"b", b"c", b"d"])
    refused(with_tensor(text), "node 'dense' (MatMul)", "input B: ", "found string")
    refused(
        with_tensor(TensorProto(name="w", dims=[4, 4], data_type=999)),
        "tensor 'w': expected a dtype of ONNX, found number 999",
    )


def test_text_sequences_and_optional_values() -> None:
    refused(
        proto([node("Identity", ["x"], ["y"])], {"x": (TensorProto.STRING, [4])}, {"y": [4]}),
        "input 'x'",
        "found strings",
    )
    made = simple(
        node("SequenceConstruct", ["x"], ["s"], name="pack"), node("SequenceAt", ["s", "i"], ["y"]), i=np.array(0)
    )
    refused(made, "2 operators cannot be imported", "SequenceConstruct (node 'pack')", "SequenceAt (node 'y')")
    made = simple(node("Relu", ["x"], ["y"]))
    made.graph.input[0].type.optional_type.elem_type.tensor_type.elem_type = FLOAT
    refused(made, "input 'x': expected arrays as inputs, found optional_type")


def test_a_name_that_means_two_things() -> None:
    made = with_tensor(numpy_helper.from_array(random(4, 4), "w"))
    made.graph.initializer.append(numpy_helper.from_array(random(4, 4, seed=1), "w"))
    refused(made, "tensor 'w': expected tensors and inputs with different names, found this one twice")
    refused(simple(node("Neg", ["x"], ["x"], name="loop")), "node 'loop' (Neg)", "found 'x' twice")
    refused(simple(node("Neg", ["x"], ["w"], name="over"), w=random(4)), "node 'over' (Neg)", "found 'w' twice")
    made = simple(node("Relu", ["x"], ["y"]))
    made.graph.input.append(made.graph.input[0])
    refused(made, "names of the inputs")
    made = simple(node("Relu", ["x"], ["y"]))
    made.graph.output.append(made.graph.output[0])
    refused(made, "names of the outputs")


def test_an_output_that_does_not_depend_on_the_batch() -> None:
    refused(
        proto([], {"x": ["n", 4]}, {"w": [3, 4]}, {"w": random(3, 4)}), "output 'w': expected a dimension that grows"
    )


def test_a_network_that_gives_its_input() -> None:
    made = proto([], {"x": ["n", 4]}, {"x": ["n", 4]})
    assert [output.name for output in checked(made.SerializeToString()).model.graph.outputs] == ["x"]  # type: ignore[union-attr]


def test_models_without_nodes_or_outputs() -> None:
    functions = ModelProto(ir_version=8)
    functions.functions.append(helper.make_function("my", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], []))
    for made in (functions, proto([], {"x": ["n", 4]}, {})):
        refused(made, "expected an ONNX model, found one without a graph")
    refused(proto([node("Relu", ["x"], ["y"])], {"x": ["n", 4]}, {}), "expected an output, found none")


def test_a_branch_that_the_network_chooses_runs_both() -> None:
    def branch(name: str, op_type: str) -> Any:
        return helper.make_graph(
            [node(op_type, ["x"], [name])], name, [], [helper.make_tensor_value_info(name, FLOAT, None)]
        )

    made = proto(
        [node("ReduceSum", ["x"], ["s"], keepdims=0), node("Cast", ["s"], ["c"], to=TensorProto.BOOL),
         node("If", ["c"], ["y"], then_branch=branch("a", "Neg"), else_branch=branch("b", "Relu"))],
        {"x": [2, 4]}, {"y": [2, 4]},
    )  # fmt: skip
    checked(made.SerializeToString())


def test_dimensions_of_zero() -> None:
    refused(
        proto([node("Relu", ["x"], ["y"])], {"x": ["n", 0]}, {"y": ["n", 0]}),
        "input 'x': expected dimensions of at least 1",
    )
    refused(
        simple(node("MatMul", ["x", "w"], ["y"], name="dense"), w=np.zeros((4, 0))),
        "node 'dense' (MatMul)",
        "no dimension 0",
    )
    checked(simple(node("Concat", ["x", "w"], ["y"], axis=1), w=np.zeros((1, 0))).SerializeToString())


@pytest.mark.parametrize("dims", [[1 << 40, 1 << 22], [4, 1 << 40], [1 << 62, 1 << 62], [4] * 70])
def test_tensors_that_declare_more_than_they_hold(dims: list[int]) -> None:
    refused(
        with_tensor(TensorProto(name="w", dims=dims, data_type=FLOAT, raw_data=b"abcd")), "tensor 'w': expected the "
    )


def test_too_many_nodes() -> None:
    nodes = [node("Neg", [f"v{i}"], [f"v{i + 1}"]) for i in range((1 << 16) + 1)]
    refused(proto(nodes, {"v0": ["n", 4]}, {"v65537": ["n", 4]}), "expected at most 65,536 nodes")


def test_a_negative_variance() -> None:
    made = proto(
        [node("BatchNormalization", ["x", "one", "one", "one", "v"], ["y"], name="norm")], {"x": ["n", 2, 3]},
        {"y": ["n", 2, 3]}, {"one": np.ones(2), "v": np.array([1.0, -1])},
    )  # fmt: skip
    refused(made, "node 'norm' (BatchNormalization)", "variance: expected numbers of at least 0, found less")


def test_doubles_are_kept_or_refused() -> None:
    def doubles(weight: Any) -> Any:
        made = proto(
            [node("MatMul", ["x", "w"], ["y"], name="dense")], {"x": (DOUBLE, ["n", 4])}, {"y": (DOUBLE, ["n", 4])}
        )
        made.graph.initializer.append(numpy_helper.from_array(weight, "w"))
        return made

    exact = random(4, 4).astype(np.float64)
    np.testing.assert_array_equal(checked(doubles(exact).SerializeToString()).model.tensors["w"].to_dense(), exact.T)
    wide = doubles(exact + 1e-12)
    refused(wide, "node 'dense' (MatMul)", "input 1: expected float64 numbers that float32 holds exactly", "--float32")
    checked(wide.SerializeToString(), single=True)
    refused(doubles(np.full((4, 4), 1e300)), "tensor 'w': expected finite values", single=True)
