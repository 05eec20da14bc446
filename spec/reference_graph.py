"""Section 5 of `dcformat.md`, "Graph": operators, and the shapes of the values between them."""

from __future__ import annotations

import struct
from math import prod
from typing import Any

from reference_reader import Entry, Reader, check, finite_f32

# Section 9, "Limits".
MAX_TENSORS = 1 << 16
MAX_ELEMENTS = 1 << 40
MAX_OPERATORS = 1 << 16
MAX_INPUTS = 64
MAX_ATTRIBUTE = 1 << 16

NAMES = "Linear Conv2d ReLU MaxPool2d AvgPool2d GlobalAvgPool GlobalMaxPool Flatten Add Concat Softmax"
OPERATORS = dict(enumerate(NAMES.split(), 1))
CONV_DEFAULTS = [1, 1, 0, 0, 1, 1, 1]
POOL_DEFAULTS = [2, 2, 2, 2, 0, 0, 0]


def read_graph(reader: Reader, entries: list[Entry]) -> dict[str, Any]:
    """Section 5, "Graph": input, preprocessing and operators, with the shape of each value."""
    rank = reader.u8()
    check(rank in (1, 3), "E08", "[G1] rank of the input")
    shape = [reader.varint(MAX_ELEMENTS) for _ in range(rank)]
    check(0 not in shape and prod(shape) <= MAX_ELEMENTS, "E09", "[G6] shape of the input")
    graph: dict[str, Any] = {"input": shape, "mean": [], "std": [], "operators": [], "shapes": []}
    count = reader.varint(MAX_ATTRIBUTE)
    if count:
        raw = reader.take(8 * count)
        check(count == 1 or (rank == 3 and count == shape[0]), "E09", "[G7] preprocessing of so many channels")
        numbers = list(struct.unpack(f"<{2 * count}f", raw))
        graph["mean"], graph["std"] = numbers[:count], numbers[count:]
        means, deviations = split_f32(raw[: 4 * count]), split_f32(raw[4 * count :])
        equal = len(set(means)) == len(set(deviations)) == 1
        check(count == 1 or not equal, "E08", "[G9] equal preprocessing of all channels")
        good = all(map(finite_f32, split_f32(raw))) and 0 not in graph["std"]
        check(good, "E11", "[G7] preprocessing that is not finite or divides by zero")
    values = [shape]
    for number in range(reader.varint(MAX_OPERATORS)):
        operator = read_operator(reader, number, entries)
        graph["operators"].append(operator)
        inputs = [values[i] for i in operator["inputs"]]
        values.append(result_shape(operator, inputs, {entry.name: entry.shape for entry in entries}))
        check(prod(values[-1]) <= MAX_ELEMENTS, "E09", "[G6] a value with too many elements")
    graph["shapes"] = values
    return graph


def split_f32(raw: bytes) -> list[bytes]:
    """Section 1: the bytes of each of several binary32 numbers."""
    return [raw[i : i + 4] for i in range(0, len(raw), 4)]


def read_operator(reader: Reader, number: int, entries: list[Entry]) -> dict[str, Any]:
    """Section 5: the head, inputs, tensors and attributes of operator `number`."""
    head = reader.u8()
    kind = head & 31
    check(kind in OPERATORS, "E08", "[G2] an unknown operator")
    inputs = [number]
    if head & 32:
        count = reader.varint(MAX_INPUTS) if kind in (9, 10) else 1
        back = [reader.varint(MAX_OPERATORS) for _ in range(count)]
        check(all(step <= number for step in back), "E11", "[G4] an input that is not there yet")
        inputs = [number - step for step in back]
        check(inputs != [number], "E08", "[G3] the default input spelled out")
    check(kind not in (9, 10) or len(inputs) >= 2, "E11", "[G5] fewer than two inputs")
    operator: dict[str, Any] = {"operator": OPERATORS[kind], "inputs": inputs}
    check(kind <= 2 or not head & 64, "E08", "[G2] a bias of an operator without weights")
    if kind <= 2:
        for part in ("weight", "bias") if head & 64 else ("weight",):
            tensor = reader.varint(MAX_TENSORS)
            check(tensor < len(entries), "E11", "[G4] a tensor that is not there")
            operator[part] = entries[tensor].name
    check(kind in (2, 4, 5) or not head & 128, "E08", "[G2] attributes of an operator without any")
    if kind in (2, 4, 5):
        default = CONV_DEFAULTS if kind == 2 else POOL_DEFAULTS
        attributes = [reader.varint(MAX_ATTRIBUTE) for _ in default] if head & 128 else default
        check(not head & 128 or attributes != default, "E08", "[G3] the default attributes spelled out")
        check(kind == 2 or attributes[6] <= (1 if kind == 4 else 3), "E08", "[G2] unknown flags")
        operator["attributes"] = attributes
    return operator


