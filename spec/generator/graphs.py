"""Valid and invalid vectors of graphs: section 5 of the specification."""

from __future__ import annotations

from collections.abc import Iterator

from generator.assembler import (
    ADD,
    AVG,
    BIAS,
    CONCAT,
    CONV,
    DENSE,
    FLATTEN,
    GLOBAL_AVG,
    GLOBAL_MAX,
    LINEAR,
    MAX,
    RELU,
    SOFTMAX,
    SPELLED,
    WIRED,
    Item,
    assemble,
    graph,
    labels,
    op,
    varint,
)
from generator.samples import Invalid, Valid, ones, valid


def valid_graphs() -> Iterator[Valid]:
    """Graphs with each operator, its attributes and its defaults."""

    def file(name: str, items: list[Item], body: bytes) -> Valid:
        return valid(f"graph_{name}", items, [(2, body)])

    yield file("no_operators", [], graph((5,)))
    for kind, name in ((RELU, "relu"), (SOFTMAX, "softmax"), (FLATTEN, "flatten")):
        yield file(f"{name}", [], graph((5,), op(kind)))
    for kind, name in (
        (MAX, "max_pool"),
        (AVG, "avg_pool"),
        (GLOBAL_AVG, "global_avg_pool"),
        (GLOBAL_MAX, "global_max_pool"),
    ):
        yield file(f"{name}", [], graph((2, 5, 7), op(kind)))
    for name, flags in (("ceil", 1), ("plain", 0)):
        pools = [op(MAX | SPELLED, 3, 2, 2, 3, 1, 0, flags)]
        yield file(f"max_pool_{name}", [], graph((2, 6, 7), *pools))
    for flags in (1, 2, 3):
        yield file(f"avg_pool_flags_{flags}", [], graph((2, 6, 7), op(AVG | SPELLED, 2, 3, 3, 2, 1, 1, flags)))
    yield file("pool_ceil_drops_last", [], graph((1, 5, 5), op(MAX | SPELLED, 2, 2, 4, 4, 1, 1, 1)))
    yield file("linear", [ones("w", 3, 5)], graph((5,), op(LINEAR, 0)))
    yield file("linear_bias", [ones("w", 3, 5), ones("b", 3)], graph((5,), op(LINEAR | BIAS, 0, 1)))
    yield file("conv", [ones("w", 4, 2, 3, 3)], graph((2, 6, 6), op(CONV, 0)))
    attributes = (2, 1, 1, 2, 1, 2, 2)
    body = graph((2, 6, 6), op(CONV | BIAS | SPELLED, 0, 1, *attributes))
    yield file("conv_attributes", [ones("w", 4, 1, 3, 2), ones("b", 4)], body)
    yield file("add", [], graph((5,), op(RELU), op(ADD | WIRED, 2, 0, 1)))
    yield file("add_same", [], graph((5,), op(ADD | WIRED, 3, 0, 0, 0)))
    yield file("concat", [], graph((2, 3, 3), op(RELU), op(CONCAT | WIRED, 2, 1, 0)))
    yield file("branch", [], graph((5,), op(RELU), op(SOFTMAX | WIRED, 1), op(ADD | WIRED, 2, 0, 1)))
    yield file("preprocessing_1", [], graph((3, 4, 4), op(FLATTEN), mean=(0.5,), std=(0.25,)))
    yield file("preprocessing_3", [], graph((3, 4, 4), mean=(0.5, -1.0, 0.0), std=(0.25, -2.0, 1.0)))
    yield file("preprocessing_flat", [], graph((5,), mean=(0.5,), std=(0.25,)))
    yield file("preprocessing_0_1", [], graph((3, 4, 4), mean=(0.0,), std=(1.0,)))
    yield file("preprocessing_equal_means", [], graph((3, 4, 4), mean=(0.5,) * 3, std=(0.25, 0.25, 0.5)))
    yield file("preprocessing_equal_deviations", [], graph((3, 4, 4), mean=(0.0, -0.0, 0.0), std=(1.0,) * 3))
    network = [op(CONV | BIAS, 0, 1), op(RELU), op(MAX), op(FLATTEN), op(LINEAR | BIAS, 2, 3), op(SOFTMAX)]
    items = [ones("conv.w", 3, 1, 3, 3), ones("conv.b", 3), ones("fc.w", 10, 12), ones("fc.b", 10)]
    yield valid("graph_network", items, [(2, graph((1, 6, 6), *network)), (3, labels(*"0123456789"))])


