"""Section 5.4 of `dcformat.md`, "Meaning": the shapes of a graph's values, and the requirements on attributes."""

from __future__ import annotations

import struct
from math import inf, prod
from typing import Any

from reference_reader import check

# Section 9, "Limits".
MAX_RANK = 7
MAX_ELEMENTS = 1 << 40

Shape = list[int]


def result_shape(operator: dict[str, Any], values: list[Shape], tensors: dict[str, Shape]) -> Shape:
    """Section 5.4: the shape of an operator's result, and the requirements [G6] and [G8]."""
    operands = [operand_shape(operand, values, tensors) for operand in operator["operands"]]
    name, a = operator["operator"], operator.get("attributes", {})
    x = operands[0]
    if name in ("Add", "Binary", "Where"):
        return of_rank(broadcast(operands))
    if name in WEIGHTED:
        return list(WEIGHTED[name](operator, operands, tensors))
    if name in ("MaxPool", "AvgPool"):
        return pool_shape(a, x)
    if name == "Concat":
        return concat_shape(a["axis"], operands)
    if name == "Gather":
        check(a["axis"] < len(x), "E11", "[G8] axis of Gather")
        return of_rank(x[: a["axis"]] + operands[1] + x[a["axis"] + 1 :])
    if name == "MatMul":
        y = operands[1]
        check(len(x) >= 2 and len(y) >= 2 and x[-1] == y[-2], "E09", "[G6] operands of MatMul")
        return of_rank([*broadcast([x[:-2], y[:-2]]), x[-2], y[-1]])
    if name == "Requantize":
        return requantize_shape(a, *operands)
    if name in ONE_OPERAND:
        return list(ONE_OPERAND[name](a, x))
    return x


def operand_shape(operand: Any, values: list[Shape], tensors: dict[str, Shape]) -> Shape:
    """Section 5.4, "Broadcasting": the shape of a value, tensor or constant."""
    if isinstance(operand, int):
        return values[operand]
    if "constant" in operand:
        return []
    check(0 not in tensors[operand["tensor"]], "E09", "[G6] a tensor of nothing")
    return tensors[operand["tensor"]]


def broadcast(shapes: list[Shape]) -> Shape:
    """Section 5.4, "Broadcasting"."""
    rank = max(len(shape) for shape in shapes)
    padded = [[1] * (rank - len(shape)) + shape for shape in shapes]
    for lengths in zip(*padded, strict=True):
        check(len({length for length in lengths if length != 1}) <= 1, "E09", "[G6] shapes that do not broadcast")
    return [max(lengths) for lengths in zip(*padded, strict=True)]


def of_rank(shape: Shape) -> Shape:
    """Return the shape of a value, which has at most 7 dimensions."""
    check(len(shape) <= MAX_RANK, "E09", "[G6] a result of too many dimensions")
    return shape


def number(bits: str) -> float:
    """Return the binary32 whose bits are given as hexadecimal digits."""
    return float(struct.unpack(">f", bytes.fromhex(bits))[0])


def windows(size: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int, ceil: bool) -> int:
    """Section 5.4, "Windows" and "Pools": the number of windows along one dimension."""
    before, after = pads
    room = before + size + after - dilation * (kernel - 1) - 1
    check(room >= 0, "E09", "[G6] a window larger than its padded input")
    if not ceil:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + before else count


def at_least_1(a: dict[str, Any], *fields: str) -> None:
    """Section 5.3, requirement [G8]."""
    for field in fields:
        check(0 not in a[field], "E11", f"[G8] a {field} of 0")


def a_bias(operator: dict[str, Any], tensors: dict[str, Shape], field: str, out: int) -> None:
    """Section 5.4: a bias has one element for each output channel, feature or gate."""
    name = operator.get(field)
    check(name is None or tensors[name] == [out], "E09", "[G6] shape of a bias")


def linear_shape(operator: dict[str, Any], operands: list[Shape], tensors: dict[str, Shape]) -> Shape:
    """Section 5.4, "Linear"."""
    x, weight = operands[0], tensors[operator["weight"]]
    check(len(weight) == 2 and 0 not in weight, "E09", "[G6] shape of a weight")
    check(x[-1:] == weight[1:], "E09", "[G6] operand of Linear")
    a_bias(operator, tensors, "bias", weight[0])
    return [*x[:-1], weight[0]]


