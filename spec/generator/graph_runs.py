"""Vectors of graphs to run, each with inputs: section 5.4 of the specification."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from math import prod

from generator.assembler import DENSE, Item, f32
from generator.graph_bytes import (
    BIAS,
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
from generator.samples import Valid, valid

#: A vector, and the elements of its inputs.
Run = tuple[Valid, list[list[float]]]
Shape = tuple[int, ...]


def numbers(shape: Shape, seed: int = 0) -> list[float]:
    """Return small multiples of an eighth, of both signs."""
    return [((7 * i + 5 * seed + i * i % 11) % 23 - 9) / 8 for i in range(prod(shape))]


def weight(name: str, *shape: int) -> Item:
    """Return a dense tensor under coder 0."""
    raw = f32(*numbers(shape, sum(map(ord, name))))
    bits = list(struct.unpack(f"<{prod(shape)}I", raw))
    return Item(b"\0\0" + raw, DENSE, shape, bits, name=name)


def runs() -> Iterator[Run]:
    """Yield all graphs to run."""
    yield from pools()
    yield from layers()
    yield from recurrent()
    yield from fans()


def one(name: str, shape: Shape, *operators: bytes, items: tuple[Item, ...] = (), ids: str = "G6") -> Run:
    """Return a graph of one input."""
    return valid(f"run_{name}", list(items), [(2, graph(shape, *operators))], ids), [numbers(shape)]


def fan(name: str, shapes: list[Shape], makers: list[Callable[[int], bytes]], *items: Item) -> Run:
    """Return a graph whose operators all read the inputs, and all give an output.

    A maker is called with the number of values back that the last input is.
    """
    operators = [make(back) for back, make in enumerate(makers)]
    inputs = [input_port(f"x{k}", shape) for k, shape in enumerate(shapes)]
    outputs = [output_port(f"y{k}", len(makers) - 1 - k) for k in range(len(makers))]
    made = valid(f"run_{name}", list(items), [(2, long_graph(inputs, operators, outputs))], "G4")
    return made, [numbers(shape, seed) for seed, shape in enumerate(shapes)]


def alone(kind: int, *parts: int | bytes) -> Callable[[int], bytes]:
    """Return the maker of an operator that reads the only input."""
    return lambda back: op(kind | WIRED, back, *parts) if back else op(kind, *parts)


def pools() -> Iterator[Run]:
    """Pools with every rule for windows at edges."""
    for name, kind, size, attributes in (
        ("max_floor", Op.MAX, (5, 6), (2, 3, 2, 2, 1, 1, 1, 1, 0)),
        ("max_ceil", Op.MAX, (5, 6), (2, 3, 2, 2, 1, 1, 1, 1, 1)),
        ("max_ceil_drops", Op.MAX, (5, 5), (2, 2, 4, 4, 1, 1, 1, 1, 1)),
        ("max_ceil_keeps", Op.MAX, (6, 6), (2, 2, 3, 4, 0, 0, 0, 0, 1)),
        ("avg_floor", Op.AVG, (5, 6), (3, 3, 2, 2, 1, 1, 1, 1, 0, 1)),
        ("avg_ceil", Op.AVG, (6, 7), (3, 2, 2, 3, 1, 1, 1, 1, 1, 1)),
        ("avg_left_out", Op.AVG, (5, 6), (3, 3, 2, 2, 1, 1, 1, 1, 0, 0)),
        ("avg_ceil_left_out", Op.AVG, (6, 7), (3, 2, 2, 3, 1, 1, 1, 1, 1, 0)),
        ("avg_ceil_beyond", Op.AVG, (4, 4), (3, 3, 3, 3, 0, 1, 0, 1, 1, 1)),
        ("avg_ceil_beyond_left_out", Op.AVG, (4, 4), (3, 3, 3, 3, 0, 1, 0, 1, 1, 0)),
        ("max_ends", Op.MAX, (5, 6), (3, 3, 2, 2, 0, 2, 2, 1, 0)),
        ("avg_ends", Op.AVG, (5, 6), (3, 3, 2, 2, 0, 2, 2, 1, 0, 1)),
        ("avg_ends_ceil", Op.AVG, (5, 6), (3, 3, 2, 2, 0, 2, 1, 0, 1, 1)),
        ("avg_ends_left_out", Op.AVG, (5, 6), (3, 3, 2, 2, 2, 0, 1, 2, 1, 0)),
    ):
        yield one(name, (2, *size), pool(kind, *attributes))
    yield one("max_line", (2, 3, 7), op(Op.MAX | SPELLED, 1, 3, 2, 1, 2, 1))


def layers() -> Iterator[Run]:
    """Linear, Conv, ConvTranspose and MatMul."""
    w, b = weight("w", 3, 5), weight("b", 3)
    yield one("linear", (2, 4, 5), op(Op.LINEAR | BIAS, 0, 1), items=(w, b))
    kernel, bias = weight("kernel", 6, 2, 3, 2), weight("bias", 6)
    spelled = op(Op.CONV | BIAS | SPELLED, 0, 1, 2, 1, 1, 2, 2, 1, 1, 2, 2)
    yield one("conv", (4, 6, 7), spelled, items=(kernel, bias))
    yield one("conv_leading", (2, 2, 4, 4), op(Op.CONV, 0), items=(weight("plain", 3, 2, 3, 3),))
    line = weight("line", 4, 3, 3)
    yield one("conv_line", (3, 8), op(Op.CONV | SPELLED, 0, 2, 1, 3, 2, 1), items=(line,))
    back = weight("back", 4, 3, 3, 2)
    spelled = op(Op.CONV_TRANSPOSE | BIAS | SPELLED, 0, 1, 2, 3, 1, 0, 0, 2, 2, 1, 1, 2, 2)
    yield one("conv_transpose", (4, 3, 4), spelled, items=(back, bias))
    line = weight("line", 4, 3, 3)
    yield one("conv_transpose_line", (2, 4, 5), op(Op.CONV_TRANSPOSE | SPELLED, 0, 2, 1, 0, 1, 1, 1), items=(line,))
    yield fan("matmul", [(2, 1, 3, 4), (3, 4, 2)], [
        lambda _: op(Op.MATMUL | WIRED, value(1), value(0)),
        lambda back: op(Op.MATMUL | WIRED, value(back), tensor(0)),
    ], weight("m", 2, 5))  # fmt: skip


def recurrent() -> Iterator[Run]:
    """LSTM and Op.GRU with and without states and biases, forwards and backwards."""
    for name, kind, gates, states in (("lstm", Op.LSTM, 4, 2), ("gru", Op.GRU, 3, 1)):
        cell = [weight("w", 3 * gates, 2), weight("r", 3 * gates, 3), weight("b", 3 * gates), weight("c", 3 * gates)]
        end = (1,) if kind == Op.GRU else ()
        makers = [
            lambda back, k=kind, s=states: op(k | WIRED, 1, back + s, 0, 1),
            lambda back, k=kind, s=states: op(k | WIRED | BIAS, s + 1, *range(back + s, back - 1, -1), 0, 1, 2),
            lambda back, k=kind, s=states, e=end: op(k | WIRED | BIAS | SPELLED, 1, back + s, 0, 1, 2, 4, 1, *e),
            lambda back, k=kind, s=states, e=end: op(k | WIRED | SPELLED, 1, back + s, 0, 1, 4, 0, *e),
        ]
        if kind == Op.GRU:
            makers.append(lambda back: op(Op.GRU | WIRED | BIAS | SPELLED, 1, back + 1, 0, 1, 2, 4, 0, 0))
        yield fan(name, [(4, 2), *[(3,)] * states], makers, *cell)


def fans() -> Iterator[Run]:
    """Operators without weights."""
    unary = [alone(Op.UNARY | SPELLED, function) for function in range(14) if function not in (6, 8)]
    yield fan("unary", [(3, 4)], [alone(Op.RELU), *unary])
    positive = op(Op.BINARY | WIRED | SPELLED, value(0), value(0), 1), op(Op.ADD | WIRED, 2, value(0), literal(0.5))
    yield one("sqrt", (5,), *positive, op(Op.UNARY | SPELLED, 6))
    yield one("log", (5,), *positive, op(Op.UNARY | SPELLED, 8))
    yield one("pow", (5,), *positive, op(Op.BINARY | WIRED | SPELLED, value(0), literal(-1.5), 3))
    yield one("halves", (9,), op(Op.BINARY | WIRED | SPELLED, value(0), literal(4.0), 1), op(Op.UNARY | SPELLED, 5))
    functions = [f for f in range(9) if f not in (2, 3)]
    yield fan("binary", [(2, 3), (2, 1)], [
        lambda back, f=f: op(Op.BINARY | WIRED | SPELLED, value(back + 1), value(back), f) for f in functions
    ])  # fmt: skip
    row = weight("row", 1, 3)
    yield fan("broadcast", [(2, 1), (3,)], [
        lambda back: op(Op.ADD | WIRED, 4, value(back), tensor(0), value(back + 1), literal(0.25)),
        lambda back: op(Op.BINARY | WIRED | SPELLED, value(back), literal(3.0), 2),
        lambda back: op(Op.WHERE | WIRED, value(back), value(back + 1), tensor(0)),
    ], row)  # fmt: skip
    yield fan("quantize", [(4, 5)], [
        alone(Op.QUANTIZE | SPELLED, f32(scale), *map(integer, (zero, low, high)))
        for scale, zero, low, high in ((0.25, 3, -4, 5), (0.1, 128, 0, 255), (1 / 3, 0, -127, 127))
    ])  # fmt: skip
    scales = weight("scales", 3, 1)
    yield fan("requantize", [(3, 4)], [
        lambda back, numbers=numbers, scale=scale: op(
            Op.REQUANTIZE | WIRED | SPELLED, value(back), scale, *map(f32, numbers[:2]), *map(integer, numbers[2:])
        )
        for scale, numbers in (
            (tensor(0), (4.0, 0.1, -20, 30)), (literal(1 / 3), (0.75, 0.01, -128, 127)),
            (literal(-4.0), (1.0, 1.0, -9, 0)), (literal(4.0), (1.0, 1.0, -128, 127)),
        )
    ], scales)  # fmt: skip
    reductions = [alone(Op.REDUCE | SPELLED, function, axes, 0) for function in range(5) for axes in (2, 5)]
    places = [alone(Op.REDUCE | SPELLED, function, 2, kept) for function in (5, 6) for kept in (0, 1)]
    yield fan("reduce", [(2, 3, 4)], [*reductions, *places, alone(Op.REDUCE | SPELLED, 0, 7, 1)])
    yield fan(
        "softmax", [(2, 3, 4)], [alone(Op.SOFTMAX), alone(Op.SOFTMAX | SPELLED, 1), alone(Op.SOFTMAX | SPELLED, 2)]
    )
    yield fan("normalize", [(2, 3, 4)], [
        alone(Op.NORMALIZE | SPELLED, axes, f32(1e-5), centered) for axes in (4, 6, 1) for centered in (0, 1)
    ])  # fmt: skip
    yield from moves()


def moves() -> Iterator[Run]:
    """Operators that move elements, and Resize."""
    yield fan("moves", [(2, 3, 4)], [
        alone(Op.FLATTEN), alone(Op.RESHAPE | SPELLED, 2, 6, 4), alone(Op.TRANSPOSE | SPELLED, 3, 2, 0, 1),
        alone(Op.SLICE | SPELLED, 2, 0, 2, integer(3)), alone(Op.SLICE | SPELLED, 1, 2, 3, integer(-1)),
        alone(Op.PAD | SPELLED, 3, 0, 1, 2, 1, 0, 0, 0, f32(-1.5)),
        alone(Op.PAD | SPELLED, 3, 1, 3, 0, 0, 0, 5, 1, f32(0.0)),
        alone(Op.PAD | SPELLED, 3, 1, 2, 0, 0, 1, 3, 2, f32(0.0)), alone(Op.TILE | SPELLED, 3, 2, 1, 3),
    ])  # fmt: skip
    table = weight("table", 5, 3)
    yield fan("concat", [(2, 3), (4, 3)], [
        lambda back: op(Op.CONCAT | WIRED, 3, value(back), value(back + 1), tensor(0)),
        lambda back: op(Op.CONCAT | WIRED | SPELLED, 2, value(back + 1), value(back + 1), 1),
    ], table)  # fmt: skip
    made, _ = fan("gather", [(2, 2)], [
        lambda back: op(Op.GATHER | WIRED, tensor(0), value(back)),
        lambda back: op(Op.GATHER | WIRED | SPELLED, tensor(1), value(back), 1),
    ], table, weight("wide", 2, 5, 2))  # fmt: skip
    yield made, [[0.0, 4.0, -1.0, -5.0]]
    for mode, name in enumerate(("nearest", "linear")):
        yield fan(f"resize_{name}", [(2, 3, 4)], [
            alone(Op.RESIZE | SPELLED, 2, *size, f32(*scale), mode, coordinates, rounding)
            for size, scale in (((5, 7), (5 / 3, 1.75)), ((2, 1), (2 / 3, 0.25)), ((6, 3), (2.0, 0.75)))
            for coordinates in range(4)
            for rounding in (range(4) if mode == 0 else (2,))
        ])  # fmt: skip