def within_graphs() -> Iterator[Valid]:
    """Section 5."""
    large = 1 << 16

    def file(name: str, items: list[Item], body: bytes, ids: str = "G6") -> Valid:
        return valid(f"graph_{name}", items, [(2, body)], ids)

    kernel, bias = ones("w", 4, 2, 3, 3), ones("b", 4)
    yield file("conv_window_fits", [kernel], graph((2, 3, 3), op(CONV, 0)))
    yield file("conv_padded_window_fits", [kernel], graph((2, 1, 3), op(CONV | SPELLED, 0, 1, 1, 1, 0, 1, 1, 1)))
    yield file("conv_dilated_fits", [kernel], graph((2, 5, 7), op(CONV | SPELLED, 0, 1, 1, 0, 0, 2, 3, 1)))
    yield file("conv_depthwise", [ones("w", 4, 1, 3, 3)], graph((4, 5, 5), op(CONV | SPELLED, 0, 1, 1, 0, 0, 1, 1, 4)))
    yield file("conv_bias", [kernel, bias], graph((2, 4, 4), op(CONV | BIAS, 0, 1)))
    yield file("conv_stride_most", [kernel], graph((2, 4, 4), op(CONV | SPELLED, 0, large, 1, 0, 0, 1, 1, 1)), "N2")
    yield file("pool_window_fits", [], graph((2, 2, 2), op(MAX)))
    yield file("pool_padding_most", [], graph((2, 4, 4), op(MAX | SPELLED, 2, 3, 1, 1, 1, 1, 0)), "G8")
    yield file("pool_stride_most", [], graph((2, 4, 4), op(AVG | SPELLED, 2, 2, large, large, 0, 0, 0)), "N2")
    yield file("inputs_most", [], graph((5,), op(ADD | WIRED, 64, *[0] * 64)), "N2")
    yield file("input_2_40", [], graph((1 << 40,), op(RELU)))
    yield file("image_2_40", [], graph((1 << 20, 1 << 10, 1 << 10), op(RELU)))
    yield file("linear_bias_2", [ones("b", 3), ones("w", 3, 5)], graph((5,), op(LINEAR | BIAS, 1, 0)))


def runs() -> Iterator[tuple[Valid, dict[str, list[float]]]]:
    """Yield graphs of pools, each with an input and the output that it must give."""
    for name, kind, size, attributes in (
        ("max_floor", MAX, (5, 6), (2, 3, 2, 2, 1, 1, 0)),
        ("max_ceil", MAX, (5, 6), (2, 3, 2, 2, 1, 1, 1)),
        ("max_ceil_drops", MAX, (5, 5), (2, 2, 4, 4, 1, 1, 1)),
        ("max_ceil_keeps", MAX, (6, 6), (2, 2, 3, 4, 0, 0, 1)),
        ("avg_floor", AVG, (5, 6), (3, 3, 2, 2, 1, 1, 0)),
        ("avg_ceil", AVG, (6, 7), (3, 2, 2, 3, 1, 1, 1)),
        ("avg_left_out", AVG, (5, 6), (3, 3, 2, 2, 1, 1, 2)),
        ("avg_ceil_left_out", AVG, (6, 7), (3, 2, 2, 3, 1, 1, 3)),
        ("avg_ceil_beyond", AVG, (4, 4), (3, 3, 3, 3, 0, 1, 1)),
        ("avg_ceil_beyond_left_out", AVG, (4, 4), (3, 3, 3, 3, 0, 1, 3)),
    ):
        shape = (2, *size)
        values = [float((7 * i) % 23 - 9) for i in range(2 * size[0] * size[1])]
        output = pooled(kind, shape, attributes, values)
        made = valid(f"run_{name}", [], [(2, graph(shape, op(kind | SPELLED, *attributes)))], "G6")
        yield made, {"input": values, "output": output}


