"""Section 5.4 of `dcformat.md`: operators that treat each element alike, or move elements, for `run_graph.py`.

Each element of a result is computed in binary64, from operands in binary32, and rounded to binary32; steps that the
text calls exact are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from run_arrays import Array, Call, Index, divided, f32, real, sigmoid

# --------------------------------------------------------------------------------------------- elementwise


def power(x: float, y: float) -> float:
    """Return x^y as IEEE 754 does."""
    try:
        return math.pow(x, y)
    except OverflowError:
        return math.inf if x > 0 or y % 2 == 0 else -math.inf
    except ValueError:
        return math.nan if x else math.copysign(math.inf, x if y % 2 == 1 else 1)


UNARY: dict[str, Callable[[float], float]] = {
    "neg": lambda x: -x, "abs": abs, "sign": lambda x: float((x > 0) - (x < 0)),
    "floor": lambda x: float(math.floor(x)), "ceil": lambda x: float(math.ceil(x)), "round": lambda x: float(round(x)),
    "sqrt": lambda x: math.sqrt(x) if x >= 0 else math.nan, "exp": lambda x: math.exp(x) if x < 700 else math.inf,
    "log": lambda x: math.log(x) if x > 0 else -math.inf if x == 0 else math.nan, "erf": math.erf, "sigmoid": sigmoid,
    "tanh": math.tanh, "sin": math.sin, "cos": math.cos,
}  # fmt: skip
BINARY: dict[str, Callable[[float, float], float]] = {
    "sub": lambda x, y: x - y, "mul": lambda x, y: x * y, "div": divided, "pow": power, "minimum": min, "maximum": max,
    "equal": lambda x, y: float(x == y), "less": lambda x, y: float(x < y), "less_equal": lambda x, y: float(x <= y),
}  # fmt: skip


def elementwise(call: Call, function: Callable[..., float], *operands: Array) -> Array:
    """Section 5.4, "Broadcasting"."""
    return Array.made(call.shape, lambda index: function(*(operand.spread(index) for operand in operands)))


def quantize(call: Call, x: Array) -> Array:
    """Section 5.4, "Quantize"."""
    scale, a = real(call.a["scale"]), call.a

    def element(index: Index) -> float:
        shifted = f32(float(round(f32(x.at(index) / scale))) + a["zero_point"])
        return f32(min(max(shifted, a["low"]), a["high"]) - a["zero_point"]) * scale

    return Array.made(call.shape, element)


def requantize(call: Call, x: Array, scales: Array) -> Array:
    """Section 5.4, "Requantize"."""
    a = call.a

    def element(index: Index) -> float:
        factor = f32(f32(real(a["input_scale"]) * scales.spread(index)) / real(a["output_scale"]))
        product = f32(x.at(index) * factor)
        return float(a["low"] if product < a["low"] else a["high"] if product > a["high"] else round(product))

    return Array.made(call.shape, element)


# ------------------------------------------------------------------------------------------ moving elements


def pad(call: Call, x: Array) -> Array:
    """Section 5.4, "Moving elements": Pad."""

    def inner(place: int, before: int, size: int) -> int:
        at = place - before
        if call.a["mode"] == "edge":
            return min(max(at, 0), size - 1)
        return abs(at) if at < size else 2 * (size - 1) - at

    def element(index: Index) -> float:
        before = call.a["before"]
        outside = any(not 0 <= p - b < n for p, b, n in zip(index, before, x.shape, strict=True))
        if outside and call.a["mode"] == "constant":
            return real(call.a["value"])
        return x.at([inner(*part) for part in zip(index, before, x.shape, strict=True)])

    return Array.made(call.shape, element)


def concat(call: Call, *operands: Array) -> Array:
    """Section 5.4, "Moving elements": Concat."""
    axis = call.a["axis"]

    def element(index: Index) -> float:
        place = index[axis]
        for operand in operands:
            if place < operand.shape[axis]:
                return operand.at((*index[:axis], place, *index[axis + 1 :]))
            place -= operand.shape[axis]
        raise AssertionError("a place within the result")

    return Array.made(call.shape, element)


def gather(call: Call, x: Array, chosen: Array) -> Array:
    """Section 5.4, "Moving elements": Gather."""
    axis, rank = call.a["axis"], len(chosen.shape)

    def element(index: Index) -> float:
        place = chosen.at(index[axis : axis + rank])
        length = x.shape[axis]
        if not (-length <= place < length and place == math.floor(place)):
            raise ValueError(f"Gather: a place of {place} among {length}")
        return x.at((*index[:axis], int(place) % length, *index[axis + rank :]))

    return Array.made(call.shape, element)


def moved(call: Call, source: Callable[[Index], Sequence[int]], x: Array) -> Array:
    """Return an array whose elements come from other places."""
    return Array.made(call.shape, lambda index: x.at(source(index)))


def transpose(call: Call, x: Array) -> Array:
    """Section 5.4, "Moving elements": Transpose."""
    order = call.a["order"]
    return moved(call, lambda index: [index[order.index(axis)] for axis in range(len(order))], x)


def slice_of(call: Call, x: Array) -> Array:
    """Section 5.4, "Moving elements": Slice."""
    axis, start, step = call.a["axis"], call.a["start"], call.a["step"]
    return moved(call, lambda index: (*index[:axis], start + index[axis] * step, *index[axis + 1 :]), x)


def tile(call: Call, x: Array) -> Array:
    """Section 5.4, "Moving elements": Tile."""
    return moved(call, lambda index: [place % size for place, size in zip(index, x.shape, strict=True)], x)


def resize(call: Call, x: Array) -> Array:
    """Section 5.4, "Resize"."""
    a, count = call.a, len(call.a["size"])
    sources = [
        [source(a, real(a["scale"][i]), x.shape[i - count], m, place) for place in range(m)]
        for i, m in enumerate(a["size"])
    ]

    def element(index: Index) -> float:
        front, places_of = index[: len(index) - count], index[len(index) - count :]
        parts = [sources[i][place] for i, place in enumerate(places_of)]
        return math.fsum(
            x.at((*front, *(at for at, _ in chosen))) * math.prod(weight for _, weight in chosen)
            for chosen in product(*parts)
        )

    return Array.made(call.shape, element)


def source(a: dict[str, Any], scale: float, n: int, m: int, i: int) -> list[tuple[int, float]]:
    """Section 5.4, "Resize": the elements that contribute to a position of the result, and their weights."""
    if a["coordinates"] == "asymmetric":
        x = f32(i / scale)
    elif a["coordinates"] == "align_corners":
        x = f32(f32(i * (n - 1)) / (m - 1)) if m > 1 else 0.0
    else:
        x = f32(f32(f32(i + 0.5) / scale) - 0.5)
        x = 0.0 if m == 1 and a["coordinates"] == "pytorch_half_pixel" else x
    if a["mode"] == "nearest":
        rounded = {
            "floor": math.floor(x), "ceil": math.ceil(x), "round_prefer_floor": math.ceil(x - 0.5),
            "round_prefer_ceil": math.floor(x + 0.5),
        }[a["rounding"]]  # fmt: skip
        return [(min(max(rounded, 0), n - 1), 1.0)]
    x = min(max(x, 0.0), n - 1)
    j = math.floor(x)
    return [(j, 1 - (x - j)), (min(j + 1, n - 1), x - j)]
