"""Valid vectors of graphs: section 5 of the specification."""

from __future__ import annotations

from collections.abc import Iterator

from generator.assembler import Item, f32, labels
from generator.graph_bytes import (
    BIAS,
    INFINITY,
    SPELLED,
    WIRED,
    Op,
    conv,
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
from generator.samples import Valid, ones, valid

#: A graph: its name, tensors, bytes, and the requirements that it shows.
Case = tuple[str, list[Item], bytes, str]

LARGE, HUGE = 1 << 16, 1 << 40


def valid_graphs() -> Iterator[Valid]:
    """Graphs with each operator, its attributes, its defaults, and the last values that the rules allow."""
    for cases in (interfaces, ports, weighted, pools, elementwise, reducing, joining, rearranging):
        for name, items, body, ids in cases():
            yield valid(f"graph_{name}", items, [(2, body)], ids)
    network = [
        op(Op.CONV | BIAS, 0, 1),
        op(Op.RELU),
        op(Op.MAX),
        op(Op.FLATTEN),
        op(Op.LINEAR | BIAS, 2, 3),
        op(Op.SOFTMAX),
    ]
    items = [ones("conv.w", 3, 1, 3, 3), ones("conv.b", 3), ones("fc.w", 10, 12), ones("fc.b", 10)]
    yield valid("graph_network", items, [(2, graph((1, 6, 6), *network)), (3, labels(*"0123456789"))])


def interfaces() -> Iterator[Case]:
    """Yield the short interface and preprocessing."""
    yield "no_operators", [], graph((5,)), ""
    for rank in (0, 2, 7):
        yield f"input_rank_{rank}", [], graph((3,) * rank, op(Op.RELU)), "G1"
    yield "input_2_40", [], graph((HUGE,), op(Op.RELU)), "G6"
    yield "image_2_40", [], graph((1 << 20, 1 << 10, 1 << 10), op(Op.RELU)), "G6"
    yield "preprocessing_1", [], graph((3, 4, 4), op(Op.FLATTEN), mean=(0.5,), std=(0.25,)), ""
    yield "preprocessing_3", [], graph((3, 4, 4), mean=(0.5, -1.0, 0.0), std=(0.25, -2.0, 1.0)), ""
    yield "preprocessing_flat", [], graph((5,), mean=(0.5,), std=(0.25,)), ""
    yield "preprocessing_0_1", [], graph((3, 4, 4), mean=(0.0,), std=(1.0,)), ""
    yield "preprocessing_equal_means", [], graph((3, 4, 4), mean=(0.5,) * 3, std=(0.25, 0.25, 0.5)), "G9"
    yield "preprocessing_equal_deviations", [], graph((3, 4, 4), mean=(0.0, -0.0, 0.0), std=(1.0,) * 3), "G9"
    yield (
        "branch",
        [],
        graph((5,), op(Op.RELU), op(Op.SOFTMAX | WIRED, 1), op(Op.ADD | WIRED, 2, value(0), value(1))),
        "",
    )


def ports() -> Iterator[Case]:
    """Yield the long interface; each of the first seven differs from the short one in one respect."""
    given, got = input_port("input", (5,)), output_port("output")
    for name, inputs, outputs in (
        ("input_name", [input_port("x", (5,))], [got]),
        ("input_dtype", [input_port("input", (5,), 1)], [got]),
        ("input_axis", [input_port("input", (5,), axis=1)], [got]),
        ("output_name", [given], [output_port("y")]),
        ("output_dtype", [given], [output_port("output", dtype=7)]),
        ("output_axis", [given], [output_port("output", axis=1)]),
        ("output_earlier", [given], [output_port("output", 1)]),
        ("outputs", [given], [got, output_port("other")]),
        ("inputs", [given, input_port("other", (), 3, -1)], [got]),
        ("inputs_batched", [input_port("a", (5,), axis=-1), input_port("b", (2, 3), 8, 2)], [output_port("y", 2)]),
        ("no_batch", [input_port("input", (5,), axis=-1)], [output_port("output", axis=-1)]),
        ("longest_name", [input_port("ñ" * 127 + "x", (5,))], [got]),
    ):
        yield f"port_{name}", [], long_graph(inputs, [op(Op.RELU)], outputs), "G3 G11"
    kinds = [(input_port(f"in{k}", (2,) * k, k, k if k < 8 else 0), output_port(f"out{k}", k, k)) for k in range(8)]
    inputs, outputs = [i for i, _ in kinds], [o for _, o in kinds]
    yield "port_dtypes", [], long_graph([*inputs, input_port("b", (1,), 8)], [], [*outputs, output_port("b", 0, 8)]), ""
    many = [input_port(f"in{k}", ()) for k in range(256)], [output_port(f"out{k}", 255 - k) for k in range(256)]
    yield "ports_most", [], long_graph(many[0], [], many[1]), "N2"
    read = [op(Op.ADD | WIRED, 2, value(0), value(1)), op(Op.RELU | WIRED, 2)]
    yield "ports_read", [], long_graph([input_port("a", (5,)), input_port("b", (2, 1))], read, [output_port("c")]), "G4"


def weighted() -> Iterator[Case]:
    """Linear, Conv, ConvTranspose, Op.LSTM and Op.GRU."""
    w, b, line = ones("w", 3, 5), ones("b", 3), ones("k", 4, 2, 3)
    kernel, bias, back = ones("w", 4, 2, 3, 3), ones("b", 4), ones("w", 2, 3, 3, 2)
    yield "linear", [w], graph((5,), op(Op.LINEAR, 0)), ""
    yield "linear_bias", [w, b], graph((5,), op(Op.LINEAR | BIAS, 0, 1)), ""
    yield "linear_bias_2", [b, w], graph((5,), op(Op.LINEAR | BIAS, 1, 0)), "G6"
    yield "linear_sequence", [w, b], graph((2, 7, 5), op(Op.LINEAR | BIAS, 0, 1)), "G6"
    yield "conv", [kernel], graph((2, 6, 6), op(Op.CONV, 0)), ""
    yield "conv_bias", [kernel, bias], graph((2, 4, 4), op(Op.CONV | BIAS, 0, 1)), "G6"
    yield "conv_1", [line], graph((2, 6), op(Op.CONV, 0)), "G6"
    yield "conv_1_attributes", [line], graph((2, 6), conv(Op.CONV, 2, 1, 3, 2, 1)), "G6"
    yield "conv_leading", [kernel], graph((7, 5, 2, 6, 6), op(Op.CONV, 0)), "G6"
    body = graph((2, 6, 6), op(Op.CONV | BIAS | SPELLED, 0, 1, 2, 1, 1, 2, 2, 1, 1, 2, 2))
    yield "conv_attributes", [ones("w", 4, 1, 3, 2), ones("b", 4)], body, ""
    yield "conv_window_fits", [kernel], graph((2, 3, 3), op(Op.CONV, 0)), "G6"
    yield "conv_padded_window_fits", [kernel], graph((2, 1, 3), conv(Op.CONV, 1, 1, 1, 0, 1, 0, 1, 1, 1)), "G6"
    yield "conv_end_window_fits", [kernel], graph((2, 1, 3), conv(Op.CONV, 1, 1, 0, 0, 2, 0, 1, 1, 1)), "G6"
    yield "conv_dilated_fits", [kernel], graph((2, 5, 7), conv(Op.CONV, 1, 1, 0, 0, 0, 0, 2, 3, 1)), "G6"
    yield "conv_depthwise", [ones("w", 4, 1, 3, 3)], graph((4, 5, 5), conv(Op.CONV, 1, 1, 0, 0, 0, 0, 1, 1, 4)), "G6"
    yield "conv_stride_most", [kernel], graph((2, 4, 4), conv(Op.CONV, LARGE, 1, 0, 0, 0, 0, 1, 1, 1)), "N2"
    yield "conv_transpose", [back], graph((2, 4, 5), op(Op.CONV_TRANSPOSE, 0)), "G6"
    yield "conv_transpose_bias", [back, b], graph((2, 4, 5), op(Op.CONV_TRANSPOSE | BIAS, 0, 1)), "G6"
    yield "conv_transpose_1", [line], graph((9, 4, 5), op(Op.CONV_TRANSPOSE, 0)), "G6"
    yield "conv_transpose_thin", [ones("w", 2, 1, 1, 3)], graph((2, 4, 5), op(Op.CONV_TRANSPOSE, 0)), "G6"
    attributes = (2, 3, 1, 0, 0, 1, 1, 4, 1, 3, 2)
    yield "conv_transpose_attributes", [back], graph((2, 4, 5), conv(Op.CONV_TRANSPOSE, *attributes)), "G6 G8"
    yield (
        "conv_transpose_least",
        [back],
        graph((2, 1, 1), conv(Op.CONV_TRANSPOSE, 1, 1, 2, 1, 0, 0, 1, 1, 0, 0, 1)),
        "G6",
    )
    for name, kind, gates, states in (("lstm", Op.LSTM, 4, 2), ("gru", Op.GRU, 3, 1)):
        cell = [ones("w", 2 * gates, 5), ones("r", 2 * gates, 2), ones("b", 2 * gates)]
        end = (1,) if kind == Op.GRU else ()
        yield name, cell, graph((7, 5), op(kind, 0, 1)), "G6"
        yield f"{name}_bias", cell, graph((7, 5), op(kind | BIAS, 0, 1, 2)), "G6"
        yield f"{name}_biases", cell, graph((7, 5), op(kind | BIAS | SPELLED, 0, 1, 2, 3, 1, *end)), "G6"
        yield f"{name}_recurrent_bias", cell, graph((7, 5), op(kind | SPELLED, 0, 1, 3, 0, *end)), "G6"
        inputs = [input_port("x", (7, 5)), *(input_port(f"s{k}", (2,)) for k in range(states))]
        wired = op(kind | WIRED, states + 1, *range(states, -1, -1), 0, 1)
        yield f"{name}_states", cell, long_graph(inputs, [wired], [output_port("y")]), "G6"
    thin = [ones("w", 4, 1), ones("r", 4, 1)]
    yield "lstm_thin", thin, graph((1, 1), op(Op.LSTM, 0, 1)), "G6"
    yield "gru_reset_before", cell, graph((7, 5), op(Op.GRU | SPELLED, 0, 1, 0, 0, 0)), "G6"


def pools() -> Iterator[Case]:
    """MaxPool and AvgPool; `graph_runs` has their results."""
    for kind, name in ((Op.MAX, "max_pool"), (Op.AVG, "avg_pool")):
        yield name, [], graph((2, 5, 7), op(kind)), ""
    for name, ceil in (("ceil", 1), ("plain", 0)):
        yield f"max_pool_{name}", [], graph((2, 6, 7), pool(Op.MAX, 3, 2, 2, 3, 1, 0, 0, 1, ceil)), ""
    for ceil, counted in ((1, 1), (0, 0), (1, 0)):
        body = graph((2, 6, 7), pool(Op.AVG, 2, 3, 3, 2, 1, 1, 1, 0, ceil, counted))
        yield f"avg_pool_{ceil}_{counted}", [], body, ""
    yield "pool_1", [], graph((2, 3, 7), op(Op.MAX | SPELLED, 1, 3, 2, 1, 2, 1)), "G8"
    yield "pool_leading", [], graph((2, 3, 4, 7), op(Op.AVG)), "G6"
    yield "pool_ceil_drops_last", [], graph((1, 5, 5), pool(Op.MAX, 2, 2, 4, 4, 1, 1, 1, 1, 1)), ""
    yield "pool_window_fits", [], graph((2, 2, 2), op(Op.MAX)), "G6"
    yield "pool_padding_most", [], graph((2, 4, 4), pool(Op.MAX, 2, 3, 1, 1, 1, 2, 1, 2, 0)), "G8"
    yield "pool_stride_most", [], graph((2, 4, 4), pool(Op.AVG, 2, 2, LARGE, LARGE, 0, 0, 0, 0, 0, 1)), "N2"


def elementwise() -> Iterator[Case]:
    """ReLU, Unary, Add, Binary, Where and Quantize."""
    row, column = ones("row", 1, 7), ones("column", 5, 1)
    yield "relu", [], graph((5,), op(Op.RELU)), ""
    yield "unary", [], graph((2, 3), *(op(Op.UNARY | SPELLED, function) for function in range(14))), "G2"
    yield "add", [], graph((5,), op(Op.RELU), op(Op.ADD | WIRED, 2, value(0), value(1))), ""
    yield "add_same", [], graph((5,), op(Op.ADD | WIRED, 3, *[value(0)] * 3)), ""
    yield "add_operands", [row], graph((5, 1), op(Op.ADD | WIRED, 3, tensor(0), value(0), literal(-0.0))), "G5 G6"
    yield "operands_most", [], graph((5,), op(Op.ADD | WIRED, 64, *[value(0)] * 64)), "N2"
    both = [op(Op.BINARY | WIRED | SPELLED, value(0), tensor(0), function) for function in range(9)]
    yield "binary", [ones("t", 3)], graph((2, 3), *both), "G2 G6"
    infinite = op(Op.BINARY | WIRED | SPELLED, b"\2" + INFINITY, value(0), 4)
    yield "binary_infinity", [], graph((2, 3), infinite), "G12"
    yield "where", [row, column], graph((5, 7), op(Op.WHERE | WIRED, value(0), tensor(0), tensor(1))), "G6"
    yield "where_constants", [], graph((), op(Op.WHERE | WIRED, literal(1.0), literal(2.5), value(0))), "G5"
    for name, low, zero, high in (("int8", -128, 3, 127), ("uint16", 0, 65535, 65535), ("least", -32768, -32768, 0)):
        numbers = map(integer, (zero, low, high))
        yield f"quantize_{name}", [], graph((5,), op(Op.QUANTIZE | SPELLED, f32(0.25), *numbers)), "G8"
    yield "requantize", [ones("s", 3, 1)], graph((3, 4), requantize(tensor(0), 0.5, 0.25, -128, 127)), "G6"
    yield "requantize_constant", [], graph((3, 4), requantize(literal(-1.0), 1.0, 2.0, 0, 0)), "G8"
    yield "requantize_most", [], graph((), requantize(literal(1.0), 1.0, 1.0, -LARGE, LARGE)), "N2"
    numbers = map(integer, (0, 0, 1))
    yield "quantize_least_scale", [], graph((5,), op(Op.QUANTIZE | SPELLED, b"\1\0\0\0", *numbers)), "G8"


def requantize(scale: int | bytes, input_scale: float, output_scale: float, low: int, high: int) -> bytes:
    """Return a Requantize of the last value."""
    numbers = (f32(input_scale), f32(output_scale), integer(low), integer(high))
    return op(Op.REQUANTIZE | WIRED | SPELLED, value(0), scale, *numbers)


def reducing() -> Iterator[Case]:
    """Reduce, Softmax and Normalize."""
    yield "reduce", [], graph((4, 5, 6), op(Op.REDUCE)), ""
    for function in range(7):
        yield f"reduce_{function}", [], graph((4, 5, 6), op(Op.REDUCE | SPELLED, function, 2, 0)), "G2"
    yield "reduce_kept", [], graph((4, 5, 6), op(Op.REDUCE | SPELLED, 0, 5, 1)), "G6"
    yield "reduce_all", [], graph((2,) * 7, op(Op.REDUCE | SPELLED, 2, 127, 0)), "G6"
    yield "reduce_default_but_kept", [], graph((4, 5, 6), op(Op.REDUCE | SPELLED, 0, 6, 1)), "G3"
    yield "softmax", [], graph((5,), op(Op.SOFTMAX)), ""
    yield "softmax_axis", [], graph((2, 3, 4), op(Op.SOFTMAX), op(Op.SOFTMAX | SPELLED, 2)), "G8"
    yield "softmax_axis_most", [], graph((2,) * 7, op(Op.SOFTMAX | SPELLED, 6)), "N2"
    yield "normalize", [], graph((4, 5, 6), op(Op.NORMALIZE | SPELLED, 4, f32(1e-5), 1)), "G6"
    yield "normalize_root", [], graph((4, 5), op(Op.NORMALIZE | SPELLED, 3, f32(0.0), 0)), "G8"


def joining() -> Iterator[Case]:
    """Concat, Gather and MatMul."""
    two, three = ones("two", 3, 2), ones("three", 2, 3, 3)
    yield "concat", [], graph((2, 3, 3), op(Op.RELU), op(Op.CONCAT | WIRED, 2, value(1), value(0))), ""
    yield (
        "concat_axis",
        [two],
        graph((3, 4), op(Op.CONCAT | WIRED | SPELLED, 3, tensor(0), value(0), tensor(0), 1)),
        "G6",
    )
    yield "concat_axis_most", [], graph((2,) * 7, op(Op.CONCAT | WIRED | SPELLED, 2, value(0), value(0), 6)), "N2"
    yield "value_2_40", [], graph((1 << 39,), op(Op.CONCAT | WIRED, 2, value(0), value(0))), "G6"
    yield "gather", [two], graph((4,), op(Op.GATHER | WIRED, tensor(0), value(0))), "G6"
    yield "gather_axis", [three], graph((4, 5), op(Op.GATHER | WIRED | SPELLED, tensor(0), value(0), 2)), "G6"
    yield "gather_one", [three], graph((), op(Op.GATHER | WIRED, tensor(0), value(0))), "G6"
    yield "gather_rank_7", [three], graph((1,) * 5, op(Op.GATHER | WIRED, tensor(0), value(0))), "G6"
    yield "matmul", [two], graph((4, 3), op(Op.MATMUL | WIRED, value(0), tensor(0))), "G6"
    yield "matmul_broadcast", [three], graph((5, 1, 4, 3), op(Op.MATMUL | WIRED, value(0), tensor(0))), "G6"


def rearranging() -> Iterator[Case]:
    """Flatten, Reshape, Transpose, Slice, Pad, Tile and Resize."""
    yield "flatten", [], graph((5,), op(Op.FLATTEN)), ""
    yield "flatten_one", [], graph((), op(Op.FLATTEN)), "G6"
    yield "reshape", [], graph((4, 6), op(Op.RESHAPE | SPELLED, 3, 2, 3, 4)), "G6"
    yield "reshape_rank_0", [], graph((1,), op(Op.RESHAPE | SPELLED, 0)), "G8"
    yield "reshape_rank_7", [], graph((HUGE,), op(Op.RESHAPE | SPELLED, 7, 1, 1, 1, 1, 1, 1, HUGE)), "N2"
    yield "transpose", [], graph((2, 3, 4), op(Op.TRANSPOSE | SPELLED, 3, 2, 0, 1)), "G6"
    yield "transpose_rank_0", [], graph((), op(Op.TRANSPOSE | SPELLED, 0)), "G8"
    yield "slice", [], graph((2, 9), op(Op.SLICE | SPELLED, 1, 2, 3, integer(3))), "G6"
    yield "slice_between", [], graph((2, 9, 4), op(Op.SLICE | SPELLED, 1, 1, 2, integer(5))), "G6"
    yield "slice_backwards", [], graph((2, 9), op(Op.SLICE | SPELLED, 1, 8, 9, integer(-1))), "G6"
    yield "slice_step_most", [], graph((9,), op(Op.SLICE | SPELLED, 0, 8, 1, integer(1 << 16))), "N2"
    for mode, amounts in enumerate(((7, 0, 0, 9), (7, 0, 0, 9), (1, 0, 0, 2))):
        number = f32(-0.5 if mode == 0 else 0.0)
        yield f"pad_{mode}", [], graph((2, 3), op(Op.PAD | SPELLED, 2, *amounts, mode, number)), "G6"
    yield "pad_infinity", [], graph((2,), op(Op.PAD | SPELLED, 1, 0, 1, 0, INFINITY)), "G12"
    yield "pad_most", [], graph((1,), op(Op.PAD | SPELLED, 1, HUGE - 1, 0, 0, f32(0.0))), "G6"
    yield "tile", [], graph((2, 3), op(Op.TILE | SPELLED, 2, 3, 1)), "G6"
    yield "tile_most", [], graph((1,), op(Op.TILE | SPELLED, 1, LARGE)), "N2"
    for number in range(4):
        resize = op(Op.RESIZE | SPELLED, 2, 5, 7, f32(2.5, 1.75), 0, number, 3 - number)
        yield f"resize_nearest_{number}", [], graph((3, 2, 4), resize), "G6"
        resize = op(Op.RESIZE | SPELLED, 1, 3, f32(0.75), 1, number, 2)
        yield f"resize_linear_{number}", [], graph((4,), resize), "G8"