def conv_shape(operator: dict[str, Any], operands: list[Shape], tensors: dict[str, Shape]) -> Shape:
    """Section 5.4, "Conv"."""
    x, a, weight = operands[0], operator["attributes"], tensors[operator["weight"]]
    kernel, groups = weight[2:], a["groups"]
    check(0 not in weight, "E09", "[G6] shape of a weight")
    check(len(x) > len(kernel), "E09", "[G6] operand of Conv")
    at_least_1(a, "stride", "dilation")
    *front, channels = x[: -len(kernel)]
    fits = groups >= 1 and weight[0] % groups == 0 and weight[1] * groups == channels
    check(fits, "E09", "[G6] groups that do not divide the channels")
    a_bias(operator, tensors, "bias", weight[0])
    sizes = [
        windows(size, kernel[i], a["stride"][i], (a["padding"][i], a["padding_end"][i]), a["dilation"][i], False)
        for i, size in enumerate(x[-len(kernel) :])
    ]
    return [*front, weight[0], *sizes]


def conv_transpose_shape(operator: dict[str, Any], operands: list[Shape], tensors: dict[str, Shape]) -> Shape:
    """Section 5.4, "ConvTranspose"."""
    x, a, weight = operands[0], operator["attributes"], tensors[operator["weight"]]
    kernel, groups = weight[2:], a["groups"]
    check(0 not in weight, "E09", "[G6] shape of a weight")
    check(len(x) > len(kernel), "E09", "[G6] operand of ConvTranspose")
    at_least_1(a, "stride", "dilation")
    *front, channels = x[: -len(kernel)]
    sizes = []
    for i, size in enumerate(x[-len(kernel) :]):
        stride, dilation, extra = a["stride"][i], a["dilation"][i], a["output_padding"][i]
        check(extra < max(stride, dilation), "E11", "[G8] output_padding")
        span = (size - 1) * stride + dilation * (kernel[i] - 1) + 1
        sizes.append(span + extra - a["padding"][i] - a["padding_end"][i])
        check(sizes[i] >= 1, "E09", "[G6] a result without positions")
    fits = groups >= 1 and channels % groups == 0 and weight[0] == channels
    check(fits, "E09", "[G6] groups that do not divide the channels")
    out = weight[1] * groups
    a_bias(operator, tensors, "bias", out)
    return [*front, out, *sizes]


def recurrent_shape(operator: dict[str, Any], operands: list[Shape], tensors: dict[str, Shape]) -> Shape:
    """Section 5.4, "LSTM" and "GRU"."""
    gates, states = (4, 2) if operator["operator"] == "LSTM" else (3, 1)
    x, weight = operands[0], tensors[operator["weight"]]
    check(len(weight) == 2 and 0 not in weight and weight[0] % gates == 0, "E09", "[G6] shape of a weight")
    units = weight[0] // gates
    check(tensors[operator["recurrent_weight"]] == [weight[0], units], "E09", "[G6] shape of a recurrent weight")
    a_bias(operator, tensors, "bias", weight[0])
    a_bias(operator["attributes"], tensors, "recurrent_bias", weight[0])
    check(len(x) == 2 and x[1] == weight[1], "E09", "[G6] a sequence of other features")
    check(operands[1:] in ([], [[units]] * states), "E09", "[G6] first states")
    return [x[0], units * states]


WEIGHTED = {
    "Linear": linear_shape, "Conv": conv_shape, "ConvTranspose": conv_transpose_shape,
    "LSTM": recurrent_shape, "GRU": recurrent_shape,
}  # fmt: skip


def pool_shape(a: dict[str, Any], x: Shape) -> Shape:
    """Section 5.4, "Pools"."""
    spatial = len(a["kernel"])
    check(spatial in (1, 2), "E11", "[G8] a pool of so many dimensions")
    check(len(x) > spatial, "E09", "[G6] operand of a pool")
    at_least_1(a, "kernel", "stride")
    sizes = []
    for i, size in enumerate(x[-spatial:]):
        kernel, pads = a["kernel"][i], (a["padding"][i], a["padding_end"][i])
        check(max(pads) < kernel, "E11", "[G8] padding as large as the kernel")
        sizes.append(windows(size, kernel, a["stride"][i], pads, 1, a["ceil_mode"]))
    return x[:-spatial] + sizes


def concat_shape(axis: int, operands: list[Shape]) -> Shape:
    """Section 5.4, "Moving elements": Concat."""
    x = operands[0]
    check(axis < len(x), "E11", "[G8] axis of Concat")
    for y in operands:
        fits = len(y) == len(x) and y[:axis] + y[axis + 1 :] == x[:axis] + x[axis + 1 :]
        check(fits, "E09", "[G6] operands of Concat")
    return [*x[:axis], sum(y[axis] for y in operands), *x[axis + 1 :]]


def reduce_shape(a: dict[str, Any], x: Shape) -> Shape:
    """Section 5.4, "Reduce"."""
    axes = a["axes"]
    check(axes != [] and axes[-1] < len(x), "E11", "[G8] axes of Reduce")
    check(a["function"] not in ("argmax", "argmin") or len(axes) == 1, "E11", "[G8] axes of argmax or argmin")
    return [1 if i in axes else size for i, size in enumerate(x) if a["keepdims"] or i not in axes]


