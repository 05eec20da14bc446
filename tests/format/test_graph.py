"""Graphs survive coding, refer only to earlier values, and have shapes that fit."""

from __future__ import annotations

import struct
from math import nan, prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcformat import graph as ops
from dcformat import layout
from dcformat.architectures import ARCHITECTURES
from dcformat.cursor import Cursor
from dcformat.errors import EncodingError, FormatError, GraphError, LimitError, ShapeError
from dcformat.graph import Graph, Node, Output, Port, Preprocessing
from dcformat.graph_codec import read_graph, write_graph
from tests.format.graph_strategies import valid_graphs
from tests.format.strategies import small_graph

SHAPES = {"w": (4, 64), "b": (4,), "k": (4, 1, 3, 3), "none": (0, 64), "g": (4, 2, 3, 3), "r": (4, 1), "one": (1,)}


@given(valid_graphs())
def test_a_graph_is_read_back(made: tuple[Graph, dict[str, tuple[int, ...]]]) -> None:
    graph, tensors = made
    assert all(1 <= prod(shape) <= 4096 for shape in graph.shapes(tensors))
    raw = write_graph(graph, list(tensors))
    cursor = Cursor(raw)
    found = read_graph(cursor, tensors)
    assert found == graph and write_graph(found, list(tensors)) == raw
    cursor.finish("graph")


@given(st.sampled_from([b"\3\1\4\4\0", b"\x08", b"\2\5\6\0", b"\0\0"]), st.binary(max_size=60))
@settings(max_examples=400)
def test_any_bytes_are_a_graph_or_are_refused(start: bytes, data: bytes) -> None:
    cursor = Cursor(start + data)
    try:
        graph = read_graph(cursor, SHAPES)
        graph.shapes(SHAPES)
    except FormatError:
        return
    # Every accepted graph has one encoding.
    assert write_graph(graph, list(SHAPES)) == bytes(cursor.data[: cursor.offset])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_known_networks_are_read_back(name: str) -> None:
    architecture = ARCHITECTURES[name]
    tensors = list(architecture.shapes)
    graph = architecture.build(tensors, None)
    raw = write_graph(graph, tensors)
    assert read_graph(Cursor(raw), architecture.shapes) == graph
    graph.shapes(architecture.shapes)


@pytest.mark.parametrize("length", range(60))
def test_a_graph_cut_short(length: int) -> None:
    tensors = {"fc1": (4, 6), "bias": (4,), "fc2": (3, 4)}
    raw = write_graph(small_graph(), list(tensors))
    if length < len(raw):
        with pytest.raises(FormatError):
            read_graph(Cursor(raw[:length]), tensors)


def graph(*made: Node, shape: tuple[int, ...] = (1, 8, 8), rule: Preprocessing | None = None) -> Graph:
    return Graph.sequential(shape, made, rule)


