"""Damaged and hostile files are refused in a line that names the file and the part; no case crashes or is slow."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dcformat_interop import UnfitError, UnsupportedOperatorsError, read_tflite
from hypothesis import given, settings
from hypothesis import strategies as st

from dcformat.errors import FormatError
from tests.interop.tflite.support import random
from tests.interop.tflite.test_operators import one
from tests.interop.tflite.test_quantized import IN, OUT, integers, quantized
from tests.interop.tflite.writer import Number, Operator, Tensor, constant, flatbuffer, model

X = random((1, 4, 6, 3))


def network() -> bytes:
    """Return a quantised network of several layers, with a sparse tensor."""
    tensors = [
        quantized((1, 4, 6, 3), IN), constant(integers((5, 3, 3, 3)), scale=np.full(5, 0.01), axis=0),
        constant(np.arange(5, dtype=np.int32), scale=np.full(5, 0.0005), axis=0), quantized((1, 4, 6, 5), OUT),
        constant([1, 120]), quantized((1, 120), OUT), sparse(), quantized((1, 4), OUT), Tensor((1, 4)),
    ]  # fmt: skip
    operators = [
        Operator("CONV_2D", [0, 1, 2], [3], {"stride_h": 1, "stride_w": 1, "activation": 1}),
        Operator("RESHAPE", [3, 4], [5]), Operator("FULLY_CONNECTED", [5, 6, -1], [7]),
        Operator("DEQUANTIZE", [7], [8]),
    ]  # fmt: skip
    return model(tensors, operators, [0], [8])


def sparse() -> Tensor:
    """Return weights ``(4, 120)`` of which a few columns of each row are stored."""
    starts, places = np.array([0, 2, 3, 5, 6], np.int32), np.array([0, 7, 119, 3, 4, 50], np.int32)
    levels = [
        {0: Number("b", 0), 1: Number("i", 4)},
        {0: Number("b", 1), 2: Number("B", 1), 3: {0: starts}, 4: Number("B", 1), 5: {0: places}},
    ]
    return Tensor(
        (4, 120), np.array([1, 2, 3, 4, 5, 6], np.int8), "int8", scale=0.5,
        sparsity={0: np.array([0, 1], np.int32), 2: levels},
    )  # fmt: skip


def refuse(data: bytes, *parts: str) -> None:
    with pytest.raises(UnfitError) as caught:
        read_tflite(data)
    for part in ("TensorFlow Lite model: ", *parts):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_files(tmp_path: Path) -> None:
    refuse(b"", "not a TensorFlow Lite model (an empty file)")
    refuse(b"\x89PNG\r\n\x1a\n" + bytes(100), "not a TensorFlow Lite model (no TFL3 at byte 4)")
    path = tmp_path / "a.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3")
    with pytest.raises(
        UnfitError, match=r"a\.tflite: truncated or damaged: model: expected a file of at least 29 bytes, found 8$"
    ):
        read_tflite(path)
    with pytest.raises(FileNotFoundError):
        read_tflite(tmp_path / "b.tflite")


def test_a_file_of_another_version() -> None:
    refuse(flatbuffer({0: Number("I", 4)}), "expected version 3 of TensorFlow Lite's schema, found 4")
    refuse(flatbuffer({0: Number("I", 3)}), "expected a graph, found none")


def test_every_truncated_file() -> None:
    data = network()
    read_tflite(data)
    for length in range(0, len(data), 7):
        refuse(data[:length], "truncated or damaged: " if length >= 8 else "not a TensorFlow Lite model")


@given(st.data())
@settings(max_examples=300)
def test_any_damage_is_refused_or_harmless(data: Any) -> None:
    content = bytearray(network())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 4))
        kind = data.draw(st.sampled_from(("bit", "byte", "word")))
        if kind == "bit":
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "byte":
            content[place] = data.draw(st.integers(0, 255))
        else:
            word = data.draw(st.sampled_from((0, 1, 4, 255, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(content))))
            struct.pack_into("<I", content, place, word)
    try:
        found = read_tflite(bytes(content), max_memory=1 << 24)
    except UnfitError as error:
        assert "\n" not in str(error)
    else:
        assert found.graph is not None


@pytest.mark.parametrize("word", [0x7FFFFFFF, 0xFFFFFFFF, 0x80000000])
def test_huge_words_anywhere(word: int) -> None:
    data = network()
    for place in range(0, len(data) - 4, 4):
        changed = bytearray(data)
        struct.pack_into("<I", changed, place, word)
        try:
            read_tflite(bytes(changed), max_memory=1 << 24)
        except (UnfitError, FormatError) as error:
            assert "\n" not in str(error)


def test_a_table_that_is_shared_very_often() -> None:
    """A file of some kilobytes could describe millions of numbers if all operators were the same bytes."""
    large = {0: Number("I", 0), 1: np.zeros(3000, np.int32)}
    graph = {0: [{}], 3: [large, *({} for _ in range(3999))]}
    data = bytearray(flatbuffer({0: Number("I", 3), 1: [{}], 2: [graph]}))
    start = data.index(struct.pack("<I", 4000)) + 4
    first = start + struct.unpack_from("<I", data, start)[0]
    for number in range(4000):
        struct.pack_into("<I", data, start + 4 * number, first - start - 4 * number)
    refuse(bytes(data), "operator", "expected tables and vectors that share few bytes, found some that share very many")


def test_buffers_and_shapes_that_do_not_fit() -> None:
    weight = constant(random((3, 8)))
    short = Tensor((3, 8), b"123", name="w")
    refuse(one("FULLY_CONNECTED", [random((1, 8)), short, constant(random((3,)))]),
           "tensor 1 'w': expected 96 bytes for 24 elements of float32, found 3")  # fmt: skip
    refuse(one("FULLY_CONNECTED", [random((1, 9)), weight, constant(random((3,)))]),
           "operator 0 (FULLY_CONNECTED): expected inputs and options that fit, found input: expected")  # fmt: skip
    wrong = Tensor((-3, 8), np.zeros(24, np.float32))
    refuse(one("FULLY_CONNECTED", [random((1, 8)), wrong]), "tensor 1 'tensor_1': expected at most 7 dimensions")
    far = Tensor((1, 8), others={2: Number("I", 99)})
    refuse(one("ABS", [far]), "tensor 0 'tensor_0': expected a buffer from 0 to 0, found 99")
    refuse(one("ABS", [Tensor((1, 8), signature=(-1,))]), "expected a signature of shape (1, 8), found (-1,)")
    alien = Tensor((1, 8), others={1: Number("b", 77)})
    refuse(one("ABS", [alien]), "expected a dtype from 0 to 22, found 77")


def test_constants_that_are_not_read() -> None:
    state = Tensor((1, 8), dtype="string", name="s", others={5: Number("?", 1)})
    refuse(one("ADD", [random((1, 8)), state]), "tensor 1 's': expected a constant of float32, float16, ")
    vast = Tensor((1 << 30, 1 << 30), b"123", name="v")
    refuse(one("ADD", [random((1, 8)), vast]), "tensor 1 'v': expected at most 1,099,511,627,776 elements, found")


def test_a_constant_in_bfloat16() -> None:
    half = Tensor((1, 2), np.array([0x3FC0, 0xC000], "<u2"), "bfloat16")
    found = read_tflite(one("ADD", [random((1, 2)), half])).tensors
    assert [tensor.to_dense().tolist() for tensor in found.values()] == [[1.5, -2.0]]


def test_a_buffer_behind_the_flatbuffer() -> None:
    def built(offset: int) -> bytes:
        graph = {
            0: [
                {0: np.array([1, 2], np.int32), 3: "x"}, {0: np.array([2], np.int32), 2: Number("I", 1), 3: "w"},
                {0: np.array([1, 2], np.int32), 3: "y"},
            ],
            1: np.array([0], np.int32), 2: np.array([2], np.int32),
            3: [{0: Number("I", 0), 1: np.array([0, 1], np.int32), 2: np.array([2], np.int32)}],
        }  # fmt: skip
        buffers = [{}, {1: Number("Q", offset), 2: Number("Q", 8)}]
        return flatbuffer({0: Number("I", 3), 1: [{3: Number("i", 0)}], 2: [graph], 4: buffers})

    length = len(built(1000))
    data = built(length) + np.array([1.5, 2.5], "<f4").tobytes()
    assert [list(t.to_dense()) for t in read_tflite(data).tensors.values()] == [[1.5, 2.5]]
    refuse(
        built(length + 1) + bytes(8),
        f"truncated or damaged: buffer 1: expected a file of at least {length + 9:,} bytes",
    )
    refuse(built((1 << 64) - 4) + bytes(8), "buffer 1: expected a file of at least 18,446,744,073,709,551,620 bytes")


def test_numbers_of_tensors_and_operators() -> None:
    tensors = [Tensor((1, 8)), Tensor((1, 8))]
    refuse(
        model(tensors, [Operator("ABS", [5], [1])], [0], [1]),
        "operator 0 (ABS): expected tensors from -1 to 1, found 5",
    )
    refuse(
        model(tensors, [Operator("ABS", [0], [-1])], [0], [1]),
        "operator 0 (ABS): expected tensors from 0 to 1, found -1",
    )
    refuse(model(tensors, [Operator("ABS", [0], [1])], [7], [1]), "inputs: expected tensors from 0 to 1, found 7")
    refuse(model(tensors, [Operator("ABS", [0], [1])], [0], []), "outputs: expected outputs, each once, found none")
    refuse(model(tensors, [Operator("ABS", [0], [1])], [], [1]), "inputs: expected inputs, each once, found none")
    refuse(model(tensors, [Operator("ABS", [], [1])], [0], [1]), "inputs: expected one of number 0, found none")


def test_a_cycle_and_a_missing_tensor() -> None:
    tensors = [Tensor((1, 8)), Tensor((1, 8)), Tensor((1, 8))]
    cycle = [Operator("ADD", [0, 2], [1]), Operator("ABS", [1], [2])]
    refuse(model(tensors, cycle, [0], [2]),
           "operator 0 (ADD): expected an operator before it that makes tensor 2 'tensor_2', found none")  # fmt: skip
    again = [Operator("ABS", [0], [1]), Operator("NEG", [0], [1])]
    refuse(model(tensors, again, [0], [1]), "expected tensors that nothing else makes, found tensor 1")


def test_dimensions_that_are_open() -> None:
    tensors = [Tensor((1, 1, 3), signature=(-1, -1, 3), name="x"), Tensor((1, 1, 3))]
    data = model(tensors, [Operator("ABS", [0], [1])], [0], [1])
    refuse(data, "input 'x': expected fixed sizes except for the batch (or --dim x.1=SIZE), found shape (-1, -1, 3)")
    found = read_tflite(data, dims={"x.1": 5}).graph
    assert found is not None
    assert found.inputs[0].shape == (5, 3)
    with pytest.raises(UnfitError, match=r"--dim: expected a dimension that the model leaves open, found 'y\.1'"):
        read_tflite(data, dims={"x.1": 5, "y.1": 3})


def test_options_that_are_not_known() -> None:
    options = {0: Number("i", 1), 9: Number("i", 7)}
    graph = {
        0: [{0: np.array([1, 8], np.int32)}, {0: np.array([1, 8], np.int32)}], 1: np.array([0], np.int32),
        2: np.array([1], np.int32),
        3: [{0: Number("I", 0), 1: np.array([0], np.int32), 2: np.array([1], np.int32), 3: Number("B", 9), 4: options}],
    }  # fmt: skip
    root = {0: Number("I", 3), 1: [{3: Number("i", 25)}], 2: [graph], 4: [{}]}
    refuse(flatbuffer(root), "operator 0 (SOFTMAX): expected the options beta, found one more, of number 9")
    graph[3][0][4] = {0: None, 1: None}  # type: ignore[index]
    assert read_tflite(flatbuffer(root)).graph is not None
    graph[3][0][4] = options  # type: ignore[index]
    graph[3][0][3] = Number("B", 8)  # type: ignore[index]
    refuse(flatbuffer(root), "operator 0 (SOFTMAX): expected options of class 9, found class 8")
    root[1] = [{3: Number("i", 250)}]
    refuse(flatbuffer(root), "operator code 0: expected an operator from 0 to 209, found 250")


def test_all_operators_that_are_not_supported_are_named() -> None:
    tensors = [Tensor((1, 8), name=name) for name in "abcdef"]
    operators = [
        Operator("TOPK_V2", [0], [1]), Operator("ABS", [1], [2]), Operator("CUSTOM Detect", [2], [3]),
        Operator("TOPK_V2", [0], [4]), Operator("WHILE", [4], [5]),
    ]  # fmt: skip
    with pytest.raises(UnsupportedOperatorsError) as caught:
        read_tflite(model(tensors, operators, [0], [3]))
    assert caught.value.operators == {"TOPK_V2": ["b", "e"], "CUSTOM Detect": ["d"], "WHILE": ["f"]}
    assert "3 operators cannot be imported: TOPK_V2 (nodes 'b', 'e'): convert the network without it" in str(
        caught.value
    )


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tflite"
    with path.open("wb") as file:
        file.write(network()[:40])
        file.truncate(1 << 34)
    with pytest.raises(UnfitError, match=r"at most 4,294,967,296 bytes \(max_memory\), found 17,179,869,184"):
        read_tflite(path)


def test_memory_is_counted_before_it_is_taken() -> None:
    with pytest.raises(UnfitError, match="at most 1,000 bytes of memory"):
        read_tflite(network(), max_memory=1000)
    huge = Tensor((1 << 20, 1 << 20), b"", others={5: Number("?", 1)})
    refuse(one("ADD", [random((1, 8)), huge]), "at most 4,294,967,296 bytes of memory")


@pytest.mark.parametrize(
    ("op_type", "constants"),
    [
        ("FILL", [constant([1 << 20, 1 << 20]), constant(1.0)]),
        ("RANGE", [constant(0), constant((1 << 31) - 1), constant(1)]),
        ("TILE", [constant(np.zeros((64, 64), np.float32)), constant([1 << 14, 1 << 14])]),
        ("GATHER", [constant(np.zeros((1, 1 << 12), np.float32)), constant(np.zeros(1 << 18, np.int32))]),
        ("ADD", [constant(np.zeros((1, 1 << 15), np.int32)), constant(np.zeros((1 << 15, 1), np.int32))]),
    ],
)
def test_constants_that_operators_make_are_counted(op_type: str, constants: list[Tensor]) -> None:
    count = len(constants)
    tensors = [*constants, Tensor((1, 2)), Tensor(), Tensor()]
    operators = [Operator(op_type, range(count), [count + 1]), Operator("ABS", [count], [count + 2])]
    data = model(tensors, operators, [count], [count + 2])
    refuse(data, f"operator 0 ({op_type}): expected a checkpoint that takes at most 4,294,967,296 bytes of memory")


def test_an_operator_with_more_results_than_the_file_names() -> None:
    refuse(one("UNPACK", [random((1, 1 << 20))], {"axis": 1, "num": 3}, 3), "outputs: expected 1048576, found 3")
    places = np.array([1], np.int32)
    data = one("ONE_HOT", [places, constant((1 << 31) - 1), constant(1.0), constant(0.0)], {"axis": -1})
    refuse(data, "operator 0 (ONE_HOT): expected a checkpoint that takes at most")


def test_scales_that_do_not_fit() -> None:
    refuse(one("LOGISTIC", [Tensor((1, 3), integers((1, 3)), "int8", scale=[1, 2], axis=1)]),
           "expected a scale for each position along dimension 1 of (1, 3), found 2")  # fmt: skip
    refuse(one("LOGISTIC", [Tensor((1, 3), integers((1, 3)), "int8", scale=-1.0)]), "expected finite scales above 0")
    refuse(one("LOGISTIC", [Tensor((1, 3), integers((1, 3)), "int8", scale=1.0, zero_point=200)]),
           "expected zero points from -128 to 127, found 200 to 200")  # fmt: skip
    scales, zeros = np.array([0.5, 0.25, 0.5], np.float32), np.zeros(2, np.int64)
    for fields, found in (
        ({2: scales, 3: zeros, 6: Number("i", 1)}, "expected 3 zero points, found 2"),
        ({2: scales, 4: Number("B", 1), 6: Number("i", 1)}, "expected scales for the tensor or its channels, found"),
    ):
        refuse(one("LOGISTIC", [Tensor((1, 3), integers((1, 3)), "int8", others={4: fields})]), found)


def test_scales_without_zero_points() -> None:
    steps = Tensor((1, 2), np.array([3, -5], np.int8), "int8", others={4: {2: np.array([0.5], np.float32)}})
    found = read_tflite(one("ADD", [random((1, 2)), steps])).tensors
    assert [tensor.to_dense().tolist() for tensor in found.values()] == [[1.5, -2.5]]


def test_inputs_and_outputs_without_elements_or_with_too_many() -> None:
    tensors = [Tensor((1, 1 << 30, 1 << 30), name="x"), Tensor()]
    refuse(model(tensors, [Operator("ABS", [0], [1])], [0], [1]), "input 'x': expected 1 to 1,099,511,627,776 elements")
    tensors = [Tensor((1, 0), name="x"), Tensor()]
    refuse(model(tensors, [Operator("ABS", [0], [1])], [0], [1]), "input 'x': expected 1 to", "found shape [1, 0]")
    empty = constant(np.zeros((1, 0), np.float32), name="none")
    tensors = [Tensor((1, 2)), empty, Tensor()]
    data = model(tensors, [Operator("ABS", [0], [2])], [0], [1])
    refuse(data, "model: tensor 1 'none': expected an output")
    table = constant(np.zeros((0, 3), np.float32))
    tensors = [Tensor((1, 2), dtype="int32"), table, Tensor()]
    refuse(model(tensors, [Operator("EMBEDDING_LOOKUP", [0, 1], [2])], [0], [2]), "expected a network that a .dcf file")


def test_names_that_are_too_long() -> None:
    tensors = [Tensor((1, 2), name="x" * 300), Tensor((1, 2), name="y" * 300)]
    found = read_tflite(model(tensors, [Operator("ABS", [0], [1])], [0], [1])).graph
    assert found is not None
    assert (found.inputs[0].name, found.outputs[0].name) == ("x" * 243 + ".0", "y" * 243 + ".1")


def test_infinite_weights() -> None:
    weight = constant(np.full((3, 8), np.inf, np.float32))
    refuse(one("FULLY_CONNECTED", [random((1, 8)), weight, constant(random((3,)))]), "expected finite values")


def test_a_bias_of_signalling_nan() -> None:
    bias = constant(np.array([0x7F800001, 0, 0], "<u4").view("<f4"))
    refuse(one("FULLY_CONNECTED", [random((1, 8)), constant(random((3, 8))), bias]), "expected finite values")


def test_doubles_that_float32_does_not_hold() -> None:
    refuse(one("ADD", [random((1, 3)), constant(np.array([0.1, 1, 2]))]), "expected float64 numbers that float32 holds")
