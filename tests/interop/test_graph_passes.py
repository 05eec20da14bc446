"""Rewrites of a builder's graph: the function stays the same, and the remaining operators are the expected ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from dcformat_interop.graph_builder import GraphBuilder, Value
from dcformat_interop.graph_passes import clean, fold_affine, without_batch
from dcformat_runtime import Session

from dcformat.errors import FormatError
from dcformat.graph import (
    GRU,
    AvgPool,
    Conv,
    ConvTranspose,
    Gather,
    Linear,
    MatMul,
    MaxPool,
    Normalize,
    Output,
    Port,
    Quantize,
    ReLU,
    Resize,
    Softmax,
)

Build = Callable[[GraphBuilder, Value], Value]


def numbers(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def conv(b: GraphBuilder, x: Value) -> Value:
    return b.emit(Conv, (x,), weight=b.tensor(numbers(5, x.shape[-3], 2, 2), "conv"))


def attention(b: GraphBuilder, x: Value) -> Value:
    heads = b.transpose(b.reshape(x, (1, 4, 3, 2)), (0, 2, 1, 3))
    joined = b.reshape(heads, (3, 4, 2))
    scores = b.emit(Softmax, (b.emit(MatMul, (joined, b.transpose(joined, (0, 2, 1)))),))
    mixed = b.reshape(b.emit(MatMul, (scores, joined)), (1, 3, 4, 2))
    return b.reshape(b.transpose(mixed, (0, 2, 1, 3)), (1, 4, 6))


#: Operators on a value with a batch of 1, and how many of them are left without the batch.
CASES: dict[str, tuple[tuple[int, ...], int, Build, int]] = {
    "elementwise": ((1, 3, 4), 0, lambda b, x: b.emit(ReLU, (b.unary("exp", x),)), 2),
    "quantize": ((1, 3, 4), 0, lambda b, x: b.emit(Quantize, (x,), scale=0.1, zero_point=0, low=-9, high=9), 1),
    "broadcast from the front": ((1, 3, 4), 0, lambda b, x: b.add(x, numbers(1, 3, 1)), 1),
    "broadcast from the end": ((1, 3, 4), 0, lambda b, x: b.binary("mul", x, numbers(4)), 1),
    "where": ((1, 3, 4), 0, lambda b, x: b.where(b.binary("less", x, 0.0), numbers(1, 3, 4), x), 2),
    "broadcast of values": ((1, 3, 4), 0, lambda b, x: b.add(x, b.reduce("max", x, [1], keepdims=True)), 2),
    "broadcast that grows": ((1, 3, 4), 0, lambda b, x: b.add(x, numbers(2, 1, 1)), 2),
    "linear": ((1, 3, 4), 0, lambda b, x: b.emit(Linear, (x,), weight=b.tensor(numbers(5, 4), "w")), 1),
    "conv": ((1, 3, 6, 6), 0, conv, 1),
    "pools": (
        (1, 3, 6, 6), 0, lambda b, x: b.emit(
            AvgPool, (b.emit(MaxPool, (x,), kernel=(2, 2), stride=(1, 1), padding=(1, 0), padding_end=(0, 1)),),
            kernel=(2, 2), stride=(2, 2), padding=(0, 0), padding_end=(0, 0),
        ), 2,
    ),
    "resize": ((1, 3, 4, 5), 0, lambda b, x: b.emit(Resize, (x,), size=(8, 10), scale=(2.0, 2.0)), 1),
    "softmax": ((1, 3, 4), 0, lambda b, x: b.emit(Softmax, (b.emit(Softmax, (x,), axis=1),)), 2),
    "softmax along the batch": ((1, 3, 4), 0, lambda b, x: b.emit(Softmax, (x,), axis=0), 3),
    "normalize": ((1, 3, 4), 0, lambda b, x: b.emit(Normalize, (x,), axes=(1, 2), epsilon=0.1), 1),
    "reduce": ((1, 3, 4, 5), 0, lambda b, x: b.reduce("mean", b.reduce("max", x, [2]), [2], keepdims=True), 2),
    "reduce the batch": ((1, 3, 4), 0, lambda b, x: b.reshape(b.reduce("mean", x, [0]), (1, 12)), 3),
    "transpose": ((1, 3, 4), 0, lambda b, x: b.transpose(x, (2, 0, 1)), 1),
    "transpose of the batch alone": ((1, 3, 4), 0, lambda b, x: b.emit(ReLU, (b.transpose(x, (1, 2, 0)),)), 1),
    "slice and pad": ((1, 3, 4), 0, lambda b, x: b.pad(b.slice(x, 2, 3, 2, -2), (0, 1, 0), (0, 0, 2), "edge"), 2),
    "tile": ((1, 3, 4), 0, lambda b, x: b.tile(x, (1, 2, 1)), 1),
    "tile of the batch": ((1, 3, 4), 0, lambda b, x: b.reduce("sum", b.tile(x, (2, 1, 1)), [0], True), 3),
    "concat": ((1, 3, 4), 0, lambda b, x: b.concat([x, numbers(1, 2, 4), x], 1), 1),
    "gather": ((1, 3, 4), 0, lambda b, x: b.gather(x, np.array([[2, 0], [1, 1]]), 1), 1),
    "embedding": ((1, 4), 0, lambda b, x: b.gather(numbers(9, 5), b.unary("abs", b.unary("sign", x)), 0), 3),
    "matmul": ((1, 3, 4), 0, lambda b, x: b.emit(MatMul, (x, b.transpose(x, (0, 2, 1)))), 2),
    "matmul of rows": ((1, 4), 0, lambda b, x: b.emit(MatMul, (b.emit(ReLU, (x,)), numbers(4, 2))), 4),
    "attention": ((1, 4, 6), 0, attention, 9),
    "batch in the middle": ((3, 1, 4), 1, lambda b, x: b.emit(ReLU, (b.transpose(x, (1, 0, 2)),)), 1),
    "recurrent": (
        (3, 1, 4), 1, lambda b, x: b.reshape(b.emit(
            GRU, (b.reshape(x, (3, 4)),), weight=b.tensor(numbers(6, 4), "w"),
            recurrent_weight=b.tensor(numbers(6, 2), "r"),
        ), (3, 1, 2)), 1,
    ),
    "dimensions of 1 beside the batch": ((1, 1, 4), 0, lambda b, x: b.reshape(b.add(x, numbers(1, 3, 4)), (1, 12)), 2),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_graph_without_its_batch_computes_the_same(case: str) -> None:
    shape, axis, build, count = CASES[case]
    builder = GraphBuilder()
    value = build(builder, builder.input(Port(shape, "x", "float32", None)))
    end = next(place for place, size in enumerate(value.shape) if size == 1) if 1 in value.shape else None
    whole = Session.from_model(builder.model([Output(value.number, "y", batch_axis=None)]), backend="numpy")
    ends = end if end is not None else 0
    inner, (made,) = without_batch(builder, [axis], [(value, end)])
    short, (made,) = clean(inner, [made])
    assert len(short.nodes) == count
    batchless = Session.from_model(short.model([Output(made.number, "y", batch_axis=ends)]), backend="numpy")
    x = numbers(*shape, seed=1)
    expected, found = whole({"x": x})["y"], batchless({"x": x})["y"]
    np.testing.assert_allclose(found.reshape(expected.shape), expected, 1e-6, 1e-6)
    many = batchless({"x": np.concatenate([x, -x], axis)})["y"]
    np.testing.assert_allclose(many.take(0, ends), found.take(0, ends), 1e-6, 1e-6)


def test_chains_vanish() -> None:
    builder = GraphBuilder()
    x = builder.input(Port((2, 3, 4), "x", "float32", None))
    turned = builder.transpose(builder.transpose(x, (2, 0, 1)), (1, 2, 0))
    same = builder.reshape(builder.reshape(builder.reshape(turned, (6, 4)), (24,)), (2, 3, 4))
    unread = builder.unary("exp", x)
    short, (made,) = clean(builder, [builder.emit(ReLU, (same,))])
    assert [node.kind for node in short.nodes] == ["relu"]
    assert made == Value(1, (2, 3, 4))
    assert unread.number < len(builder.shapes)


def test_a_reduction_drops_its_dimensions_itself() -> None:
    builder = GraphBuilder()
    x = builder.input(Port((3, 4, 5), "x"))
    mean = builder.reduce("mean", x, (1, 2), keepdims=True)
    short, (made,) = clean(builder, [builder.reshape(mean, (3,))])
    assert [(node.kind, made.shape) for node in short.nodes] == [("reduce", (3,))]
    short, _ = clean(builder, [builder.reshape(mean, (1, 3))])
    assert [node.kind for node in short.nodes] == ["reduce", "reshape"]


def test_transposes_of_dimensions_of_1_are_reshapes() -> None:
    builder = GraphBuilder()
    x = builder.input(Port((1, 3, 1, 4), "x", "float32", None))
    short, _ = clean(builder, [builder.transpose(x, (1, 0, 3, 2))])
    assert [node.kind for node in short.nodes] == ["reshape"]


def test_a_factor_of_a_transposed_convolution_and_a_shift_before_it() -> None:
    builder = GraphBuilder()
    x = builder.input(Port((4, 5, 5), "x"))
    layer = builder.emit(
        ConvTranspose, (x,), weight=builder.tensor(numbers(4, 3, 2, 2), "up.weight"), stride=(2, 2), groups=2
    )  # fmt: skip
    scaled = builder.binary("sub", numbers(6, 1, 1), builder.binary("mul", layer, numbers(6, 1, 1, seed=1)))
    whole = Session.from_model(builder.model([Output(scaled.number)]), backend="numpy")
    folded, (made,) = clean(*fold_affine(builder, [scaled]))
    assert [node.kind for node in folded.nodes] == ["conv_transpose"]
    assert list(folded.tensors) == ["up.weight", "up.bias"]
    short = Session.from_model(folded.model([Output(made.number)]), backend="numpy")
    np.testing.assert_allclose(short(numbers(2, 4, 5, 5)), whole(numbers(2, 4, 5, 5)), 1e-5, 1e-5)


def test_factors_that_depend_on_the_position_are_not_folded() -> None:
    builder = GraphBuilder()
    x = builder.input(Port((3, 6, 6), "x"))
    scaled = builder.binary("mul", conv(builder, x), numbers(5, 5))
    folded, _ = fold_affine(builder, [scaled])
    assert [node.kind for node in folded.nodes] == ["conv", "binary"]


def test_constants_are_stored_once_and_as_numbers_where_they_can_be() -> None:
    builder = GraphBuilder()
    x = builder.input(Port((3, 4), "x"))
    a, b = builder.add(x, np.full((3, 1), 2)), builder.add(x, 2.0)
    assert a == b
    assert builder.nodes[0].inputs == (0, 2.0)
    builder.add(x, numbers(3, 4), name="shift")
    builder.binary("mul", x, numbers(3, 4), name="factor")
    assert list(builder.tensors) == ["shift"]
    assert builder.tensor(numbers(3, 4, seed=1), "shift") == "shift.2"
    assert builder.emit(Gather, (x, np.zeros((2, 2))), axis=0).shape == (2, 2, 4)


def test_more_operands_than_an_operator_may_have() -> None:
    builder = GraphBuilder()
    x = builder.input(Port((3,), "x"))
    parts = [builder.binary("mul", x, float(number)) for number in range(1, 131)]
    total, joined = builder.add(*parts), builder.concat(parts, 0)
    model = builder.model([Output(total.number, "total"), Output(joined.number, "joined")])
    assert max(len(node.inputs) for node in builder.nodes) <= 64
    found = Session.from_model(model, backend="numpy")({"x": np.ones((1, 3), np.float32)})
    assert found["total"].tolist() == [[131 * 65] * 3]
    assert found["joined"].shape == (1, 390)


def test_constants_where_an_operator_takes_values_only() -> None:
    builder = GraphBuilder()
    x = builder.input(Port((3,), "x"))
    constant = builder.materialize(np.array([[1, np.float32(0.1)], [-3, 4]]))
    model = builder.model([Output(builder.emit(ReLU, (constant,)).number), Output(x.number, "same")])
    found = Session.from_model(model, backend="numpy")({"x": np.full((1, 3), np.nan, np.float32)})
    np.testing.assert_array_equal(found["output"], [[[1, np.float32(0.1)], [0, 4]]])


def test_what_does_not_fit_is_refused_at_once() -> None:
    builder = GraphBuilder()
    x = builder.input(Port((3, 4), "x"))
    with pytest.raises(FormatError, match="linear 'w' input"):
        builder.emit(Linear, (x,), weight=builder.tensor(numbers(2, 3), "w"))
    with pytest.raises(ValueError, match="whole numbers up to 2"):
        builder.add(x, np.array([1 << 25]))
    with pytest.raises(ValueError, match="tensor 'nan': expected finite values"):
        builder.tensor([np.nan], "nan")
    with pytest.raises(ValueError, match="all inputs before the first operator"):
        builder.add(x, 1.0)
        builder.input(Port((1,), "late"))