WRONG: dict[str, tuple[Graph, type[FormatError]]] = {
    "itself": (graph(ops.ReLU((1,))), GraphError),
    "later": (graph(ops.ReLU((2,)), ops.ReLU((1,))), GraphError),
    "negative": (graph(ops.ReLU((-1,))), GraphError),
    "no input": (graph(ops.ReLU(())), GraphError),
    "two inputs": (graph(ops.ReLU((0, 0))), GraphError),
    "add of one": (graph(ops.Add((0,))), GraphError),
    "add of different shapes": (graph(ops.Flatten((0,)), ops.Add((0, 1))), ShapeError),
    "concatenation of different shapes": (graph(ops.Reduce((0,), "mean", (1, 2)), ops.Concat((0, 1))), ShapeError),
    "missing weight": (graph(ops.Conv((0,), "x")), GraphError),
    "missing bias": (graph(ops.Conv((0,), "k", "x")), GraphError),
    "bias of another length": (graph(ops.Conv((0,), "k", "w")), ShapeError),
    "weight of another rank": (graph(ops.Conv((0,), "w")), ShapeError),
    "weight of no rows": (graph(ops.Flatten((0,)), ops.Linear((1,), "none")), ShapeError),
    "linear of an image": (graph(ops.Linear((0,), "w")), ShapeError),
    "pool of features": (graph(ops.Flatten((0,)), ops.MaxPool((1,), (2, 2), (2, 2))), ShapeError),
    "stride 0": (graph(ops.Conv((0,), "k", stride=(0, 1))), GraphError),
    "dilation 0": (graph(ops.Conv((0,), "k", dilation=(1, 0))), GraphError),
    "groups 0": (graph(ops.Conv((0,), "k", groups=0)), ShapeError),
    "groups that do not divide": (graph(ops.Conv((0,), "g", groups=3)), ShapeError),
    "kernel 0": (graph(ops.MaxPool((0,), (0, 1), (1, 1))), GraphError),
    "pool's stride 0": (graph(ops.AvgPool((0,), (2, 2), (1, 0))), GraphError),
    "padding as large as the kernel": (graph(ops.MaxPool((0,), (2, 2), (1, 1), (2, 2))), GraphError),
    "window larger than the image": (graph(ops.MaxPool((0,), (9, 9), (1, 1))), ShapeError),
    "input of rank 8": (graph(shape=(1,) * 8), ShapeError),
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
            read_graph(Cursor(body), {}).shapes({})


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(name: str) -> None:
    made, kind = WRONG[name]
    with pytest.raises(FormatError) as caught:
        made.shapes(SHAPES)
    assert type(caught.value) is kind


def test_values_that_grow_are_bounded() -> None:
    joins = tuple(ops.Concat((k, k)) for k in range(60))
    with pytest.raises(ShapeError, match="1 to 1099511627776 elements"):
        graph(*joins).shapes({})
    assert graph(*joins[:30]).shapes({})[-1] == (1 << 30, 8, 8)


# A graph with ports: the flag, one input "x" of shape (2, 3) and dtype int64 without a batch axis, no preprocessing, no
# operators, one output "y", the input itself.
PORTS = b"\x08\x01\x01x\x07\x02\2\3\0\0\x01\x01y\x07\0"
ENCODINGS: dict[str, tuple[bytes, type[FormatError]]] = {
    "interface 9": (b"\x09\1\1\0\0", EncodingError),
    "usual interface spelled out": (b"\x08\x01\x05input\x10\x01\4\0\0\x01\x06output\x10\0", EncodingError),
    "dtype 9": (PORTS.replace(b"x\x07", b"x\x09"), EncodingError),
    "batch axis 8": (PORTS.replace(b"y\x07", b"y\x97"), EncodingError),
    "rank 8": (PORTS.replace(b"\x02\2\3", b"\x08\2\3"), EncodingError),
    "no name": (PORTS.replace(b"\x01y", b"\x00"), EncodingError),
    "257 outputs": (PORTS.replace(b"\x01\x01y", b"\x81\x02\x01y"), LimitError),
    "output of a value that is not there": (PORTS[:-1] + b"\1", GraphError),
    "operator 0": (b"\1\4\0\1\0", EncodingError),
    "operator 27": (b"\1\4\0\1\x1b", EncodingError),
    "bias of a softmax": (b"\1\4\0\1\x4b", EncodingError),
    "attributes of a flatten": (b"\1\4\0\1\x88", EncodingError),
    "default input": (b"\1\4\0\1\x23\0", EncodingError),
    "default attributes": (b"\3\1\4\4\0\1\x84\2\2\2\2\2\0\0\0\0\0", EncodingError),
    "default attributes of a softmax": (b"\1\4\0\1\x8b\0", EncodingError),
    "default attributes of a convolution": (b"\3\1\4\4\0\1\x82\2\1\1\0\0\0\0\1\1\1", EncodingError),
    "no attributes of a transpose": (b"\2\4\4\0\1\x15", EncodingError),
    "truth value 2": (b"\3\1\4\4\0\1\x84\2\2\2\2\2\0\0\0\0\2", EncodingError),
    "function 14": (b"\1\4\0\1\x87\x0e", EncodingError),
    "NaN to pad with": (b"\1\4\0\1\x97\1\1\1\0\0\0\xc0\x7f", EncodingError),
    "NaN to add": (b"\1\4\0\1\x29\2\0\2\0\0\xc0\x7f", EncodingError),
    "operand of an unknown kind": (b"\1\4\0\1\x29\2\0\3", EncodingError),
    "a numbered constant": (b"\1\4\0\1\x29\2\0\6", EncodingError),
    "input too far back": (b"\1\4\0\1\x23\1", GraphError),
    "65 inputs": (b"\1\4\0\1\x29\x41", LimitError),
    "8 axes": (b"\1\4\0\1\x86\0\x80\1\0", LimitError),
    "8 dimensions": (b"\1\4\0\1\x94\x08", LimitError),
    "attribute": (b"\3\1\4\4\0\1\x84\2\x81\x80\4", LimitError),
    "operators": (b"\1\4\0\x81\x80\4", LimitError),
    "tensor": (b"\1\4\0\1\1\x07", GraphError),
    "tensor as an operand": (b"\1\4\0\1\x29\2\0\x1d", GraphError),
    "tensor for a recurrent bias": (b"\2\4\4\0\1\x92\0\0\x08\0", GraphError),
    "weight of a convolution of rank 1": (b"\3\1\4\4\0\1\2\1", ShapeError),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_invalid_encodings_are_refused(name: str) -> None:
    raw, kind = ENCODINGS[name]
    with pytest.raises(FormatError) as caught:
        read_graph(Cursor(raw), SHAPES)
    assert type(caught.value) is kind


def test_one_pair_for_all_channels_is_not_written_out() -> None:
    raw = b"\3\3\4\4\3" + struct.pack("<6f", *[0.5] * 3, *[2.0] * 3) + b"\0"
    with pytest.raises(EncodingError, match="preprocessing: expected one for all channels, found 3 equal pairs"):
        read_graph(Cursor(raw), {})
    one = graph(shape=(3, 4, 4), rule=Preprocessing((0.5,) * 3, (2.0,) * 3))
    assert write_graph(one, []) == b"\3\3\4\4\1" + struct.pack("<2f", 0.5, 2.0) + b"\0"


def test_a_mean_for_all_channels_is_written_out_beside_deviations_for_each() -> None:
    made = graph(shape=(3, 4, 4), rule=Preprocessing((0.5,) * 3, (1.0, 2.0, 3.0)))
    raw = write_graph(made, [])
    assert raw == b"\3\3\4\4\3" + struct.pack("<6f", 0.5, 0.5, 0.5, 1.0, 2.0, 3.0) + b"\0"
    assert read_graph(Cursor(raw), {}) == made


@pytest.mark.parametrize(
    "made, kind",
    [
        (graph(ops.Conv((0,), "k", padding=(1 << 17, 0))), LimitError),
        (graph(ops.Add((0,) * 65)), LimitError),
        (graph(ops.Slice((0,), 1, 0, 4, 1 << 18)), LimitError),
        (graph(ops.Unary((0,), "tan")), GraphError),
        (graph(ops.Pad((0,), (0, 0, 0), (0, 0, 0), value=1e39)), GraphError),
        (graph(ops.Pad((0,), (0, 0, 0), (0, 0, 0), value=nan)), GraphError),
        (Graph((Port((1,), "\ud800"),), (), (Output(0),)), EncodingError),
        (Graph((Port((1,), "x" * 256),), (), (Output(0),)), LimitError),
        (Graph((Port((1,)),), (), tuple(Output(0, str(n)) for n in range(257))), LimitError),
        (graph(*[ops.ReLU((k,)) for k in range(layout.MAX_NODES + 1)]), LimitError),
        (graph(Node((0,))), GraphError),
        (graph(shape=(65537,), rule=Preprocessing((0.0,) * 65537, (1.0,) * 65537)), LimitError),
    ],
)
def test_a_writer_refuses_graphs_that_no_reader_accepts(made: Graph, kind: type[FormatError]) -> None:
    with pytest.raises(kind):
        write_graph(made, list(SHAPES))


def test_all_operators_in_one_graph() -> None:
    made = graph(
        ops.Conv((0,), "k", "b", padding=(1, 1), padding_end=(1, 1)), ops.ReLU((1,)),
        ops.MaxPool((2,), (3, 3), (2, 2), ceil_mode=True),
        ops.AvgPool((2,), (2, 2), (2, 2)), ops.Concat((3, 4)), ops.Add((5, 5)), ops.Reduce((6,), "max", (1, 2)),
        ops.Reduce((6,), "mean", (1, 2)), ops.Add((7, 8)), ops.Softmax((9,)),
        rule=Preprocessing((0.25,), (struct.unpack("<f", struct.pack("<f", 0.1))[0],)),
    )  # fmt: skip
    assert made.shapes(SHAPES)[-1] == (8,)
    assert read_graph(Cursor(write_graph(made, list(SHAPES))), SHAPES) == made


def test_a_graph_with_ports_in_bytes() -> None:
    made = Graph((Port((2, 3), "x", "int64", None),), (), (Output(0, "y", "int64", None),))
    assert write_graph(made, []) == PORTS
    assert read_graph(Cursor(PORTS), {}) == made


def test_constants_are_rounded() -> None:
    made = graph(ops.Add((0, 0.1)))
    found = read_graph(Cursor(write_graph(made, [])), {})
    assert found.nodes == (ops.Add((0, struct.unpack("<f", b"\xcd\xcc\xcc\x3d")[0])),)


@pytest.mark.parametrize("ports, outputs", [
    ((), (Output(0),)),
    ((Port((2,)),), ()),
    ((Port((2,)), Port((2,))), (Output(0),)),
    ((Port((2,)),), (Output(0), Output(0))),
    ((Port((2,), batch_axis=2),), (Output(0),)),
    ((Port((2,)),), (Output(0, batch_axis=2),)),
    ((Port((2,)),), (Output(0, batch_axis=None),)),
    ((Port((2,), batch_axis=None),), (Output(0),)),
    ((Port((2,), dtype="complex64"),), (Output(0),)),
    ((Port((2,)),), (Output(1),)),
])  # fmt: skip
def test_ports_that_do_not_fit(ports: tuple[Port, ...], outputs: tuple[Output, ...]) -> None:
    with pytest.raises(GraphError):
        Graph(ports, (), outputs).shapes({})


def test_only_one_input_of_float32_has_preprocessing() -> None:
    rule = Preprocessing((0.5,), (0.5,))
    for ports in ((Port((2,), dtype="uint8"),), (Port((2,), "a"), Port((2,), "b"))):
        with pytest.raises(GraphError, match="expected one input of float32"):
            Graph(ports, (), (Output(0),), rule).shapes({})


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (ops.Unary((0,), "squash"), "unary function: expected neg, abs, .*, found 'squash'"),
        (ops.Binary((0, 0), "root"), "binary function: expected sub, mul, .*, found 'root'"),
        (ops.Reduce((0,), "median", (1, 2)), "reduce function: expected mean, max, .*, found 'median'"),
        (ops.Pad((0,), (0,) * 3, (1,) * 3, "wrap", 0.0), "pad mode: expected constant, edge, reflect, found 'wrap'"),
        (ops.Resize((0,), (8, 8), (2.0, 2.0), "cubic"), "resize mode: expected nearest, linear, found 'cubic'"),
        (ops.Add((0, "missing")), "add input: expected a tensor in the file, found 'missing'"),
        (ops.Concat((0, "none")), r"concat tensor 'none': expected no dimension 0, found \(0, 64\)"),
        (ops.Add((0, 1e300)), "add input: expected a number that float32 can hold, found 1e\\+300"),
        (
            ops.Requantize((0, "larger"), 1.0, 1.0, -8, 7),
            r"requantize scales: expected a shape that broadcasts to \(1, 4, 4\)",
        ),
        (Node((0,)), "operator: expected a known operator, found Node"),
    ],
)
def test_nodes_that_only_python_can_make(node: Node, message: str) -> None:
    """A reader refuses the bytes of such operators before it makes them."""
    with pytest.raises((GraphError, ShapeError), match=message):
        Graph.sequential((1, 4, 4), (node,)).shapes({**SHAPES, "larger": (2, 4, 4)})


def test_a_graph_describes_itself() -> None:
    graph = Graph.sequential((1, 4, 4), (ops.ReLU((0,)), ops.ReLU((1,)), ops.Flatten((2,))))
    assert (graph.input_shape, repr(graph)) == ((1, 4, 4), "Graph(input 1x4x4: 2 relu, 1 flatten)")
    two = Graph((Port((2,), "a"), Port((), "b")), (), (Output(1, "b"),))
    assert repr(two) == "Graph(input 2, scalar: no operators)"
    with pytest.raises(GraphError, match="inputs of the network: expected 1, found 2"):
        _ = two.input_shape


@pytest.mark.parametrize(
    ("coordinates", "size", "expected"),
    [
        ("half_pixel", 2, [0.5, 2.5]),
        ("align_corners", 2, [0, 3]),
        ("asymmetric", 2, [0, 2]),
        ("pytorch_half_pixel", 2, [0.5, 2.5]),
        ("pytorch_half_pixel", 1, [0]),
    ],
)
def test_positions_of_a_resized_dimension(coordinates: str, size: int, expected: list[float]) -> None:
    assert ops.Resize((0,), (size,), (size / 4,), "linear", coordinates).positions(0, 4).tolist() == expected
