"""Invalid vectors of graphs: section 5 of the specification."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from generator.assembler import DENSE, Item, assemble, f32, varint
from generator.broken_moves import IMAGE, Case, moves
from generator.graph_bytes import (
    BIAS,
    INFINITY,
    NAN,
    SPELLED,
    WIRED,
    Op,
    graph,
    input_port,
    integer,
    literal,
    long_graph,
    op,
    output_port,
    pool,
    tensor,
    value,
)
from generator.samples import Invalid, ones

LARGE = (1 << 16) + 1
ITEMS = [
    ones("w", 3, 5), ones("b", 3), ones("k", 4, 2, 3, 3), ones("g", 4, 1, 3, 3),
    Item(b"\0\0", DENSE, (0, 5), [], name="none"), ones("l", 8, 5), ones("r", 8, 2), ones("s", 2, 5, 5), ones("v", 8),
    ones("deep", 4, 2, 3, 3, 1), Item(b"\0\0", DENSE, (0, 2, 3, 3), [], name="from"),
    Item(b"\0\0", DENSE, (4, 0, 3, 3), [], name="to"), Item(b"\0\0", DENSE, (0, 0), [], name="nil"),
]  # fmt: skip
W, B, K, G, NONE, L, R, S, V, DEEP, FROM_NONE, TO_NONE, NIL = range(13)


def invalid_graphs() -> Iterator[Invalid]:
    """Graphs that a decoder must reject."""
    groups = (
        interfaces,
        ports,
        operators,
        operands,
        limits,
        weights,
        convolutions,
        recurrent,
        pools,
        elementwise,
        others,
        moves,
    )
    for cases in groups:
        for name, code, ids, body in cases():
            yield f"graph_{name}", code, ids, assemble(ITEMS, [(2, body)])
    for name, shape, operator in (("weight", (3, 5), op(Op.LINEAR, 1)), ("bias", (3,), op(Op.LINEAR | BIAS, 0, 1))):
        wide = Item(b"\0\0" + bytes(8 * prod(shape)), DENSE, shape, [0] * prod(shape), name="wide", dtype="float64")
        items = [ones("narrow", 3, 5), wide]
        yield f"graph_{name}_dtype", "E11", "G13", assemble(items, [(2, graph((5,), operator))])


def interfaces() -> Iterator[Case]:
    """Section 5: the interface and preprocessing."""
    inf = float("inf")
    yield "interface_9", "E08", "G1", b"\x09" + graph((5,))[1:]
    yield "input_of_nothing", "E09", "G6", graph((0,))
    yield "input_too_large", "E09", "G6", graph((1 << 20, 1 << 20, 2))
    yield "preprocessing_count", "E09", "G7", graph((3, 4, 4), mean=(0.0, 1.0), std=(1.0, 2.0))
    yield "preprocessing_flat", "E09", "G7", graph((5,), mean=(0.0, 1.0, 2.0, 3.0, 4.0), std=(1.0,) * 5)
    yield "preprocessing_rank_2", "E09", "G7", graph((2, 3), mean=(0.0, 1.0), std=(1.0, 2.0))
    yield "preprocessing_equal", "E08", "G9", graph((3, 4, 4), mean=(0.5,) * 3, std=(0.25,) * 3)
    yield "preprocessing_infinite", "E11", "G7", graph((5,), mean=(inf,), std=(1.0,))
    yield "preprocessing_std_nan", "E11", "G7", graph((5,), mean=(0.0,), std=(inf - inf,))
    yield "preprocessing_std_0", "E11", "G7", graph((5,), mean=(0.0,), std=(-0.0,))
    rule, rest = b"\1" + f32(0.5, 0.25), b"\0\1" + output_port("y")
    yield "preprocessing_dtype", "E11", "G7", b"\x08\1" + input_port("x", (5,), 4) + rule + rest
    two = input_port("a", (5,)) + input_port("b", (5,))
    yield "preprocessing_of_two", "E11", "G7", b"\x08\2" + two + rule + rest


def ports() -> Iterator[Case]:
    """Section 5.1."""
    x, y = input_port("input", (5,)), output_port("output")
    apart = output_port("y", axis=-1)
    for name, code, ids, inputs, outputs in (
        ("short", "E08", "G3", [x], [y]),
        ("input_dtype", "E08", "G2", [input_port("x", (5,), 9)], [y]),
        ("output_dtype", "E08", "G2", [x], [output_port("y", 0, 15)]),
        ("axis_9", "E08", "G2", [input_port("x", (1,) * 7, 0, 8)], [y]),
        ("rank_8", "E08", "G2", [input_port("x", (1,) * 8)], [y]),
        ("input_name", "E08", "G2", [input_port("", (5,))], [y]),
        ("output_name", "E08", "G2", [x], [output_port("")]),
        ("value_beyond", "E11", "G4", [x], [output_port("y", 1)]),
        ("no_output", "E11", "G11", [x], []),
        ("inputs_alike", "E11", "G11", [x, x], [y]),
        ("outputs_alike", "E11", "G11", [x], [output_port("y"), output_port("y")]),
        ("input_axis", "E11", "G11", [input_port("x", (5,), axis=2)], [y]),
        ("output_axis", "E11", "G11", [x], [output_port("y", axis=2)]),
        ("output_without_batch", "E11", "G11", [x], [apart]),
        ("output_with_batch", "E11", "G11", [input_port("x", (5,), axis=-1)], [y]),
        ("one_without_batch", "E11", "G11", [x], [y, apart]),
        ("name_limit", "E06", "N2", [input_port("x" * 256, (5,))], [y]),
        ("outputs", "E06", "N2", [x], [output_port(f"y{k}") for k in range(257)]),
        ("dimension_0", "E09", "G6", [input_port("x", (5, 0))], [y]),
        ("dimension_limit", "E06", "N2", [input_port("x", ((1 << 40) + 1,))], [y]),
    ):
        yield f"port_{name}", code, ids, long_graph(inputs, [], outputs)
    yield "port_no_input", "E11", "G11", long_graph([], [], [])
    yield "port_no_input_to_read", "E11", "G4", long_graph([], [op(Op.RELU)], [y])
    yield "port_inputs", "E06", "N2", long_graph([input_port(f"x{k}", ()) for k in range(257)], [], [y])
    yield "port_value_limit", "E06", "N2", long_graph([x], [], [output_port("y", (1 << 17) + 1)])


def operators() -> Iterator[Case]:
    """Section 5.2: heads."""
    yield "operator_0", "E08", "G2", graph((5,), op(0))
    yield "operator_28", "E08", "G2", graph((5,), op(28))
    yield "operator_31", "E08", "G2", graph((5,), op(31))
    yield "bias_of_relu", "E08", "G2", graph((5,), op(Op.RELU | BIAS, B))
    yield "attributes_of_linear", "E08", "G2", graph((5,), op(Op.LINEAR | SPELLED, W, B))
    yield "attributes_of_matmul", "E08", "G2", graph((5, 5), op(Op.MATMUL | WIRED | SPELLED, value(0), value(0)))
    for name, kind in (
        ("unary", Op.UNARY), ("quantize", Op.QUANTIZE), ("normalize", Op.NORMALIZE), ("reshape", Op.RESHAPE),
        ("transpose", Op.TRANSPOSE), ("slice", Op.SLICE), ("pad", Op.PAD), ("tile", Op.TILE), ("resize", Op.RESIZE),
    ):  # fmt: skip
        yield f"no_attributes_of_{name}", "E08", "G2", graph((5,), op(kind))
    yield "no_attributes_of_binary", "E08", "G2", graph((5,), op(Op.BINARY | WIRED, value(0), value(0)))
    yield "no_attributes_of_requantize", "E08", "G2", graph((5,), op(Op.REQUANTIZE | WIRED, value(0), value(0)))
    yield "default_input", "E08", "G3", graph((5,), op(Op.RELU | WIRED, 0))
    for name, shape, body in (
        ("max_pool", IMAGE, pool(Op.MAX, 2, 2, 2, 2, 0, 0, 0, 0, 0)),
        ("avg_pool", IMAGE, pool(Op.AVG, 2, 2, 2, 2, 0, 0, 0, 0, 0, 1)),
        ("conv", IMAGE, op(Op.CONV | SPELLED, K, 1, 1, 0, 0, 0, 0, 1, 1, 1)),
        ("conv_transpose", (4, 6, 6), op(Op.CONV_TRANSPOSE | SPELLED, K, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 1)),
        ("reduce", IMAGE, op(Op.REDUCE | SPELLED, 0, 6, 0)),
        ("concat", IMAGE, op(Op.CONCAT | WIRED | SPELLED, 2, value(0), value(0), 0)),
        ("softmax", IMAGE, op(Op.SOFTMAX | SPELLED, 0)),
        ("lstm", (7, 5), op(Op.LSTM | SPELLED, L, R, 0, 0)),
        ("gru", (7, 5), op(Op.GRU | SPELLED, L, R, 0, 0, 1)),
        ("gather", IMAGE, op(Op.GATHER | WIRED | SPELLED, value(0), value(0), 0)),
    ):
        yield f"default_{name}", "E08", "G3", graph(shape, body)


def operands() -> Iterator[Case]:
    """Section 5.2: values, tensors and constants that an operator reads."""
    yield "input_beyond", "E11", "G4", graph((5,), op(Op.RELU | WIRED, 1))
    yield "input_beyond_add", "E11", "G4", graph((5,), op(Op.RELU), op(Op.ADD | WIRED, 2, value(0), value(2)))
    yield "weight_beyond", "E11", "G4", graph((5,), op(Op.LINEAR, 13))
    yield "weight_far_beyond", "E11", "G4", graph((5,), op(Op.LINEAR, 1 << 16))
    yield "input_far_beyond", "E11", "G4", graph((5,), op(Op.RELU | WIRED, 1 << 17))
    yield "operand_far_beyond", "E11", "G4", graph((5,), op(Op.ADD | WIRED, 2, value(0), 1 << 19))
    yield "bias_beyond", "E11", "G4", graph((5,), op(Op.LINEAR | BIAS, W, 13))
    yield "operand_tensor_beyond", "E11", "G4", graph((5,), op(Op.ADD | WIRED, 2, value(0), tensor(13)))
    yield "recurrent_bias_beyond", "E11", "G4", graph((7, 5), op(Op.LSTM | SPELLED, L, R, 14, 0))
    yield "operand_kind_3", "E08", "G2", graph((5,), op(Op.ADD | WIRED, 2, value(0), 3))
    yield "operand_numbered_constant", "E08", "G2", graph((5,), op(Op.ADD | WIRED, 2, value(0), 6, f32(1.0)))
    yield "operand_nan", "E08", "G12", graph((5,), op(Op.ADD | WIRED, 2, value(0), b"\2" + NAN))
    yield "operand_least_nan", "E08", "G12", graph((5,), op(Op.ADD | WIRED, 2, value(0), b"\2\1\0\x80\x7f"))
    yield "add_of_one", "E11", "G5", graph((5,), op(Op.RELU), op(Op.ADD | WIRED, 1, value(1)))
    yield "add_of_none", "E11", "G5", graph((5,), op(Op.ADD | WIRED, 0))
    for name, kind in (
        ("add", Op.ADD),
        ("concat", Op.CONCAT),
        ("where", Op.WHERE),
        ("matmul", Op.MATMUL),
        ("gather", Op.GATHER),
    ):
        yield f"{name}_unwired", "E11", "G5", graph((5,), op(kind))
    yield "binary_unwired", "E11", "G5", graph((5,), op(Op.BINARY | SPELLED, 0))
    yield "lstm_of_none", "E11", "G5", graph((5,), op(Op.LSTM | WIRED, 0, L, R))
    yield "add_without_value", "E11", "G5", graph((5,), op(Op.ADD | WIRED, 2, tensor(W), tensor(W)))
    yield "add_of_constants", "E11", "G5", graph((5,), op(Op.ADD | WIRED, 2, literal(1.0), literal(2.0)))
    for name, kind in (
        ("concat", (Op.CONCAT | WIRED, 2)),
        ("matmul", (Op.MATMUL | WIRED,)),
        ("gather", (Op.GATHER | WIRED,)),
    ):
        yield f"{name}_constant", "E11", "G5", graph((5, 5), op(*kind, value(0), literal(1.0)))


def limits() -> Iterator[Case]:
    """Numbers above their limits, and ends."""
    image, large = IMAGE, LARGE
    yield "operators", "E06", "N2", graph((5,))[:-1] + varint(large)
    yield "operators_missing", "E03", "N4", graph((5,))[:-1] + varint(1 << 16)
    yield "inputs", "E06", "N2", graph((5,), op(Op.ADD | WIRED, 65, *[value(0)] * 65))
    yield "operand_limit", "E06", "N2", graph((5,), op(Op.ADD | WIRED, 2, 0, (1 << 19) + 4))
    yield "input_limit", "E06", "N2", graph(image, op(Op.RELU | WIRED, (1 << 17) + 1))
    yield "tensor_limit", "E06", "N2", graph(image, op(Op.CONV, large))
    yield "recurrent_bias_limit", "E06", "N2", graph((7, 5), op(Op.LSTM | SPELLED, L, R, large, 0))
    yield "preprocessing_limit", "E06", "N2", b"\1" + varint(large) + varint(large)
    yield "dimension_limit", "E06", "N2", b"\1" + varint((1 << 40) + 1) + b"\0\0"
    yield "attribute", "E06", "N2", graph(image, pool(Op.MAX, 2, 2, large, 2, 0, 0, 0, 0, 0))
    yield "word_limit", "E06", "N2", graph(image, op(Op.UNARY | SPELLED, large))
    yield "truth_limit", "E06", "N2", graph(image, pool(Op.MAX, 2, 2, 2, 2, 0, 0, 0, 0, large))
    yield "axis_limit", "E06", "N2", graph(image, op(Op.CONCAT | WIRED | SPELLED, 2, 0, 0, 7))
    yield "softmax_axis_limit", "E06", "N2", graph(image, op(Op.SOFTMAX | SPELLED, 7))
    yield "axes_limit", "E06", "N2", graph(image, op(Op.REDUCE | SPELLED, 0, 128, 0))
    yield "list_limit", "E06", "N2", graph(image, op(Op.RESHAPE | SPELLED, 8, *[1] * 8))
    yield "size_limit", "E06", "N2", graph(image, op(Op.RESHAPE | SPELLED, 2, (1 << 40) + 1, 1))
    yield "repeats_limit", "E06", "N2", graph((1,), op(Op.TILE | SPELLED, 1, large))
    yield "step_limit", "E06", "N2", graph((5,), op(Op.SLICE | SPELLED, 0, 0, 1, (1 << 17) + 1))
    yield "ends_early", "E03", "N4", graph(image, op(Op.MAX | SPELLED, 2, 2, 2, 2, 2, 0, 0))
    yield "ends_in_a_real", "E03", "N4", graph(image, op(Op.NORMALIZE | SPELLED, 1, b"\0\0\0"))
    yield "goes_on", "E04", "N5", graph((5,)) + b"\0"


def weights() -> Iterator[Case]:
    """Section 5.4: Linear, and weights and biases that do not fit."""
    yield "linear_weight_rank", "E09", "G6", graph((5,), op(Op.LINEAR, K))
    yield "linear_weight_rank_1", "E09", "G6", graph((3,), op(Op.LINEAR, B))
    yield "linear_weight_empty", "E09", "G6", graph((5,), op(Op.LINEAR, NONE))
    yield "linear_input", "E09", "G6", graph((6,), op(Op.LINEAR, W))
    yield "linear_input_rank_0", "E09", "G6", graph((), op(Op.LINEAR, W))
    yield "linear_bias", "E09", "G6", graph((5,), op(Op.LINEAR | BIAS, W, W))
    yield "linear_bias_length", "E09", "G6", graph((5,), op(Op.LINEAR | BIAS, W, V))
    yield "conv_bias", "E09", "G6", graph(IMAGE, op(Op.CONV | BIAS, K, B))
    yield "conv_bias_rank", "E09", "G6", graph(IMAGE, op(Op.CONV | BIAS, K, K))
    yield "conv_transpose_bias", "E09", "G6", graph((4, 3, 3), op(Op.CONV_TRANSPOSE | BIAS, K, B))
    yield "operand_of_nothing", "E09", "G6", graph((1, 5), op(Op.ADD | WIRED, 2, value(0), tensor(NONE)))


def convolutions() -> Iterator[Case]:
    """Section 5.4: Conv and ConvTranspose."""

    def conv(*attributes: int, weight: int = K) -> bytes:
        return op(Op.CONV | SPELLED, weight, *attributes)

    def back(*attributes: int) -> bytes:
        return op(Op.CONV_TRANSPOSE | SPELLED, K, *attributes)

    yield "conv_weight_rank", "E09", "G6", graph(IMAGE, op(Op.CONV, W))
    yield "conv_weight_rank_5", "E09", "G6", graph(IMAGE, op(Op.CONV, DEEP))
    yield "conv_transpose_weight_rank", "E09", "G6", graph(IMAGE, op(Op.CONV_TRANSPOSE, DEEP))
    yield "conv_weight_empty", "E09", "G6", graph(IMAGE, op(Op.CONV, FROM_NONE))
    yield "conv_transpose_weight_empty", "E09", "G6", graph((4, 6, 6), op(Op.CONV_TRANSPOSE, TO_NONE))
    yield "conv_input_rank", "E09", "G6", graph((2, 5), op(Op.CONV, K))
    yield "conv_channels", "E09", "G6", graph((3, 6, 6), op(Op.CONV, K))
    yield "conv_groups", "E09", "G6", graph((3, 6, 6), conv(1, 1, 0, 0, 0, 0, 1, 1, 3, weight=G))
    yield "conv_groups_0", "E09", "G6", graph(IMAGE, conv(1, 1, 0, 0, 0, 0, 1, 1, 0))
    yield "conv_window", "E09", "G6", graph((2, 2, 6), op(Op.CONV, K))
    yield "conv_window_width", "E09", "G6", graph((2, 3, 2), op(Op.CONV, K))
    yield "conv_dilated_window", "E09", "G6", graph(IMAGE, conv(1, 1, 0, 0, 0, 0, 1, 3, 1))
    yield "conv_padded_window", "E09", "G6", graph((2, 1, 3), conv(1, 1, 1, 0, 0, 0, 1, 1, 1))
    yield "conv_stride_0", "E11", "G8", graph(IMAGE, conv(1, 0, 0, 0, 0, 0, 1, 1, 1))
    yield "conv_stride_height_0", "E11", "G8", graph(IMAGE, conv(0, 1, 0, 0, 0, 0, 1, 1, 1))
    yield "conv_dilation_0", "E11", "G8", graph(IMAGE, conv(1, 1, 0, 0, 0, 0, 0, 1, 1))
    yield "conv_dilation_width_0", "E11", "G8", graph(IMAGE, conv(1, 1, 0, 0, 0, 0, 1, 0, 1))
    yield "conv_transpose_input_rank", "E09", "G6", graph((4, 5), op(Op.CONV_TRANSPOSE, K))
    yield "conv_transpose_channels", "E09", "G6", graph((2, 5, 5), op(Op.CONV_TRANSPOSE, K))
    yield "conv_transpose_groups", "E09", "G6", graph((4, 5, 5), back(1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 3))
    yield "conv_transpose_groups_0", "E09", "G6", graph((4, 5, 5), back(1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0))
    yield "conv_transpose_nothing", "E09", "G6", graph((4, 1, 1), back(1, 1, 2, 0, 1, 0, 1, 1, 0, 0, 1))
    yield "conv_transpose_stride_0", "E11", "G8", graph((4, 5, 5), back(0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 1))
    yield "conv_transpose_dilation_0", "E11", "G8", graph((4, 5, 5), back(1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1))
    yield "conv_transpose_extra", "E11", "G8", graph((4, 5, 5), back(1, 1, 0, 0, 0, 0, 1, 1, 0, 1, 1))
    yield "conv_transpose_extra_2", "E11", "G8", graph((4, 5, 5), back(3, 1, 0, 0, 0, 0, 2, 1, 3, 0, 1))


def recurrent() -> Iterator[Case]:
    """Section 5.4: Op.LSTM and Op.GRU."""
    yield "lstm_weight_rank", "E09", "G6", graph((7, 5), op(Op.LSTM, V, R))
    yield "lstm_weight_gates", "E09", "G6", graph((7, 5), op(Op.LSTM, W, R))
    yield "gru_weight_gates", "E09", "G6", graph((7, 5), op(Op.GRU, L, R))
    yield "lstm_weight_empty", "E09", "G6", graph((7, 5), op(Op.LSTM, NONE, NIL))
    yield "lstm_recurrent_weight", "E09", "G6", graph((7, 5), op(Op.LSTM, L, L))
    yield "lstm_bias", "E09", "G6", graph((7, 5), op(Op.LSTM | BIAS, L, R, B))
    yield "lstm_recurrent_bias", "E09", "G6", graph((7, 5), op(Op.LSTM | SPELLED, L, R, B + 1, 0))
    yield "lstm_features", "E09", "G6", graph((7, 6), op(Op.LSTM, L, R))
    yield "lstm_sequence_rank", "E09", "G6", graph((5,), op(Op.LSTM, L, R))
    ports = [input_port("x", (7, 5)), input_port("h", (2,)), input_port("c", (3,))]
    for name, operands in (("one_state", (2, 1)), ("three_states", (2, 1, 1, 1)), ("state_shape", (2, 1, 0))):
        wired = op(Op.LSTM | WIRED, len(operands), *operands, L, R)
        yield f"lstm_{name}", "E09", "G6", long_graph(ports, [wired], [output_port("y")])


def pools() -> Iterator[Case]:
    """Section 5.4: MaxPool and AvgPool."""
    yield "pool_input_rank", "E09", "G6", graph((5, 5), op(Op.MAX))
    yield "pool_window", "E09", "G6", graph((2, 1, 6), op(Op.AVG))
    yield "pool_kernel_0", "E11", "G8", graph(IMAGE, pool(Op.MAX, 0, 2, 2, 2, 0, 0, 0, 0, 0))
    yield "pool_kernel_width_0", "E11", "G8", graph(IMAGE, pool(Op.MAX, 2, 0, 2, 2, 0, 0, 0, 0, 0))
    yield "pool_stride_0", "E11", "G8", graph(IMAGE, pool(Op.AVG, 2, 2, 2, 0, 0, 0, 0, 0, 0, 1))
    yield "pool_stride_height_0", "E11", "G8", graph(IMAGE, pool(Op.MAX, 2, 2, 0, 2, 0, 0, 0, 0, 0))
    yield "pool_padding", "E11", "G8", graph(IMAGE, pool(Op.MAX, 3, 3, 1, 1, 3, 1, 0, 0, 0))
    yield "pool_padding_width", "E11", "G8", graph(IMAGE, pool(Op.MAX, 3, 3, 1, 1, 1, 3, 0, 0, 0))
    yield "pool_padding_end", "E11", "G8", graph(IMAGE, pool(Op.AVG, 3, 3, 1, 1, 0, 0, 3, 0, 0, 1))
    yield "pool_of_no_dimension", "E11", "G8", graph(IMAGE, op(Op.MAX | SPELLED, 0, 0))
    yield "pool_of_three", "E11", "G8", graph((2, 3, 3, 3), op(Op.MAX | SPELLED, 3, *[1] * 6, *[0] * 7))
    yield "pool_ceil_2", "E08", "G2", graph(IMAGE, pool(Op.MAX, 2, 2, 2, 2, 0, 0, 0, 0, 2))
    yield "pool_count_2", "E08", "G2", graph(IMAGE, pool(Op.AVG, 2, 2, 2, 2, 0, 0, 0, 0, 0, 2))


def elementwise() -> Iterator[Case]:
    """Section 5.4: Unary, Add, Binary, Where and Quantize."""
    yield "add_shapes", "E09", "G6", graph(IMAGE, op(Op.FLATTEN), op(Op.ADD | WIRED, 2, value(0), value(1)))
    yield "binary_shapes", "E09", "G6", graph((3,), op(Op.BINARY | WIRED | SPELLED, value(0), tensor(W), 0))
    yield "where_shapes", "E09", "G6", graph((3,), op(Op.WHERE | WIRED, value(0), literal(0.0), tensor(W)))
    yield "unary_14", "E08", "G2", graph((5,), op(Op.UNARY | SPELLED, 14))
    yield "binary_9", "E08", "G2", graph((5,), op(Op.BINARY | WIRED | SPELLED, value(0), value(0), 9))

    def quantize(scale: bytes, zero: int, low: int, high: int) -> bytes:
        return graph((5,), op(Op.QUANTIZE | SPELLED, scale, *map(integer, (zero, low, high))))

    yield "quantize_scale_0", "E11", "G8", quantize(f32(0.0), 0, -128, 127)
    yield "quantize_scale_negative", "E11", "G8", quantize(f32(-1.0), 0, -128, 127)
    yield "quantize_scale_infinite", "E11", "G8", quantize(INFINITY, 0, -128, 127)
    yield "quantize_scale_nan", "E08", "G12", quantize(NAN, 0, -128, 127)
    yield "quantize_zero_low", "E11", "G8", quantize(f32(1.0), -129, -128, 127)
    yield "quantize_zero_high", "E11", "G8", quantize(f32(1.0), 128, -128, 127)
    yield "quantize_low", "E11", "G8", quantize(f32(1.0), 0, -32769, 127)
    yield "quantize_high", "E11", "G8", quantize(f32(1.0), 0, 0, 65536)

    def requantize(scale: bytes, *attributes: bytes) -> bytes:
        return graph((3,), op(Op.REQUANTIZE | WIRED | SPELLED, value(0), scale, *attributes))

    one, least, most = f32(1.0), integer(-128), integer(127)
    for place in (0, 1):
        for name, scale in (("0", f32(0.0)), ("negative", f32(-1.0)), ("infinite", INFINITY)):
            scales = (scale, one) if place == 0 else (one, scale)
            yield f"requantize_scale_{place}_{name}", "E11", "G8", requantize(literal(1.0), *scales, least, most)
        scales = (NAN, one) if place == 0 else (one, NAN)
        yield f"requantize_scale_{place}_nan", "E08", "G12", requantize(literal(1.0), *scales, least, most)
    yield "requantize_constant_nan", "E08", "G12", requantize(b"\2" + NAN, one, one, least, most)
    yield "requantize_low", "E11", "G8", requantize(literal(1.0), one, one, integer(1), most)
    yield "requantize_high", "E11", "G8", requantize(literal(1.0), one, one, least, integer(-1))
    yield "requantize_low_limit", "E06", "N2", requantize(literal(1.0), one, one, integer(-65537), most)
    yield "requantize_shapes", "E09", "G6", requantize(tensor(W), one, one, least, most)
    yield "requantize_one_operand", "E11", "G5", graph((5,), op(Op.REQUANTIZE | SPELLED, one, one, least, most))


def others() -> Iterator[Case]:
    """Section 5.4: Reduce, Softmax, Normalize, MatMul, Concat and Gather."""
    yield "reduce_7", "E08", "G2", graph(IMAGE, op(Op.REDUCE | SPELLED, 7, 1, 0))
    yield "reduce_rank", "E11", "G8", graph((5, 5), op(Op.REDUCE))
    yield "reduce_of_no_axis", "E11", "G8", graph(IMAGE, op(Op.REDUCE | SPELLED, 0, 0, 0))
    yield "argmax_of_two", "E11", "G8", graph(IMAGE, op(Op.REDUCE | SPELLED, 5, 3, 0))
    yield "argmin_of_two", "E11", "G8", graph(IMAGE, op(Op.REDUCE | SPELLED, 6, 3, 0))
    yield "softmax_rank", "E09", "G6", graph((), op(Op.SOFTMAX))
    yield "softmax_last", "E11", "G8", graph(IMAGE, op(Op.SOFTMAX | SPELLED, 3))
    yield "normalize_axes", "E11", "G8", graph(IMAGE, op(Op.NORMALIZE | SPELLED, 0, f32(1.0), 1))
    yield "normalize_axis", "E11", "G8", graph(IMAGE, op(Op.NORMALIZE | SPELLED, 8, f32(1.0), 1))
    yield "normalize_axes_beyond", "E11", "G8", graph(IMAGE, op(Op.NORMALIZE | SPELLED, 9, f32(1.0), 1))
    yield "reduce_axes_beyond", "E11", "G8", graph(IMAGE, op(Op.REDUCE | SPELLED, 0, 9, 0))
    yield "normalize_epsilon", "E11", "G8", graph(IMAGE, op(Op.NORMALIZE | SPELLED, 1, f32(-1.0), 1))
    yield "normalize_infinite", "E11", "G8", graph(IMAGE, op(Op.NORMALIZE | SPELLED, 1, INFINITY, 1))
    yield "normalize_nan", "E08", "G12", graph(IMAGE, op(Op.NORMALIZE | SPELLED, 1, NAN, 1))
    yield "matmul_rank", "E09", "G6", graph((3,), op(Op.MATMUL | WIRED, value(0), tensor(W)))
    yield "matmul_rank_2", "E09", "G6", graph((5, 3), op(Op.MATMUL | WIRED, value(0), tensor(B)))
    yield "matmul_inner", "E09", "G6", graph((5, 5), op(Op.MATMUL | WIRED, value(0), tensor(W)))
    yield "matmul_broadcast", "E09", "G6", graph((3, 4, 5), op(Op.MATMUL | WIRED, value(0), tensor(S)))
    yield "concat_shapes", "E09", "G6", graph(IMAGE, op(Op.MAX), op(Op.CONCAT | WIRED, 2, value(0), value(1)))
    yield "concat_ranks", "E09", "G6", graph((1, 3), op(Op.CONCAT | WIRED, 2, value(0), tensor(B)))
    yield "concat_axis", "E11", "G8", graph((5,), op(Op.CONCAT | WIRED | SPELLED, 2, value(0), value(0), 1))
    yield "value_too_large", "E09", "G6", graph((1 << 39,), op(Op.CONCAT | WIRED, 3, *[value(0)] * 3))
    yield "gather_axis", "E11", "G8", graph((2,), op(Op.GATHER | WIRED | SPELLED, tensor(W), value(0), 2))
    yield "gather_rank", "E09", "G6", graph((1,) * 6, op(Op.GATHER | WIRED, tensor(S), value(0)))