def pooled(kind: int, shape: tuple[int, int, int], attributes: tuple[int, ...], values: list[float]) -> list[float]:
    """Section 5, "Windows" and "Flags of pools": the output of a pool, element by element."""
    kernel, stride, padding, flags = attributes[:2], attributes[2:4], attributes[4:6], attributes[6]
    counts = []
    for i in (0, 1):
        room = shape[1 + i] + 2 * padding[i] - kernel[i]
        count = (room + (stride[i] - 1 if flags & 1 else 0)) // stride[i] + 1
        while flags & 1 and (count - 1) * stride[i] >= shape[1 + i] + padding[i]:
            count -= 1
        counts.append(count)
    out = []
    for channel in range(shape[0]):
        for y in range(counts[0]):
            for x in range(counts[1]):
                inside, padded = [], 0
                for dy in range(kernel[0]):
                    for dx in range(kernel[1]):
                        row, column = y * stride[0] - padding[0] + dy, x * stride[1] - padding[1] + dx
                        padded += row < shape[1] + padding[0] and column < shape[2] + padding[1]
                        if 0 <= row < shape[1] and 0 <= column < shape[2]:
                            inside.append(values[(channel * shape[1] + row) * shape[2] + column])
                count = len(inside) if flags & 2 else padded
                out.append(max(inside) if kind == MAX else sum(inside) / count)
    return out


#: A graph that a decoder must reject: name, code, requirements, body.
Case = tuple[str, str, str, bytes]
IMAGE = (2, 6, 6)


def invalid_graphs() -> Iterator[Invalid]:
    """Graphs that a decoder must reject; their tensors are valid."""
    weight, bias = ones("w", 3, 5), ones("b", 3)
    kernel, grouped = ones("k", 4, 2, 3, 3), ones("g", 4, 1, 3, 3)
    items = [weight, bias, kernel, grouped, Item(b"\0\0", DENSE, (0, 5), [], name="none")]
    for name, code, ids, body in (*unreadable(), *unfitting(), *out_of_range()):
        yield f"graph_{name}", code, ids, assemble(items, [(2, body)])


def unreadable() -> list[Case]:
    """Return graphs with unknown parts, with defaults spelled out, and with inputs and tensors that do not exist."""
    return [
        ("rank_2", "E08", "G1", graph((5, 5))),
        ("rank_0", "E08", "G1", graph(())),
        ("operator_0", "E08", "G2", graph((5,), op(0))),
        ("operator_12", "E08", "G2", graph((5,), op(12))),
        ("bias_of_relu", "E08", "G2", graph((5,), op(RELU | BIAS, 0))),
        ("attributes_of_linear", "E08", "G2", graph((5,), op(LINEAR | SPELLED, 0, 1))),
        ("flags_of_max_pool", "E08", "G2", graph(IMAGE, op(MAX | SPELLED, 2, 2, 2, 2, 0, 0, 2))),
        ("flags_of_avg_pool", "E08", "G2", graph(IMAGE, op(AVG | SPELLED, 2, 2, 2, 2, 0, 0, 4))),
        ("default_input", "E08", "G3", graph((5,), op(RELU | WIRED, 0))),
        ("default_pool", "E08", "G3", graph(IMAGE, op(MAX | SPELLED, 2, 2, 2, 2, 0, 0, 0))),
        ("default_conv", "E08", "G3", graph(IMAGE, op(CONV | SPELLED, 2, 1, 1, 0, 0, 1, 1, 1))),
        ("input_beyond", "E11", "G4", graph((5,), op(RELU | WIRED, 1))),
        ("input_beyond_add", "E11", "G4", graph((5,), op(RELU), op(ADD | WIRED, 2, 0, 2))),
        ("weight_beyond", "E11", "G4", graph((5,), op(LINEAR, 5))),
        ("bias_beyond", "E11", "G4", graph((5,), op(LINEAR | BIAS, 0, 5))),
        ("add_of_one", "E11", "G5", graph((5,), op(RELU), op(ADD | WIRED, 1, 1))),
        ("add_of_none", "E11", "G5", graph((5,), op(ADD | WIRED, 0))),
        ("add_unwired", "E11", "G5", graph((5,), op(ADD))),
        ("concat_unwired", "E11", "G5", graph((5,), op(CONCAT))),
    ]