def result_shape(operator: dict[str, Any], inputs: list[list[int]], tensors: dict[str, tuple[int, ...]]) -> list[int]:
    """Section 5: the shape of an operator's result, and requirement [G6]."""
    kind, x = operator["operator"], inputs[0]
    if kind in ("Linear", "Conv2d"):
        return weighted_shape(operator, x, tensors[operator["weight"]], tensors.get(operator.get("bias", "")))
    if kind in ("MaxPool2d", "AvgPool2d"):
        check(len(x) == 3, "E09", f"[G6] input of {kind}")
        a = operator["attributes"]
        check(min(a[:4]) >= 1, "E11", "[G8] a kernel or stride of 0")
        check(2 * a[4] <= a[0] and 2 * a[5] <= a[1], "E11", "[G8] padding over half the kernel")
        return [x[0]] + [windows(x[1 + i], a[i], a[2 + i], a[4 + i], 1, a[6] & 1) for i in (0, 1)]
    if kind in ("GlobalAvgPool", "GlobalMaxPool"):
        check(len(x) == 3, "E09", f"[G6] input of {kind}")
        return x[:1]
    if kind == "Flatten":
        return [prod(x)]
    if kind == "Add":
        check(all(y == x for y in inputs), "E09", "[G6] Add of different shapes")
    if kind == "Concat":
        check(all(y[1:] == x[1:] and len(y) == len(x) for y in inputs), "E09", "[G6] Concat of different shapes")
        return [sum(y[0] for y in inputs), *x[1:]]
    if kind == "Softmax":
        check(len(x) == 1, "E09", "[G6] Softmax of rank 3")
    return x


def weighted_shape(
    operator: dict[str, Any], x: list[int], weight: tuple[int, ...], bias: tuple[int, ...] | None
) -> list[int]:
    """Section 5: Linear and Conv2d."""
    conv = operator["operator"] == "Conv2d"
    check(len(weight) == (4 if conv else 2) and 0 not in weight, "E09", "[G6] shape of a weight")
    if conv:
        stride, padding, dilation = (operator["attributes"][i : i + 2] for i in (0, 2, 4))
        groups = operator["attributes"][6]
        check(len(x) == 3, "E09", "[G6] input of Conv2d")
        check(min(stride + dilation) >= 1, "E11", "[G8] a stride or dilation of 0")
        fit = groups >= 1 and weight[0] % groups == 0 and weight[1] * groups == x[0]
        check(fit, "E09", "[G6] groups that do not divide the channels")
        size = [windows(x[1 + i], weight[2 + i], stride[i], padding[i], dilation[i], 0) for i in (0, 1)]
    else:
        check(x == [weight[1]], "E09", "[G6] input of Linear")
        size = []
    check(bias is None or bias == weight[:1], "E09", "[G6] shape of a bias")
    return [weight[0], *size]


def windows(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: int) -> int:
    """Section 5, "Flags of pools": the number of windows along one dimension."""
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    check(room >= 0, "E09", "[G6] a window larger than its padded input")
    if not ceil:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count
