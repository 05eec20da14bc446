"""Operators in the forms that older operator sets and exporters give them; onnx's node tests cover the rest."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dcformat.graph import Conv, ConvTranspose, Linear, Pad, Quantize
from tests.interop.onnx.models import (
    FLOAT,
    INT8,
    INT64,
    UINT8,
    checked,
    graph_of,
    kinds,
    model,
    node,
    nodes_of,
    proto,
    random,
)

ONE = {"x": ["n", 4, 6]}
IMAGE = {"x": ["n", 3, 8, 9]}


def run(nodes, inputs, outputs, tensors=None, **options):
    return checked(model(nodes, inputs, outputs, tensors, **options))


@pytest.mark.parametrize(
    ("node_", "opset"),
    [
        (node("Softmax", ["x"], ["y"]), 11),
        (node("Softmax", ["x"], ["y"], axis=2), 11),
        (node("LogSoftmax", ["x"], ["y"], axis=0), 9),
        (node("Hardmax", ["x"], ["y"], axis=2), 11),
        (node("Clip", ["x"], ["y"], min=-0.5, max=0.25), 10),
        (node("Clip", ["x"], ["y"]), 10),
        (node("Squeeze", ["x"], ["y"]), 11),
        (node("Unsqueeze", ["x"], ["y"], axes=[1, -1]), 11),
        (node("ReduceSum", ["x"], ["y"], axes=[-1], keepdims=0), 11),
        (node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=1), 13),
        (node("Slice", ["x"], ["y"], starts=[1, -4], ends=[100, -1], axes=[1, 2]), 9),
        (node("Pad", ["x"], ["y"], pads=[0, 1, 2, 0, 0, 1], value=0.5), 10),
        (node("Pad", ["x"], ["y"], pads=[0, 1, 2, 0, 0, 1], mode="reflect"), 10),
        (node("Dropout", ["x"], ["y"], ratio=0.5), 10),
        (node("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0]), 7),
        (node("Flatten", ["x"], ["y"], axis=2), 9),
        (node("TopK", ["x"], ["y", "i"], axis=1, k=2), 7),
        (node("Elu", ["x"], ["y"], alpha=0.3), 7),
    ],
    ids=lambda value: getattr(value, "op_type", value),
)
def test_forms_of_older_operator_sets(node_, opset):
    run([node_], {"x": [1, 4, 6]}, {"y": None}, opset=opset)


def test_a_batch_norm_is_folded_into_the_convolution_before_it():
    tensors = {
        "w": random(5, 3, 3, 3), "s": random(5, seed=1), "b": random(5, seed=2), "m": random(5, seed=3),
        "v": np.abs(random(5, seed=4)) + 0.5,
    }  # fmt: skip
    nodes = [node("Conv", ["x", "w"], ["c"]), node("BatchNormalization", ["c", "s", "b", "m", "v"], ["y"])]
    imported = run(nodes, IMAGE, {"y": ["n", 5, 6, 7]}, tensors)
    assert kinds(imported) == ["conv"]
    assert list(imported.model.tensors) == ["w", "w.bias"]


def test_a_batch_norm_that_another_node_reads_past_stays():
    tensors = {name: np.abs(random(5, seed=seed)) + 0.5 for seed, name in enumerate("sbmv")}
    nodes = [
        node("Conv", ["x", "w"], ["c"]), node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"]),
        node("Add", ["c", "n"], ["y"]),
    ]  # fmt: skip
    imported = run(nodes, IMAGE, {"y": ["n", 5, 6, 7]}, {"w": random(5, 3, 3, 3), **tensors})
    assert kinds(imported) == ["conv", "binary", "add", "add"]


def test_factors_and_shifts_are_folded_into_layers():
    nodes = [
        node("MatMul", ["x", "w"], ["a"]), node("Add", ["a", "b"], ["c"]), node("Mul", ["c", "s"], ["d"]),
        node("Sub", ["one", "d"], ["e"]), node("Div", ["e", "s"], ["y"]),
    ]  # fmt: skip
    tensors = {"w": random(6, 5), "b": random(5, seed=1), "s": np.abs(random(5, seed=2)) + 1, "one": np.array([1.0])}
    imported = run(nodes, ONE, {"y": ["n", 4, 5]}, tensors)
    assert kinds(imported) == ["linear"]


def test_a_transposed_convolution_with_groups_takes_factors():
    nodes = [
        node("ConvTranspose", ["x", "w"], ["c"], group=2, strides=[2], pads=[1, 0]), node("Mul", ["c", "s"], ["d"]),
        node("Add", ["d", "b"], ["y"]),
    ]  # fmt: skip
    tensors = {"w": random(4, 3, 3), "s": random(6, 1, seed=1), "b": random(6, 1, seed=2)}
    imported = run(nodes, ONE, {"y": ["n", 6, 12]}, tensors)
    assert kinds(imported) == ["conv_transpose"]


def test_weights_with_a_codebook_keep_it():
    shared = np.random.default_rng(0).choice(np.array([0, 0.5, -0.25, 1.5], np.float32), (64, 6))
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Mul", ["a", "s"], ["b"]), node("Mul", ["b", "t"], ["y"])]
    tensors = {"w": shared.T, "s": random(64, seed=2), "t": np.array(3.0)}
    imported = run(nodes, ONE, {"y": ["n", 4, 64]}, tensors)
    assert kinds(imported) == ["linear", "binary", "binary"]
    imported = run([nodes[0], node("Mul", ["a", "t"], ["y"])], ONE, {"y": ["n", 4, 64]}, tensors)
    assert kinds(imported) == ["linear"]
    assert imported.model.tensors["w"].codebook is not None


def test_zeros_around_the_input_of_a_convolution_become_its_padding():
    nodes = [node("Pad", ["x", "p"], ["a"]), node("Conv", ["a", "w"], ["y"], strides=[2, 2])]
    tensors = {"p": np.array([0, 0, 0, 0, 0, 0, 1, 1]), "w": random(4, 3, 3, 3)}
    imported = run(nodes, IMAGE, {"y": ["n", 4, 4, 4]}, tensors)
    (conv,) = nodes_of(imported)
    assert isinstance(conv, Conv)
    assert (conv.padding, conv.padding_end) == ((0, 0), (1, 1))
    nodes[0] = node("Pad", ["x", "p", "one"], ["a"])
    imported = run(nodes, IMAGE, {"y": ["n", 4, 4, 4]}, {**tensors, "one": np.array(1.0)})
    assert [type(n) for n in nodes_of(imported)] == [Pad, Conv]


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_paddings_that_are_computed(auto_pad):
    options = {"auto_pad": auto_pad, "strides": [2, 2]}
    tensors = {"w": random(4, 3, 3, 2), "t": random(3, 4, 3, 2)}
    run([node("Conv", ["x", "w"], ["y"], **options)], IMAGE, {"y": ["n", 4, None, None]}, tensors)
    run([node("MaxPool", ["x"], ["y"], kernel_shape=[3, 2], **options)], IMAGE, {"y": ["n", 3, None, None]})


def test_three_dimensional_convolutions_and_pools():
    inputs = {"x": ["n", 4, 5, 6, 7]}
    convolution = node("Conv", ["x", "w", "b"], ["y"], pads=[1, 0, 1, 0, 1, 1], strides=[2, 1, 2], group=2)
    run([convolution], inputs, {"y": ["n", 6, None, None, None]}, {"w": random(6, 2, 3, 2, 3), "b": random(6)})
    pool = {"kernel_shape": [2, 3, 2], "strides": [2, 1, 1], "pads": [0, 1, 0, 1, 0, 1]}
    run([node("MaxPool", ["x"], ["y"], **pool)], inputs, {"y": ["n", 4, None, None, None]})
    run([node("AveragePool", ["x"], ["y"], **pool)], inputs, {"y": ["n", 4, None, None, None]})


@pytest.mark.parametrize("op_type", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("layout", [0, 1])
def test_recurrent_layers(op_type, direction, layout):
    gates, directions = {"LSTM": 4, "GRU": 3, "RNN": 1}[op_type], 2 if direction == "bidirectional" else 1
    tensors = {
        "w": random(directions, gates * 3, 5), "r": random(directions, gates * 3, 3, seed=1),
        "b": random(directions, 2 * gates * 3, seed=2),
    }  # fmt: skip
    sequence = ["n", 7, 5] if layout else [7, "n", 5]
    state = ["n", directions, 3] if layout else [directions, "n", 3]
    made = node(
        op_type, ["x", "w", "r", "b", "", "h"], ["y", "last"], direction=direction, layout=layout, hidden_size=3,
        **({"linear_before_reset": layout} if op_type == "GRU" else {}),
    )  # fmt: skip
    outputs = {"last": state} if directions == 2 or layout else {"y": [7, directions, "n", 3], "last": state}
    data = model([made], {"x": sequence, "h": state}, outputs, tensors, opset=14)
    if layout or directions == 2:  # which neither onnx's evaluator nor older versions of onnxruntime run
        from dcformat_interop import import_onnx

        imported = import_onnx(data)
    else:
        imported = checked(data)
    assert kinds(imported).count("lstm" if op_type == "LSTM" else "gru") == directions


def test_variants_of_recurrent_layers_that_are_refused():
    from dcformat_interop import UnsupportedOperatorsError, import_onnx

    tensors = {"w": random(1, 12, 5), "r": random(1, 12, 3), "p": random(1, 9), "l": np.array([3], np.int32)}
    for inputs, options, reason in (
        (["x", "w", "r", "", "", "", "", "p"], {}, "with peepholes"),
        (["x", "w", "r"], {"clip": 3.0}, "with a clip"),
        (["x", "w", "r"], {"input_forget": 1}, "with coupled input and forget gates"),
        (["x", "w", "r"], {"activations": ["Relu", "Tanh", "Tanh"]}, "with the activations relu, tanh, tanh"),
        (["x", "w", "r", "", "l"], {}, "with sequences of different lengths"),
    ):
        lstm = node("LSTM", inputs, ["y"], hidden_size=3, **options)
        with pytest.raises(UnsupportedOperatorsError, match=f"LSTM {reason}"):
            import_onnx(model([lstm], {"x": [7, 1, 5]}, {"y": [7, 1, 1, 3]}, tensors))


def test_whole_numbers_are_divided_towards_zero():
    nodes = [node("Div", ["x", "d"], ["q"]), node("Mod", ["x", "d"], ["m"]), node("Cast", ["f"], ["c"], to=INT64)]
    data = model(
        nodes, {"x": (INT64, [1, 6]), "f": [1, 6]},
        {"q": (INT64, [1, 6]), "m": (INT64, [1, 6]), "c": (INT64, [1, 6])}, {"d": np.array([3, -3, 7, -7, 1, -1])},
    )  # fmt: skip
    from dcformat_runtime import Session

    session = Session.from_model(checked(data).model, backend="numpy")
    x = np.array([[-7, 8, -8, 20, -5, 5]])
    found = session({"x": x, "f": np.array([[-1.5, 1.5, -0.5, 0.5, 2.9, -2.9]], np.float32)})
    np.testing.assert_array_equal(found["q"], [[-2, -2, -1, -2, -5, -5]])
    np.testing.assert_array_equal(found["m"], [[2, -1, 6, -1, 0, 0]])
    np.testing.assert_array_equal(found["c"], [[-1, 1, 0, 0, 2, -2]])


def quantised(tensors):
    scales = {"sx": np.array(0.02), "zx": np.array(3, np.int8), "sy": np.array(0.1), "zy": np.array(-5, np.int8)}
    return {**scales, **tensors}


def test_quantised_models_compute_with_the_numbers_that_integers_stand_for():
    weights = np.random.default_rng(0).integers(-127, 128, (5, 6)).astype(np.int8)
    nodes = [
        node("QuantizeLinear", ["x", "sx", "zx"], ["q"]), node("DequantizeLinear", ["q", "sx", "zx"], ["d"]),
        node("DequantizeLinear", ["w", "sw", "zw"], ["e"], axis=0), node("Gemm", ["d", "e", "b"], ["g"], transB=1),
        node("QuantizeLinear", ["g", "sy", "zy"], ["r"]), node("DequantizeLinear", ["r", "sy", "zy"], ["y"]),
    ]  # fmt: skip
    tensors = quantised({"w": weights, "sw": np.linspace(0.01, 0.05, 5), "zw": np.zeros(5, np.int8), "b": random(5)})
    imported = run(nodes, {"x": ["n", 6]}, {"y": ["n", 5]}, tensors)
    assert kinds(imported) == ["quantize", "linear", "quantize"]
    first, _, last = nodes_of(imported)
    assert first == Quantize((0,), float(np.float32(0.02)), 3, -128, 127)
    assert last == Quantize((2,), float(np.float32(0.1)), -5, -128, 127)
    scaled = weights.astype(np.float32) * np.linspace(0.01, 0.05, 5).astype(np.float32)[:, None]
    np.testing.assert_array_equal(imported.model.tensors["w"].to_dense(), scaled)


def test_half_precision_is_computed_in_float32():
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Sigmoid", ["a"], ["y"])]
    half = {"w": random(6, 5).astype(np.float16)}
    imported = run(nodes, {"x": (TensorProto.FLOAT16, ["n", 6])}, {"y": (TensorProto.FLOAT16, ["n", 5])}, half)
    graph = graph_of(imported)
    assert (graph.inputs[0].dtype, graph.outputs[0].dtype) == ("float16", "float16")
    np.testing.assert_array_equal(imported.model.tensors["w"].to_dense(), half["w"].astype(np.float32).T)


def test_operators_on_integers():
    weights = np.random.default_rng(0).integers(-9, 9, (6, 5)).astype(np.int8)
    nodes = [node("MatMulInteger", ["x", "w", "zx", "zw"], ["i"]), node("Cast", ["i"], ["y"], to=FLOAT)]
    tensors = {"w": weights, "zx": np.array(7, np.uint8), "zw": np.array(2, np.int8)}
    run(nodes, {"x": (UINT8, ["n", 6])}, {"y": ["n", 5]}, tensors)
    kernel = np.random.default_rng(1).integers(0, 9, (2, 3, 3, 3)).astype(np.uint8)
    tensors = {"w": kernel, "zx": np.array(7, np.uint8), "zw": np.array(2, np.uint8)}
    nodes[0] = node("ConvInteger", ["x", "w", "zx", "zw"], ["i"], pads=[1, 1, 1, 1])
    run(nodes, {"x": (UINT8, ["n", 3, 8, 9])}, {"y": ["n", 2, 8, 9]}, tensors)


def test_a_convolution_on_integers_with_scales_for_each_channel():
    kernel = np.random.default_rng(1).integers(-90, 90, (2, 3, 3, 3)).astype(np.int8)
    nodes = [node("QLinearConv", ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy", "b"], ["y"])]
    bias, scales = np.array([900, -40], np.int32), np.array([0.01, 0.02])
    tensors = quantised({"w": kernel, "sw": scales, "zw": np.zeros(2, np.int8), "b": bias})
    imported = run(nodes, {"x": (INT8, ["n", 3, 8, 9])}, {"y": (INT8, ["n", 2, 6, 7])}, tensors)
    assert kinds(imported) == ["binary", "conv", "requantize", "add"]


def test_loops_with_a_constant_number_of_iterations_are_unrolled():
    body = helper.make_graph(
        [node("Add", ["v", "x"], ["w"]), node("Cast", ["i"], ["f"], to=FLOAT), node("Mul", ["w", "f"], ["s"]),
         node("Identity", ["c"], ["c1"])], "body",
        [helper.make_tensor_value_info("i", INT64, []), helper.make_tensor_value_info("c", TensorProto.BOOL, []),
         helper.make_tensor_value_info("v", FLOAT, None)],
        [helper.make_tensor_value_info("c1", TensorProto.BOOL, []), helper.make_tensor_value_info("w", FLOAT, None),
         helper.make_tensor_value_info("s", FLOAT, None)],
    )  # fmt: skip
    nodes = [node("Loop", ["three", "yes", "x"], ["y", "z"], body=body)]
    tensors = {"three": np.array(3), "yes": np.array(True)}
    run(nodes, {"x": [2, 4]}, {"y": [2, 4], "z": [3, 2, 4]}, tensors)


def test_functions_of_a_model_are_expanded():
    body = [
        node("Constant", [], ["two"], value_float=2.0),
        node("Mul", ["a", "two"], ["b"]),
        node("LeakyRelu", ["b"], ["c"]),
    ]
    body[2].attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope")
    made = proto([node("f", ["x"], ["y"], domain="own", slope=0.25)], ONE, {"y": ["n", 4, 6]})
    made.opset_import.append(helper.make_opsetid("own", 1))
    made.functions.append(
        helper.make_function("own", "f", ["a"], ["c"], body, [helper.make_opsetid("", 18)], attributes=["slope"])
    )
    imported = checked(made.SerializeToString())
    assert nodes_of(imported)[-2].inputs[1] == 0.25


def test_masks_with_infinities():
    mask = np.triu(np.full((6, 6), -np.inf), 1)
    nodes = [node("MatMul", ["x", "t"], ["s"]), node("Add", ["s", "mask"], ["m"]), node("Softmax", ["m"], ["y"])]
    imported = run(nodes, {"x": ["n", 6, 3]}, {"y": ["n", 6, 6]}, {"mask": mask, "t": random(3, 6)})
    assert kinds(imported) == ["linear", "where", "softmax"]


def test_constants_of_attributes():
    nodes = [
        node("Constant", [], ["a"], value_floats=[1.0, 2.0, 3.0, 4, 5, 6]), node("Constant", [], ["b"], value_int=2),
        node("Cast", ["b"], ["c"], to=FLOAT), node("Mul", ["x", "a"], ["d"]), node("Add", ["d", "c"], ["y"]),
    ]  # fmt: skip
    run(nodes, ONE, {"y": ["n", 4, 6]})


def test_shapes_are_computed_while_importing():
    nodes = [
        node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["n"]), node("Unsqueeze", ["n", "zeros"], ["u"]),
        node("Concat", ["u", "rest"], ["t"], axis=0), node("Reshape", ["x", "t"], ["y"]),
    ]  # fmt: skip
    tensors = {"zero": np.array(0), "zeros": np.array([0]), "rest": np.array([-1, 3])}
    assert kinds(run(nodes, ONE, {"y": ["n", 8, 3]}, tensors)) == ["reshape"]


def test_layers_on_the_right_of_their_weights():
    run([node("MatMul", ["w", "x"], ["y"])], ONE, {"y": ["n", 5, 6]}, {"w": random(5, 4)})
    run([node("Gemm", ["w", "x"], ["y"], transB=1)], {"x": [1, 6]}, {"y": [5, 1]}, {"w": random(5, 6)})


@pytest.mark.parametrize(
    "equation",
    ["bij,jk->bik", "bij,bkj->bik", "bij,bij->b", "bij->ij", "bii->bi", "...i,i->...", "bij,jk,kl->bil"],
)
def test_sums_of_products(equation):
    terms = equation.split("->")[0].split(",")
    shapes = {"i": 4, "j": 6, "k": 5, "l": 3, "b": 1, ".": 1}
    nodes = [node("Einsum", ["x", *(f"w{n}" for n in range(1, len(terms)))], ["y"], equation=equation)]
    tensors = {f"w{n}": random(*(shapes[c] for c in term), seed=n) for n, term in enumerate(terms) if n}
    first = [1, 4] if terms[0] == "...i" else [1, 4, 4] if terms[0] == "bii" else [1, 4, 6]
    run(nodes, {"x": first}, {"y": None}, tensors)


def test_resizing_by_matrices():
    for options in (
        {"mode": "cubic", "coordinate_transformation_mode": "half_pixel"},
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel", "antialias": 1},
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"},
    ):
        tensors = {"sizes": np.array([1, 3, 5, 12])}
        run(
            [node("Resize", ["x", "", "", "sizes"], ["y"], **options)],
            {"x": [1, 3, 8, 9]},
            {"y": [1, 3, 5, 12]},
            tensors,
        )


def test_linear_resizing_has_no_rounding():
    resize = node("Resize", ["x", "", "scales"], ["y"], mode="linear", nearest_mode="floor")
    imported = run([resize], IMAGE, {"y": None}, {"scales": np.array([1, 1, 2, 1.5])})
    assert kinds(imported) == ["resize"]


def test_names_of_weights_are_those_of_the_model():
    nodes = [node("Gemm", ["x", "fc.weight", "fc.bias"], ["y"], transB=1)]
    imported = run(nodes, {"x": ["n", 6]}, {"y": ["n", 5]}, {"fc.weight": random(5, 6), "fc.bias": random(5)})
    (layer,) = nodes_of(imported)
    assert layer == Linear((0,), "fc.weight", "fc.bias")


def test_equal_operators_and_tensors_are_stored_once():
    weights = random(6, 6)
    nodes = [
        node("MatMul", ["x", "a"], ["p"]), node("MatMul", ["x", "b"], ["q"]), node("Add", ["p", "q"], ["y"]),
    ]  # fmt: skip
    imported = run(nodes, {"x": ["n", 6]}, {"y": ["n", 6]}, {"a": weights, "b": weights.copy()})
    assert list(imported.model.tensors) == ["a"]
    assert kinds(imported) == ["linear", "add"]


def test_transposed_convolutions_with_a_given_size():
    nodes = [node("ConvTranspose", ["x", "w"], ["y"], strides=[3, 2], output_shape=[23, 17])]
    imported = run(nodes, IMAGE, {"y": ["n", 2, 23, 17]}, {"w": random(3, 2, 3, 3)})
    assert isinstance(nodes_of(imported)[0], ConvTranspose)