def unfitting() -> list[Case]:
    """Return graphs whose shapes do not fit."""
    return [
        ("input_of_nothing", "E09", "G6", graph((0,))),
        ("input_too_large", "E09", "G6", graph((1 << 20, 1 << 20, 2))),
        ("linear_weight_rank", "E09", "G6", graph((5,), op(LINEAR, 2))),
        ("linear_weight_empty", "E09", "G6", graph((5,), op(LINEAR, 4))),
        ("linear_input", "E09", "G6", graph((6,), op(LINEAR, 0))),
        ("linear_input_rank", "E09", "G6", graph((5, 1, 1), op(LINEAR, 0))),
        ("linear_bias", "E09", "G6", graph((5,), op(LINEAR | BIAS, 0, 0))),
        ("conv_weight_rank", "E09", "G6", graph(IMAGE, op(CONV, 0))),
        ("conv_input_rank", "E09", "G6", graph((5,), op(CONV, 2))),
        ("conv_channels", "E09", "G6", graph((3, 6, 6), op(CONV, 2))),
        ("conv_groups", "E09", "G6", graph((3, 6, 6), op(CONV | SPELLED, 3, 1, 1, 0, 0, 1, 1, 3))),
        ("conv_groups_0", "E09", "G6", graph(IMAGE, op(CONV | SPELLED, 2, 1, 1, 0, 0, 1, 1, 0))),
        ("conv_window", "E09", "G6", graph((2, 2, 6), op(CONV, 2))),
        ("conv_dilated_window", "E09", "G6", graph(IMAGE, op(CONV | SPELLED, 2, 1, 1, 0, 0, 1, 3, 1))),
        ("pool_input_rank", "E09", "G6", graph((5,), op(MAX))),
        ("pool_window", "E09", "G6", graph((2, 1, 6), op(AVG))),
        ("global_pool_input_rank", "E09", "G6", graph((5,), op(GLOBAL_AVG))),
        ("softmax_rank", "E09", "G6", graph(IMAGE, op(SOFTMAX))),
        ("add_shapes", "E09", "G6", graph(IMAGE, op(FLATTEN), op(ADD | WIRED, 2, 0, 1))),
        ("concat_shapes", "E09", "G6", graph(IMAGE, op(MAX), op(CONCAT | WIRED, 2, 0, 1))),
        ("value_too_large", "E09", "G6", graph((1 << 39,), op(CONCAT | WIRED, 3, 0, 0, 0))),
    ]


def out_of_range() -> list[Case]:
    """Return graphs with numbers out of range, and graphs that end early or go on."""
    inf = float("inf")
    return [
        ("preprocessing_count", "E09", "G7", graph((3, 4, 4), mean=(0.0, 1.0), std=(1.0, 2.0))),
        ("preprocessing_flat", "E09", "G7", graph((5,), mean=(0.0, 1.0, 2.0, 3.0, 4.0), std=(1.0,) * 5)),
        ("preprocessing_equal", "E08", "G9", graph((3, 4, 4), mean=(0.5,) * 3, std=(0.25,) * 3)),
        ("preprocessing_infinite", "E11", "G7", graph((5,), mean=(inf,), std=(1.0,))),
        ("preprocessing_std_nan", "E11", "G7", graph((5,), mean=(0.0,), std=(inf - inf,))),
        ("preprocessing_std_0", "E11", "G7", graph((5,), mean=(0.0,), std=(-0.0,))),
        ("conv_stride_0", "E11", "G8", graph(IMAGE, op(CONV | SPELLED, 2, 1, 0, 0, 0, 1, 1, 1))),
        ("conv_dilation_0", "E11", "G8", graph(IMAGE, op(CONV | SPELLED, 2, 1, 1, 0, 0, 0, 1, 1))),
        ("pool_kernel_0", "E11", "G8", graph(IMAGE, op(MAX | SPELLED, 0, 2, 2, 2, 0, 0, 0))),
        ("pool_stride_0", "E11", "G8", graph(IMAGE, op(AVG | SPELLED, 2, 2, 2, 0, 0, 0, 0))),
        ("pool_padding", "E11", "G8", graph(IMAGE, op(MAX | SPELLED, 3, 3, 1, 1, 2, 1, 0))),
        ("operators", "E06", "N2", graph((5,))[:-1] + varint((1 << 16) + 1)),
        ("inputs", "E06", "N2", graph((5,), op(ADD | WIRED, 65, *[0] * 65))),
        ("attribute", "E06", "N2", graph(IMAGE, op(MAX | SPELLED, 2, 2, (1 << 16) + 1, 2, 0, 0, 0))),
        ("ends_early", "E03", "N4", graph(IMAGE, op(MAX | SPELLED, 2, 2, 2, 2, 0, 0))),
        ("goes_on", "E04", "N5", graph((5,)) + b"\0"),
    ]


