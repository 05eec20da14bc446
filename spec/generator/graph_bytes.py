"""The bytes of graphs, valid or invalid: sections 5 to 5.3 of the specification."""

from __future__ import annotations

from enum import IntEnum

from generator.assembler import f32, text, varint


class Op(IntEnum):
    """Section 5.2: the operators."""

    LINEAR = 1
    CONV = 2
    RELU = 3
    MAX = 4
    AVG = 5
    REDUCE = 6
    UNARY = 7
    FLATTEN = 8
    ADD = 9
    CONCAT = 10
    SOFTMAX = 11
    BINARY = 12
    WHERE = 13
    QUANTIZE = 14
    NORMALIZE = 15
    MATMUL = 16
    CONV_TRANSPOSE = 17
    LSTM = 18
    GRU = 19
    RESHAPE = 20
    TRANSPOSE = 21
    SLICE = 22
    PAD = 23
    TILE = 24
    GATHER = 25
    RESIZE = 26
    REQUANTIZE = 27


#: Section 5.2: the bits of an operator's head.
WIRED, BIAS, SPELLED = 32, 64, 128
NAN, INFINITY = bytes.fromhex("0000c07f"), bytes.fromhex("0000807f")


def graph(
    shape: tuple[int, ...], *operators: bytes, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()
) -> bytes:
    """Section 5: a graph with the short interface."""
    return bytes([len(shape)]) + dimensions(shape) + rule(mean, std) + listed(operators)


def long_graph(inputs: list[bytes], operators: list[bytes], outputs: list[bytes]) -> bytes:
    """Section 5: a graph with the long interface, without preprocessing."""
    return b"\x08" + listed(inputs) + b"\0" + listed(operators) + listed(outputs)


def rule(mean: tuple[float, ...], std: tuple[float, ...]) -> bytes:
    """Section 5: preprocessing."""
    return varint(len(mean)) + f32(*mean, *std)


def listed(parts: list[bytes] | tuple[bytes, ...]) -> bytes:
    """Return parts after their number."""
    return varint(len(parts)) + b"".join(parts)


def dimensions(shape: tuple[int, ...]) -> bytes:
    """Section 5: the dimensions of a shape."""
    return b"".join(map(varint, shape))


def input_port(name: str, shape: tuple[int, ...], dtype: int = 0, axis: int = 0) -> bytes:
    """Section 5.1: an input; an axis of -1 is none."""
    return text(name) + bytes([dtype | axis + 1 << 4, len(shape)]) + dimensions(shape)


def output_port(name: str, back: int = 0, dtype: int = 0, axis: int = 0) -> bytes:
    """Section 5.1: an output; an axis of -1 is none."""
    return text(name) + bytes([dtype | axis + 1 << 4]) + varint(back)


def op(kind: int, *parts: int | bytes) -> bytes:
    """Section 5.2: an operator: `kind` with the bits of the head, then varints, or bytes unchanged."""
    return bytes([kind]) + b"".join(part if isinstance(part, bytes) else varint(part) for part in parts)


def value(back: int) -> int:
    """Section 5.2: a value as an operand of an operator that takes tensors."""
    return 4 * back


def tensor(number: int) -> int:
    """Section 5.2: a tensor as an operand."""
    return 4 * number + 1


def literal(number: float) -> bytes:
    """Section 5.2: a constant as an operand."""
    return b"\2" + f32(number)


def integer(number: int) -> int:
    """Section 5.3, "integer"."""
    return 2 * number if number >= 0 else -2 * number - 1


def conv(kind: int, *attributes: int) -> bytes:
    """Return a convolution of tensor 0, whose attributes all are given."""
    return op(kind | SPELLED, 0, *attributes)


def pool(kind: int, *attributes: int) -> bytes:
    """Return a pool of two dimensions, whose attributes but the length of the kernel are given."""
    return op(kind | SPELLED, 2, *attributes)
