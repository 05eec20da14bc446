"""Graphs survive coding, refer only to earlier values, and have shapes that fit."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcformat import layout
from dcformat.architectures import ARCHITECTURES
from dcformat.cursor import Cursor
from dcformat.errors import EncodingError, FormatError, GraphError, LimitError, ShapeError
from dcformat.graph import (
    Add,
    AvgPool2d,
    Concat,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    Graph,
    Linear,
    MaxPool2d,
    Node,
    Preprocessing,
    ReLU,
    Softmax,
)
from dcformat.graph_codec import OPERATORS, check_graph, read_graph, write_graph
from tests.format.strategies import small_graph

NAMES = ["w", "b", "k"]
small = st.integers(0, 3)
pairs = st.tuples(small, small)
attributes = st.integers(0, layout.MAX_ATTRIBUTE)
wide = st.tuples(attributes, attributes)


@st.composite
def nodes(draw: st.DrawFn, number: int) -> Node:
    """Draw any operator that can be written, whether or not it makes sense."""
    kind = draw(st.sampled_from(list(OPERATORS.values())))
    count = draw(st.integers(0, 5)) if kind.arity is None else 1
    back = draw(st.lists(st.integers(0, number), min_size=count, max_size=count))
    inputs = tuple(number - step for step in back)
    names = st.sampled_from(NAMES)
    if kind is Linear:
        return Linear(inputs, draw(names), draw(st.none() | names))
    if kind is Conv2d:
        groups = draw(attributes)
        return Conv2d(inputs, draw(names), draw(st.none() | names), draw(wide), draw(wide), draw(wide), groups)
    if kind is MaxPool2d:
        return MaxPool2d(inputs, draw(wide), draw(wide), draw(wide), draw(st.booleans()))
    if kind is AvgPool2d:
        return AvgPool2d(inputs, draw(wide), draw(wide), draw(wide), draw(st.booleans()), draw(st.booleans()))
    return kind(inputs)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    shape = draw(st.sampled_from([(5,), (1, 8, 8), (3, 224, 224)]))
    rule = draw(st.sampled_from([None, Preprocessing((0.5,), (0.25,)), Preprocessing((0.0, 1.0), (1.0, 2.0))]))
    return Graph(shape, tuple(draw(nodes(number)) for number in range(draw(st.integers(0, 6)))), rule)


@given(graphs())
@settings(deadline=None)
def test_a_graph_is_read_back(graph: Graph) -> None:
    cursor = Cursor(write_graph(graph, NAMES))
    assert read_graph(cursor, NAMES) == graph
    cursor.finish("graph")


@given(graphs())
@settings(deadline=None)
def test_a_graph_has_shapes_or_is_refused(graph: Graph) -> None:
    try:
        shapes = graph.shapes({"w": (4, 5), "b": (4,), "k": (4, 1, 3, 3)})
    except (GraphError, ShapeError):
        return
    assert len(shapes) == len(graph.nodes) + 1 and all(min(shape) >= 1 for shape in shapes)


@given(st.binary(max_size=60))
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_a_graph_or_are_refused(data: bytes) -> None:
    cursor = Cursor(b"\3\1\4\4\0" + data)
    try:
        graph = read_graph(cursor, NAMES)
        graph.shapes({"w": (4, 16), "b": (4,), "k": (4, 1, 3, 3)})
    except FormatError:
        return
    # Every accepted graph has one encoding.
    assert write_graph(graph, NAMES) == bytes(cursor.data[: cursor.offset])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_known_networks_are_read_back(name: str) -> None:
    architecture = ARCHITECTURES[name]
    tensors = list(architecture.shapes)
    graph = architecture.build(tensors, None)
    check_graph(graph)
    raw = write_graph(graph, tensors)
    assert read_graph(Cursor(raw), tensors) == graph
    graph.shapes(architecture.shapes)


@pytest.mark.parametrize("length", range(60))
def test_a_graph_cut_short(length: int) -> None:
    raw = write_graph(small_graph(), ["fc1", "bias", "fc2"])
    if length < len(raw):
        with pytest.raises(FormatError):
            read_graph(Cursor(raw[:length]), ["fc1", "bias", "fc2"])


def graph(*made: Node, shape: tuple[int, ...] = (1, 8, 8), rule: Preprocessing | None = None) -> Graph:
    return Graph(shape, made, rule)


SHAPES = {"w": (4, 64), "b": (4,), "k": (4, 1, 3, 3), "none": (0, 64), "g": (4, 2, 3, 3)}
WRONG: dict[str, tuple[Graph, type[FormatError]]] = {
    "itself": (graph(ReLU((1,))), GraphError),
    "later": (graph(ReLU((2,)), ReLU((1,))), GraphError),
    "negative": (graph(ReLU((-1,))), GraphError),
    "no input": (graph(ReLU(())), GraphError),
    "two inputs": (graph(ReLU((0, 0))), GraphError),
    "add of one": (graph(Add((0,))), GraphError),
    "add of different shapes": (graph(Flatten((0,)), Add((0, 1))), ShapeError),
    "concatenation of different shapes": (graph(GlobalAvgPool((0,)), Concat((0, 1))), ShapeError),
    "missing weight": (graph(Conv2d((0,), "x")), GraphError),
    "missing bias": (graph(Conv2d((0,), "k", "x")), GraphError),
    "bias of another length": (graph(Conv2d((0,), "k", "w")), ShapeError),
    "weight of another rank": (graph(Conv2d((0,), "w")), ShapeError),
    "weight of no rows": (graph(Flatten((0,)), Linear((1,), "none")), ShapeError),
    "linear of an image": (graph(Linear((0,), "w")), ShapeError),
    "pool of features": (graph(Flatten((0,)), MaxPool2d((1,), (2, 2), (2, 2))), ShapeError),
    "softmax of an image": (graph(Softmax((0,))), ShapeError),
    "stride 0": (graph(Conv2d((0,), "k", stride=(0, 1))), GraphError),
    "dilation 0": (graph(Conv2d((0,), "k", dilation=(1, 0))), GraphError),
    "groups 0": (graph(Conv2d((0,), "k", groups=0)), ShapeError),
    "groups that do not divide": (graph(Conv2d((0,), "g", groups=3)), ShapeError),
    "kernel 0": (graph(MaxPool2d((0,), (0, 1), (1, 1))), GraphError),
    "pool's stride 0": (graph(AvgPool2d((0,), (2, 2), (1, 0))), GraphError),
    "padding above half": (graph(MaxPool2d((0,), (2, 2), (1, 1), (2, 2))), GraphError),
    "window larger than the image": (graph(MaxPool2d((0,), (9, 9), (1, 1))), ShapeError),
    "input of rank 2": (graph(shape=(8, 8)), ShapeError),
    "input of nothing": (graph(shape=(0,)), ShapeError),
    "input of 2^41": (graph(shape=(2, 1 << 20, 1 << 20)), ShapeError),
    "means without deviations": (graph(rule=Preprocessing((0.0,), ())), ShapeError),
    "means of two channels": (graph(rule=Preprocessing((0.0, 0.0), (1.0, 1.0))), ShapeError),
    "deviation 0": (graph(rule=Preprocessing((0.0,), (0.0,))), GraphError),
    "deviation 0 as float32": (graph(rule=Preprocessing((0.0,), (1e-50,))), GraphError),
    "mean infinite as float32": (graph(rule=Preprocessing((1e50,), (1.0,))), GraphError),
    "mean not a number": (graph(rule=Preprocessing((float("nan"),), (1.0,))), GraphError),
}


@pytest.mark.parametrize("bits", [0x7F800001, 0xFFBFFFFF, 0x7FC00000, 0x7F800000, 0xFF800000])
def test_preprocessing_that_is_not_finite_is_refused_without_a_warning(bits: int) -> None:
    """The cases include signalling NaN, on which any arithmetic warns."""
    for numbers in ((bits, 0x3F800000), (0, bits)):
        body = b"\x01\x08\x01" + struct.pack("<2I", *numbers) + b"\x01\x03"
        with pytest.raises(GraphError, match="expected finite float32 values"):
            read_graph(Cursor(body), []).shapes({})


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(name: str) -> None:
    made, kind = WRONG[name]
    with pytest.raises(FormatError) as caught:
        made.shapes(SHAPES)
    assert type(caught.value) is kind


def test_values_that_grow_are_bounded() -> None:
    joins = tuple(Concat((k, k)) for k in range(60))
    with pytest.raises(ShapeError, match="at most 1099511627776 elements"):
        graph(*joins).shapes({})
    assert graph(*joins[:30]).shapes({})[-1] == (1 << 30, 8, 8)


ENCODINGS: dict[str, tuple[bytes, type[FormatError]]] = {
    "rank 2": (b"\2\1\1\0\0", EncodingError),
    "operator 0": (b"\1\4\0\1\0", EncodingError),
    "operator 12": (b"\1\4\0\1\x0c", EncodingError),
    "bias of a softmax": (b"\1\4\0\1\x4b", EncodingError),
    "attributes of a softmax": (b"\1\4\0\1\x8b", EncodingError),
    "default input": (b"\1\4\0\1\x23\0", EncodingError),
    "default attributes": (b"\3\1\4\4\0\1\x84\2\2\2\2\0\0\0", EncodingError),
    "unknown flag": (b"\3\1\4\4\0\1\x84\2\2\2\2\0\0\2", EncodingError),
    "unknown flag of a mean": (b"\3\1\4\4\0\1\x85\2\2\2\2\0\0\4", EncodingError),
    "input too far back": (b"\1\4\0\1\x23\1", GraphError),
    "65 inputs": (b"\1\4\0\1\x29\x41", LimitError),
    "attribute": (b"\3\1\4\4\0\1\x84\x81\x80\4", LimitError),
    "operators": (b"\1\4\0\x81\x80\4", LimitError),
    "tensor": (b"\1\4\0\1\1\3", GraphError),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_invalid_encodings_are_refused(name: str) -> None:
    raw, kind = ENCODINGS[name]
    with pytest.raises(FormatError) as caught:
        read_graph(Cursor(raw), NAMES)
    assert type(caught.value) is kind


def test_one_pair_for_all_channels_is_not_written_out() -> None:
    raw = b"\3\3\4\4\3" + struct.pack("<6f", *[0.5] * 3, *[2.0] * 3) + b"\0"
    with pytest.raises(EncodingError, match="preprocessing: expected one for all channels, found 3 equal pairs"):
        read_graph(Cursor(raw), [])
    one = graph(shape=(3, 4, 4), rule=Preprocessing((0.5,) * 3, (2.0,) * 3))
    assert write_graph(one, []) == b"\3\3\4\4\1" + struct.pack("<2f", 0.5, 2.0) + b"\0"


def test_a_mean_for_all_channels_is_written_out_beside_deviations_for_each() -> None:
    made = graph(shape=(3, 4, 4), rule=Preprocessing((0.5,) * 3, (1.0, 2.0, 3.0)))
    raw = write_graph(made, [])
    assert raw == b"\3\3\4\4\3" + struct.pack("<6f", 0.5, 0.5, 0.5, 1.0, 2.0, 3.0) + b"\0"
    assert read_graph(Cursor(raw), []) == made


@pytest.mark.parametrize(
    "made, kind",
    [
        (graph(Conv2d((0,), "k", padding=(1 << 17, 0))), LimitError),
        (graph(Add((0,) * 65)), LimitError),
        (graph(*[ReLU((k,)) for k in range(layout.MAX_NODES + 1)]), LimitError),
        (graph(Node((0,))), GraphError),
        (graph(shape=(65537,), rule=Preprocessing((0.0,) * 65537, (1.0,) * 65537)), LimitError),
    ],
)
def test_a_writer_refuses_graphs_that_no_reader_accepts(made: Graph, kind: type[FormatError]) -> None:
    with pytest.raises(kind):
        check_graph(made)


def test_all_operators_in_one_graph() -> None:
    made = graph(
        Conv2d((0,), "k", "b", padding=(1, 1)), ReLU((1,)), MaxPool2d((2,), (3, 3), (2, 2), ceil_mode=True),
        AvgPool2d((2,), (2, 2), (2, 2)), Concat((3, 4)), Add((5, 5)), GlobalMaxPool((6,)), GlobalAvgPool((6,)),
        Add((7, 8)), Softmax((9,)), rule=Preprocessing((0.25,), (struct.unpack("<f", struct.pack("<f", 0.1))[0],)),
    )  # fmt: skip
    assert made.shapes(SHAPES)[-1] == (8,)
    assert read_graph(Cursor(write_graph(made, list(SHAPES))), list(SHAPES)) == made