def beyond_graphs() -> Iterator[Invalid]:
    """Section 5."""
    items = [
        ones("w", 4, 2, 3, 3),
        ones("b", 3),
        ones("c", 4, 1),
        ones("d", 4, 2, 3, 3, 1),
        ones("e", 5),
        ones("f", 3, 5),
    ]
    image, large = (2, 3, 3), (1 << 16) + 1
    for name, code, ids, body in (
        ("conv_bias", "E09", "G6", graph(image, op(CONV | BIAS, 0, 1))),
        ("conv_bias_rank", "E09", "G6", graph(image, op(CONV | BIAS, 0, 2))),
        ("conv_input_rank", "E09", "G6", graph((2,), op(CONV, 0))),
        ("preprocessing_flat", "E09", "G7", graph((5,), mean=(0.0, 1.0), std=(1.0, 1.0))),
        ("conv_weight_rank_5", "E09", "G6", graph(image, op(CONV, 3))),
        ("linear_weight_rank_1", "E09", "G6", graph((5,), op(LINEAR, 4))),
        ("linear_bias_rank", "E09", "G6", graph((5,), op(LINEAR | BIAS, 5, 2))),
        ("conv_window_width", "E09", "G6", graph((2, 3, 2), op(CONV, 0))),
        ("conv_dilation_width_0", "E11", "G8", graph(image, op(CONV | SPELLED, 0, 1, 1, 0, 0, 1, 0, 1))),
        ("conv_stride_height_0", "E11", "G8", graph(image, op(CONV | SPELLED, 0, 0, 1, 0, 0, 1, 1, 1))),
        ("conv_groups_of_out", "E09", "G6", graph((6, 3, 3), op(CONV | SPELLED, 0, 1, 1, 0, 0, 1, 1, 3))),
        ("pool_kernel_width_0", "E11", "G8", graph(image, op(MAX | SPELLED, 2, 0, 2, 2, 0, 0, 0))),
        ("pool_stride_height_0", "E11", "G8", graph(image, op(MAX | SPELLED, 2, 2, 0, 2, 0, 0, 0))),
        ("pool_padding_height", "E11", "G8", graph(image, op(MAX | SPELLED, 1, 2, 2, 2, 1, 0, 0))),
        ("pool_padding_width", "E11", "G8", graph(image, op(MAX | SPELLED, 2, 1, 2, 2, 0, 1, 0))),
        ("input_limit", "E06", "N2", graph(image, op(RELU | WIRED, large))),
        ("tensor_limit", "E06", "N2", graph(image, op(CONV, large))),
        ("tensor_table", "E11", "G4", graph(image, op(CONV, 1 << 16))),
        ("last_operator", "E03", "N4", graph(image)[:-1] + varint(1 << 16)),
        ("preprocessing_limit", "E06", "N2", b"\1" + varint(large) + varint(large)),
        ("dimension_limit", "E06", "N2", b"\1" + varint((1 << 40) + 1) + b"\0\0"),
    ):
        yield f"graph_beyond_{name}", code, ids, assemble(items, [(2, body)])