def softmax_shape(a: dict[str, Any], x: Shape) -> Shape:
    """Section 5.4, "Softmax"."""
    check(x != [], "E09", "[G6] Softmax of a single element")
    check(a["axis"] is None or a["axis"] < len(x) - 1, "E11", "[G8] axis of Softmax")
    return x


def quantize_shape(a: dict[str, Any], x: Shape) -> Shape:
    """Section 5.3: the attributes of Quantize."""
    check(0 < number(a["scale"]) < inf, "E11", "[G8] scale of Quantize")
    check(-(1 << 15) <= a["low"] <= a["zero_point"] <= a["high"] < 1 << 16, "E11", "[G8] range of Quantize")
    return x


def requantize_shape(a: dict[str, Any], x: Shape, scales: Shape) -> Shape:
    """Section 5.4, "Requantize"."""
    check(all(0 < number(a[part]) < inf for part in ("input_scale", "output_scale")), "E11", "[G8] scale of Requantize")
    check(a["low"] <= 0 <= a["high"], "E11", "[G8] range of Requantize")
    check(broadcast([x, scales]) == x, "E09", "[G6] scales of Requantize")
    return x


def normalize_shape(a: dict[str, Any], x: Shape) -> Shape:
    """Section 5.3: the attributes of Normalize."""
    check(a["axes"] != [] and a["axes"][-1] < len(x), "E11", "[G8] axes of Normalize")
    check(0 <= number(a["epsilon"]) < inf, "E11", "[G8] epsilon")
    return x


def reshape_shape(a: dict[str, Any], x: Shape) -> Shape:
    """Section 5.4, "Moving elements": Reshape."""
    at_least_1(a, "shape")
    check(len(a["shape"]) != 1, "E11", "[G8] a Reshape to one dimension")
    check(prod(a["shape"]) == prod(x), "E09", "[G6] a Reshape to other elements")
    return list(a["shape"])


def transpose_shape(a: dict[str, Any], x: Shape) -> Shape:
    """Section 5.4, "Moving elements": Transpose."""
    check(sorted(a["order"]) == list(range(len(x))), "E11", "[G8] order of dimensions")
    return [x[axis] for axis in a["order"]]


def slice_shape(a: dict[str, Any], x: Shape) -> Shape:
    """Section 5.4, "Moving elements": Slice."""
    axis = a["axis"]
    check(axis < len(x), "E11", "[G8] axis of Slice")
    check(a["step"] != 0 and a["size"] >= 1, "E11", "[G8] step or size of 0")
    last = a["start"] + (a["size"] - 1) * a["step"]
    check(a["start"] < x[axis] and 0 <= last < x[axis], "E09", "[G6] positions beyond the operand")
    return [*x[:axis], a["size"], *x[axis + 1 :]]


def pad_shape(a: dict[str, Any], x: Shape) -> Shape:
    """Section 5.4, "Moving elements": Pad."""
    check(len(a["before"]) == len(x), "E11", "[G8] padding of other dimensions")
    check(a["mode"] == "constant" or a["value"] == "00000000", "E11", "[G8] a value that pads nothing")
    sizes = []
    for before, size, after in zip(a["before"], x, a["after"], strict=True):
        check(a["mode"] != "reflect" or max(before, after) < size, "E09", "[G6] padding beyond a reflection")
        sizes.append(before + size + after)
    return sizes


def tile_shape(a: dict[str, Any], x: Shape) -> Shape:
    """Section 5.4, "Moving elements": Tile."""
    check(len(a["repeats"]) == len(x), "E11", "[G8] repeats of other dimensions")
    at_least_1(a, "repeats")
    return [size * count for size, count in zip(x, a["repeats"], strict=True)]


def resize_shape(a: dict[str, Any], x: Shape) -> Shape:
    """Section 5.4, "Resize"."""
    count = len(a["size"])
    at_least_1(a, "size")
    check(all(0 < number(scale) < inf for scale in a["scale"]), "E11", "[G8] scale of Resize")
    rounds = a["mode"] == "nearest" or a["rounding"] == "round_prefer_floor"
    check(rounds, "E11", "[G8] rounding where nothing is rounded")
    check(1 <= count <= len(x), "E09", "[G6] a Resize of so many dimensions")
    return x[: len(x) - count] + a["size"]


ONE_OPERAND = {
    "Flatten": lambda a, x: [prod(x)], "Reduce": reduce_shape, "Softmax": softmax_shape, "Quantize": quantize_shape,
    "Normalize": normalize_shape, "Reshape": reshape_shape, "Transpose": transpose_shape, "Slice": slice_shape,
    "Pad": pad_shape, "Tile": tile_shape, "Resize": resize_shape,
}  # fmt: skip
